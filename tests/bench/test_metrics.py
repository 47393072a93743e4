from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from foveal.bench.metrics import ms_ssim, ms_ssim_db, psnr_db
from foveal.errors import InputError

Picture = Callable[..., NDArray[np.uint8]]


def test_psnr_of_a_known_error() -> None:
    flat = np.full((5, 7, 3), 100, np.uint8)
    assert psnr_db(flat, flat + 5) == pytest.approx(10 * math.log10(255**2 / 25))
    assert psnr_db(flat, flat - 5) == pytest.approx(10 * math.log10(255**2 / 25))  # no wrap-around in uint8


def test_equal_pictures(picture: Picture) -> None:
    for size in ((1, 1), (5, 200), (48, 64)):
        assert psnr_db(picture(*size), picture(*size)) == math.inf
        assert ms_ssim(picture(*size), picture(*size)) == pytest.approx(1)


def test_different_shapes_are_refused(picture: Picture) -> None:
    for measure in (psnr_db, ms_ssim):
        with pytest.raises(InputError, match=r"\(8, 8, 3\) and \(8, 9, 3\)"):
            measure(picture(8, 8), picture(8, 9))


def test_ms_ssim_agrees_with_pytorch_msssim(picture: Picture) -> None:
    theirs = pytest.importorskip("pytorch_msssim")
    torch = pytest.importorskip("torch")
    a, b = picture(192, 208, 1), picture(192, 208, 2)
    tensors = [torch.from_numpy(x).permute(2, 0, 1)[None].to(torch.float64) for x in (a, b)]
    taps = torch.exp(-torch.arange(-5.0, 6, dtype=torch.float64).square() / (2 * 1.5**2))
    window = (taps / taps.sum()).repeat(3, 1, 1, 1)  # its own is rounded to float32, worth 3e-7
    assert ms_ssim(a, b) == pytest.approx(float(theirs.ms_ssim(*tensors, data_range=255, win=window)), abs=1e-9)
    assert ms_ssim(a, b) == pytest.approx(float(theirs.ms_ssim(*tensors, data_range=255)), abs=1e-6)
    assert ms_ssim(a, b, single=True) == pytest.approx(ms_ssim(a, b), abs=1e-5)


def test_ms_ssim_of_a_flat_shift_is_its_luminance_term() -> None:
    a, b, c1 = 100.0, 120.0, (0.01 * 255) ** 2
    luminance = (2 * a * b + c1) / (a * a + b * b + c1)
    # contrast and structure are 1; luminance enters at the last scale only, with its share of the weights
    for side, weights in ((176, (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)), (40, (0.0448, 0.2856)), (3, (1,))):
        flat = np.ones((side, side))
        assert ms_ssim(a * flat, b * flat) == pytest.approx(luminance ** (1.0001 * weights[-1] / sum(weights)))


def test_more_noise_is_worse(picture: Picture) -> None:
    a = picture(180, 180).astype(float)
    noise = np.random.default_rng(3).normal(0, 1, a.shape)
    values = [ms_ssim(a, a + sigma * noise) for sigma in (0, 5, 20, 60)]
    assert values == sorted(values, reverse=True)
    assert 0 < values[-1] < values[1] < 1


def test_ms_ssim_db() -> None:
    assert ms_ssim_db(0.99) == pytest.approx(20)
    assert ms_ssim_db(1) == math.inf
