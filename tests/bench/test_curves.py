from __future__ import annotations

from collections.abc import Callable

import pytest

from foveal.bench.curves import bd_rate, bd_table, complete_images, image_curves, mean_curves
from foveal.bench.results import Point
from foveal.errors import InputError

JPEG = ([0.268, 0.458, 0.865, 1.768], [26.67, 29.14, 32.17, 36.46])
AVIF = (
    [0.122, 0.187, 0.305, 0.490, 0.720, 1.009, 1.542],
    [27.42, 28.79, 30.60, 32.70, 34.55, 36.43, 38.92],
)
BENT = ([0.1, 0.11, 0.5, 0.52, 2.0], [25.0, 30.0, 30.1, 35.0, 35.5])  # slopes that differ tenfold


@pytest.mark.parametrize(("anchor", "test"), [(JPEG, AVIF), (AVIF, JPEG), (JPEG, BENT), (BENT, AVIF)])
def test_bd_rate_agrees_with_the_package_bjontegaard(
    anchor: tuple[list[float], list[float]], test: tuple[list[float], list[float]]
) -> None:
    theirs = pytest.importorskip("bjontegaard")
    expected = theirs.bd_rate(*anchor, *test, method="pchip", require_matching_points=False, min_overlap=0)
    assert bd_rate(*anchor, *test) == pytest.approx(expected, rel=1e-9)


def test_bd_rate_of_known_curves() -> None:
    rate, psnr = JPEG
    assert bd_rate(*JPEG, *JPEG) == pytest.approx(0)
    assert bd_rate(rate, psnr, [r / 2 for r in rate], psnr) == pytest.approx(-50)
    assert bd_rate(rate, psnr, [3 * r for r in rate], psnr) == pytest.approx(200)
    assert bd_rate([1, 4], [30, 40], [2, 2 * 4**0.5], [30, 35]) == pytest.approx(100)  # two points: straight lines


def test_points_that_cost_more_without_being_better_are_left_out() -> None:
    rate, psnr = JPEG
    with_bad = ([*rate, 0.5, 3.0], [*psnr, 28.0, float("inf")])
    assert bd_rate(*AVIF, *with_bad) == pytest.approx(bd_rate(*AVIF, *JPEG))


def test_no_common_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"20\.00\.\.25\.00"):
        bd_rate(*JPEG, [0.1, 0.2], [20, 25])
    with pytest.raises(InputError, match="1 point"):
        bd_rate(*JPEG, [0.1], [30])


def test_mean_curves_and_table(points: list[Point]) -> None:
    curves = mean_curves(points)
    assert curves["jpeg"].bpp == pytest.approx((0.25, 0.5, 1.0, 2.0))
    assert curves["jpeg"].psnr_db == pytest.approx((27, 30, 33, 36.5))
    table = bd_table(curves)
    assert table["half"]["jpeg"] == pytest.approx(-50)
    assert table["jpeg"]["half"] == pytest.approx(100)
    assert bd_table(curves, "ms_ssim_db")["half"]["jpeg"] == pytest.approx(-50)


def test_a_table_has_a_gap_where_curves_do_not_meet(points: list[Point], point: Callable[..., Point]) -> None:
    far = [point(image, "far", s, 1 + s, 50 + s) for image in ("a.png", "b.png") for s in (0, 1)]
    assert bd_table(mean_curves(points + far))["far"]["jpeg"] is None


def test_pictures_that_are_not_through_every_setting_are_left_out(points: list[Point]) -> None:
    broken_off = points[:-1]  # the last is of b.png
    assert complete_images(broken_off) == ["a.png"]
    assert mean_curves(broken_off)["jpeg"].bpp == pytest.approx((0.2, 0.4, 0.8, 1.6))
    assert len(image_curves(broken_off, "b.png")["half"].bpp) == 3
    with pytest.raises(InputError, match="no picture"):
        mean_curves([point for point in broken_off if (point.image == "a.png") == (point.codec == "jpeg")])


def test_one_codec_with_two_options_makes_two_curves(points: list[Point], point: Callable[..., Point]) -> None:
    fast = [point(p.image, "half", p.setting, p.bpp, p.psnr_db, options="fast") for p in points if p.codec == "half"]
    assert list(mean_curves(points + fast)) == ["jpeg", "half (plain)", "half (fast)"]
