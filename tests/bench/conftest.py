"""Small pictures and made-up measurements for the bench's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveal.bench.results import Point


def make_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture with edges and a little noise, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + c) + np.cos(y / (7 + c)) + (x > y) for c in range(3)]
    values = 110 + 40 * np.stack(waves, axis=2) + rng.normal(0, 5, (height, width, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    return make_picture


@pytest.fixture
def point() -> Callable[..., Point]:
    return make_point


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, 64x48 and 33x17."""
    target = tmp_path / "pictures"
    target.mkdir()
    Image.fromarray(make_picture(48, 64, 1)).save(target / "a.png")
    Image.fromarray(make_picture(17, 33, 2)).save(target / "b.png")
    return target


def make_point(image: str, codec: str, setting: float, bpp: float, psnr_db: float, **changes: object) -> Point:
    """A measurement of a 768x512 picture."""
    values: dict[str, object] = {
        "options": "plain",
        "setting_name": "quality",
        "width": 768,
        "height": 512,
        "bytes": round(bpp * 768 * 512 / 8),
        "ms_ssim": 1 - 10 ** (-psnr_db / 20),
        "encode_s_per_mpx": 0.5,
        "decode_s_per_mpx": 0.1,
        "encode_repeats": 3,
        "decode_repeats": 3,
        "version": "1.0",
    }
    return Point(image=image, codec=codec, setting=setting, bpp=bpp, psnr_db=psnr_db, **{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def points() -> list[Point]:
    """Two pictures through a codec "half" that takes half the bits and a quarter of the time of "jpeg"."""
    rows = []
    for image, more in (("a.png", 1.0), ("b.png", 1.5)):
        for setting, (bpp, psnr) in enumerate([(0.2, 27), (0.4, 30), (0.8, 33), (1.6, 36.5)]):
            rows.append(make_point(image, "jpeg", setting, bpp * more, psnr))
            times = {"encode_s_per_mpx": 0.125, "decode_s_per_mpx": 0.025}
            rows.append(make_point(image, "half", setting, bpp * more / 2, psnr, **times))
    return rows
