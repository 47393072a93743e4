"""Pixels <-> uniform 16x16 patches (CN115514976A: "divide the image into patches of the same size")."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PATCH = 16


def grid(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of patches that cover the image."""
    return -(-height // PATCH), -(-width // PATCH)


def pad(plane: NDArray[np.generic]) -> NDArray[np.generic]:
    """(H, W, ...) -> whole patches, mirrored at the lower and right edge (any size from 1x1)."""
    rows, cols = (
        np.abs((np.arange(-(-n // PATCH) * PATCH) + n - 1) % max(2 * n - 2, 1) - (n - 1)) for n in plane.shape[:2]
    )
    out: NDArray[np.generic] = plane[rows][:, cols]
    return out


def split(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 -> (h*w, 768) uint8, each patch as (3, 16, 16)."""
    padded = pad(rgb)
    h, w = grid(*rgb.shape[:2])
    blocks = padded.reshape(h, PATCH, w, PATCH, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(blocks.reshape(h * w, 3 * PATCH * PATCH), dtype=np.uint8)


def join(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(16h, 16w, 3) uint8 as decoded -> (H, W, 3), the padding cut off."""
    return np.ascontiguousarray(image[:height, :width])
