"""Lost patches extended from their neighbours: the likeliest coefficients, given what lies beyond their edges.

The prior says of each coefficient of a lost patch how large it may be. Beside a patch that arrived, the edge is known too:
two pixels across it differ by about NOISE grey levels. With coefficients c ~ N(0, diag(sigma^2)) and pixel steps across the
edges d = E c + noise, the likeliest c solves (E'E / NOISE^2 + diag(1 / sigma^2)) c = E'd / NOISE^2.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

PATCH = 16
NOISE = 20.0  # grey levels; 10 and 40 lose 0.01 to 0.02 dB
BATCH = 1024  # patches solved for together
SIDES = ((-1, 0), (1, 0), (0, -1), (0, 1))

Floats = NDArray[np.float64]


def extend(pixels: NDArray[np.uint8], lost: NDArray[np.bool_], basis: Floats, sigma: Floats) -> NDArray[np.uint8]:
    """pixels (16h, 16w, 3) with the patches that are ``lost`` (h, w) bettered. ``basis`` (n, 768): pixels (3, 16, 16) of
    each coefficient; ``sigma`` (m, n): how large it may be in each lost patch, in grey levels, row by row. A lost patch
    without a neighbour that arrived stays as it is."""
    h, w = lost.shape
    places, out = np.argwhere(lost), pixels.copy()
    blocks = pixels.reshape(h, PATCH, w, PATCH, 3)
    shown = out.reshape(h, PATCH, w, PATCH, 3)
    shape = basis.reshape(-1, 3, PATCH, PATCH)
    for start in range(0, len(places), BATCH):
        y, x = places[start : start + BATCH].T
        known, wanted = np.zeros((len(y), len(basis), len(basis))), np.zeros((len(y), len(basis)))
        for dy, dx in SIDES:
            there, step = _step(blocks, lost, y, x, dy, dx)
            edge = _edge(shape, dy, dx).transpose(0, 2, 1).reshape(len(basis), -1)  # (n, 16 * 3)
            known += there[:, None, None] * (edge @ edge.T)
            wanted += (there[:, None] * step) @ edge.T
        known += np.eye(len(basis)) * (NOISE / np.maximum(sigma[start : start + BATCH], 1e-3))[:, None] ** 2
        change = np.linalg.solve(known, wanted[..., None])[..., 0] @ basis
        change = change.reshape(-1, 3, PATCH, PATCH).transpose(0, 2, 3, 1)
        shown[y, :, x] = (blocks[y, :, x] + change).round().clip(0, 255).astype(np.uint8)
    return out


def _step(
    blocks: NDArray[np.uint8], lost: NDArray[np.bool_], y: NDArray[np.int64], x: NDArray[np.int64], dy: int, dx: int
) -> tuple[NDArray[np.bool_], Floats]:
    """Of the patches (y, x): whether the one beside is there, (m,), and its edge minus theirs, (m, 16 * 3)."""
    ny, nx = y + dy, x + dx
    inside = (ny >= 0) & (ny < lost.shape[0]) & (nx >= 0) & (nx < lost.shape[1])
    ny, nx = np.where(inside, ny, y), np.where(inside, nx, x)
    own, near = (blocks[rows, :, columns].transpose(0, 3, 1, 2) for rows, columns in ((y, x), (ny, nx)))
    step = _edge(near, -dy, -dx).astype(np.float64) - _edge(own, dy, dx)
    return inside & ~lost[ny, nx], step.transpose(0, 2, 1).reshape(len(y), -1)


def _edge(blocks: NDArray[Any], dy: int, dx: int) -> NDArray[Any]:
    """The pixels (..., 16) of patches (..., 16, 16) that lie at the side (dy, dx)."""
    return blocks[..., -(dy > 0), :] if dy else blocks[..., -(dx > 0)]
