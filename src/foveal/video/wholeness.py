"""Whether a video file is all there, by the sizes its own boxes state: MP4 and MOV, Matroska and WebM, RIFF (AVI).

A decoder reads a truncated file to its end and says nothing; these few reads tell at once.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO

from foveal.errors import InputError


def missing_end(path: str) -> str | None:
    """What is missing at the end of an MP4, Matroska or RIFF file, by the sizes its own boxes state; None for nothing."""
    try:
        size = Path(path).stat().st_size
        with Path(path).open("rb") as file:
            head = file.read(16)
            if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"styp"):
                return _missing_boxes(file, size)
            if head[:4] == b"\x1a\x45\xdf\xa3":
                return _missing_segment(file, size)
            if head[:4] == b"RIFF" and (end := 8 + struct.unpack("<I", head[4:8])[0]) > size + 1:
                return f"it should have {end} bytes and has {size}"
    except OSError as fault:
        raise InputError(f"cannot read {path}: {fault.strerror or fault}") from None
    return None


def _missing_boxes(file: IO[bytes], size: int) -> str | None:
    """ISO/IEC 14496-12, 4.2: boxes of u32 size and type, size 1 followed by u64, size 0 to the end of the file."""
    place, seen = 0, set()
    while place < size:
        file.seek(place)
        head = file.read(16).ljust(16, b"\0")
        length, kind = struct.unpack(">I4s", head[:8])
        seen.add(kind)
        length = {0: size - place, 1: struct.unpack(">Q", head[8:])[0]}.get(length, length)
        if length < 8 or place + length > size:
            return f"the box {kind.decode('latin-1')!r} at byte {place} should have {length} bytes, {size - place} are there"
        place += length
    return None if b"moov" in seen else "the index (box 'moov') is missing"


def _missing_segment(file: IO[bytes], size: int) -> str | None:
    """RFC 8794: an ID and a size as variable-length integers; the Segment may leave its size unknown (all ones)."""
    place = 0
    for _ in range(8):  # the EBML header, perhaps Void, then the Segment
        file.seek(place)
        head = file.read(12).ljust(12, b"\0")
        wide = 9 - (head[0] or 1).bit_length()
        long = 9 - (head[wide] or 1).bit_length() if wide <= 4 else 9
        if wide > 4 or long > 8 or wide + long > 12:
            return None
        value = int.from_bytes(head[wide : wide + long], "big") & ((1 << 7 * long) - 1)
        if head[:4] == b"\x18\x53\x80\x67":
            end, unknown = place + wide + long + value, value == (1 << 7 * long) - 1
            return None if unknown or end <= size else f"it should have {end} bytes and has {size}"
        place += wide + long + value
    return None
