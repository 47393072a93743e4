"""Two pictures side by side: how far apart they are, and where.

The PNG shows the reference, the test and the absolute difference per channel, multiplied by a power of two
that is named in the caption: black is equal.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foveal.bench.metrics import ms_ssim, psnr_db
from foveal.bench.pictures import open_picture, save_png
from foveal.errors import InputError

__all__ = ["Comparison", "compare"]

GAP = 8  # pixels between the panels
CAPTION = 28  # height of the line above them, pixels

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """The test picture against the reference."""

    width: int
    height: int
    psnr_db: float  # over RGB; inf when equal
    ms_ssim: float
    bytes: int  # size of the test file
    bpp: float  # its bits per pixel
    difference_scale: int  # what the map was multiplied by

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        return f"PSNR {self.psnr_db:.2f} dB  MS-SSIM {self.ms_ssim:.4f}  {self.bpp:.3f} bpp  {self.bytes} bytes"


def compare(
    reference: str | os.PathLike[str],
    test: str | os.PathLike[str],
    output: str | os.PathLike[str] | None = None,
) -> Comparison:
    """Compare two picture files, .fov or any that Pillow opens, as the RGB that Foveal codes; transparency is left out.

    `output` is where the side-by-side PNG goes; without it none is written.
    Raises InputError when a file cannot be read or written, the sizes differ or `output` is one of the two, FormatError
    for a broken .fov.
    """
    if output is not None and Path(output).suffix.lower() != ".png" and not Path(output).is_dir():
        raise InputError(f"{output}: the comparison is written as PNG; end its name in .png")
    for path in (reference, test):
        if str(path) == "-":
            raise InputError("compare reads files, not standard input; name one in place of -")
        if output is not None and _same(path, output):
            raise InputError(f"{output} would overwrite the picture {path}; name another output file")
    a, b = (np.asarray(open_picture(Path(path))) for path in (reference, test))
    if a.shape != b.shape:
        sizes = [f"{pixels.shape[1]}x{pixels.shape[0]}" for pixels in (a, b)]
        raise InputError(f"{reference} is {sizes[0]} and {test} is {sizes[1]}; compare pictures of one size")
    height, width = a.shape[:2]
    size = Path(test).stat().st_size
    result = Comparison(
        width,
        height,
        psnr_db(a, b),
        ms_ssim(a, b),
        size,
        8 * size / (width * height),
        _difference_scale(a, b),
    )
    if output is not None:
        save_png(side_by_side(a, b, result, (Path(reference).name, Path(test).name)), Path(output))
    return result


def _same(path: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether both name one file, be it through links."""
    with suppress(OSError):  # one is not there yet
        return Path(path).samefile(other)
    return False


def side_by_side(a: Pixels, b: Pixels, result: Comparison, names: tuple[str, str]) -> Image.Image:
    """Reference, test and difference map in a row, a caption above each."""
    difference = _difference(a, b).astype(np.int32) * result.difference_scale
    panels = [a, b, np.minimum(difference, 255).astype(np.uint8)]
    captions = [
        f"reference: {names[0]}",
        f"{names[1]}: {result.psnr_db:.2f} dB, {result.bpp:.3f} bpp, MS-SSIM {result.ms_ssim:.4f}",
        f"absolute difference x {result.difference_scale}",
    ]
    cell = max(result.width, 16)
    sheet = Image.new("RGB", (3 * cell + 2 * GAP, result.height + CAPTION), "white")
    for index, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        left = index * (cell + GAP)
        sheet.paste(_caption(caption, cell), (left, 0))
        sheet.paste(Image.fromarray(panel), (left, CAPTION))
    return sheet


def _caption(words: str, width: int) -> Image.Image:
    """A line of text of this width, in type small enough to fit where that is at least 8 pixels."""
    line = Image.new("RGB", (width, CAPTION), "white")
    draw = ImageDraw.Draw(line)
    sizes = range(16, 7, -1)
    fonts = (ImageFont.load_default(size) for size in sizes)
    font = next((font for font in fonts if draw.textlength(words, font=font) <= width), ImageFont.load_default(8))
    draw.text((0, CAPTION / 2), words, fill="black", font=font, anchor="lm")
    return line


def _difference(a: Pixels, b: Pixels) -> Pixels:
    return np.maximum(a, b) - np.minimum(a, b)


def _difference_scale(a: Pixels, b: Pixels) -> int:
    """The largest power of two that leaves all but 1 sample in 1000 unclipped: 1..128."""
    level = float(np.quantile(_difference(a, b), 0.999))
    return 1 << min(7, max(0, int(np.log2(255 / max(level, 1)))))
