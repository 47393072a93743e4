"""The picture of a picture's importance."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from foveal.io.draw import importance_picture, side_by_side


def measured(width: int, height: int, classes: list[list[int]]) -> SimpleNamespace:
    gradient = np.linspace(0, 50, width * height, dtype=np.float32).reshape(height, width)
    return SimpleNamespace(gradient=gradient, classes=np.array(classes, np.uint8))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "1", "I;16", "F"])
def test_any_mode_is_drawn_as_rgb(mode: str) -> None:
    drawn = importance_picture(Image.new(mode, (32, 16), 1), measured(32, 16, [[0, 1]]))
    assert drawn.mode == "RGB"


@pytest.mark.parametrize(("width", "height"), [(1, 1), (17, 33), (2000, 40)])
def test_any_size_fits_the_sheet(width: int, height: int) -> None:
    classes = np.ones((-(-height // 16), -(-width // 16)), np.uint8)
    drawn = importance_picture(Image.new("RGB", (width, height)), measured(width, height, classes.tolist()))
    assert drawn.width <= 3 * 640 + 4 * 12
    assert drawn.height <= 640 + 60


def test_kept_patches_keep_their_colour_and_dropped_ones_fade() -> None:
    picture = Image.new("RGB", (640, 640), (200, 30, 30))
    classes = np.ones((40, 40), np.uint8)
    classes[:, 20:] = 0
    drawn = importance_picture(picture, measured(640, 640, classes.tolist()))
    kept, dropped = (drawn.getpixel((12 + 640 + 12 + x, 300)) for x in (100, 500))
    assert kept == (200, 30, 30)
    assert isinstance(dropped, tuple)
    assert max(dropped) - min(dropped) == 0  # grey
    assert min(dropped) > 180


def test_everything_dropped_and_nothing_steep_is_drawn_too() -> None:
    flat = SimpleNamespace(gradient=np.zeros((16, 16), np.float32), classes=np.zeros((1, 1), np.uint8))
    assert importance_picture(Image.new("RGB", (16, 16)), flat).width > 3 * 16


def test_panels_stand_in_a_row_under_their_captions() -> None:
    sheet = side_by_side((Image.new("RGB", (300, 200), "red"), Image.new("RGB", (300, 200), "blue")), ("a", "b"))
    assert sheet.size == (2 * 300 + 3 * 12, 12 + 24 + 200 + 12)
    assert sheet.getpixel((20, 100)) == (255, 0, 0)
    assert sheet.getpixel((400, 100)) == (0, 0, 255)
