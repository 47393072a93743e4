"""Which patches matter (CN115514976A, claims 1-3): gradient per pixel, mean per patch, sort, threshold.

A patch below the threshold is *dropped*: it reaches neither the vision transformer nor the symbol stream. Classes are
small integers per patch: 0 dropped, 1 the image's quantiser step, 2 and 3 finer by 2^(1/4) each.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from foveal.errors import InputError

PATCH = 16
CLASSES = 4
TUNES = ("psnr", "msssim")
BLOCK = 8  # side of what has a variance of its own, pixels
QUIET = 30.0  # variance below which there is nothing to hide in, squared grey levels
MOST = 4.0  # times as much as on average, or as little

Floats = NDArray[np.float64]


def gradient(rgb: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Sobel magnitude of luma: (H, W, 3) uint8 -> (H, W) float32, in grey levels per pixel, edges replicated."""
    luma = rgb.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    p = np.pad(luma, 1, mode="edge")
    dx = (p[:-2, 2:] - p[:-2, :-2]) + 2 * (p[1:-1, 2:] - p[1:-1, :-2]) + (p[2:, 2:] - p[2:, :-2])
    dy = (p[2:, :-2] - p[:-2, :-2]) + 2 * (p[2:, 1:-1] - p[:-2, 1:-1]) + (p[2:, 2:] - p[:-2, 2:])
    return np.asarray(np.hypot(dx, dy) / 8, np.float32)


def patch_sums(values: NDArray[np.float32]) -> Floats:
    """Sum over each patch's own pixels: (H, W) -> (h, w) fp64."""
    rows, cols = (np.arange(0, size, PATCH) for size in values.shape)
    return np.asarray(np.add.reduceat(np.add.reduceat(values.astype(np.float64), rows, 0), cols, 1))


def patch_means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over each patch's own pixels: (H, W) -> (h, w) float32."""
    return np.asarray(patch_sums(values) / patch_sums(np.ones_like(values)), np.float32)


def ratio(patches: int, dropped: int) -> float:
    """The patent's compression ratio alpha = m^2 / (m^2 - p); infinite when everything is dropped."""
    return patches / (patches - dropped) if dropped < patches else math.inf


def by_share(means: NDArray[np.float32], share: float) -> tuple[NDArray[np.uint8], float]:
    """Keep the ``share`` of patches with the highest mean gradient -> (classes (h, w), threshold). Ties in raster order."""
    if not 0 < share <= 1:
        raise InputError(f"keep {share:g} is not a share in (0, 1]; use e.g. 0.4, 'auto' or 'all'")
    order = np.argsort(-means.ravel(), kind="stable")
    count = max(1, round(share * means.size))
    classes = np.zeros(means.size, np.uint8)
    classes[order[:count]] = 1
    return classes.reshape(means.shape), float(means.ravel()[order[count - 1]])


def by_threshold(means: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Keep the patches whose mean gradient is at least ``threshold``."""
    if not threshold >= 0:
        raise InputError(f"threshold {threshold:g} is negative; give a mean gradient of 0 or more")
    return (means >= threshold).astype(np.uint8)


def by_alpha(means: NDArray[np.float32], alpha: float) -> tuple[NDArray[np.uint8], float]:
    """Drop p patches so that m^2 / (m^2 - p) is ``alpha`` as nearly as the grid allows."""
    if not alpha >= 1:
        raise InputError(f"alpha {alpha:g} is below 1; a compression ratio of 1 keeps every patch")
    return by_share(means, min(1.0, max(1.0 / alpha, 0.5 / means.size)))


def by_mask(mask: NDArray[np.generic], height: int, width: int) -> NDArray[np.uint8]:
    """A mask of the picture's size, non-zero = important: patches with any such pixel are kept. Whole numbers of the
    grid's own size are taken as the classes themselves."""
    h, w = -(-height // PATCH), -(-width // PATCH)
    if mask.dtype.kind not in "biuf":
        raise InputError(f"mask is {mask.dtype}; give booleans or numbers")
    if mask.ndim == 3 and mask.shape[2]:
        mask = mask[..., :3].max(2)
    if mask.ndim != 2:
        raise InputError(f"mask has {mask.ndim} dimensions; give (H, W), (H, W, channels) or (h, w)")
    if mask.shape == (height, width):
        return (patch_means((mask != 0).astype(np.float32)) > 0).astype(np.uint8)
    if mask.shape == (h, w):
        if mask.dtype == np.bool_:
            return mask.astype(np.uint8)
        if mask.dtype.kind == "f" and not (mask == np.rint(mask)).all():
            raise InputError(f"a grid of classes holds {mask.dtype}; give whole numbers 0..{CLASSES - 1}, or booleans")
        if mask.min() < 0 or mask.max() >= CLASSES:
            raise InputError(f"classes reach {mask.max()}; a grid of classes holds 0..{CLASSES - 1}")
        return mask.astype(np.uint8)
    raise InputError(
        f"mask is {mask.shape[1]}x{mask.shape[0]}; it must be {width}x{height} like the picture, or "
        f"{w}x{h} like its grid of patches"
    )


def worth(rgb: NDArray[np.uint8], tune: str) -> Floats:
    """What a squared error is worth in each patch, (H, W, 3) uint8 -> (h, w): 1 for 'psnr'; for 'msssim' more where little
    hides it, as the structural similarity index has it: one over the variance of the luma around it, of geometric mean 1."""
    height, width = rgb.shape[:2]
    if tune == "psnr":
        return np.ones((-(-height // PATCH), -(-width // PATCH)))
    luma = rgb.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    luma = np.pad(luma, ((0, -height % PATCH), (0, -width % PATCH)), mode="symmetric")
    h, w = luma.shape[0] // BLOCK, luma.shape[1] // BLOCK
    spread = luma.reshape(h, BLOCK, w, BLOCK).var((1, 3))
    log = np.log(spread + QUIET).reshape(h // 2, 2, w // 2, 2).mean((1, 3))
    return np.asarray(np.exp(log.mean() - log).clip(1 / MOST, MOST))
