"""The short form of a .fov file: what is in one packet, without the chunks' frames. FORMAT.md, "Short form".

    signature  version  kind  sections  size  level  model  weights  lengths  CRC | payload  CRC | payload  CRC | ...

Some 60 bytes fewer than the same file in chunks, which is what counts for small pictures and thin links. ``expand`` gives
the file in chunks, ``shorten`` takes it back; all rules are those of the file in chunks, and damage or a missing end shows
in it as it would there. No torch and no numpy.
"""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO, NamedTuple

from foveal.errors import CorruptError, VersionError
from foveal.header import HEAD, METADATA, Header, Limits

MAGIC = b"\x89FOV"
LONG = b"\r\n\x1a\n"  # what follows it where chunks follow
NEWER = range(2, 10)  # in the place of the version: 10 is a line feed, 13 the signature of a file in chunks
SECTIONS = (b"iCCP", b"CLAS", b"BASE", b"fILT", b"PCKT", b"ALPH", b"eXIF", b"xMP_")  # in the order of the file
NUMBER = b"\0\0"  # of the only packet, which the short form leaves out
END = b"\0\0\0\0IEND\xae\x42\x60\x82"
TOO_LONG = 0xFFFFFFFF - len(NUMBER)  # for the length of a chunk
MOST = 23 + 5 * len(SECTIONS) + 4  # bytes before the first payload

_FIXED = struct.Struct(">4sBBBHHHH8s")
_FRAME = struct.Struct(">I4s")
_U32 = struct.Struct(">I")
_RGB, _ALPHA, _CLASSES, _PACKET, _UNUSED = 1, 2, 4, 16, 0xE0


class Section(NamedTuple):
    """A payload and its CRC as they lie in the file: ``size`` bytes, CRC not counted, from byte ``offset`` on."""

    type: bytes
    offset: int
    size: int


class Start(NamedTuple):
    """All before the first payload, ``size`` bytes: the payload of HEAD, the sections, and whether the checksum is right."""

    head: bytes
    sections: tuple[Section, ...]
    intact: bool
    size: int

    @property
    def end(self) -> int:
        """Bytes of the whole file."""
        return self.sections[-1].offset + self.sections[-1].size + 4 if self.sections else self.size


def is_short(data: bytes) -> bool:
    """Whether a file that begins so is in the short form. VersionError for one of a later version."""
    if data[:4] == MAGIC and len(data) > 4 and data[4] in NEWER:
        raise VersionError(f"file version {data[4]} of the short form, this Foveal reads 1: pip install -U foveal")
    return data[:5] == MAGIC + b"\1"


def start_of(data: bytes) -> Start | None:
    """What a file in the short form says of itself; None if it is cut before that ends. CorruptError when its checksum is
    right and its fields are not."""
    at = _FIXED.size
    if len(data) < at:
        return None
    _, version, kind, present, width, height, level, model, weights = _FIXED.unpack_from(data)
    names = [name for bit, name in enumerate(SECTIONS) if present >> bit & 1]
    lengths = []
    for _ in names:
        length, used = _length(data[at : at + 5])
        if not used:
            return None
        lengths.append(length)
        at += used
    if len(data) < at + 4:
        return None
    intact = zlib.crc32(data[4:at]) == _U32.unpack_from(data, at)[0]
    at += 4
    size, sections = at, []
    for name, length in zip(names, lengths, strict=True):
        sections.append(Section(name, at, length))
        at += length + 4
    if intact and (kind & _UNUSED or max(lengths, default=0) >= TOO_LONG):
        raise CorruptError(f"HEAD: kind {kind}, lengths {lengths}, or one of them badly written; get the file again")
    mode, classes = 3 if kind & _RGB else 1, 1 + kind // _CLASSES % 4
    head = HEAD.pack(
        version, mode, bool(kind & _ALPHA), 16, width, height, model, weights, level,
        bool(kind & _PACKET), classes, 0,
    )  # fmt: skip
    return Start(head, tuple(sections), intact, size)


class Expander:
    """A file that arrives piece by piece, in either form -> the same file in chunks, piece by piece."""

    def __init__(self) -> None:
        self._start, self._taken = b"", 0
        self._frames: list[tuple[int, bytes]] | None = None  # what goes into the file before its byte of this number

    def feed(self, data: bytes) -> bytes:
        """The chunks' bytes that follow from these."""
        if self._frames is None:
            self._start += data
            start = start_of(self._start) if is_short(self._start) else None
            if start is None and (len(self._start) < 5 or is_short(self._start)):
                return b""
            self._taken = start.size if start else 0
            self._frames, data = _frames(start) if start else [], self._start[self._taken :]
        out = []
        while self._frames and self._frames[0][0] <= self._taken + len(data):
            place, frame = self._frames.pop(0)
            out += [data[: place - self._taken], frame]
            data, self._taken = data[place - self._taken :], place
        self._taken += len(data)
        return b"".join((*out, data))


def _frames(start: Start) -> list[tuple[int, bytes]]:
    """Which bytes of a file in chunks stand before which byte of the short form."""
    crc = zlib.crc32(b"HEAD" + start.head) ^ (not start.intact)
    found = [(start.size, MAGIC + LONG + _FRAME.pack(len(start.head), b"HEAD") + start.head + _U32.pack(crc))]
    if not start.intact:
        return found
    for name, offset, size in start.sections:
        number = NUMBER if name == b"PCKT" else b""
        found.append((offset, _FRAME.pack(size + len(number), name) + number))
    return [*found, (start.end, END)]


def expand(data: bytes) -> bytes:
    """The file in chunks, whose payloads and checksums are those of ``data``, damaged or cut where it is; ``data`` itself if
    it is in chunks, or is no such file."""
    if not is_short(data):
        return data
    return Expander().feed(data) or (MAGIC + LONG)


def shorten(data: bytes) -> bytes:
    """The short form of an intact file in chunks, if it has one: version 1, at most one packet, no chunk of another kind;
    else ``data``."""
    at, chunks = 8, []
    while at < len(data):
        length, name = _FRAME.unpack_from(data, at)
        chunks.append((name, data[at + 8 : at + 8 + length], data[at + 8 + length : at + 12 + length]))
        at += 12 + length
    head = Header.from_bytes(chunks[0][1])
    if head.version > 1 or head.packets > 1 or any(name not in SECTIONS for name, _, _ in chunks[1:-1]):
        return data
    kind = _RGB * (head.mode == "RGB") + _ALPHA * head.alpha + _CLASSES * (head.classes - 1) + _PACKET * head.packets
    bodies = [(name, body[len(NUMBER) :] if name == b"PCKT" else body, crc) for name, body, crc in chunks[1:-1]]
    present = sum(1 << SECTIONS.index(name) for name, _, _ in bodies)
    fixed = _FIXED.pack(MAGIC, 1, kind, present, head.width, head.height, head.level, head.model, head.weights)
    start = fixed + b"".join(_varint(len(body)) for _, body, _ in bodies)
    start += _U32.pack(zlib.crc32(start[4:]))
    return start + b"".join(body + crc for _, body, crc in bodies)


def metadata(file: BinaryIO, limits: Limits) -> dict[bytes, bytes]:
    """ICC, EXIF and XMP of a file in the short form, by type, the rest left unread; what is not intact is left out."""
    file.seek(0)
    start, found = start_of(file.read(MOST)), {}
    for name, offset, size in start.sections if start and start.intact else ():
        if name in METADATA and size <= limits.max_metadata:
            file.seek(offset)
            payload = file.read(size)
            if payload and file.read(4) == _U32.pack(zlib.crc32(name + payload)):
                found[name] = payload
    return found


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first, the top bit set in all but the last."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _length(data: bytes) -> tuple[int, int]:
    """The number at the start of ``data`` and the bytes it takes, 0 if it is cut. One that goes on for more than five bytes
    or ends in a byte too many counts as TOO_LONG."""
    value = 0
    for used, byte in enumerate(data, 1):
        value |= (byte & 127) << 7 * (used - 1)
        if byte < 128:
            return (value if byte or used == 1 else TOO_LONG), used
    return (TOO_LONG, 5) if len(data) == 5 else (0, 0)
