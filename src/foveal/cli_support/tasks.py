"""What the commands do with one file: read, call the public door, write.

Each task is a function `(source, target) -> line` once `functools.partial` has given it the choices of the
command; all are module functions of plain data, so that they can be sent to another process.
"""

from __future__ import annotations

import sys
from typing import Any

import foveal
from foveal.cli_support.options import Choice
from foveal.cli_support.show import json_line
from foveal.io import images

__all__ = ["decode_one", "describe_one", "draw_one", "encode_one"]


def encode_one(source: str, target: str, choice: Choice, settings: dict[str, Any]) -> str:
    """Compress the picture at `source` into `target`; `settings` are keywords of `foveal.compress`."""
    _refuse_terminal(target)
    image = images.load(source)
    data = foveal.compress(image, **choice.arguments(), **settings)
    images.write_bytes(target, data)
    return f"{target}: {len(data):,} bytes, {8 * len(data) / (image.width * image.height):.3f} bpp"


def decode_one(source: str, target: str, on_loss: str) -> str:
    """Decompress the file at `source` into a picture; the suffix of `target` says its format."""
    _refuse_terminal(target)
    image = foveal.decompress(images.read_bytes(source), on_loss=on_loss)
    images.save(image, target)
    return f"{target}: {image.width}x{image.height} {image.mode}"


def draw_one(source: str, target: str, choice: Choice, quality: float) -> str:
    """Draw the importance of the picture at `source` into the picture `target`."""
    from foveal.io.draw import importance_picture

    _refuse_terminal(target)
    image = images.load(source)
    found = foveal.importance(image, quality=quality, **choice.arguments())
    images.save(importance_picture(image, found), target)
    kept = int((found.classes > 0).sum())
    return f"{target}: {kept} of {found.classes.size} patches kept"


def describe_one(source: str, target: str, verify: bool, as_json: bool) -> str:
    """What the file at `source` holds, as a short table or as one line of JSON. `target` is not used.

    Raises:
        CorruptError: `verify` is set and a checksum is wrong.
    """
    info = foveal.inspect(images.read_bytes(source), verify=verify)
    about = {"file": source, **info.as_dict()}
    wrong = ", ".join(chunk["type"] for chunk in about["chunks"] if not chunk["crc_ok"])
    if verify and wrong:
        remedy = "foveal decode --on-loss conceal fills in what lost packets held"
        raise foveal.CorruptError(f"{source}: wrong checksum in {wrong}; {remedy}")
    return json_line(about) if as_json else _table(about, verify)


def _refuse_terminal(target: str) -> None:
    """InputError when the bytes of a picture would go to a terminal, where they do nothing but harm."""
    if target == "-" and sys.stdout.isatty():
        raise foveal.InputError("standard output is a terminal; name a file with -o, or redirect it")


def _table(about: dict[str, Any], verified: bool) -> str:
    """The facts of one file, a line each, then its chunks with their sizes."""
    patches, dropped = about["patches"], about["dropped"]
    mode = about["mode"] + (" and alpha" if about["alpha_channel"] else "")
    lines = [
        about["file"],
        f"  picture   {about['width']}x{about['height']} {mode}",
        f"  size      {about['bytes']:,} bytes, {about['bpp']:.4f} bits per pixel",
        f"  model     {about['model']}, level {about['level']:.2f} (quality {about['quality']:.1f})",
        f"  patches   {patches}, dropped {dropped}, alpha {about['alpha']:.3f}",
        f"  packets   {about['packets']}",
        *(f"  {c['type']}      {c['bytes']:>9,} bytes" for c in about["chunks"]),
    ]
    if verified:
        lines.append("  verified  every checksum is right")
    return "\n".join(lines)
