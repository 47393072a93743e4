"""A picture's pixels and tags as Pillow reads them, less what it gets wrong, and aloud where it keeps less than there is."""

from __future__ import annotations

import re
import warnings
from typing import Any

from PIL import Image

from foveal.errors import FovealWarning

_DEEP = re.compile(r";16[BLN]")  # in Pillow's name for samples of 16 bits, e.g. "RGB;16B"
_FEW = re.compile(r"L;([24])$")  # and of 2 or 4
_HEAD = 1 << 16  # bytes in which a file says how deep and of what colour it is
SUB_IFDS = (0x8769, 0x8825)  # groups of tags: Exif and GPS
_PRIMARIES, _TRANSFERS = (1, 2, 5, 6), (1, 2, 6, 13, 14, 15)  # H.273's of BT.709, BT.601 and sRGB, and what is not said


class _Text(str):
    """A text of a tag that is written as it was read."""

    def encode(self, *_: Any) -> bytes:
        return super().encode("latin-1", "replace")


def load(image: Image.Image, stacklevel: int = 4) -> None:
    """Read the pixels, if that has not happened; raises what Pillow's decoders raise.

    FovealWarning where it reads fewer bits than there are, or colour is told otherwise than by an ICC profile. The clear
    colour of a PNG of 2, 4 or 16 bits, which Pillow leaves as the file has it, is brought to the 8 bits of the samples.
    ``stacklevel``: of the warnings.
    """
    tiles = getattr(image, "tile", ())
    head = _head(image) if tiles and image.format in ("AVIF", "JPEG2000", "PNG") else b""
    told = [*_depth(image, tiles, head), *_colour(image, head)] if tiles else []
    names = [str(tile[-1]) for tile in tiles]
    image.load()
    if image.format == "PNG" and names and "transparency" in image.info:
        image.info["transparency"] = _clear(image.info["transparency"], names[0])
    for words in told:
        warnings.warn(words, FovealWarning, stacklevel=stacklevel)


def with_texts(tags: Image.Exif) -> Image.Exif:
    """The same tags, texts beyond ASCII written as the bytes that they were read from, where Pillow writes "?"."""
    subs = (tags[ifd] if isinstance(tags[ifd], dict) else tags.get_ifd(ifd) for ifd in SUB_IFDS if ifd in tags)
    for found in (tags, *subs):
        for tag, value in list(found.items()):
            if isinstance(value, str) and not value.isascii():
                found[tag] = _Text(value)
    return tags


def _head(image: Image.Image) -> bytes:
    """The beginning of the picture's file, which stays where it stood; nothing when it cannot be had."""
    file: Any = getattr(image, "fp", None)
    try:
        place = file.tell()
        file.seek(0)
        head = bytes(file.read(_HEAD))
        file.seek(place)
    except (AttributeError, OSError, ValueError):
        return b""
    return head


def _depth(image: Image.Image, tiles: Any, head: bytes) -> list[str]:
    """A line about bits that are dropped; those of mode I are not."""
    bits = 8
    for name, *_, arguments in () if image.mode.startswith("I") else tiles:
        if name == "SGI16" or _DEEP.search(str(arguments)):
            bits = 16
        elif name in ("ppm", "ppm_plain") and isinstance(arguments, tuple):
            bits = max(8, int(arguments[-1]).bit_length())
    if image.format == "AVIF" and (at := head.find(b"av1C")) >= 0 and len(head) > at + 6:  # AV1-ISOBMFF, 2.3.3
        bits = (12 if head[at + 6] & 0x20 else 10) if head[at + 6] & 0x40 else 8
    if image.format == "JPEG2000" and not image.mode.startswith("I"):  # SOC and SIZ, ISO/IEC 15444-1, A.5.1
        at = head.find(b"\xff\x4f\xff\x51")
        bits = (head[at + 42] & 127) + 1 if 0 <= at < len(head) - 42 else 8
    clear = ", and of its clear colour too" if bits > 8 and isinstance(image.info.get("transparency"), tuple) else ""
    return [f"{bits} bits a sample, read as 8-bit {image.mode}{clear}"] if bits > 8 else []


def _colour(image: Image.Image, head: bytes) -> list[str]:
    """A line about colour that is not that of sRGB and told without an ICC profile, which is all that is kept of it."""
    if image.info.get("icc_profile"):
        return []
    name, wide = (b"cICP", 1) if image.format == "PNG" else (b"colrnclx", 2)
    at = head.find(name)
    if 0 <= at < len(head) - 12:
        code = head[at + len(name) : at + len(name) + 2 * wide]
        primaries, transfer = (int.from_bytes(code[i * wide : (i + 1) * wide], "big") for i in (0, 1))
        if primaries in _PRIMARIES and transfer in _TRANSFERS:
            return []
        return [f"colour of primaries {primaries} and transfer {transfer} (H.273) is shown as sRGB: convert it first"]
    gamma = None if "srgb" in image.info else image.info.get("gamma")
    if isinstance(gamma, float) and gamma > 0 and not 0.44 < gamma < 0.47:
        return [f"its gamma of {gamma:g} is left out, and 1/2.2 shown: convert it first"]
    return []


def _clear(value: Any, name: str) -> Any:
    """A PNG's clear colour, of samples that Pillow reads as ``name``, as 8-bit samples have it."""
    if (few := _FEW.match(name)) and isinstance(value, int):
        return value * 255 // ((1 << int(few[1])) - 1)
    if _DEEP.search(name) and isinstance(value, tuple):
        return tuple(part >> 8 for part in value)
    return value
