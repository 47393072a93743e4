"""How far a decoded video is from its original: PSNR, SSIM, XPSNR, VMAF, VMAF-NEG, and flicker where nothing moves.

The first five are ffmpeg's filters, computed on luma in one pass and averaged over frames. VMAF uses the model
vmaf_v0.6.1, VMAF-NEG vmaf_v0.6.1neg, which takes no credit for sharpening; both are built into libvmaf.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from foveal.bench.video_media import Clip, ffmpeg, luma, upscale
from foveal.errors import FovealError

__all__ = ["Flicker", "Quality", "flicker", "measure"]

MODELS = {"vmaf": "vmaf_v0.6.1", "vmaf_neg": "vmaf_v0.6.1neg"}
CEILING_DB = 99.0  # what an equal frame counts as in a mean of PSNRs
BLOCK = 16
STATIC = 1.5  # a block is static when its mean absolute temporal difference in the original is at most this

GRAPH = (
    "[0:v]{scale},split=4[a0][a1][a2][a3];[1:v]format=yuv420p,split=4[b0][b1][b2][b3];"
    "[a0][b0]psnr=stats_file=psnr.txt:shortest=1[c0];[a1][b1]ssim=stats_file=ssim.txt:shortest=1[c1];"
    "[a2][b2]xpsnr=stats_file=xpsnr.txt:shortest=1[c2];"
    "[a3][b3]libvmaf=shortest=1:n_threads={threads}:log_fmt=json:log_path=vmaf.json:model='{models}'[c3]"
)
PATTERNS = {"psnr": r"psnr_y:(\S+)", "ssim": r"Y:(\S+)", "xpsnr": r"n:.*XPSNR y:\s*(\S+)"}


@dataclass(frozen=True)
class Quality:
    """Means over the frames of a clip, on luma: PSNR and XPSNR in dB, SSIM up to 1, VMAF and VMAF-NEG up to 100."""

    psnr_y: float
    ssim_y: float
    xpsnr_y: float
    vmaf: float
    vmaf_neg: float


@dataclass(frozen=True)
class Flicker:
    """Mean absolute difference from frame to frame, in 8-bit levels, over the blocks that are static in the original:
    of the original, and of the decoded clip. ``share``: how much of the clip is static. nan where nothing is."""

    original: float
    decoded: float
    share: float


def measure(test: Path, clip: Clip, *, frames: int | None = None, threads: int = 1) -> Quality:
    """Compare a video with its original, frame by frame in order; smaller pictures are scaled up by Lanczos.

    `frames`: only that many from the start. Raises FovealError when the two differ in length or ffmpeg fails.
    """
    models = "|".join(rf"version={model}\:name={name}" for name, model in MODELS.items())
    scale = f"{upscale(clip.width, clip.height)},format=yuv420p"
    graph = GRAPH.format(scale=scale, threads=threads, models=models)
    count = [] if frames is None else ["-frames:v", frames]
    outputs = [word for k in range(4) for word in ("-map", f"[c{k}]", *count, "-f", "null", "-")]
    inputs = ["-r", clip.rate, "-i", test.resolve(), "-r", clip.rate, "-i", clip.path.resolve()]
    with tempfile.TemporaryDirectory(prefix="foveal-quality-") as scratch:
        ffmpeg(*inputs, "-filter_complex", graph, *outputs, folder=Path(scratch), threads=threads)
        columns = [_column(Path(scratch), name) for name in PATTERNS]
        rows = json.loads((Path(scratch) / "vmaf.json").read_text(encoding="utf-8"))["frames"]
    columns += [[float(row["metrics"][name]) for row in rows] for name in MODELS]
    expected = clip.frames if frames is None else min(frames, clip.frames)
    if any(len(column) < expected for column in columns):
        found = min(len(column) for column in columns)
        raise FovealError(f"{test.name} has {found} frames beside the {expected} of {clip.name}")
    return Quality(*(round(math.fsum(column[:expected]) / expected, 5) for column in columns))


def _column(folder: Path, name: str) -> list[float]:
    """One filter's values, one per frame."""
    lines = (folder / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    found = (re.match(rf".*?\b{PATTERNS[name]}" if name != "xpsnr" else PATTERNS[name], line) for line in lines)
    return [min(float(match[1]), CEILING_DB) for match in found if match]


def flicker(test: Path, clip: Clip) -> Flicker:
    """How much a decoded video changes where its original does not.

    Static are the 16x16 blocks whose mean absolute difference to the frame before is at most 1.5 levels in the
    original; noise that a camera adds is thus part of the original's figure.
    """
    pairs = zip(_changes(luma(clip.path, clip)), _changes(luma(test, clip)), strict=True)
    sums, blocks, total = np.zeros(2), 0, 0
    for original, decoded in pairs:
        static = original <= STATIC
        sums += original[static].sum(), decoded[static].sum()
        blocks, total = blocks + int(static.sum()), total + static.size
    if not blocks:
        return Flicker(math.nan, math.nan, 0.0)
    return Flicker(round(float(sums[0] / blocks), 5), round(float(sums[1] / blocks), 5), round(blocks / total, 5))


def _changes(planes: Iterable[NDArray[np.uint8]]) -> Iterable[NDArray[np.float64]]:
    """For every frame but the first: mean absolute difference to the one before, per block; rests are left out."""
    for before, after in pairwise(planes):
        rows, columns = (side // BLOCK for side in after.shape)
        difference = np.abs(after.astype(np.int16) - before)[: rows * BLOCK, : columns * BLOCK]
        yield difference.reshape(rows, BLOCK, columns, BLOCK).mean(axis=(1, 3))
