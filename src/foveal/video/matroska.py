"""The display aspect of a Matroska file whose muxer was not told it: written into the header of the finished file.

PyAV has no way to give a stream's sample aspect to the muxer, and AV1 does not carry one in its own headers as H.264 and
HEVC do. The elements are laid anew inside the entry of the video track, whose unused room (Void, RFC 8794, or the name
ROOM) takes up the difference, so that nothing else in the file moves.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import IO

SEGMENT, TRACKS, ENTRY, VIDEO, CLUSTER = 0x18538067, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675
CRC32, VOID = 0xBF, 0xEC
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2
PIXELS, ASPECT = 0, 3  # values of DISPLAY_UNIT
_HEADER = 1 << 20  # bytes in which Tracks must end
ROOM = "room for the display size"  # the end of the track's name that is given up for it

Element = tuple[int, int, int, int]  # ID, where it starts, where its payload starts, where it ends


def write_aspect(path: Path, width: int, height: int, aspect: Fraction, webm: bool = False) -> bool:
    """Write the display size of ``width`` x ``height`` pictures of sample aspect ``aspect``; in WebM, which knows no
    ratios, rounded to pixels. False when the file has no room for it, and then it stays as it was.
    """
    with path.open("r+b") as file:
        head = file.read(_HEADER)
        tracks = _find(head, 0, len(head), (SEGMENT, TRACKS))
        if tracks is None:
            return False
        for entry in _elements(head, tracks[2], tracks[3]):
            video = _find(head, entry[2], entry[3], (VIDEO,)) if entry[0] == ENTRY else None
            if video is not None:
                shape = width * aspect / height
                size = (round(width * aspect), height) if webm else (shape.numerator, shape.denominator)
                new = _entry(head, entry, video, size, PIXELS if webm else ASPECT)
                return new is not None and _put(file, head, tracks, entry, new)
    return False


def _entry(head: bytes, entry: Element, video: Element, size: tuple[int, int], unit: int) -> bytes | None:
    """The payload of the entry with the display size in it, of the same length as before; None when it is too long."""
    shown = {DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT, VOID, CRC32}
    inside = _without(head, video, shown)
    inside += _number(DISPLAY_WIDTH, size[0]) + _number(DISPLAY_HEIGHT, size[1])
    inside += _number(DISPLAY_UNIT, unit) if unit else b""
    payload = _without(head, entry, {VIDEO, VOID, CRC32}) + _element(VIDEO, inside)
    left = entry[3] - entry[2] - len(payload)
    if left < 0 or left == 1:  # the smallest Void has two bytes
        return None
    return payload + (_void(left) if left else b"")


def _put(file: IO[bytes], head: bytes, tracks: Element, entry: Element, payload: bytes) -> bool:
    """Write the payload, and the checksum of Tracks where it begins with one."""
    whole = head[: entry[2]] + payload + head[entry[3] :]
    first = next(_elements(whole, tracks[2], tracks[3]))
    file.seek(entry[2])
    file.write(payload)
    if first[0] == CRC32:
        file.seek(first[2])
        file.write(zlib.crc32(whole[first[3] : tracks[3]]).to_bytes(4, "little"))
    return True


def _without(data: bytes, master: Element, ids: set[int]) -> bytes:
    kept = (e for e in _elements(data, master[2], master[3]) if e[0] not in ids)
    return b"".join(_without_room(data, e) for e in kept)


def _without_room(data: bytes, element: Element) -> bytes:
    """The element, less the ROOM at its end; nothing of one that is no more than that."""
    payload = data[element[2] : element[3]]
    if not payload.endswith(ROOM.encode()):
        return data[element[1] : element[3]]
    name = payload.removesuffix(ROOM.encode())
    return _element(element[0], name) if name else b""


def _find(data: bytes, start: int, end: int, path: tuple[int, ...]) -> Element | None:
    for element in _elements(data, start, end):
        if element[0] == path[0]:
            return element if len(path) == 1 else _find(data, element[2], min(element[3], end), path[1:])
        if element[0] == CLUSTER:
            return None
    return None


def _elements(data: bytes, start: int, end: int) -> Iterator[Element]:
    """The elements of ``data[start:end]``, one after the other; stops at what is no element."""
    while start < end:
        kind, wide = _integer(data, start, False)
        size, long = _integer(data, start + wide, True)
        if not wide or not long:
            return
        yield kind, start, start + wide + long, start + wide + long + size
        start += wide + long + size


def _integer(data: bytes, place: int, masked: bool) -> tuple[int, int]:
    """(value, length) of the variable-length integer at ``place``, its length marker masked or not; length 0 for none."""
    if place >= len(data) or data[place] == 0:
        return 0, 0
    length = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + length], "big")
    return value & ((1 << 7 * length) - 1) if masked else value, length


def _element(kind: int, payload: bytes) -> bytes:
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    length = 1 if len(payload) < 127 else 4
    return name + (len(payload) | 1 << 7 * length).to_bytes(length, "big") + payload


def _number(kind: int, value: int) -> bytes:
    return _element(kind, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _void(size: int) -> bytes:
    """A Void element of ``size`` bytes in all."""
    long = 1 if size < 129 else 4
    return b"\xec" + (size - 1 - long | 1 << 7 * long).to_bytes(long, "big") + bytes(size - 1 - long)
