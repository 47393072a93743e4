"""Efforts 6 to 9: latents refined against the decoder's pixels."""

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal.image import quantize


@pytest.fixture(scope="module")
def crop(request):
    with Image.open(request.config.rootpath / "demo" / "dog.png") as image:
        return np.asarray(image.convert("RGB"))[200:360, 150:342]


def cost(rgb, **options):
    """Bits per pixel + lambda * squared error, of the decoded file."""
    data = foveal.compress(rgb, keep="all", **options)
    level = quantize.level_of(options["quality"])
    error = np.square(np.asarray(foveal.decompress(data)).astype(float) - rgb).mean()
    return 8 * len(data) / (rgb.size / 3) + quantize.rate_weight(level) * error


@pytest.mark.parametrize("quality", [50, 80])
def test_refinement_lowers_rate_plus_distortion(crop, quality):
    plain, optimised, refined = (cost(crop, quality=quality, effort=e) for e in (3, 4, 8))
    assert refined < min(optimised, plain)


def test_refinement_leaves_dropped_patches_out(crop):
    mask = np.zeros((10, 12), bool)
    mask[:, 6:] = True
    data = foveal.compress(crop, mask=mask, effort=6)
    assert foveal.inspect(data).dropped == 60
    assert foveal.decompress(data).size == (192, 160)
