"""A fresh process that encodes, or decodes, for one codec and keeps the time.

The benchmark starts two of them per codec, `python -m foveal.bench.worker`: one only encodes, the other only
decodes, so that nothing but the file can carry information between them. Both take one JSON line per job on
stdin, the first being the codec's Spec, and answer each with one JSON line on stdout.

Timed is what happens in memory: RGB picture -> bytes, bytes -> RGB array. Reading and writing files is not.
The very first job is done once more beforehand, untimed, so that loading and warming up are not counted.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
from PIL import Image

from foveal.bench.pictures import open_picture
from foveal.bench.rivals import Codec, Spec, build
from foveal.errors import FovealError, FovealWarning

__all__ = ["Worker"]

BUDGET_S = 2.0  # a job is not repeated further once it has taken this long in all
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

T = TypeVar("T")
Job = dict[str, Any]


class Worker:
    """The near end: starts the process, hands it jobs, closes it. Use as a context manager."""

    def __init__(self, spec: Spec) -> None:
        self._start(spec.name, spec.threads, "foveal.bench.worker")
        try:
            self.ask(asdict(spec))
        except BaseException:
            self.close()
            raise

    def _start(self, name: str, threads: int, module: str, *words: str) -> None:
        environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ask(self, job: Job) -> Job:
        """Hand over one job and wait for its answer.

        Raises FovealError when the codec failed or the process died.
        """
        assert self.process.stdin and self.process.stdout
        try:
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise FovealError(f"{self.name}: its process ended with status {self.process.wait()} at {job}")
        answer: Job = json.loads(line)
        if "error" in answer:
            raise FovealError(f"{self.name} failed: {answer['error']}")
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process and wait for it."""
        assert self.process.stdin and self.process.stdout
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


def main() -> None:
    """The far end: answer jobs until stdin is closed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    warnings.simplefilter("ignore", FovealWarning)  # the near end reads the same pictures, and tells
    serve = None
    for line in sys.stdin:
        try:
            job = json.loads(line)
            answer = serve(job) if serve else {}
            serve = serve or Server(build(Spec(**job)))
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


class Server:
    """Does the jobs of one codec."""

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        self.warm = False

    def __call__(self, job: Job) -> Job:
        do = self.encode if job["do"] == "encode" else self.decode
        if not self.warm:
            do({**job, "repeats": 1})
            self.warm = True
        return do(job)

    def encode(self, job: Job) -> Job:
        picture = load(job["source"])
        data, seconds = timed(lambda: self.codec.compress(picture, job["setting"]), job["repeats"])
        Path(job["target"]).write_bytes(data)
        return {"seconds": seconds}

    def decode(self, job: Job) -> Job:
        data = Path(job["source"]).read_bytes()
        pixels, seconds = timed(lambda: self.codec.decompress(data), job["repeats"])
        np.save(job["target"], pixels)
        return {"seconds": seconds}


@lru_cache(maxsize=1)
def load(path: str) -> Image.Image:
    """A picture as RGB, in memory; see open_picture."""
    return open_picture(Path(path))


def timed(work: Callable[[], T], repeats: int) -> tuple[T, list[float]]:
    """Do the work `repeats` times, fewer once BUDGET_S is spent: its result, and the seconds of each."""
    seconds: list[float] = []
    while True:
        start = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - start)
        if len(seconds) >= repeats or sum(seconds) > BUDGET_S:
            return result, seconds


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # the near end reports it
        main()
