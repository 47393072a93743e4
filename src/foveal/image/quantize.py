"""Latents <-> symbols: quantiser steps of every level, and rate-distortion optimised rounding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from foveal.header import MAX_LEVEL

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
CLASS_LEVELS = 64  # one class finer, in sixteenths
LAMBDA_MIN = 0.0004  # at level 0; doubles every 8 levels
CARE = 1.8  # times its squared error is what a rounding costs: later slices are predicted from it (docs/LOG.md)
SYMBOL_MAX = 2040  # 64 * 2040 stays inside the prior's value range


def level_of(quality: float) -> int:
    """Quality 0..100 -> level in sixteenths, 0..1264."""
    return round(min(max(quality, 0.0), 100.0) * MAX_LEVEL / 100)


def class_levels(level: int) -> list[int]:
    """Level of every class in sixteenths. A dropped patch (class 0) has the image's."""
    return [min(level + CLASS_LEVELS * max(c - 1, 0), MAX_LEVEL) for c in range(4)]


def rate_weight(level: int) -> float:
    """lambda: bits per unit of squared latent error (a latent error e costs e^2 / 256 squared grey levels per pixel of its
    patch, and the loss is bits per pixel + lambda * squared error)."""
    return float(LAMBDA_MIN * 2.0 ** (level / 128))


def steps(ln_step: Floats, level: int) -> Floats:
    """ln_step (80, D) -> quantiser step of every channel (D,), interpolated between levels in the logarithm."""
    whole, part = divmod(min(max(level, 0), MAX_LEVEL), 16)
    upper = ln_step[min(whole + 1, len(ln_step) - 1)]
    out: Floats = np.exp(ln_step[whole] + (upper - ln_step[whole]) * (part / 16))
    return out


def plain(residual: Floats) -> Ints:
    """Nearest integer, half away from zero."""
    symbols = np.sign(residual) * np.floor(np.abs(residual) + 0.5)
    out: Ints = np.clip(symbols, -SYMBOL_MAX, SYMBOL_MAX).astype(np.int64)
    return out


def optimised(residual: Floats, index: Ints, weight: Floats, cost: Callable[[Ints, Ints], Floats]) -> Ints:
    """The symbol among {nearest, one nearer to zero, zero} with the least bits + weight * (residual - symbol)^2.

    residual (...) in steps, index (...) scale indices, weight (...) bits per squared step. Only symbols that round to
    non-zero are looked at. (Rate-distortion optimised quantisation as in H.264/HEVC encoders, context effects ignored.)
    """
    best = plain(residual)
    at = np.nonzero(best)
    r, i, w, s = residual[at], index[at], weight[at], best[at]
    least = cost(s, i) + w * (r - s) ** 2
    for candidate in (s - np.sign(s), np.zeros_like(s)):
        price = cost(candidate, i) + w * (r - candidate) ** 2
        s = np.where(price < least, candidate, s)
        least = np.minimum(price, least)
    best[at] = s
    return best
