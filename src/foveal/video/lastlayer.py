"""The change of the network's last layer that the sender fits to a clip: what this clip wants of the features that the
network has anyway. It costs the receiver nothing, for its convolution has other weights, no more of them.

The layer makes four samples of luma of 3x3 samples of C channels: 4 x C x 9 weights. A clip's best ones differ from those
of training a little in all of them, but mostly alike for the four samples, and smoothly over the 3x3. So changes
are told for *patterns* of the four (all alike, upper against lower, left against right, across: Hadamard) and
*waves* over the 3x3 (DCT-II), both orthonormal, in whole numbers of STEP, and only those are told that save more error
than their bits are worth (CN114125454A's reconstruction, fitted as in-loop filters are in VVC).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

from foveal import taps as taps_of

__all__ = ["PATTERNS", "STEP", "WAVES", "added", "chosen", "cost", "in_waves", "left"]

STEP = 1 / 64  # of a coefficient, in units of the layer's weights
PATTERNS = np.array([[1, 1, 1, 1], [1, 1, -1, -1], [1, -1, 1, -1], [1, -1, -1, 1]]) / 2
_WAVE = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])
WAVES = np.kron(_WAVE, _WAVE)  # (9, 9): each row a wave over the 3x3, row by row
TOLD_SHARE = (0.25, 0.09, 0.07, 0.015)  # of the coefficients of each pattern, about, on the training clips
SWEEPS = 8  # at most, over the coefficients

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@cache
def _bits(channels: int) -> Floats:
    """About what each coefficient costs by how far it goes, (36 x channels, 256)."""
    far = np.arange(256)
    out = []
    for share in TOLD_SHARE:
        told = 2 - math.log2(share) + 2 * np.floor(np.log2(np.maximum(far, 1)))
        out.append(np.where(far == 0, -math.log2(1 - share), told))
    return np.repeat(np.array(out), 9 * channels, 0)


def added(coefficients: Sequence[int]) -> NDArray[np.float32]:
    """Coefficients (36 x channels) -> what to add to the weights of luma (4, channels, 3, 3)."""
    told = np.asarray(coefficients, np.float64).reshape(4, -1, 9) * STEP
    weights = np.einsum("ai,acw,wk->ick", PATTERNS, told, WAVES)
    return np.asarray(weights.reshape(4, -1, 3, 3), np.float32)


def cost(coefficients: Ints, before: Ints) -> float:
    """Bits of ``coefficients`` after those ``before``, about."""
    far = np.abs(coefficients - before)
    return float(np.take_along_axis(_bits(len(far) // 36), far[:, None], 1).sum())


def left(a: Floats, b: Floats, coefficients: Ints) -> float:
    """z a z - 2 b z of coefficients z times STEP: what they leave of the error, less what is there without them."""
    z = coefficients * STEP
    return float(z @ a @ z - 2 * b @ z)


def in_waves(inputs: Floats, crossed: Floats) -> tuple[Floats, Floats]:
    """Sums of products in the layer's inputs -> in coefficients.

    ``inputs`` (9C, 9C): of the inputs with one another; ``crossed`` (4, n, 9C): of n features of each of the four samples
    with them. -> (9C, 9C), the same for each pattern, and (n, 36C).
    """
    channels = len(inputs) // 9
    square = np.einsum("xk,ckdl,yl->cxdy", WAVES, inputs.reshape(channels, 9, channels, 9), WAVES, optimize=True)
    cross = np.einsum("ai,incl,yl->nacy", PATTERNS, crossed.reshape(4, -1, channels, 9), WAVES, optimize=True)
    return square.reshape(inputs.shape), cross.reshape(crossed.shape[1], -1)


def chosen(a: Floats, b: Floats, before: Ints, price: float) -> Ints:
    """Coefficients z, times STEP, of about least z a z - 2 b z + ``price`` x bits after those ``before``.

    From ``before`` on, those that promise most first, each is set to its best in turn, until none moves; those that cannot
    win their bits are passed over.
    """
    bits, diagonal = _bits(len(b) // 36), np.maximum(np.diag(a), 1e-30)
    least = price * (bits[:, 1] - bits[:, 0])
    z = before.copy()
    slope = a @ (z * STEP) - b
    for _ in range(SWEEPS):
        wins = slope * slope / diagonal
        tried = np.flatnonzero((wins > least) | (z != before))
        moved = False
        for k in tried[np.argsort(-wins[tried], kind="stable")]:
            best = z[k] - slope[k] / diagonal[k] / STEP
            ways = np.array([z[k], before[k], math.floor(best), math.ceil(best)])
            ways = ways.clip(taps_of.LOWEST, taps_of.HIGHEST).astype(np.int64)
            change = (ways - z[k]) * STEP
            spent = price * bits[k, np.abs(ways - before[k])]
            way = ways[int(np.argmin(2 * slope[k] * change + diagonal[k] * change * change + spent))]
            if way != z[k]:
                slope += a[:, k] * ((way - z[k]) * STEP)
                z[k], moved = way, True
        if not moved:
            break
    return z
