"""What the commands do with one file: read, call the public door, write.

Each task is a function `(source, target) -> line` once `functools.partial` has given it the choices of the
command; all are module functions of plain data, so that they can be sent to another process.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from PIL import Image

import foveal
from foveal.cli_support.jobs import refuse_terminal
from foveal.cli_support.options import Choice
from foveal.cli_support.show import json_line
from foveal.io import images

__all__ = ["decode_one", "describe_one", "draw_one", "encode_one", "pack_one", "truncate_one", "unpack_one"]


def encode_one(source: str, target: str, choice: Choice, settings: dict[str, Any]) -> str:
    """Compress the picture at `source` into `target`; `settings` are keywords of `foveal.compress`."""
    refuse_terminal(target)
    image = images.load(source)
    data = foveal.compress(image, **choice.arguments(), **settings)
    images.write_bytes(target, data)
    return f"{target}: {len(data):,} bytes, {8 * len(data) / (image.width * image.height):.3f} bpp"


def decode_one(source: str, target: str, on_loss: str, loss_mask: str | None = None) -> str:
    """Decompress the file at `source` into a picture; the suffix of `target` says its format.

    What was lost is told in a FovealWarning; `loss_mask` is where a picture of it goes: white = filled in.
    """
    for name in (target, loss_mask or target):
        refuse_terminal(name)
    report = foveal.decode_report(images.read_bytes(source), on_loss=on_loss)
    image = report.image
    images.save(image, target)
    if report.damaged:
        warnings.warn(loss_line(report), foveal.FovealWarning, stacklevel=1)
    if loss_mask:
        images.save(loss_picture(report), loss_mask)
    return f"{target}: {image.width}x{image.height} {image.mode}"


def truncate_one(source: str, target: str, size: int) -> str:
    """Cut the file at `source` to `size` bytes or fewer."""
    refuse_terminal(target)
    data = foveal.truncate(images.read_bytes(source), size)
    images.write_bytes(target, data)
    return f"{target}: {len(data):,} bytes"


def pack_one(source: str, target: str, mtu: int, copies: float, parity: float) -> str:
    """Write the datagrams of the file at `source` into the folder `target`, numbered in the order of sending.

    Raises:
        InputError: there are datagrams in that folder already, with which these would be confused.
    """
    messages = foveal.pack(images.read_bytes(source), mtu=mtu, copies=copies, parity=parity)
    folder = Path(target)
    if folder.is_dir() and any(folder.glob("*.fvd")):
        raise foveal.InputError(f"{target} holds datagrams already; name an empty folder, or one to be made")
    images.make_directory(target)
    for number, message in enumerate(messages):
        images.write_bytes(str(folder / f"{number:05}.fvd"), message)
    return f"{target}: {len(messages)} datagrams, {sum(map(len, messages)):,} bytes"


def unpack_one(source: str, target: str) -> str:
    """Make a file of the datagrams in the folder `source`; what is missing is told in a FovealWarning."""
    refuse_terminal(target)
    if not Path(source).is_dir():
        raise foveal.InputError(f"{source} is no folder; give the one where datagrams lie")
    data = foveal.unpack(images.read_bytes(str(path)) for path in sorted(Path(source).glob("*.fvd")))
    images.write_bytes(target, data)
    info = foveal.inspect(data)
    packets = sum(chunk["type"] == "PCKT" for chunk in info.chunks)
    if packets < info.packets:
        lost = f"{info.packets - packets} of {info.packets} packets did not arrive"
        warnings.warn(f"{lost}; foveal decode fills in what they held", foveal.FovealWarning, stacklevel=1)
    return f"{target}: {len(data):,} bytes, {packets} of {info.packets} packets"


def loss_line(report: Any) -> str:
    """What a decode report says of losses: how many patches, where the first ones are, and what is missing."""
    places = [f"{y},{x}" for y, x in zip(*report.concealed.nonzero(), strict=True)]
    at = f" (row,column of patches: {' '.join(places[:8])}{' ...' if len(places) > 8 else ''})" if places else ""
    return f"{len(places)} of {report.concealed.size} patches concealed{at}; {'; '.join(report.damaged)}"


def loss_picture(report: Any) -> Image.Image:
    """Mode L, of the picture's size: 255 where a patch is concealed, 0 elsewhere."""
    large = (report.concealed * 255).repeat(16, 0).repeat(16, 1)
    return Image.fromarray(large[: report.image.height, : report.image.width])


def draw_one(source: str, target: str, choice: Choice, quality: float) -> str:
    """Draw the importance of the picture at `source` into the picture `target`."""
    from foveal.io.draw import importance_picture

    refuse_terminal(target)
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
    return json_line(about) if as_json else _table(about, verify)


def _packets(about: dict[str, Any]) -> str:
    """How many packets the header tells of, and how many of them are there in one piece if not all are."""
    there = sum(chunk["type"] == "PCKT" and chunk["crc_ok"] for chunk in about["chunks"])
    return str(about["packets"]) if there == about["packets"] else f"{there} of {about['packets']}"


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
        f"  packets   {_packets(about)}" + (f" in {about['layers']} layers" if about["layers"] > 1 else ""),
        *(f"  {c['type']}      {c['bytes']:>9,} bytes{'' if c['crc_ok'] else ', damaged'}" for c in about["chunks"]),
    ]
    if verified:
        lines.append("  verified  every checksum is right")
    return "\n".join(lines)
