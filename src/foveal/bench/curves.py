"""Rate-distortion curves: their mean over a set of pictures, and the distance between two of them.

The BD-rate (Bjontegaard, VCEG-M33, 2001) says how many percent more (or, negative, fewer) bits one codec
takes than another at equal quality. log(bits per pixel) is interpolated as a function of quality and
averaged over the range of quality that both curves reach:

    bd_rate = exp(mean over the range of [log rate_test(q) - log rate_anchor(q)]) - 1

The interpolation is PCHIP (Fritsch and Butland 1984), as in JCT-VC's and JVET's present tools: it does not
overshoot between points, which Bjontegaard's cubic through all of them does.

Example: a codec that always takes half the bits of the anchor at the same quality
>>> round(bd_rate([0.1, 0.2, 0.4], [28, 31, 34], [0.05, 0.1, 0.2], [28, 31, 34]), 6)
-50.0
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveal.bench.metrics import ms_ssim_db
from foveal.bench.results import Point
from foveal.errors import InputError

__all__ = ["Curve", "bd_rate", "bd_table", "complete_images", "image_curves", "mean_curves"]

Array = NDArray[np.float64]
Table = dict[str, dict[str, float | None]]

FIELDS = ("bpp", "psnr_db", "ms_ssim")


@dataclass(frozen=True)
class Curve:
    """One codec over its settings, by rising rate. Qualities are means of per-picture values."""

    label: str
    bpp: tuple[float, ...]
    psnr_db: tuple[float, ...]
    ms_ssim: tuple[float, ...]

    @property
    def ms_ssim_db(self) -> tuple[float, ...]:
        return tuple(ms_ssim_db(value) for value in self.ms_ssim)


def labels(points: Iterable[Point]) -> dict[tuple[str, str], str]:
    """(codec, options) -> the name to show: the codec's, with its options where a codec ran with several."""
    pairs = list(dict.fromkeys((point.codec, point.options) for point in points))
    codecs = [codec for codec, _ in pairs]
    return {pair: pair[0] if codecs.count(pair[0]) == 1 else f"{pair[0]} ({pair[1]})" for pair in pairs}


def complete_images(points: Sequence[Point]) -> list[str]:
    """The pictures for which every codec has every one of its settings; only these enter a mean curve."""
    settings: dict[tuple[str, str], set[float]] = {}
    done: dict[tuple[str, str, str], set[float]] = {}
    for point in points:
        settings.setdefault((point.codec, point.options), set()).add(point.setting)
        done.setdefault((point.image, point.codec, point.options), set()).add(point.setting)
    images = dict.fromkeys(point.image for point in points)
    return [image for image in images if all(done.get((image, *k), set()) == s for k, s in settings.items())]


def mean_curves(points: Sequence[Point]) -> dict[str, Curve]:
    """Label -> the mean curve: per setting, the mean rate and the mean quality over all complete pictures.

    Raises InputError when no picture is complete (a run that was broken off early).
    """
    images = set(complete_images(points))
    if not images:
        raise InputError("no picture has results for all codecs and settings; let the benchmark run to its end")
    return _curves([point for point in points if point.image in images])


def image_curves(points: Sequence[Point], image: str) -> dict[str, Curve]:
    """Label -> the curve of one picture."""
    return _curves([point for point in points if point.image == image])


def _curves(points: Sequence[Point]) -> dict[str, Curve]:
    names = labels(points)
    groups: dict[str, dict[float, list[Point]]] = {}
    for point in points:
        label = names[point.codec, point.options]
        groups.setdefault(label, {}).setdefault(point.setting, []).append(point)
    return {label: _curve(label, list(by_setting.values())) for label, by_setting in groups.items()}


def _curve(label: str, groups: list[list[Point]]) -> Curve:
    rows = sorted(tuple(_mean([getattr(p, name) for p in group]) for name in FIELDS) for group in groups)
    bpp, psnr_db, ms_ssim = zip(*rows, strict=True)
    return Curve(label, bpp, psnr_db, ms_ssim)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)


def bd_table(curves: dict[str, Curve], metric: str = "psnr_db") -> Table:
    """table[test][anchor] = BD-rate in percent of every codec against every codec; None where it has none.

    `metric` is "psnr_db" or "ms_ssim_db".
    """
    return {test: {anchor: _bd_or_none(curves[anchor], curves[test], metric) for anchor in curves} for test in curves}


def _bd_or_none(anchor: Curve, test: Curve, metric: str) -> float | None:
    try:
        return bd_rate(anchor.bpp, getattr(anchor, metric), test.bpp, getattr(test, metric))
    except InputError:
        return None


def bd_rate(
    anchor_rate: Sequence[float],
    anchor_quality: Sequence[float],
    rate: Sequence[float],
    quality: Sequence[float],
) -> float:
    """The rate of a codec against an anchor's at equal quality, in percent; negative = fewer bits.

    Rates in any one unit > 0, qualities in dB. Points that cost more without being better than a cheaper
    point, and points of infinite quality, are left out. Raises InputError with fewer than two points left
    on a curve or no common range of quality.
    """
    anchor_x, anchor_y = rising(anchor_rate, anchor_quality)
    test_x, test_y = rising(rate, quality)
    low, high = max(anchor_x[0], test_x[0]), min(anchor_x[-1], test_x[-1])
    if not low < high:
        ranges = f"{anchor_x[0]:.2f}..{anchor_x[-1]:.2f} and {test_x[0]:.2f}..{test_x[-1]:.2f}"
        raise InputError(f"no common range of quality: {ranges}; measure more settings")
    difference = _integral(test_x, test_y, low, high) - _integral(anchor_x, anchor_y, low, high)
    return 100 * math.expm1(difference / (high - low))


def rising(rate: Sequence[float], quality: Sequence[float]) -> tuple[Array, Array]:
    """Quality and log rate with both rising strictly, for use as x and y."""
    kept: list[tuple[float, float]] = []
    for r, q in sorted(zip(rate, quality, strict=True)):
        if math.isfinite(q) and (not kept or (r > kept[-1][0] and q > kept[-1][1])):
            kept.append((r, q))
    if len(kept) < 2:
        raise InputError(f"a curve of {len(kept)} point has no BD-rate; measure at least two settings")
    table = np.array(kept)
    return table[:, 1], np.log(table[:, 0])


def _integral(x: Array, y: Array, low: float, high: float) -> float:
    """Integral from `low` to `high` of the PCHIP interpolant through (x, y), exact for each cubic piece."""
    slopes, square, cube = cubics(x, y)

    def antiderivative(t: Array) -> Array:
        return t * (y[:-1] + t * (slopes / 2 + t * (square / 3 + t * cube / 4)))

    start, stop = (np.clip(limit - x[:-1], 0, np.diff(x)) for limit in (low, high))
    return float(np.sum(antiderivative(stop) - antiderivative(start)))


def cubics(x: Array, y: Array) -> tuple[Array, Array, Array]:
    """The PCHIP interpolant through (x, y): of each piece the factors of t, t^2 and t^3, t = 0 at its beginning."""
    h, slopes = np.diff(x), _slopes(x, y)
    delta = np.diff(y) / h
    square = (3 * delta - 2 * slopes[:-1] - slopes[1:]) / h
    return slopes[:-1], square, (slopes[:-1] + slopes[1:] - 2 * delta) / h**2


def _slopes(x: Array, y: Array) -> Array:
    """Slopes at the points that keep every piece monotone (Fritsch and Butland 1984, equation 3)."""
    h = np.diff(x)
    delta = np.diff(y) / h
    if len(delta) == 1:
        return np.repeat(delta, 2)
    w1, w2 = 2 * h[1:] + h[:-1], h[1:] + 2 * h[:-1]
    inner = (w1 + w2) / (w1 / delta[:-1] + w2 / delta[1:])  # every delta > 0 here
    first = _end_slope(h[0], h[1], delta[0], delta[1])
    last = _end_slope(h[-1], h[-2], delta[-1], delta[-2])
    return np.concatenate([[first], inner, [last]])


def _end_slope(h0: float, h1: float, delta0: float, delta1: float) -> float:
    """The one-sided three-point slope, not below 0."""
    return max(0.0, ((2 * h0 + h1) * delta0 - h0 * delta1) / (h0 + h1))
