"""Short clips to train restoration on: photographs set in motion, and pieces of real clips, as they are and at half size."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveal.errors import InputError
from foveal.video.basecodec import pyav
from foveal.video.frames import planes_of
from foveal.video.resize import resize_planes
from foveal.video.types import Planes

SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi"}
MARGIN = 32  # samples around a photograph's window for it to move in
LONGEST = 120  # frames kept of a real clip
LARGEST = 1280 * 720  # samples of a picture that is used at full size too


def to_planes(rgb: Tensor) -> Planes:
    """(3, H, W) float in [0, 255], H and W even -> 8-bit 4:2:0, BT.709, limited range, chroma co-sited with even columns."""
    r, g, b = rgb / 255
    luma = 0.2126 * r + 0.7152 * g + 0.0722 * b
    chroma = torch.stack([(b - luma) / 1.8556, (r - luma) / 1.5748])[None]
    wide = F.pad(chroma, (1, 0, 0, 0), mode="replicate")
    across = (wide[..., :-1:2] + 2 * wide[..., 1::2] + F.pad(wide, (0, 1, 0, 0), mode="replicate")[..., 2::2]) / 4
    small = (across[:, :, ::2] + across[:, :, 1::2])[0] / 2

    def code(x: Tensor) -> NDArray[np.uint8]:
        return x.round().clamp(0, 255).to(torch.uint8).numpy()

    return Planes(code(16 + 219 * luma), code(128 + 224 * small[0]), code(128 + 224 * small[1]))


def _window(photograph: Tensor, side: int, random: np.random.Generator) -> Tensor:
    """A random part of a photograph, (1, 3, side, side) float, mirrored and transposed at random.

    Its scale is from 1:2.6 (soft, as many videos are) to 2:1 where the photograph is large enough.
    """
    largest = min(photograph.shape[1:]) / side
    scale = min(2.0 ** random.uniform(-1.4, 1.0), largest)
    cut = max(8, round(side * scale))
    y, x = (int(random.integers(n - cut + 1)) for n in photograph.shape[1:])
    part = photograph[None, :, y : y + cut, x : x + cut].float()
    part = F.interpolate(part, (side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
    part = part.flip(3) if random.random() < 0.5 else part
    return part.transpose(2, 3) if random.random() < 0.5 else part


def moving(photograph: Tensor, side: int, frames: int, random: np.random.Generator) -> list[Planes]:
    """A photograph (3, H, W) uint8 seen by a camera that pans, zooms and turns a little, or stands still.

    Returns ``frames`` pictures of ``side`` x ``side``, ``side`` even, most of them with sensor noise.
    """
    canvas = side + 2 * MARGIN
    still = _window(photograph, canvas, random)
    fixed = random.random() < 0.25
    pan = np.zeros(2) if fixed else random.normal(0, 1.8, 2).clip(-4, 4)  # samples a frame
    zoom, turn = (0.0, 0.0) if fixed else random.normal(0, 0.003, 2)  # share and radians a frame
    noise = max(0.0, random.uniform(-2, 4))
    out = []
    for n in range(frames):
        t = n - (frames - 1) / 2
        size, angle, (dx, dy) = np.exp(zoom * t) * side / canvas, turn * t, 2 * pan * t / canvas
        c, s = size * np.cos(angle), size * np.sin(angle)
        theta = torch.tensor([[[c, -s, dx], [s, c, dy]]], dtype=torch.float32)
        grid = F.affine_grid(theta, [1, 3, side, side], align_corners=False)
        seen = still if fixed and side == canvas else F.grid_sample(
            still, grid, mode="bicubic", padding_mode="reflection", align_corners=False
        )  # fmt: skip
        if noise:
            grain = torch.from_numpy(random.normal(0, noise, (1, 1, side, side)).astype(np.float32))
            seen = seen + grain + torch.from_numpy(random.normal(0, noise / 3, (1, 3, side, side)).astype(np.float32))
        out.append(to_planes(seen[0].clamp(0, 255)))
    return out


def read_clips(folder: Path, hold_out: str) -> tuple[list[list[Planes]], list[list[Planes]]]:
    """The 8-bit 4:2:0 clips of a folder: (training, held out), those whose name contains ``hold_out``.

    Each is there at half its size, which takes away what its first coding left, and up to LARGEST also as it is: what
    Foveal is given has mostly been coded before. Raises InputError if the folder is not there or holds none.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    train: list[list[Planes]] = []
    held: list[list[Planes]] = []
    for path in paths:
        try:
            with pyav().open(str(path)) as container:
                decoded = (f for f in container.decode(video=0) if f.format.name in ("yuv420p", "yuvj420p"))
                clip = [planes_of(f, 8) for f in islice(decoded, LONGEST)]
        except (pyav().error.FFmpegError, OSError, IndexError) as e:  # IndexError: no video stream
            raise InputError(f"{path}: not a clip to train on ({e}); mend or remove it") from e
        if not clip:
            continue
        height, width = clip[0].y.shape
        part = held if hold_out and hold_out in path.name else train
        part.append([resize_planes(p, width // 4 * 2, height // 4 * 2) for p in clip])
        if height * width <= LARGEST:
            part.append(clip)
    if not train:
        raise InputError(f"{folder}: no 8-bit 4:2:0 clip to train on; --clips takes a folder of .mp4, .mkv, .webm ...")
    return train, held


def piece(clip: list[Planes], side: int, frames: int, random: np.random.Generator) -> list[Planes]:
    """A window of ``side`` x ``side`` through ``frames`` consecutive frames; smaller clips are continued by reflection."""
    start = int(random.integers(max(1, len(clip) - frames + 1)))
    height, width = clip[0].y.shape
    y, x = (2 * int(random.integers(max(0, n - side) // 2 + 1)) for n in (height, width))

    def cut(plane: NDArray[Any], scale: int) -> NDArray[Any]:
        part = plane[y // scale : (y + side) // scale, x // scale : (x + side) // scale]
        missing = [(0, side // scale - n) for n in part.shape]
        return np.ascontiguousarray(np.pad(part, missing, mode="symmetric"))

    taken = [clip[min(start + i, len(clip) - 1)] for i in range(frames)]
    return [Planes(cut(p.y, 1), cut(p.u, 2), cut(p.v, 2)) for p in taken]
