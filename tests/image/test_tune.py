"""What an error is worth where, and that files tuned for MS-SSIM are better by it."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

import foveal
from foveal.bench.metrics import ms_ssim
from foveal.image import importance


@pytest.fixture(scope="module")
def halves():
    """(192, 256, 3): soft clouds on the left, coarse noise on the right"""
    random = np.random.default_rng(3)
    clouds, noise = (gaussian_filter(random.normal(size=(192, 256)), s) for s in (6, 0.8))
    side = np.arange(256) < 128
    grey = np.where(side, 110 + 60 * clouds / clouds.std() / 6, 120 + 35 * noise / noise.std())
    return grey.clip(0, 255).round().astype(np.uint8)[..., None].repeat(3, 2)


def test_psnr_counts_every_error_alike(halves):
    assert (importance.worth(halves, "psnr") == 1).all()


def test_an_error_is_worth_more_where_little_hides_it(halves):
    found = importance.worth(halves[:180, :250], "msssim")
    assert found.shape == (12, 16)
    assert found[:, :7].min() > 1 > found[:, 9:].max()
    assert found.max() <= importance.MOST and found.min() >= 1 / importance.MOST


@pytest.mark.parametrize("effort", [4, 6])
def test_a_tuned_file_is_better_by_ms_ssim_at_no_more_bytes(halves, effort):
    plain = foveal.compress(halves, quality=40, effort=effort)
    tuned = foveal.compress(halves, target_bytes=len(plain), effort=effort, tune="msssim")
    scores = [ms_ssim(halves, np.asarray(foveal.decompress(data))) for data in (plain, tuned)]
    assert len(tuned) <= len(plain)
    assert scores[1] > scores[0]


def test_an_unknown_tune_is_refused_with_those_there_are(halves):
    with pytest.raises(foveal.InputError, match=r"tune 'ssim' is not one of psnr, msssim"):
        foveal.compress(halves, tune="ssim")
