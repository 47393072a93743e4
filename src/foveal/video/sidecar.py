"""Side information inside a video file, where players do not look: a `uuid` box at the end of MP4 and MOV, an attachment
at the end of Matroska and WebM. Both are put into the finished file in place, and nothing else in it moves.

ISO/IEC 14496-12, 4.2 and 11.1; RFC 8794 (EBML) and RFC 9559 (Matroska), 5.1.6.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from foveal.errors import InputError, LimitError

NAME, MIME = "foveal-side.bin", "application/x-foveal-side"
UUID = bytes.fromhex("8d0b7a5e4c1f4f6f9a52f0bea15de0c1")
MAX_BYTES = 1 << 26
MAX_ELEMENTS = 1 << 20  # boxes or elements of one level that are looked at
EBML, SEGMENT, SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION = 0x1A45DFA3, 0x18538067, 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
ATTACHMENTS, FILE, FILE_NAME, FILE_MIME, FILE_UID, FILE_DATA = 0x1941A469, 0x61A7, 0x466E, 0x4660, 0x46AE, 0x465C
VOID, CRC32 = 0xEC, 0xBF
_TOP_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"styp", b"skip")


class Found(NamedTuple):
    """The side information of a file; None with the reason when there is none or it cannot be got at."""

    data: bytes | None
    reason: str = ""


class Part(NamedTuple):
    """A box or an element: its type or ID, where in the file its header and payload start and it ends, and whether its
    header says so; if not, it ends where what holds it ends."""

    kind: int
    start: int
    payload: int
    end: int
    sized: bool = True


class _Odd(Exception):
    """The structure of the file is not as it should be; says how."""


def put(path: str | Path, data: bytes) -> None:
    """Put side information into a finished MP4, MOV, Matroska or WebM file, in place of what it has, if any.

    InputError for another kind of file and for one whose structure is damaged; then it stays as it was. LimitError for
    more than 64 MiB.
    """
    if len(data) > MAX_BYTES:
        raise LimitError(f"side information has {len(data)} bytes, at most {MAX_BYTES} go into a file")
    try:
        with Path(path).open("r+b") as file:
            matroska = _is_matroska(file)
            (_put_attachment if matroska else _put_box)(file, data)
    except (_Odd, OSError) as fault:
        raise InputError(f"{path}: cannot take side information: {fault}") from None


def find(path: str | Path) -> Found:
    """The side information of a file. Nothing is raised, whatever the file holds; the bytes are not looked into."""
    try:
        with Path(path).open("rb") as file:
            found = _find_attachment(file) if _is_matroska(file) else _find_box(file)
            if found is None:
                return Found(None, "the file has no side information")
            if found.end - found.payload > MAX_BYTES:
                return Found(None, f"its side information has {found.end - found.payload} bytes, over {MAX_BYTES}")
            file.seek(found.payload)
            return Found(file.read(found.end - found.payload))
    except (_Odd, OSError) as fault:
        return Found(None, f"side information cannot be looked for: {fault}")


def _is_matroska(file: IO[bytes]) -> bool:
    head = _read(file, 0, 8)
    if head[:4] == EBML.to_bytes(4, "big"):
        return True
    if head[4:8] not in _TOP_BOXES:
        raise _Odd("it is neither MP4 nor Matroska")
    return False


def _read(file: IO[bytes], place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _size(file: IO[bytes]) -> int:
    return file.seek(0, 2)


# --- MP4 and MOV ---


def _boxes(file: IO[bytes]) -> Iterator[Part]:
    size, place = _size(file), 0
    for _ in range(MAX_ELEMENTS):
        if place == size:
            return
        head = _read(file, place, 16)
        length, kind = struct.unpack(">I4s", head[:8].ljust(8, b"\0"))
        long = length == 1
        if long:
            length = int.from_bytes(head[8:16], "big")
        sized = length != 0
        if not sized:
            length = size - place
        if length < (16 if long else 8) or place + length > size:
            raise _Odd(f"the box {kind!r} at byte {place} does not end inside the file")
        yield Part(int.from_bytes(kind, "big"), place, place + (16 if long else 8), place + length, sized)
        place += length


def _ours(file: IO[bytes], box: Part) -> bool:
    return box.kind == int.from_bytes(b"uuid", "big") and _read(file, box.payload, 16) == UUID


def _find_box(file: IO[bytes]) -> Part | None:
    """The payload behind the UUID of the last box of ours. A last box that reaches to the end ends the search."""
    last = None
    try:
        for box in _boxes(file):
            if _ours(file, box) and box.end - box.payload >= 16:
                last = box._replace(payload=box.payload + 16)
    except _Odd:
        if last is None:
            raise
    return last


def _put_box(file: IO[bytes], data: bytes) -> None:
    boxes = list(_boxes(file))
    if int.from_bytes(b"moov", "big") not in {box.kind for box in boxes}:
        raise _Odd("it has no index (box 'moov')")
    if not boxes[-1].sized:
        raise _Odd("its last box goes to the end of the file, whatever its size")
    old = [box for box in boxes if _ours(file, box)]
    file.seek(0, 2)
    file.write(struct.pack(">I4s", 24 + len(data), b"uuid") + UUID + data)
    for box in old:
        file.seek(box.start + 4)
        file.write(b"free")


# --- Matroska and WebM ---


def _number(data: bytes, masked: bool) -> tuple[int, int]:
    """(value, length) of the variable-length integer that ``data`` begins with, its marker masked or not."""
    if not data or data[0] == 0:
        raise _Odd("an element has no valid ID or size")
    length = 9 - data[0].bit_length()
    if len(data) < length:
        raise _Odd("an element is cut off")
    value = int.from_bytes(data[:length], "big")
    return (value & ((1 << 7 * length) - 1) if masked else value), length


def _elements(file: IO[bytes], start: int, end: int) -> Iterator[Part]:
    """The elements from ``start`` to ``end``."""
    for _ in range(MAX_ELEMENTS):
        if start >= end:
            return
        head = _read(file, start, 12)
        kind, wide = _number(head, False)
        size, long = _number(head[wide:], True)
        payload = start + wide + long
        sized = size != (1 << 7 * long) - 1
        stop = payload + size if sized else end
        if stop > end:
            raise _Odd(f"the element {kind:X} at byte {start} does not end inside the file")
        yield Part(kind, start, payload, stop, sized)
        start = stop


def _segment(file: IO[bytes]) -> Part:
    for part in _elements(file, 0, _size(file)):
        if part.kind == SEGMENT:
            return part
    raise _Odd("it has no Segment")


def _sought(file: IO[bytes], segment: Part, head: Part) -> Iterator[tuple[Part, int]]:
    """Entries of a SeekHead for attachments: the element of the position, and where it says they are."""
    for seek in _elements(file, head.payload, head.end):
        fields = {p.kind: p for p in _elements(file, seek.payload, seek.end)} if seek.kind == SEEK else {}
        if SEEK_ID in fields and SEEK_POSITION in fields:
            kind, where = (
                _read(file, p.payload, min(p.end - p.payload, 8)) for p in (fields[SEEK_ID], fields[SEEK_POSITION])
            )
            if int.from_bytes(kind, "big") == ATTACHMENTS:
                yield fields[SEEK_POSITION], segment.payload + int.from_bytes(where, "big")


def _attachments(file: IO[bytes], segment: Part) -> Part | None:
    """The Attachments of a Segment, by its SeekHead or else by going through it."""
    for part in _elements(file, segment.payload, segment.end):
        if part.kind == SEEK_HEAD:
            for _, where in _sought(file, segment, part):
                there = next(_elements(file, where, segment.end), None) if where < segment.end else None
                if there is not None and there.kind == ATTACHMENTS:
                    return there
        if part.kind == ATTACHMENTS:
            return part
    return None


def _find_attachment(file: IO[bytes]) -> Part | None:
    attachments = _attachments(file, _segment(file))
    for part in _elements(file, attachments.payload, attachments.end) if attachments else ():
        if part.kind == FILE and (data := _attached(file, part)) is not None:
            return data
    return None


def _attached(file: IO[bytes], part: Part) -> Part | None:
    """The data of an attached file, if it is ours."""
    fields = {p.kind: p for p in _elements(file, part.payload, part.end)}
    name = fields.get(FILE_NAME)
    if name is None or FILE_DATA not in fields or name.end - name.payload > 64:
        return None
    return (
        fields[FILE_DATA] if _read(file, name.payload, name.end - name.payload).rstrip(b"\0") == NAME.encode() else None
    )


def _element(kind: int, payload: bytes, length: int = 0) -> bytes:
    """An element; ``length``: of its size field, 0 for the shortest."""
    name = kind.to_bytes((kind.bit_length() + 7) // 8, "big")
    length = length or next(n for n in range(1, 9) if len(payload) < (1 << 7 * n) - 1)
    return name + (len(payload) | 1 << 7 * length).to_bytes(length, "big") + payload


def _put_attachment(file: IO[bytes], data: bytes) -> None:
    """Attachments come to the end of the Segment, with those that were there before, which a Void replaces."""
    segment, size = _segment(file), _size(file)
    if segment.end != size:
        raise _Odd(f"{size - segment.end} bytes follow its Segment")
    if not all(part.sized for part in _elements(file, segment.payload, segment.end)):
        raise _Odd("its last part goes to the end of the file, whatever its size")
    old = _attachments(file, segment)
    ours = _element(FILE_NAME, NAME.encode()) + _element(FILE_MIME, MIME.encode())
    ours += _element(FILE_UID, (zlib.crc32(data) | 1 << 32).to_bytes(8, "big")) + _element(FILE_DATA, data)
    payload = _others(file, old) + _element(FILE, ours)
    changes = [(segment.end, _element(ATTACHMENTS, payload))]
    changes += _grown(file, segment, len(changes[0][1]))
    changes += _pointed(file, segment)
    if old is not None and old.end - old.start >= 9:
        changes.append((old.start, b"\xec\x01" + (old.end - old.start - 9).to_bytes(7, "big")))
    for place, new in changes:
        file.seek(place)
        file.write(new)


def _others(file: IO[bytes], old: Part | None) -> bytes:
    """The attached files that are not ours, as they are."""
    if old is None:
        return b""
    if old.end - old.start > 4 * MAX_BYTES:
        raise _Odd(f"its other attachments have {old.end - old.start} bytes")
    files = [p for p in _elements(file, old.payload, old.end) if p.kind == FILE and _attached(file, p) is None]
    return b"".join(_read(file, p.start, p.end - p.start) for p in files)


def _grown(file: IO[bytes], segment: Part, more: int) -> list[tuple[int, bytes]]:
    """The Segment's size field with ``more``; none to write if it leaves its size unknown."""
    if not segment.sized:
        return []
    place = segment.start + 4
    length = segment.payload - place
    size = segment.end - segment.payload + more
    if size >= (1 << 7 * length) - 1:
        raise _Odd("the size of its Segment has no room to grow")
    return [(place, (size | 1 << 7 * length).to_bytes(length, "big"))]


def _pointed(file: IO[bytes], segment: Part) -> list[tuple[int, bytes]]:
    """The SeekHead, and the Void behind it, with an entry for attachments at the end of the Segment. Nothing to write
    where there is no room: then they are found by going through the file."""
    first = [part for part, _ in zip(_elements(file, segment.payload, segment.end), range(2), strict=False)]
    if not first or first[0].kind != SEEK_HEAD:
        return []
    head = first[0]
    room = first[1].end if len(first) > 1 and first[1].kind == VOID else head.end
    position = _element(SEEK_POSITION, (segment.end - segment.payload).to_bytes(8, "big"))
    entry = _element(SEEK, _element(SEEK_ID, ATTACHMENTS.to_bytes(4, "big")) + position)
    replaced = {p.start for p, _ in _sought(file, segment, head)}
    kept = b"".join(
        _read(file, p.start, p.end - p.start)
        for p in _elements(file, head.payload, head.end)
        if p.kind == SEEK and not any(p.start < place < p.end for place in replaced)
    )
    payload = kept + entry
    if any(p.kind == CRC32 for p in _elements(file, head.payload, head.end)):
        payload = _element(CRC32, zlib.crc32(payload).to_bytes(4, "little")) + payload
    new = _element(SEEK_HEAD, payload, head.payload - head.start - 4)
    left = room - head.start - len(new)
    if left < 0 or left == 1:
        return []
    filler = b"" if not left else _element(VOID, bytes(left - 2)) if left < 128 else _element(VOID, bytes(left - 9), 8)
    return [(head.start, new + filler)]
