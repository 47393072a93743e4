"""The results file: JSON lines, first what was run and where, then one line per (picture, codec, setting)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_type_hints

from foveal.errors import InputError

__all__ = ["Point", "Results", "append", "read"]

Key = tuple[str, str, str, float]

KINDS = ("run", "point")
LONGEST = 1 << 20  # bytes; a first line is far shorter


@dataclass(frozen=True)
class Point:
    """One measurement. Times are seconds per megapixel, the median of `repeats` warm runs."""

    image: str  # file name
    codec: str
    options: str  # all that is not the setting, e.g. "speed 4"
    setting_name: str  # "quality", "distance", "qp"
    setting: float
    width: int
    height: int
    bytes: int
    bpp: float
    psnr_db: float  # over RGB; inf (null in the file) when lossless
    ms_ssim: float
    encode_s_per_mpx: float
    decode_s_per_mpx: float
    encode_repeats: int
    decode_repeats: int
    version: str
    source: str = ""  # the picture's fingerprint (see pictures); files of old have none

    @property
    def key(self) -> Key:
        return (self.image, self.codec, self.options, self.setting)


@dataclass(frozen=True)
class Results:
    """What a results file holds: a run's metadata (the first run's) and all the points, each key once."""

    run: Mapping[str, Any]
    points: tuple[Point, ...]


def append(path: Path, item: Point | Mapping[str, Any]) -> None:
    """Add one line: a point, or a run's metadata."""
    if isinstance(item, Point):
        record: dict[str, Any] = {"kind": "point", **asdict(item)}
        record["psnr_db"] = None if math.isinf(item.psnr_db) else item.psnr_db
    else:
        record = {"kind": "run", **item}
    add_line(path, json.dumps(record, ensure_ascii=False, allow_nan=False))


def add_line(path: Path, line: str) -> None:
    """Add one line to a file. InputError when it cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise _unwritable(path, error) from error


def holds_records(path: Path, kinds: Sequence[str] = KINDS) -> bool:
    """Whether a file is to be added to: its first line is a record of one of these kinds, the first being a run's.

    False when it is not there or empty, or has no more than the beginning of a run's line. InputError when it is anything
    else, such as a note, a picture or a folder: it is not ours, and stays as it is.
    """
    try:
        if not path.exists():
            return False
        if not path.is_file():
            raise InputError(f"{path} is not a file; name a file for the results")
        with path.open("rb") as file:
            line = file.readline(LONGEST)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}; {OTHER}") from error
    begun = f'{{"kind": "{kinds[0]}", "date": "'.encode()
    if not line or (line.startswith(begun) and not line.endswith(b"\n") and len(line) < LONGEST):
        return False
    try:
        record = json.loads(line) if line.endswith(b"\n") else None
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("kind") not in kinds:
        raise InputError(f"{path} holds something else than results of this benchmark, and is left as it is; {OTHER}")
    return True


def begin(path: Path) -> None:
    """Make an empty file, and its folder if it is missing. InputError when that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    except OSError as error:
        raise _unwritable(path, error) from error


OTHER = "name another output file"


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot write results to {path}: {error.strerror or error}; {OTHER}")


def read(path: Path) -> Results:
    """Read a results file. A last line without its newline (a run that was killed) is left out.

    Raises InputError when the file is not there or holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read results from {path}: {error}") from error
    run: dict[str, Any] = {}
    points: dict[Key, Point] = {}
    for number, line in enumerate(text.split("\n")[:-1], 1):
        record = _parse(path, number, line)
        if record.pop("kind") == "run":
            run = run or record
        else:
            point = _point(path, number, record)
            points.setdefault(point.key, point)
    return Results(run, tuple(points.values()))


def cut_unfinished_line(path: Path) -> None:
    """Remove what a killed run left behind its last newline. Only for a file that `read` has found to be ours."""
    try:
        data = path.read_bytes()
        if not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
    except OSError as error:
        raise _unwritable(path, error) from error


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict) or record.get("kind") not in KINDS:
        raise InputError(f"{path}, line {number}: not a line of a benchmark; name another results file")
    return record


_hints = lru_cache(get_type_hints)  # slow, and asked for every line


def misfit(kind: type, record: Mapping[str, Any]) -> str:
    """The first field of a dataclass for which ``record`` has a value of another type, in words; "" for none."""
    for name, hint in _hints(kind).items():
        wanted = get_args(hint) or (hint,)
        wanted += (int,) if float in wanted else ()
        if isinstance(record[name], bool) or not isinstance(record[name], wanted):
            return f"{name} is {record[name]!r:.40}"
    return ""


def _point(path: Path, number: int, record: dict[str, Any]) -> Point:
    names = [field.name for field in fields(Point)]
    record.setdefault("source", "")
    missing = [name for name in names if name not in record]
    if missing:
        raise InputError(f"{path}, line {number}: {missing[0]} is missing; name another results file")
    if record["psnr_db"] is None:
        record["psnr_db"] = math.inf
    if wrong := misfit(Point, record):
        raise InputError(f"{path}, line {number}: {wrong}; name another results file")
    return Point(**{name: record[name] for name in names})
