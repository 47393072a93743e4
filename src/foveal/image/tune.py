"""What an error is worth in each patch: the same everywhere for PSNR, more where little hides it for MS-SSIM."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from foveal.image.importance import PATCH

TUNES = ("psnr", "msssim")
BLOCK = 8  # side of what has a variance of its own, pixels
QUIET = 30.0  # variance below which there is nothing to hide in, squared grey levels
POWER = 1.0
MOST = 4.0  # times as much as on average, or as little

Floats = NDArray[np.float64]


def worth(rgb: NDArray[np.uint8], tune: str) -> Floats:
    """(H, W, 3) uint8 -> (h, w) weights of squared error per patch, geometric mean 1."""
    height, width = rgb.shape[:2]
    if tune == "psnr":
        return np.ones((-(-height // PATCH), -(-width // PATCH)))
    luma = rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    luma = np.pad(luma, ((0, -height % PATCH), (0, -width % PATCH)), mode="symmetric")
    h, w = luma.shape[0] // BLOCK, luma.shape[1] // BLOCK
    spread = luma.reshape(h, BLOCK, w, BLOCK).var((1, 3))
    log = np.log(spread + QUIET).reshape(h // 2, 2, w // 2, 2).mean((1, 3))
    return np.asarray(np.exp(-POWER * (log - log.mean())).clip(1 / MOST, MOST))
