"""What `foveal video` and `foveal restore` share: their options, clips in folders, one clip's work and its progress."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

import foveal
from foveal.cli_support import jobs
from foveal.io import images

__all__ = [
    "Bitrate",
    "Bits",
    "Clips",
    "Codec",
    "Crf",
    "DecodeModel",
    "DecodeScale",
    "Model",
    "Out",
    "OutCodec",
    "OutCrf",
    "Preset",
    "RestoreScale",
    "Resume",
    "Scale",
    "SideInfo",
    "TargetVmaf",
    "UseSide",
    "decode_one",
    "encode_one",
    "factor",
    "pairs",
    "per_second",
    "restore_one",
]

SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".flv", ".wmv",
            ".3gp", ".ogv", ".y4m", ".gif", ".mxf", ".nut", ".dv", ".ivf", ".obu", ".vob", ".h264", ".264", ".hevc",
            ".265"}  # fmt: skip
WRITTEN = (".mp4", ".m4v", ".mov", ".mkv", ".webm")
_RATE = "Rate, one of these"

Clips = Annotated[
    list[str], typer.Argument(metavar="IN", help="Video files, folders of them, or - for y4m on standard input.")
]
Out = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", metavar="OUT|DIR", help="File to write, a folder for several, or - for y4m on standard output "
        "(not for encode). Left out, the result lies beside its input. An existing file is replaced.",
    ),
]  # fmt: skip
Scale = Annotated[
    str, typer.Option("--scale", metavar="auto|1|1.5|2", help="Width and height divided by; auto probes.")
]
Codec = Annotated[str, typer.Option("-c", "--codec", metavar="svtav1|x265|x264|ffv1", help="Encoder.")]
Crf = Annotated[
    float | None,
    typer.Option("--crf", help="Constant rate factor of the encoder, 0 best. With --scale auto: the bits full size takes "
                 "at it.", rich_help_panel=_RATE),
]  # fmt: skip
Bitrate = Annotated[
    str | None,
    typer.Option("-b", "--bitrate", metavar="RATE", help="Bits a second: 800k, 2.5M.", rich_help_panel=_RATE),
]
TargetVmaf = Annotated[
    float | None,
    typer.Option("--target-vmaf", help="VMAF (0..100) to reach at the receiver, by probes.", rich_help_panel=_RATE),
]
Preset = Annotated[str | None, typer.Option("--preset", help="The encoder's: 0..13, or ultrafast..placebo.")]
Bits = Annotated[int | None, typer.Option("--bits", metavar="8|10", help="Bits a sample; left out, as the input.")]
Model = Annotated[str, typer.Option("--model", metavar="s|m|l", help="Size of the restoring network.")]
SideInfo = Annotated[bool, typer.Option("--side-info/--no-side-info", help="Side information for the receiver.")]
DecodeScale = Annotated[
    float | None, typer.Option("--scale", metavar="1|1.5|2", help="Left out: what the side information says, else 2.")
]
DecodeModel = Annotated[
    str | None, typer.Option("--model", metavar="s|m|l", help="Left out: what the side information says, else s.")
]
RestoreScale = Annotated[float, typer.Option("--scale", metavar="2|1.5|1", help="Width and height multiplied by.")]
UseSide = Annotated[bool, typer.Option("--side-info/--no-side-info", help="Use side information where there is some.")]
OutCodec = Annotated[str, typer.Option("-c", "--codec", metavar="x264|x265|svtav1|ffv1", help="Encoder of the result.")]
OutCrf = Annotated[
    float | None, typer.Option("--crf", help="Constant rate factor of the result.", show_default="14; none for ffv1")
]
OnLoss = Annotated[
    str,
    typer.Option(
        "--on-loss",
        metavar="error|conceal",
        help="Cut off or broken: refuse it, or restore what there is.",
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where an interrupted run stopped.")]


def pairs(
    inputs: Sequence[str], output: str | None, ending: str, suffix: str | None, refused: Collection[str] = ()
) -> list[jobs.Pair]:
    """(input, output) of every clip, folders replaced by the clips in them.

    Outputs without a given name are the input's stem, `ending`, and `suffix` or, for None, the input's own where it can
    be written and is not `refused`, else .mkv. InputError for folders without clips and for outputs that meet.
    """
    clips = [clip for name in inputs for clip in _inside(name)]
    several = len(clips) > 1 or any(Path(name).is_dir() for name in inputs)
    if several and output == "-":
        raise foveal.InputError('"-" stands for one video; give -o DIR')
    if several and output and Path(output).suffix.lower() in (*WRITTEN, ".y4m") and not Path(output).is_dir():
        raise foveal.InputError(f"{output} is the name of one file, for several inputs; name a folder")
    place = output.rstrip("/") + "/" if several and output else output
    found: list[jobs.Pair] = []
    kinds = {clip: _suffix(clip, suffix, refused) for clip in clips}
    for kind in dict.fromkeys(kinds.values()):
        found += images.outputs([clip for clip in clips if kinds[clip] == kind], place, ending + kind)
    order = {clip: number for number, clip in enumerate(clips)}
    return sorted(found, key=lambda pair: order[pair[0]])


def factor(text: str) -> float | Literal["auto"]:
    """What --scale says."""
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise foveal.InputError(f"--scale {text!r}: auto, 1, 1.5 or 2") from None


def per_second(text: str | None) -> int | None:
    """Bits per second of "800k", "2.5M" or "800000", as ffmpeg writes them; None for None."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmM]?)", text)
    if not found:
        raise foveal.InputError(f"--bitrate {text!r}: bits a second, such as 800k, 2.5M or 800000")
    return round(float(found[1]) * {"": 1, "k": 1000, "m": 1_000_000}[found[2].lower()])


def encode_one(source: str, target: str, options: dict[str, Any], watched: bool) -> str:
    """Code one clip, and say how."""
    from foveal import video

    _check_streams(source, target)
    with _progress(source, watched) as progress:
        report = video.encode(source, target, progress=progress, **options)
    gain = "" if report.gain_db is None else f"; the network adds {report.gain_db:.2f} dB"
    return f"{target}: {report.bytes:,} bytes, {report.frames} frames; {report.why}{gain}"


def decode_one(source: str, target: str, options: dict[str, Any], watched: bool) -> str:
    """Restore one clip that `encode` made."""
    from foveal import video

    _check_streams(source, target)
    with _progress(source, watched) as progress:
        report = video.decode(source, target, progress=progress, **options)
    return f"{target}: {report.frames} frames, {report.reused:.0%} of blocks reused; {report.why}"


def restore_one(source: str, target: str, options: dict[str, Any], watched: bool) -> str:
    """Restore one clip of whatever origin."""
    from foveal import video

    _check_streams(source, target)
    with _progress(source, watched) as progress:
        report = video.restore(source, target, progress=progress, **options)
    return f"{target}: {report.frames} frames, {report.reused:.0%} of blocks reused; {report.why}"


def _inside(name: str) -> list[str]:
    if name == "-" or not Path(name).is_dir():
        return [name]
    clips = sorted(str(path) for path in Path(name).iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not clips:
        raise foveal.InputError(f"{name}: no videos in this folder")
    return clips


def _suffix(clip: str, suffix: str | None, refused: Collection[str]) -> str:
    own = Path(clip).suffix.lower()
    return suffix or (own if own in WRITTEN and own not in refused else ".mkv")


def _check_streams(source: str, target: str) -> None:
    """InputError when "-" stands for a stream that is closed, or for a terminal to write to."""
    if source == "-" and sys.stdin is None:
        raise foveal.InputError("standard input is closed; name a file in place of -, or redirect it")
    jobs.refuse_terminal(target)


@contextmanager
def _progress(source: str, watched: bool) -> Iterator[Callable[[int, int | None], None] | None]:
    """A bar with frames per second and the time left on standard error, where a person watches; else None."""
    if not watched or not jobs.on_terminal():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    shown = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:.0f} frames"),
             TextColumn("{task.fields[fps]}"), TimeRemainingColumn())  # fmt: skip
    with Progress(*shown, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(Path(source).name, total=None, fps="probing")

        def tell(done: int, total: int | None) -> None:
            speed = bar.tasks[task].speed
            bar.update(task, completed=done, total=total, fps=f"{speed:.1f} fps" if speed else "")

        yield tell
