"""How far a decoded picture is from its original: PSNR in dB, and MS-SSIM."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from foveal.errors import InputError

__all__ = ["ms_ssim", "ms_ssim_db", "psnr_db"]

Plane = NDArray[np.floating[Any]]

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli and Bovik 2003, section 3.2
WINDOW = 11  # taps of the Gaussian
SIGMA = 1.5  # its standard deviation, pixels
C1 = (0.01 * 255) ** 2
C2 = (0.03 * 255) ** 2


def psnr_db(reference: ArrayLike, test: ArrayLike) -> float:
    """Peak signal-to-noise ratio in dB of two 8-bit pictures of one shape, (H, W) or (H, W, C).

    The squared error is averaged over all pixels and channels before the logarithm. Equal pictures give inf.
    Raises InputError when the shapes differ.
    """
    a, b = _pair(reference, test)
    mse = float(np.mean(np.square(a - b)))
    return math.inf if mse == 0 else 10 * math.log10(255**2 / mse)


def ms_ssim(reference: ArrayLike, test: ArrayLike, *, single: bool = False) -> float:
    """Multi-scale structural similarity of two 8-bit pictures of one shape, (H, W) or (H, W, C); 1 = equal.

    Wang, Simoncelli and Bovik, "Multi-scale structural similarity for image quality assessment", 2003: an
    11-tap Gaussian window of sigma 1.5 applied where it fits ("valid"), 2x2 means between the scales (an odd
    last row or column is left out), contrast times structure at each scale and luminance at the last.
    Computed per channel, then averaged over the channels, as the PyPI package pytorch_msssim does.

    Five scales need both sides >= 176. A smaller picture gets as many scales as keep its smaller side >= 11,
    at least one, with the weights of those scales scaled up to the sum of all five (1.0001 as published);
    where a side is below 11, the window is cut to that side. Such values compare only with values of
    pictures of the same size. `single` computes in 32-bit floats, in half the time and within 1e-5.
    Raises InputError when the shapes differ.
    """
    a, b = _pair(reference, test)
    if single:
        a, b = a.astype(np.float32), b.astype(np.float32)
    channels = [_ms_ssim_plane(a[..., c], b[..., c]) for c in range(a.shape[2])]
    return float(np.mean(channels))


def ms_ssim_db(value: float) -> float:
    """MS-SSIM on a scale whose steps are even to the eye: -10 log10(1 - value), in dB; inf for 1."""
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def _pair(reference: ArrayLike, test: ArrayLike) -> tuple[Plane, Plane]:
    """Both pictures as float64 (H, W, C) arrays."""
    a, b = np.asarray(reference, np.float64), np.asarray(test, np.float64)
    if a.shape != b.shape or a.ndim not in (2, 3) or a.size == 0:
        raise InputError(f"cannot compare pictures of shapes {a.shape} and {b.shape}; give two of the same size")
    return np.atleast_3d(a), np.atleast_3d(b)


def _ms_ssim_plane(a: Plane, b: Plane) -> float:
    """MS-SSIM of one channel, (H, W)."""
    weights = np.array(SCALE_WEIGHTS[: _scales(min(a.shape))])
    factors = []
    for scale in range(len(weights)):
        similarity, contrast = _ssim_plane(a, b)
        last = scale == len(weights) - 1
        factors.append(max(similarity if last else contrast, 0.0))
        a, b = _halve(a), _halve(b)
    share = weights.sum() / sum(SCALE_WEIGHTS)  # 1 with all five, whose published weights sum to 1.0001
    return float(np.prod(np.array(factors) ** (weights / share)))


def _scales(side: int) -> int:
    """How many scales a picture of this smaller side carries: 1..5."""
    return max(1, sum(side >> scale >= WINDOW for scale in range(len(SCALE_WEIGHTS))))


def _ssim_plane(a: Plane, b: Plane) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term of one channel at one scale."""
    mean_a, mean_b = _blur(a), _blur(b)
    square_a, square_b, product = mean_a * mean_a, mean_b * mean_b, mean_a * mean_b
    variance = _blur(a * a + b * b) - square_a - square_b  # of a plus of b: the formula needs only the sum
    covariance = _blur(a * b) - product
    contrast = (2 * covariance + C2) / (variance + C2)
    luminance = (2 * product + C1) / (square_a + square_b + C1)
    return float(np.mean(luminance * contrast)), float(np.mean(contrast))


def _blur(plane: Plane) -> Plane:
    """The Gaussian window over rows and columns, only where it fits whole."""
    return _blur_rows(np.ascontiguousarray(_blur_rows(plane).T)).T


def _blur_rows(plane: Plane) -> Plane:
    """The window down the first axis: (H, W) -> (H - taps + 1, W)."""
    taps = _window(min(WINDOW, plane.shape[0]))
    length = plane.shape[0] - len(taps) + 1
    total: Plane = plane.dtype.type(taps[0]) * plane[:length]
    part = np.empty_like(total)
    for k in range(1, len(taps)):
        total += np.multiply(plane[k : k + length], plane.dtype.type(taps[k]), out=part)
    return total


def _window(taps: int) -> Plane:
    """A Gaussian of so many taps, sum 1."""
    offsets = np.arange(taps) - (taps - 1) / 2
    weights = np.exp(-np.square(offsets) / (2 * SIGMA**2))
    return np.asarray(weights / weights.sum())


def _halve(plane: Plane) -> Plane:
    """Means of 2x2 pixels, (H, W) -> (H // 2, W // 2)."""
    height, width = plane.shape[0] // 2 * 2, plane.shape[1] // 2 * 2
    rows = plane[0:height:2] + plane[1:height:2]
    return np.asarray((rows[:, 0:width:2] + rows[:, 1:width:2]) / 4)
