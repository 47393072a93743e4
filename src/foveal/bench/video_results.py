"""The video benchmark's file: JSON lines, first what was run and where, then one per measurement of a clip or of speed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from foveal.bench.pictures import check_sources
from foveal.bench.results import add_line, begin, cut_unfinished_line, holds_records, misfit
from foveal.errors import InputError

__all__ = ["Point", "Results", "Speed", "append", "open_output", "read", "weights_of"]

REMEDY = "name another output file, or start it anew without resuming"

Key = tuple[str | float, ...]


@dataclass(frozen=True)
class Point:
    """One clip through one codec at one CRF, shown in one way.

    `variant`: full, lanczos, S or S+side for a model s without and with side information, x1-S and x1-S+side after
    coding at full size, auto-S, and realesr. `part`: "clip", or "start" for the first few frames that are also
    measured beside realesr. `bytes`: packets of the video stream plus `side_bytes`. Qualities: see
    video_metrics.Quality, flicker: video_metrics.Flicker. Seconds are of all frames, from file to file; cpu seconds
    leave out what other programs took. `reused`: share of blocks copied from the frame before.
    """

    clip: str
    codec: str
    variant: str
    crf: float
    part: str
    width: int
    height: int
    frames: int
    scale: float
    bytes: int
    side_bytes: int
    kbps: float
    psnr_y: float
    ssim_y: float
    xpsnr_y: float
    vmaf: float
    vmaf_neg: float
    flicker: float | None
    flicker_original: float | None
    static_share: float | None
    encode_s: float
    encode_cpu_s: float
    restore_s: float
    restore_cpu_s: float
    reused: float | None
    why: str
    weights: str
    source: str = ""  # the clip's fingerprint (see pictures); files of old have none

    @property
    def key(self) -> Key:
        return (self.clip, self.codec, self.variant, self.crf, self.part)


@dataclass(frozen=True)
class Speed:
    """From a file of half size to raw frames of `width` x `height`, in a fresh process with so many threads, warm."""

    variant: str
    width: int
    height: int
    frames: int
    threads: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    reused: float | None
    weights: str

    @property
    def key(self) -> Key:
        return (self.variant, self.frames, self.threads)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds

    @property
    def cpu_fps(self) -> float:
        """Frames per second of processor time: on a machine with other work, nearer to what an idle one does."""
        return self.frames / self.cpu_seconds


@dataclass(frozen=True)
class Results:
    """What a file holds: the metadata of every run, and each key once."""

    runs: tuple[Mapping[str, Any], ...]
    points: tuple[Point, ...]
    speeds: tuple[Speed, ...]

    @property
    def items(self) -> list[Point | Speed]:
        """Points and speeds."""
        return [*self.points, *self.speeds]


KINDS: dict[str, type[Point] | type[Speed]] = {"point": Point, "speed": Speed}


def append(path: Path, item: Point | Speed | Mapping[str, Any]) -> None:
    """Add one line: a measurement, or a run's metadata."""
    kind = next((name for name, made in KINDS.items() if isinstance(item, made)), "video run")
    record = asdict(item) if isinstance(item, Point | Speed) else item
    add_line(path, json.dumps({"kind": kind, **record}, ensure_ascii=False, allow_nan=False))


def read(path: Path) -> Results:
    """Read a results file. A last line without its end (a run that was killed) is left out.

    Raises InputError when the file is not there or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read results from {path}: {error}") from error
    runs: list[Mapping[str, Any]] = []
    found: dict[str, dict[Key, Any]] = {kind: {} for kind in KINDS}
    for number, line in enumerate(lines, 1):
        kind, record = _parse(path, number, line)
        if kind in KINDS:
            item = KINDS[kind](**record)
            found[kind].setdefault(item.key, item)
        else:
            runs.append(record)
    return Results(tuple(runs), tuple(found["point"].values()), tuple(found["speed"].values()))


def _parse(path: Path, number: int, line: str) -> tuple[str, dict[str, Any]]:
    try:
        record = json.loads(line)
        kind = str(record.pop("kind"))
        if kind == "point":
            record.setdefault("source", "")
        fits = kind == "video run" or (
            {f.name for f in fields(KINDS[kind])} == set(record) and not misfit(KINDS[kind], record)
        )
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise InputError(f"{path}, line {number}: not a line of a video benchmark; name another results file")
    return kind, record


def open_output(
    output: Path, metadata: Mapping[str, Any], models: Sequence[str], resume: bool, sources: Mapping[str, str]
) -> Results:
    """Make the output ready to be added to; what it already holds. A killed run's last words are cut off, and without
    ``resume`` the file begins anew.

    `sources`: the fingerprints of the clips at hand. Numbers of other options, encoders, weights or clips of the same
    name must not be mixed into one file unnoticed: InputError, as for a file that is none of ours. A file that is refused
    stays as it is.
    """
    if not (holds_records(output, ("video run", *KINDS)) and resume):
        begin(output)
    old = read(output)
    for run in old.runs:
        for name in ("options", "encoders"):
            if run.get(name) != metadata[name]:
                raise InputError(f"{output} was made with {name} {run.get(name)}, this is {metadata[name]}; {REMEDY}")
    for item in old.items:
        now = weights_of(item.variant) if model_of(item.variant) in models else item.weights
        if item.weights != now:
            raise InputError(f"{output} has {item.variant} with weights {item.weights}, they are {now} now; {REMEDY}")
    check_sources(output, ((point.clip, point.source) for point in old.points), sources, REMEDY)
    cut_unfinished_line(output)
    return old


def model_of(variant: str) -> str:
    """The model in a variant's name, "" if none: "s" of "x1-S+side"."""
    word = variant.removesuffix("+side").split("-")[-1]
    return word.lower() if word.isupper() else ""


@lru_cache
def weights_of(variant: str) -> str:
    """First 16 hexadecimal digits of a SHA-256 over the weights that a variant uses: those of its mode, x2 or x1, and
    both where the encoder chooses. "" for a variant without a model.

    Raises InputError when there are none.
    """
    model = model_of(variant)
    if not model:
        return ""
    file = files("foveal") / "weights" / f"video-{model}.safetensors"
    if not file.is_file():
        raise InputError(f"there are no weights of a video model {model!r} in this installation")
    mode = {"x1": "x1.", "auto": ""}.get(variant.split("-")[0], "x2.")
    tensors = sorted((k, v) for k, v in load(file.read_bytes()).items() if k.startswith(mode))
    return sha256(b"".join(k.encode() + np.ascontiguousarray(v).tobytes() for k, v in tensors)).hexdigest()[:16]
