"""Draw where a picture's information is: its gradient, the patches kept, and their classes.

Only Pillow draws here; arrays come in as they are and leave as a picture.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont, ImageOps

__all__ = ["Importance", "importance_picture", "side_by_side"]

PANEL = 640  # longest side of a panel, pixels
SMALLEST = 192  # a panel narrower than this is enlarged, pixels
MARGIN = 12
INK, PAPER = (34, 34, 34), (255, 255, 255)
DROPPED = (110, 110, 110)
CLASS_COLOURS = ((70, 130, 200), (250, 190, 40), (220, 60, 50))  # classes 1, 2, 3
PATCH = 16


class Importance(Protocol):
    """What is drawn; `foveal.importance` returns such an object."""

    @property
    def gradient(self) -> NDArray[np.float32]:
        """(H, W), gradient magnitude of the luma of every pixel, 0 or more."""

    @property
    def classes(self) -> NDArray[np.uint8]:
        """(h, w) with h = ceil(H / 16), w = ceil(W / 16); 0 = dropped, higher = finer steps."""


def importance_picture(image: Image.Image, importance: Importance) -> Image.Image:
    """Three panels in a row: the gradient map, the patches kept, and the classes over the picture.

    Args:
        image: the picture that was measured, W x H, any mode.
        importance: what `foveal.importance` found for it.

    Returns:
        An RGB picture of at most 3 x 640 pixels and margins across.
    """
    picture = _plain(image)
    whole = importance.classes.size
    kept = int((importance.classes > 0).sum())
    ratio = f"{whole / kept:.2f}" if kept else "infinite"
    captions = (
        "gradient magnitude",
        f"kept: {kept} of {whole} patches ({kept / whole:.0%}), alpha {ratio}",
        _class_caption(importance.classes),
    )
    classes = importance.classes
    return side_by_side((_heat(importance.gradient), _kept(picture, classes), _tinted(picture, classes)), captions)


def side_by_side(panels: tuple[Image.Image, ...], captions: tuple[str, ...]) -> Image.Image:
    """Panels of one size in a row on white, each under its caption; scaled to at most 640 pixels a side."""
    shown = [_scaled(panel) for panel in panels]
    font = ImageFont.load_default(15)
    across = [max(panel.width, int(font.getlength(text))) for panel, text in zip(shown, captions, strict=True)]
    top = MARGIN + 24
    size = (sum(across) + MARGIN * (len(shown) + 1), top + max(panel.height for panel in shown) + MARGIN)
    sheet = Image.new("RGB", size, PAPER)
    pen, x = ImageDraw.Draw(sheet), MARGIN
    for panel, text, width in zip(shown, captions, across, strict=True):
        pen.text((x, MARGIN), text, INK, font)
        sheet.paste(panel, (x, top))
        x += width + MARGIN
    return sheet


def _plain(image: Image.Image) -> Image.Image:
    """RGB on white; 16-bit and float pictures are stretched to their own range, for shapes alone matter."""
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image, np.float64)
        low, span = values.min(), np.ptp(values) or 1.0
        return Image.fromarray(((values - low) * (255 / span)).astype(np.uint8)).convert("RGB")
    ground = Image.new("RGBA", image.size, (*PAPER, 255))
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def _heat(gradient: NDArray[np.float32]) -> Image.Image:
    """(H, W) gradient as black, violet, orange, pale yellow; the top 1 % share the last colour."""
    highest = float(np.percentile(gradient, 99)) or float(gradient.max()) or 1.0
    shown = np.sqrt(np.clip(gradient / highest, 0, 1))  # the root lifts weak texture out of the black
    grey = Image.fromarray((255 * shown).astype(np.uint8))
    return ImageOps.colorize(grey, (8, 4, 30), (255, 250, 190), mid=(214, 70, 60))


def _stretch(per_patch: NDArray[Any], size: tuple[int, int]) -> Image.Image:
    """(h, w) values as a picture of `size` in which every value covers its 16x16 patch."""
    rows, columns = per_patch.shape
    patches = Image.fromarray(per_patch.astype(np.uint8))
    return patches.resize((columns * PATCH, rows * PATCH), Image.Resampling.NEAREST).crop((0, 0, *size))


def _kept(picture: Image.Image, classes: NDArray[np.uint8]) -> Image.Image:
    """The picture, with dropped patches as faint grey."""
    faint = Image.blend(ImageOps.grayscale(picture).convert("RGB"), Image.new("RGB", picture.size, PAPER), 0.75)
    return Image.composite(picture, faint, _stretch(255 * (classes > 0), picture.size))


def _tinted(picture: Image.Image, classes: NDArray[np.uint8]) -> Image.Image:
    """The picture in grey, each patch tinted with the colour of its class and dropped ones darkened."""
    colours = np.array((DROPPED, *CLASS_COLOURS), np.uint8)
    layers = colours[np.minimum(classes, len(CLASS_COLOURS))]  # (h, w, 3)
    tint = Image.merge("RGB", [_stretch(layers[..., channel], picture.size) for channel in range(3)])
    return Image.blend(ImageOps.grayscale(picture).convert("RGB"), tint, 0.45)


def _class_caption(classes: NDArray[np.uint8]) -> str:
    names = ("dropped (grey)", "1 (blue)", "2 (yellow)", "3 (red)")
    shares = [float((classes == number).mean()) for number in range(len(names))]
    return "classes: " + ", ".join(f"{n} {share:.0%}" for n, share in zip(names, shares, strict=True) if share)


def _scaled(panel: Image.Image) -> Image.Image:
    """Longest side at most 640; a tiny panel is enlarged by a whole factor so that its pixels show."""
    longest = max(panel.size)
    if longest > PANEL:
        size = tuple(max(1, round(side * PANEL / longest)) for side in panel.size)
        return panel.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    factor = max(1, SMALLEST // longest)
    return panel.resize((panel.width * factor, panel.height * factor), Image.Resampling.NEAREST)
