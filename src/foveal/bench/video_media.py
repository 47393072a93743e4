"""Clips for the video benchmark: the originals as raw files, their pixels, and the bytes of a stream.

Everything outside Foveal runs in the ffmpeg program that the PyPI package imageio-ffmpeg carries.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveal.bench.rivals import extra
from foveal.errors import FovealError, InputError

__all__ = ["Clip", "ffmpeg", "find_clips", "lanczos", "luma", "prepare", "read_clip", "stream_bytes", "upscale"]

SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m"}
GRID = 4  # both sides are cut to multiples of this, so that half of them is even

Luma = NDArray[np.uint8]


@dataclass(frozen=True)
class Clip:
    """An original: raw 8-bit 4:2:0 frames in a y4m file, both sides multiples of 4."""

    name: str
    path: Path
    width: int
    height: int
    rate: Fraction  # frames per second
    frames: int

    @property
    def seconds(self) -> float:
        return float(self.frames / self.rate)


def program() -> str:
    """Path of ffmpeg. Raises MissingExtraError without imageio-ffmpeg."""
    return str(extra("imageio_ffmpeg", "imageio-ffmpeg").get_ffmpeg_exe())


def ffmpeg(*words: object, folder: Path | None = None, threads: int = 1) -> None:
    """Run ffmpeg in a folder with so many threads. Raises FovealError with its last words when it fails."""
    done = subprocess.run(
        [program(), *_quiet(threads), *map(str, words)], cwd=folder, stdin=subprocess.DEVNULL, capture_output=True
    )
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise FovealError(f"ffmpeg failed: {last[0]}")


def _quiet(threads: int) -> list[str]:
    number = str(threads)
    return ["-v", "error", "-nostdin", "-y", "-filter_threads", number, "-filter_complex_threads", number,
            "-threads", number]  # fmt: skip


def find_clips(folder: Path, names: Sequence[str] = ()) -> list[Path]:
    """The video files of a folder by name; with `names`, those whose file name begins with one of them.

    Raises InputError when there is none, or none for a name.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds clips")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(f"no clips in {folder}; looked for {' '.join(sorted(SUFFIXES))}")
    for name in names:
        if not any(path.name.startswith(name) for path in found):
            raise InputError(f"no clip in {folder} begins with {name!r}; there are {', '.join(p.name for p in found)}")
    return [path for path in found if not names or path.name.startswith(tuple(names))]


def prepare(source: Path, target: Path, frames: int | None = None) -> Clip:
    """Write the middle `frames` of a video, or all, to `target` (.y4m): 8-bit 4:2:0, square pixels, cut at the right and
    at the bottom to multiples of four."""
    there = stream_bytes(source)[1]
    start = 0 if frames is None else max(0, there - frames) // 2
    trim = f"trim=start_frame={start}" + ("" if frames is None else f":end_frame={start + frames}")
    cut = f"{trim},crop=trunc(iw/{GRID})*{GRID}:trunc(ih/{GRID})*{GRID}:0:0,setsar=1,format=yuv420p"
    ffmpeg("-i", source.resolve(), "-an", "-fps_mode", "passthrough", "-vf", cut, target.resolve())
    return read_clip(target, source.name)


def read_clip(path: Path, name: str | None = None) -> Clip:
    """What the header of a y4m file says, and how many frames follow.

    Raises InputError for anything else than 8-bit 4:2:0 in whole frames.
    """
    with path.open("rb") as file:
        head = file.readline(1024)
    fields = {word[:1]: word[1:] for word in head.decode("ascii", "replace").split()[1:] if word[:1] != "X"}
    if (
        not head.startswith(b"YUV4MPEG2 ")
        or not fields.get("C", "420").startswith("420")
        or "p1" in fields.get("C", "")
    ):
        raise InputError(f"{path.name} is not an 8-bit 4:2:0 y4m file")
    width, height = int(fields["W"]), int(fields["H"])
    frame = len(b"FRAME\n") + width * height + 2 * ((width + 1) // 2) * ((height + 1) // 2)
    frames, rest = divmod(path.stat().st_size - len(head), frame)
    if rest or not frames:
        raise InputError(f"{path.name} holds {frames} frames and {rest} bytes more; expected whole frames")
    return Clip(name or path.name, path, width, height, Fraction(fields["F"].replace(":", "/")), frames)


def upscale(width: int, height: int) -> str:
    """The filter that scales to this size by Lanczos (three lobes), as a player does; same size: unchanged."""
    return f"scale={width}:{height}:flags=lanczos+accurate_rnd+full_chroma_int"


def lanczos(source: Path, target: Path, clip: Clip, threads: int = 1) -> None:
    """Decode a video and scale it to the clip's size, into a y4m file."""
    shown = f"{upscale(clip.width, clip.height)},setsar=1,format=yuv420p"
    ffmpeg("-r", clip.rate, "-i", source.resolve(), "-an", "-fps_mode", "passthrough", "-vf", shown, target.resolve(),
           threads=threads)  # fmt: skip


def luma(path: Path, clip: Clip) -> Iterator[Luma]:
    """The luma planes of a video, scaled to the clip's size: uint8 (H, W) arrays, one at a time."""
    shape = (clip.height, clip.width)
    words = ["-i", str(path), "-an", "-fps_mode", "passthrough"]
    words += ["-vf", f"{upscale(clip.width, clip.height)},format=yuv420p,extractplanes=y", "-f", "rawvideo", "-"]
    with subprocess.Popen([program(), *_quiet(1), *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout
        while len(data := child.stdout.read(shape[0] * shape[1])) == shape[0] * shape[1]:
            yield np.frombuffer(data, np.uint8).reshape(shape)
    if child.returncode:
        raise FovealError(f"ffmpeg could not decode {path.name}")


def stream_bytes(path: Path) -> tuple[int, int]:
    """(bytes, number) of the packets of a file's first video stream, without the container around them."""
    with extra("av", "av").open(str(path)) as container:
        sizes = [packet.size for packet in container.demux(container.streams.video[0]) if packet.size]
    return sum(sizes), len(sizes)
