"""Resampling: agrees with Pillow inside, keeps flat fields and ramps, chroma stays beside its luma, numpy equals torch."""

import itertools

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.errors import InputError
from foveal.video import resize
from foveal.video.types import Planes

FILTERS = {"lanczos": Image.Resampling.LANCZOS, "bicubic": Image.Resampling.BICUBIC}


def matrix(n_in, n_out, kernel="lanczos"):
    """The whole operator of one axis, (n_out, n_in)."""
    whole = np.zeros((n_out, n_in), np.float32)
    for b in resize.bands(n_in, n_out, kernel):
        whole[b.start : b.stop, b.first : b.last] = b.weights
    return whole


def planes(width, height, bits=8, seed=0):
    random = np.random.default_rng(seed)
    kind, top = (np.uint8, 256) if bits == 8 else (np.uint16, 1024)
    small = (resize.half(height), resize.half(width))
    return Planes(*(random.integers(0, top, size).astype(kind) for size in ((height, width), small, small)))


@pytest.mark.parametrize("kernel", resize.KERNELS)
@pytest.mark.parametrize(
    ("n_in", "n_out"), [(48, 24), (24, 48), (50, 33), (33, 50), (17, 17), (200, 130), (1, 5), (7, 1)]
)
def test_bands_cover_all_and_rows_sum_to_one(kernel, n_in, n_out):
    found = resize.bands(n_in, n_out, kernel)
    assert [(a.stop, b.start) for a, b in itertools.pairwise(found)] == [(b.start, b.start) for b in found[1:]]
    assert (found[0].start, found[-1].stop) == (0, n_out)
    assert all(b.weights.dtype == np.float32 for b in found)
    np.testing.assert_allclose(matrix(n_in, n_out, kernel).sum(1), 1, atol=1e-6)


def test_same_size_is_the_identity():
    for kernel in resize.KERNELS:
        np.testing.assert_allclose(matrix(19, 19, kernel), np.eye(19), atol=1e-7)
    given = planes(38, 22)
    same = resize.resize_planes(given, 38, 22)
    assert all((a == b).all() for a, b in zip(vars(given).values(), vars(same).values(), strict=True))


@pytest.mark.parametrize("kernel", FILTERS)
@pytest.mark.parametrize("size", [(40, 30), (160, 120), (53, 41)])
def test_agrees_with_pillow_away_from_the_border(kernel, size):
    luma = planes(80, 60).y.astype(np.float32)
    theirs = np.asarray(Image.fromarray(luma).resize(size, FILTERS[kernel]))
    ours = resize.resize_array(luma, resize.bands(60, size[1], kernel), resize.bands(80, size[0], kernel))
    edge = 8 * max(1, size[0] // 80)
    np.testing.assert_allclose(ours[edge:-edge, edge:-edge], theirs[edge:-edge, edge:-edge], atol=1e-2)


def test_area_is_the_mean_of_what_is_covered():
    x = np.arange(12, dtype=np.float32)[None]
    np.testing.assert_allclose(matrix(12, 4, "area") @ x[0], [1, 4, 7, 10], atol=1e-6)
    np.testing.assert_allclose(matrix(3, 2, "area"), [[2 / 3, 1 / 3, 0], [0, 1 / 3, 2 / 3]], atol=1e-6)


@pytest.mark.parametrize(("width", "height"), [(32, 24), (31, 23), (96, 71)])
@pytest.mark.parametrize("bits", [8, 10])
def test_flat_pictures_stay_flat_and_keep_their_bits(width, height, bits):
    given = planes(64, 47, bits)
    for plane, value in zip((given.y, given.u, given.v), (201, 90, 33), strict=True):
        plane[:] = value
    out = resize.resize_planes(given, width, height)
    assert out.bits == bits and out.y.shape == (height, width)
    assert out.u.shape == out.v.shape == ((height + 1) // 2, (width + 1) // 2)
    assert (out.y == 201).all() and (out.u == 90).all() and (out.v == 33).all()


def test_results_are_clamped():
    given = planes(64, 48)
    given.y[:, :32], given.y[:, 32:] = 0, 255
    up = resize.resize_planes(given, 128, 96).y
    assert up.min() == 0 and up.max() == 255 and up.dtype == np.uint8


@pytest.mark.parametrize("location", [0, 1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("size", [(60, 40), (160, 100), (240, 160), (80, 54)])
def test_a_ramp_in_chroma_stays_where_the_ramp_in_luma_is(location, size):
    """Luma is its own column (or row) number, chroma the luma coordinate of each of its samples. After resampling chroma
    must still hold what luma holds at its place; a siting that is forgotten would be off by 0.2 or more."""
    across, down = resize.phases(location)
    y, x = np.mgrid[:100, :160].astype(np.float32)
    small = np.mgrid[:50, :80].astype(np.float32)
    u, v = (2 * small[1] + 2 * across - 0.5), (2 * small[0] + 2 * down - 0.5)
    for luma, chroma, axis, phase in ((x, u, 1, across), (y, v, 0, down)):
        to_y, to_c, _ = resize.resize_tensors(
            *(torch.from_numpy(p) for p in (luma, chroma, chroma)), *size, chroma_location=location
        )
        along, beside = (t.numpy().mean(1 - axis) for t in (to_y, to_c))
        place = 2 * np.arange(len(beside)) + 2 * phase - 0.5
        inside = slice(6, -6)
        np.testing.assert_allclose(beside[inside], np.interp(place, np.arange(len(along)), along)[inside], atol=6e-2)


def test_down_and_up_by_a_ratio_is_aligned_at_odd_sizes():
    """71 lines reduced to 36 by exactly 2 and brought back by 1/2 lie where they lay."""
    y, x = np.mgrid[:71, :93]
    luma = (128 + 60 * np.sin(x / 9) + 50 * np.cos(y / 7)).round().astype(np.uint8)
    given = Planes(luma, *(np.full((36, 47), 128, np.uint8) for _ in range(2)))
    small = resize.resize_planes(given, 47, 36, ratio=2)
    back = resize.resize_planes(small, 93, 71, ratio=0.5)
    assert back.y.shape == (71, 93)
    assert np.abs(back.y.astype(int) - luma)[6:-6, 6:-6].max() <= 2


@pytest.mark.parametrize("size", [(40, 30), (120, 90), (90, 68)])
def test_tensors_and_planes_agree(size):
    given = planes(80, 60, 10)
    exact = resize.resize_tensors(*(torch.from_numpy(p.astype(np.float32)) for p in (given.y, given.u, given.v)), *size)
    rounded = resize.resize_planes(given, *size)
    for a, b in zip(exact, (rounded.y, rounded.u, rounded.v), strict=True):
        assert (a.clamp(0, 1023).numpy() - b).max() <= 0.501 and a.shape == b.shape


def test_tensors_pass_gradients_and_batches():
    x = torch.rand(2, 1, 20, 30, requires_grad=True)
    out = resize.resize_tensor(x, resize.bands(20, 40), resize.bands(30, 60))
    assert out.shape == (2, 1, 40, 60)
    out.sum().backward()
    assert x.grad is not None and x.grad.sum().item() == pytest.approx(out.numel(), rel=1e-4)


@pytest.mark.parametrize(
    "bad", [(0, 4, "lanczos", None), (4, 0, "lanczos", None), (4, 4, "sinc", None), (4, 4, "area", -1.0)]
)
def test_bad_sizes_and_kernels_are_refused(bad):
    with pytest.raises(InputError, match="resample"):
        resize.bands(*bad[:3], ratio=bad[3])
