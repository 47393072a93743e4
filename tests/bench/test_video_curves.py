"""BD-rate, gain at equal bits and crossover of clips, on curves whose answers are known."""

from __future__ import annotations

import math

import pytest

from foveal.bench import video_curves as vc
from foveal.bench.video_curves import VideoCurve


def curve(kbps: list[float], quality: list[float], variant: str = "x") -> VideoCurve:
    return VideoCurve(variant, tuple(kbps), dict.fromkeys(vc.METRICS, tuple(quality)))


RATES = [50.0, 100.0, 200.0, 400.0]


def test_curves_are_of_one_clip_and_codec_by_rising_rate(video_point) -> None:
    points = [video_point("a", "full", crf, 1000 / crf, 60 - crf) for crf in (20, 30, 40)]
    points += [video_point("b", "full", 20, 9, 9), video_point("a", "full", 20, 9, 9, codec="x265")]
    points += [video_point("a", "full", 30, 9, 9, part="start"), video_point("a", "S", 30, 7, 8)]
    found = vc.clip_curves(points, "a", "x264")
    assert list(found) == ["full", "S"]
    assert found["full"].kbps == (25, 1000 / 30, 50)
    assert found["full"].quality["psnr_y"] == (20, 30, 40)


def test_half_the_bits_are_fifty_percent_less() -> None:
    quality = [28.0, 31, 34, 36]
    full, half = curve(RATES, quality), curve([rate / 2 for rate in RATES], quality)
    assert vc.bd_rate(full, half, "psnr_y") == pytest.approx(-50)
    assert vc.bd_rate_to_best([full, half], half, "psnr_y") == pytest.approx(0, abs=1e-9)
    assert vc.bd_rate_to_best([full], half, "psnr_y") == pytest.approx(-50)
    assert vc.bd_rate_to_best([full, half], full, "psnr_y") == pytest.approx(100)


def test_two_decibels_more_are_a_gain_of_two() -> None:
    low, high = curve(RATES, [28, 31, 34, 36]), curve(RATES, [30, 33, 36, 38])
    assert vc.gain(low, high, "vmaf") == pytest.approx(2)
    assert vc.gain(high, low, "vmaf") == pytest.approx(-2)


def test_a_gain_weighs_every_octave_alike() -> None:
    low = curve([100, 200, 400], [30, 31, 32])
    high = curve([100, 200, 400], [30, 32, 34])  # 0 at 100, 2 at 400, linear in log rate
    assert vc.gain(low, high, "psnr_y") == pytest.approx(1, abs=0.01)


def test_the_crossover_is_where_the_curves_meet() -> None:
    full, half = curve([50, 100, 200, 400], [26, 30, 34, 38]), curve([50, 100, 200, 400], [29, 31, 33, 35])
    assert vc.crossover(full, half, "psnr_y") == pytest.approx(100 * 2**0.5, rel=0.01)
    assert vc.crossover(half, full, "psnr_y") == math.inf
    better = curve([50, 400], [40, 50])
    assert vc.crossover(better, half, "psnr_y") == 0
    assert vc.crossover(full, better, "psnr_y") == math.inf


def test_curves_that_share_nothing_have_no_figures() -> None:
    low, high = curve([10, 20], [20, 22]), curve([100, 200], [30, 32])
    assert vc.bd_rate(low, high, "psnr_y") is None
    assert vc.gain(low, high, "psnr_y") is None
    assert vc.crossover(low, high, "psnr_y") is None
    assert vc.bd_rate_to_best([low], high, "psnr_y") is None
    assert vc.gain(low, curve([5], [4]), "psnr_y") is None


def test_the_better_of_two_is_taken_at_each_quality() -> None:
    """Anchors that cross: one is twice as dear above 34, the other below; always the dearer is 100 % worse."""
    first, second = (
        curve([100, 200, 400, 1600, 3200], [30, 32, 34, 36, 38]),
        curve([200, 400, 800, 800, 1600], [30, 32, 34, 36, 38]),
    )
    dear = curve([200, 400, 800, 1600, 3200], [30, 32, 34, 36, 38])
    found = vc.bd_rate_to_best([first, second], dear, "psnr_y")
    alone = vc.bd_rate_to_best([first], dear, "psnr_y")
    assert found is not None and alone is not None and found > alone > 0


def test_the_worst_point_is_the_least_difference_to_the_same_stream(video_point) -> None:
    points = [video_point("a", "lanczos", crf, 100, 30) for crf in (30, 40)]
    points += [
        video_point("a", "S", 30, 100, 31),
        video_point("a", "S", 40, 100, 29.9),
        video_point("b", "S", 40, 9, 1),
    ]
    assert vc.worst(points, "S", "x264") == (pytest.approx(-0.1), "a", 40)
    assert vc.worst(points, "M", "x264") is None


def test_means_leave_out_what_is_missing() -> None:
    assert vc.mean([1.0, None, 3.0]) == (2, 2)
    assert vc.mean([None]) is None
