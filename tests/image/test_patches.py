"""Pixels to patches and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.image.patches import PATCH, grid, join, pad, split


@given(st.integers(1, 70), st.integers(1, 70))
def test_join_inverts_split(height, width):
    rgb = np.arange(height * width * 3, dtype=np.int64).reshape(height, width, 3) % 251
    rgb = rgb.astype(np.uint8)
    h, w = grid(height, width)
    tokens = split(rgb)
    assert tokens.shape == (h * w, 768) and tokens.dtype == np.uint8
    image = tokens.reshape(h, w, 3, PATCH, PATCH).transpose(0, 3, 1, 4, 2).reshape(h * PATCH, w * PATCH, 3)
    assert (join(image, height, width) == rgb).all()


def test_a_patch_is_one_token():
    rgb = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    tokens = split(rgb)
    assert (tokens[1 * 4 + 2].reshape(3, 16, 16) == rgb[16:32, 32:48].transpose(2, 0, 1)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 15, 16, 17, 31, 33])
def test_edges_are_mirrored(size):
    line = np.arange(size)[:, None]
    padded = pad(line)[:, 0]
    period = max(2 * size - 2, 1)
    mirror = [min(i % period, period - i % period) if size > 1 else 0 for i in range(len(padded))]
    assert len(padded) % PATCH == 0 and len(padded) - size < PATCH
    assert padded.tolist() == mirror


def test_grid_covers_the_image():
    assert grid(1, 1) == (1, 1) and grid(16, 17) == (1, 2) and grid(65_535, 32) == (4096, 2)
