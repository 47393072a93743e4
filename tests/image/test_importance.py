"""The patent's steps: gradient, mean per patch, sort, threshold; and its compression ratio."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from foveal.errors import InputError
from foveal.image.importance import by_alpha, by_mask, by_share, by_threshold, gradient, patch_means, ratio

MEANS = np.array([[1.0, 5.0, 3.0], [3.0, 0.0, 2.0]], np.float32)


def test_gradient_is_the_sobel_operator_of_torch(photo):
    luma = torch.from_numpy(photo).double() @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    padded = torch.nn.functional.pad(luma[None, None], (1, 1, 1, 1), mode="replicate")
    kernel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=torch.float64)
    both = torch.nn.functional.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])[0]
    expected = both.square().sum(0).sqrt().numpy() / 8
    found = gradient(photo)
    assert found.dtype == np.float32 and found.shape == photo.shape[:2]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_gradient_is_in_grey_levels_per_pixel():
    slope = np.repeat(np.arange(0, 250, 5, dtype=np.uint8)[None, :, None], 3, 2).repeat(20, 0)
    np.testing.assert_allclose(gradient(slope)[:, 1:-1], 5.0, rtol=1e-5)
    assert gradient(np.full((1, 1, 3), 200, np.uint8)).max() < 1e-4


@given(st.integers(1, 40), st.integers(1, 40))
def test_means_are_over_a_patch_s_own_pixels(height, width):
    values = np.random.default_rng(height * 41 + width).random((height, width)).astype(np.float32)
    means = patch_means(values)
    expected = [[values[y : y + 16, x : x + 16].mean() for x in range(0, width, 16)] for y in range(0, height, 16)]
    np.testing.assert_allclose(means, expected, rtol=1e-5)


def test_share_keeps_the_highest_and_breaks_ties_in_raster_order():
    classes, threshold = by_share(MEANS, 0.5)
    assert classes.tolist() == [[0, 1, 1], [1, 0, 0]] and threshold == 3.0
    classes, threshold = by_share(MEANS, 2 / 6)
    assert classes.tolist() == [[0, 1, 1], [0, 0, 0]] and threshold == 3.0
    assert by_share(MEANS, 1)[0].all()
    assert by_share(MEANS, 1e-6)[0].sum() == 1


@pytest.mark.parametrize("share", [0, -0.1, 1.01, math.nan])
def test_share_out_of_range(share):
    with pytest.raises(InputError, match="keep"):
        by_share(MEANS, share)


def test_threshold_is_inclusive():
    assert by_threshold(MEANS, 3).tolist() == [[0, 1, 1], [1, 0, 0]]
    assert by_threshold(MEANS, 0).all() and not by_threshold(MEANS, 99).any()
    for bad in (-1, math.nan):
        with pytest.raises(InputError, match="threshold"):
            by_threshold(MEANS, bad)


@given(st.integers(1, 30), st.integers(1, 30), st.floats(1, 50))
def test_alpha_is_the_patents_ratio(rows, columns, alpha):
    """With m^2 patches of which p are dropped, alpha = m^2 / (m^2 - p); the grid rounds p to a whole number."""
    means = np.random.default_rng(1).random((rows, columns)).astype(np.float32)
    classes, _ = by_alpha(means, alpha)
    kept = int(classes.sum())
    assert (kept >= 1 and abs(kept - classes.size / alpha) <= 0.5 + 1e-9) or kept == 1
    assert ratio(classes.size, classes.size - kept) == classes.size / kept


def test_ratio_of_nothing_left():
    assert ratio(12, 0) == 1 and ratio(12, 9) == 4 and ratio(12, 12) == math.inf
    with pytest.raises(InputError, match="alpha"):
        by_alpha(MEANS, 0.99)


def test_mask_of_the_pictures_size():
    mask = np.zeros((40, 33), np.uint8)
    mask[16, 31] = 1
    mask[39, 32] = 255
    assert by_mask(mask, 40, 33).tolist() == [[0, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert (by_mask(mask != 0, 40, 33) == by_mask(np.repeat(mask[..., None], 3, 2), 40, 33)).all()


def test_mask_of_the_grids_size_holds_classes():
    classes = np.array([[0, 1, 2], [3, 0, 1]])
    assert by_mask(classes, 32, 48).tolist() == classes.tolist()
    assert by_mask(classes > 0, 32, 48).tolist() == (classes > 0).tolist()
    for bad in (classes + 1, classes - 1):
        with pytest.raises(InputError, match="class"):
            by_mask(bad, 32, 48)


@pytest.mark.parametrize("shape", [(3, 3), (48, 32), (5,), (1, 2, 3, 4)])
def test_mask_of_another_size(shape):
    with pytest.raises(InputError, match="mask"):
        by_mask(np.zeros(shape, np.uint8), 32, 48)
