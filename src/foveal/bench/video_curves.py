"""Rate and quality of whole clips: BD-rate, the gain at equal bits, and the rate from which full resolution is better.

Curves are per clip and codec, quality over log kbit/s, interpolated by PCHIP as in curves. Means over clips are means
of their figures, as in JVET's common test conditions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from foveal.bench import curves
from foveal.bench.video_results import Point
from foveal.errors import InputError

__all__ = ["METRICS", "VideoCurve", "bd_rate", "bd_rate_to_best", "clip_curves", "crossover", "gain", "mean", "worst"]

Array = NDArray[np.float64]

METRICS = ("psnr_y", "ssim_y", "xpsnr_y", "vmaf", "vmaf_neg")
SAMPLES = 1001


@dataclass(frozen=True)
class VideoCurve:
    """One way of showing one clip, by rising rate; `quality` is metric -> values."""

    variant: str
    kbps: tuple[float, ...]
    quality: Mapping[str, tuple[float, ...]]


def clip_curves(points: Iterable[Point], clip: str, codec: str) -> dict[str, VideoCurve]:
    """Variant -> its curve, in the order of the points."""
    groups: dict[str, list[Point]] = {}
    for point in points:
        if (point.clip, point.codec, point.part) == (clip, codec, "clip"):
            groups.setdefault(point.variant, []).append(point)
    return {variant: _curve(variant, group) for variant, group in groups.items()}


def _curve(variant: str, points: list[Point]) -> VideoCurve:
    ordered = sorted(points, key=lambda point: point.kbps)
    quality = {name: tuple(float(getattr(point, name)) for point in ordered) for name in METRICS}
    return VideoCurve(variant, tuple(point.kbps for point in ordered), quality)


def bd_rate(anchor: VideoCurve, test: VideoCurve, metric: str) -> float | None:
    """Bits of `test` against `anchor` at equal quality, percent; None where the curves share no range of quality."""
    try:
        return curves.bd_rate(anchor.kbps, anchor.quality[metric], test.kbps, test.quality[metric])
    except InputError:
        return None


def gain(anchor: VideoCurve, test: VideoCurve, metric: str) -> float | None:
    """Quality of `test` above that of `anchor` at equal bits, mean over the log rates that both cover; None if none."""
    common = _common(anchor, test, metric)
    return None if common is None else float(np.mean(common[2] - common[1]))


def crossover(anchor: VideoCurve, test: VideoCurve, metric: str) -> float | None:
    """The lowest rate in kbit/s from which on `anchor` is at least as good as `test`.

    0.0 when it is so at all rates that both cover, inf when it is at none; None when they cover none.
    """
    common = _common(anchor, test, metric)
    if common is None:
        return None
    rates, first, second = common
    ahead = np.flatnonzero(second > first)  # where the test is better
    if not len(ahead):
        return 0.0
    last = int(ahead[-1])
    return math.inf if last == len(rates) - 1 else float(np.exp((rates[last] + rates[last + 1]) / 2))


def bd_rate_to_best(anchors: Sequence[VideoCurve], test: VideoCurve, metric: str) -> float | None:
    """Bits of `test` at equal quality against, at each quality, the cheapest of the anchors, percent."""
    try:
        x, y = curves.rising(test.kbps, test.quality[metric])
        others = [curves.rising(anchor.kbps, anchor.quality[metric]) for anchor in anchors]
    except InputError:
        return None
    low, high = max(x[0], min(o[0][0] for o in others)), min(x[-1], max(o[0][-1] for o in others))
    if not low < high:
        return None
    at = np.linspace(low, high, SAMPLES)
    inside = [np.where((at >= ox[0]) & (at <= ox[-1]), _interpolate(ox, oy, at), np.inf) for ox, oy in others]
    difference = _interpolate(x, y, at) - np.min(inside, axis=0)
    return 100 * math.expm1(float(np.mean(difference[np.isfinite(difference)])))


def _common(anchor: VideoCurve, test: VideoCurve, metric: str) -> tuple[Array, Array, Array] | None:
    """Log rates that both cover, and both qualities there."""
    try:
        (first_y, first_x), (second_y, second_x) = (
            curves.rising(curve.kbps, curve.quality[metric]) for curve in (anchor, test)
        )
    except InputError:
        return None
    low, high = max(first_x[0], second_x[0]), min(first_x[-1], second_x[-1])
    if not low < high:
        return None
    rates = np.linspace(low, high, SAMPLES)
    return rates, _interpolate(first_x, first_y, rates), _interpolate(second_x, second_y, rates)


def _interpolate(x: Array, y: Array, at: Array) -> Array:
    """The PCHIP interpolant through (x, y); beyond the ends the outer cubics go on."""
    piece = np.clip(np.searchsorted(x, at, side="right") - 1, 0, len(x) - 2)
    slope, square, cube = (factor[piece] for factor in curves.cubics(x, y))
    t = at - x[piece]
    return np.asarray(y[piece] + t * (slope + t * (square + t * cube)))


def worst(
    points: Iterable[Point], variant: str, codec: str, metric: str = "psnr_y", anchor: str = "lanczos"
) -> tuple[float, str, float] | None:
    """The smallest difference of a variant to the anchor at the same stream, with its clip and CRF; None without both."""
    own = [p for p in points if p.codec == codec and p.part == "clip"]
    plain = {(p.clip, p.crf): float(getattr(p, metric)) for p in own if p.variant == anchor}
    places = [(p, (p.clip, p.crf)) for p in own if p.variant == variant]
    found = [(float(getattr(p, metric)) - plain[place], *place) for p, place in places if place in plain]
    return min(found, default=None)


def mean(values: Iterable[float | None]) -> tuple[float, int] | None:
    """Mean of the values there are, and their number; None if there are none."""
    there = [value for value in values if value is not None]
    return (math.fsum(there) / len(there), len(there)) if there else None
