"""Other samplings and depths to 4:2:0."""

from __future__ import annotations

import numpy as np
import pytest

from foveal.video.sampling import lost, planar, to_420


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("yuv420p", ("420", 8)),
        ("yuvj444p", ("444", 8)),
        ("yuv422p12le", ("422", 12)),
        ("gray", ("mono", 8)),
        ("gray10le", ("mono", 10)),
        ("rgb24", None),
        ("nv12", None),
        ("yuva420p", ("420", 8)),
        ("yuyv422", None),
    ],
)
def test_formats_are_known_by_name(name: str, found: tuple[str, int] | None) -> None:
    assert planar(name) == found


def test_what_is_lost_is_said() -> None:
    assert lost("420", 8) == lost("mono", 10) == ""
    assert lost("444", 8) == "4:4:4 becomes 4:2:0"
    assert lost("422", 12) == "4:2:2 becomes 4:2:0 and 12 bits become 10"


@pytest.mark.parametrize("size", [(6, 8), (7, 9), (1, 1), (2, 1)])
@pytest.mark.parametrize("sampling", ["420", "422", "444", "mono"])
def test_constant_planes_keep_their_value_at_any_size(size: tuple[int, int], sampling: str) -> None:
    height, width = size
    half = ((height + 1) // 2, (width + 1) // 2)
    shape = {"444": size, "422": (height, half[1])}.get(sampling, half)
    given = [np.full(size, 90, np.uint8), np.full(shape, 30, np.uint8), np.full(shape, 201, np.uint8)]
    planes = to_420(given[: 1 if sampling == "mono" else 3], 8)
    assert planes.y.shape == size and planes.u.shape == planes.v.shape == half
    assert (planes.y == 90).all()
    assert (planes.u == (128 if sampling == "mono" else 30)).all()
    assert (planes.v == (128 if sampling == "mono" else 201)).all()


def test_chroma_is_taken_at_its_place() -> None:
    """A slope stays a slope: across at even columns (left siting), down between two lines."""
    y, x = np.mgrid[:8, :12]
    slope = (10 * x + 4 * y).astype(np.uint8)
    planes = to_420([np.zeros((8, 12), np.uint8), slope, slope], 8)
    across, down = np.arange(6)[1:] * 2, np.arange(4) * 2 + 0.5
    assert np.array_equal(planes.u[:, 1:], 10 * across[None] + 4 * down[:, None])


def test_depths_become_8_or_10_bits() -> None:
    ramp = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    chroma = np.zeros((32, 32), np.uint16)
    twelve = to_420([ramp, chroma, chroma], 12)
    assert twelve.bits == 10 and twelve.y.max() == 1023
    assert np.abs(twelve.y - ramp / 4.0).max() <= 1
    nine = to_420([ramp % 512, chroma, chroma], 9)
    assert np.array_equal(nine.y, ramp % 512 * 2)


@pytest.mark.parametrize("depth", [9, 10, 12, 16])
def test_samples_beyond_the_depth_are_the_largest_there_is(depth: int) -> None:
    white = np.full((4, 4), min(1 << depth, 65535), np.uint16)
    assert (to_420([white, white[:2, :2], white[:2, :2]], depth).y == (1022 if depth == 9 else 1023)).all()


def test_the_result_is_its_own() -> None:
    given = [np.zeros((4, 4), np.uint8), np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)]
    planes = to_420(given, 8)
    given[0][:] = 9
    given[1][:] = 9
    assert not planes.y.any() and not planes.u.any()
