"""A fresh process that encodes and restores clips for the video benchmark and keeps time and memory.

It takes one JSON line per job on stdin, {"call": ..., "arguments": {...}}, and answers each with one on stdout. Where
speed is measured it is bound, on Linux, to as many processor cores as it has threads, for encoders have a number of
their own. The first job of each kind is done twice, and timed the second time, so that loading is not counted.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from foveal.bench.video_media import Clip, lanczos, read_clip
from foveal.bench.video_plan import Job
from foveal.bench.video_rivals import realesr
from foveal.bench.worker import Worker

__all__ = ["MEASURED", "VideoWorker", "reused"]

MEASURED = ("seconds", "cpu_seconds", "peak_mib")


class VideoWorker(Worker):
    """The near end: starts the process, hands it jobs, closes it. Use as a context manager."""

    def __init__(self, threads: int, bound: bool = False) -> None:
        self._start("foveal", threads, "foveal.bench.video_worker", str(threads), *(["bound"] if bound else []))

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """Do one job: a call of `foveal.video` by name, "lanczos" or "realesr". Paths may be Paths.

        The answer holds what the call returned as "report", and MEASURED: "seconds" and processor seconds of the job,
        peak memory of the process so far (of a program it ran, if that took more) in MiB. Raises FovealError.
        """
        plain = {key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()}
        return self.ask({"call": name, "arguments": plain})

    def show(
        self, variant: str, job: Job, coded: Path, shown: Path, clip: Clip, encoded: Mapping[str, Any], frames: int
    ) -> dict[str, Any]:
        """Make raw frames of a coded file, as the variant of the job says; `encoded` is what the encoder reported,
        `frames` holds for realesr alone."""
        if variant == "realesr":
            return self.call("realesr", source=coded, out=shown, clip=clip.path, frames=frames)
        if "+side" in variant or (job.way == "auto" and encoded["side_bytes"]):
            return self.call("decode", source=coded, out=shown, model=job.model)
        if not job.model or (job.way == "auto" and encoded["scale"] == 1):
            return self.call("lanczos", source=coded, out=shown, clip=clip.path)
        return self.call("restore", source=coded, out=shown, scale=encoded["scale"], model=job.model, use_side=False)


def reused(answer: Mapping[str, Any]) -> float | None:
    """Share of blocks copied from the frame before, None for a rival."""
    report = answer["report"]
    return round(float(report["reused"]), 4) if isinstance(report, dict) and "reused" in report else None


def main() -> None:
    """The far end: answer jobs until stdin is closed."""
    threads = int(sys.argv[1])
    if "bound" in sys.argv and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not come between the answers
    warm: set[str] = set()
    for line in sys.stdin:
        try:
            answer = perform(json.loads(line), threads, warm)
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), file=answers, flush=True)


def perform(job: Mapping[str, Any], threads: int, warm: set[str]) -> dict[str, Any]:
    """One job's answer."""
    work = {"lanczos": _lanczos, "realesr": _realesr}.get(job["call"]) or _door(job["call"])
    kind = f"{job['call']} {job['arguments'].get('model')} {job['arguments'].get('codec')}"
    if kind not in warm:
        warm.add(kind)
        work(job["arguments"], threads)
    start, cpu = time.perf_counter(), _cpu_seconds()
    report = work(job["arguments"], threads)
    spent = (time.perf_counter() - start, _cpu_seconds() - cpu, _peak_mib())
    found = asdict(report) if is_dataclass(report) and not isinstance(report, type) else report
    return {"report": found, **{name: round(value, 5) for name, value in zip(MEASURED, spent, strict=True)}}


def _door(name: str) -> Callable[[Mapping[str, Any], int], Any]:
    """A call of the public door."""
    from foveal import video

    return lambda arguments, _: getattr(video, name)(**arguments)


def _lanczos(arguments: Mapping[str, Any], threads: int) -> None:
    source, target, clip = (Path(arguments[name]) for name in ("source", "out", "clip"))
    lanczos(source, target, read_clip(clip), threads)


def _realesr(arguments: Mapping[str, Any], threads: int) -> int:
    source, target, clip = (Path(arguments[name]) for name in ("source", "out", "clip"))
    return realesr(source, target, read_clip(clip), arguments["frames"], threads)


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_mib() -> float:
    """ru_maxrss counts KiB on Linux, bytes on macOS."""
    sizes = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(sizes) / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # the near end reports it
        main()
