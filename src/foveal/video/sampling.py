"""Planes of any sampling and depth to what Foveal codes: 4:2:0 with 8 or 10 bits. numpy only."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from foveal.video.types import Plane, Planes

_PLANAR = re.compile(r"yuva?(420|422|444)p(\d*)(?:le)?$")
_GREY = re.compile(r"gray(\d*)(?:le)?$")


def planar(pixel_format: str) -> tuple[str, int] | None:
    """(sampling, bits) of a planar Y'CbCr or grey format by FFmpeg's name, e.g. ("422", 10); None for other formats.

    Sampling is "420", "422", "444" or "mono". A fourth plane, transparency, does not count.
    """
    name = pixel_format.replace("yuvj", "yuv")
    if found := _PLANAR.match(name):
        return found[1], int(found[2] or 8)
    found = _GREY.match(name)
    return ("mono", int(found[1] or 8)) if found else None


def lost(sampling: str, depth: int) -> str:
    """What ``to_420`` loses, in words; "" for nothing."""
    changes = [f"{sampling[0]}:{sampling[1]}:{sampling[2]} becomes 4:2:0"] if sampling in ("422", "444") else []
    changes += [f"{depth} bits become 10"] if depth > 10 else []
    return " and ".join(changes)


def to_420(planes: list[NDArray[Any]], depth: int) -> Planes:
    """Y, or Y, U and V of any sampling and depth, to 4:2:0 with 8 or 10 bits; arrays of their own."""
    if len(planes) == 1:
        height, width = planes[0].shape
        planes = [planes[0], *[np.full(((height + 1) // 2, (width + 1) // 2), 1 << (depth - 1), planes[0].dtype)] * 2]
    y, *chroma = planes
    wanted = ((y.shape[0] + 1) // 2, (y.shape[1] + 1) // 2)
    y, u, v = (_to_depth(p, depth) for p in (y, *(_halve(c, wanted) for c in chroma)))
    return Planes(y, u, v)


def _halve(plane: NDArray[Any], wanted: tuple[int, int]) -> NDArray[Any]:
    """Chroma at ``wanted`` size: the mean of two lines, and [1 2 1]/4 across, which leaves it sited left of centre."""
    if plane.shape == wanted:
        return plane
    wide = np.pad(plane, ((0, plane.shape[0] % 2), (1, 1 + plane.shape[1] % 2)), "edge").astype(np.uint32)
    if plane.shape[0] == wanted[0]:
        tall, scale = wide[: wanted[0]] * 2, 2
    else:
        tall, scale = wide[0::2] + wide[1::2], 2
    if plane.shape[1] == wanted[1]:
        tall = tall[:, 1 : 1 + wanted[1]]
    else:
        tall = (tall[:, 0:-2:2] + 2 * tall[:, 1:-1:2] + tall[:, 2::2])[:, : wanted[1]]
        scale *= 4
    halved: NDArray[Any] = ((tall + scale // 2) // scale).astype(plane.dtype)
    return halved


def _to_depth(plane: NDArray[Any], depth: int) -> Plane:
    """8 bits as they are, 9 doubled, more than 10 rounded to 10; what is above the depth's largest value becomes it."""
    if depth == 8:
        return plane.astype(np.uint8)
    if depth <= 10:
        return (plane.clip(0, (1 << depth) - 1).astype(np.uint16) << (10 - depth)).astype(np.uint16)
    shift = depth - 10
    rounded = (plane.astype(np.uint32) + (1 << (shift - 1))) >> shift
    return rounded.clip(0, 1023).astype(np.uint16)


def at_bits(planes: Planes, bits: int) -> Planes:
    """The same picture with 8 or 10 bits, to the nearest value."""
    if planes.bits == bits:
        return planes
    if bits == 10:
        return Planes(*((p.astype(np.uint16) << 2).astype(np.uint16) for p in (planes.y, planes.u, planes.v)))
    return Planes(
        *(((p.astype(np.uint16) + 2) >> 2).clip(0, 255).astype(np.uint8) for p in (planes.y, planes.u, planes.v))
    )
