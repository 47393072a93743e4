"""The .fov file: a signature and chunks, read and written. FORMAT.md is the page this follows.

    signature  HEAD  iCCP?  CLAS?  BASE  BAS2?  BAS3?  fILT?  PCKT...  ALPH?  eXIF?  xMP_?  IEND

`write` and `read` are inverses; readers take the short form too (`short.py`) and speak of it as if it lay in chunks.
Payloads are opaque bytes. Every size is compared with `Limits` before anything is allocated; refusals are typed errors.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import chain
from typing import BinaryIO, NamedTuple

from foveal import short
from foveal.errors import (
    CorruptError,
    FovealError,
    InputError,
    LimitError,
    NotFovealError,
    TruncatedError,
    VersionError,
)
from foveal.header import DEFAULT_LIMITS, METADATA, Header, Limits
from foveal.header import ChunkInfo as ChunkInfo
from foveal.header import Contents as Contents
from foveal.header import Metadata as Metadata
from foveal.header import Packet as Packet
from foveal.short import Expander as Expander
from foveal.short import expand as expand
from foveal.short import is_short as is_short
from foveal.short import shorten as shorten

Data = bytes | bytearray | memoryview

SIGNATURE = short.MAGIC + short.LONG
CONCEAL = "decode with on_loss='conceal' to get the rest"

MORE = (b"BAS2", b"BAS3")  # further parts of the base layer, version 2

_ORDER = (b"HEAD", b"iCCP", b"CLAS", b"BASE", *MORE, b"fILT", b"PCKT", b"ALPH", b"eXIF", b"xMP_", b"IEND")
_RANK = {type_: rank for rank, type_ in enumerate(_ORDER)}
_LENGTH_TYPE = struct.Struct(">I4s")
_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_TYPE = re.compile(rb"[A-Za-z][A-Za-z0-9_]{3}")
_AFTER_BASE = re.compile(rb"BAS[23]|fILT|PCKT|ALPH|eXIF|xMP_|IEND")


class _Chunk(NamedTuple):
    type: bytes
    offset: int
    payload: bytes

    @property
    def end(self) -> int:
        return self.offset + 12 + len(self.payload)

    def __str__(self) -> str:
        return f"{_printable(self.type)} at byte {self.offset}"


# --- write ---


def write(contents: Contents, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """The file with these contents; the same contents give the same bytes.

    Packets may be missing (any subset is a file, with loss) but their numbers must rise. InputError for
    contents that no reader would accept, LimitError above a limit.
    """
    header = contents.header
    head = header.to_bytes()
    header.check_pixels(limits)
    if (contents.alpha is not None) != header.alpha:
        raise InputError(f"header.alpha is {header.alpha}, which the alpha payload contradicts")
    if (contents.classes is not None) != (header.classes > 1):
        raise InputError(f"header.classes is {header.classes}, which the class map contradicts")
    numbers = [p.number for p in contents.packets]
    if numbers != sorted({n for n in numbers if 0 <= n < header.packets}):
        raise InputError(f"packet numbers {numbers[:8]} must rise and be below {header.packets}")
    if len(contents.more) >= header.base_parts or (contents.packets and not contents.whole_base):
        parts = f"{1 + len(contents.more)} parts of {header.base_parts} and {len(contents.packets)} packets"
        raise InputError(f"base layer of {parts}; packets need all parts of it")
    chunks: list[tuple[bytes, bytes | None]] = [
        (b"HEAD", head),
        (b"iCCP", contents.icc),
        (b"CLAS", contents.classes),
        (b"BASE", contents.base),
        *zip(MORE, contents.more, strict=False),
        (b"fILT", contents.filter),
        *((b"PCKT", _U16.pack(p.number) + p.payload) for p in contents.packets),
        (b"ALPH", contents.alpha),
        (b"eXIF", contents.exif),
        (b"xMP_", contents.xmp),
        (b"IEND", b""),
    ]
    data = SIGNATURE + b"".join(_pack_chunk(t, body, limits) for t, body in chunks if body is not None)
    if len(data) > limits.max_bytes:
        raise LimitError(f"file would be {len(data)} bytes, at most {limits.max_bytes}: scale it down")
    return data


def _pack_chunk(type_: bytes, payload: bytes, limits: Limits) -> bytes:
    if len(payload) > limits.of_chunk(type_):
        raise LimitError(f"{type_.decode()} would be {len(payload)} bytes, at most {limits.of_chunk(type_)}")
    if not payload and type_ != b"IEND":
        raise InputError(f"{type_.decode()} payload is empty; leave it out with None")
    return _LENGTH_TYPE.pack(len(payload), type_) + payload + _U32.pack(zlib.crc32(type_ + payload))


# --- read ---


def read(data: Data, *, tolerant: bool = False, limits: Limits = DEFAULT_LIMITS) -> Contents:
    """The contents of a file, all checksums and rules checked.

    tolerant: leave out what is damaged, cut off or missing behind the base layer and name it in `damaged`;
    HEAD, CLAS and BASE must be intact still. Otherwise any fault raises a FormatError or LimitError.
    """
    data = expand(_as_bytes(data, limits))
    header = read_header(data, limits=limits)
    if not tolerant:
        return _assemble(header, _intact_chunks(data, limits), None)
    damaged: list[str] = []
    return _assemble(header, _surviving_chunks(data, limits, damaged), damaged)


def read_header(source: Data | BinaryIO, *, limits: Limits = DEFAULT_LIMITS) -> Header:
    """The header alone; reads 44 bytes of a file object, from where it stands, or up to 67. FormatError or LimitError."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = BytesIO(_as_bytes(source, limits))
    begins = source.read(len(SIGNATURE))
    if short.is_short(begins):
        source = BytesIO(expand(begins + source.read(short.MOST - len(begins))))
        begins = source.read(len(SIGNATURE))
    _check_signature(begins)
    start = source.read(_LENGTH_TYPE.size)
    if len(start) == _LENGTH_TYPE.size:
        length, type_ = _LENGTH_TYPE.unpack(start)
        if type_ != b"HEAD":
            raise CorruptError(f"first chunk is {_printable(type_)}, expected HEAD")
        start += source.read(min(length, 1024) + 4)
    chunk = _chunk_at(SIGNATURE + start, len(SIGNATURE), Limits(max_chunk=1024))
    header = Header.from_bytes(chunk.payload)
    header.check_pixels(limits)
    return header


def read_metadata(file: BinaryIO, *, limits: Limits = DEFAULT_LIMITS) -> Metadata:
    """ICC, EXIF and XMP of a seekable file at position 0, skipping the rest unread.

    For viewers that want them before the pixels. Never raises for damage: what is not intact is None.
    """
    found: dict[bytes, bytes] = {}
    file.seek(0)
    if short.is_short(file.read(len(SIGNATURE))):
        return Metadata(*map(short.metadata(file, limits).get, METADATA))
    for _ in range(limits.max_chunks):
        start = file.read(_LENGTH_TYPE.size)
        if len(start) < _LENGTH_TYPE.size:
            break
        length, type_ = _LENGTH_TYPE.unpack(start)
        if type_ not in METADATA or length > limits.max_metadata:
            file.seek(length + 4, 1)
            continue
        payload = file.read(length)
        if payload and file.read(4) == _U32.pack(zlib.crc32(type_ + payload)):
            found.setdefault(type_, payload)
    return Metadata(*map(found.get, METADATA))


def read_packet(chunk: bytes, header: Header, offset: int) -> Packet:
    """The packet in the chunk at byte ``offset`` of a file that arrives in pieces. CorruptError when it is none."""
    return _packet(_chunk_at(SIGNATURE + chunk, len(SIGNATURE), DEFAULT_LIMITS)._replace(offset=offset), [], header)


def list_chunks(data: Data, *, limits: Limits = DEFAULT_LIMITS) -> list[ChunkInfo]:
    """Every chunk in file order, by length alone; damage is shown by `crc_ok`, not raised.

    A chunk that is cut off keeps the length it claims; bytes that are no chunk at the end get the type "".
    NotFovealError or TruncatedError for the signature, LimitError for the file size or the number of chunks.
    """
    data = expand(_as_bytes(data, limits))
    _check_signature(data[: len(SIGNATURE)])
    chunks: list[ChunkInfo] = []
    offset, type_ = len(SIGNATURE), b""
    while offset < len(data):
        if len(chunks) == limits.max_chunks:
            raise LimitError(f"more than {limits.max_chunks} chunks")
        if type_ == b"IEND" or offset + _LENGTH_TYPE.size > len(data):
            return [*chunks, ChunkInfo("", offset, len(data) - offset, False)]
        length, type_ = _LENGTH_TYPE.unpack_from(data, offset)
        chunks.append(ChunkInfo(_printable(type_), offset, length, _crc_fault(data, offset, length) is None))
        offset += 12 + length
    return chunks


def _intact_chunks(data: bytes, limits: Limits) -> Iterator[_Chunk]:
    """All chunks up to IEND, which must be the end; any damage raises."""
    offset = len(SIGNATURE)
    for _ in range(limits.max_chunks):
        chunk = _chunk_at(data, offset, limits)
        yield chunk
        offset = chunk.end
        if chunk.type == b"IEND":
            if offset < len(data):
                raise CorruptError(f"{len(data) - offset} bytes after IEND; {CONCEAL}")
            return
    raise LimitError(f"more than {limits.max_chunks} chunks")


def _surviving_chunks(data: bytes, limits: Limits, damaged: list[str]) -> Iterator[_Chunk]:
    """The intact chunks; appends to `damaged` for the others. Raises for damage up to and including BASE."""
    offset, type_, base_seen = len(SIGNATURE), b"", False
    budget = 4 * len(data) + 4096  # bytes to checksum in searches: hostile files stay linear
    for _ in range(limits.max_chunks):
        if (base_seen and offset >= len(data)) or type_ == b"IEND":
            break
        try:
            chunk = _chunk_at(data, offset, limits)
        except FovealError as fault:
            if not base_seen and data[offset + 4 : offset + 8] != b"iCCP":
                raise
            next_offset, budget = _next_intact(data, offset, limits, budget, search=base_seen)
            if not base_seen and next_offset == len(data):
                raise
            damaged.append(str(fault))
            offset = next_offset
            continue
        yield chunk
        offset, type_ = chunk.end, chunk.type
        base_seen = base_seen or type_ == b"BASE"
    if type_ != b"IEND":
        damaged.append("the end of the file (IEND) is missing")
    elif offset < len(data):
        damaged.append(f"{len(data) - offset} bytes after IEND ignored")


def _next_intact(data: bytes, offset: int, limits: Limits, budget: int, *, search: bool) -> tuple[int, int]:
    """Where the next intact chunk after a damaged one at `offset` begins, or len(data); and the budget left.

    First where its length points; then, if `search`, wherever a known type stands.
    """
    declared = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
    found = (m.start() - 4 for m in _AFTER_BASE.finditer(data, offset + 8)) if search else iter(())
    for candidate in chain((declared,), found):
        if candidate + 12 > len(data):
            continue
        length = int.from_bytes(data[candidate : candidate + 4], "big")
        if candidate + 12 + length > len(data):
            continue
        budget -= length + 64
        if budget < 0:
            break
        try:
            _chunk_at(data, candidate, limits)
        except FovealError:
            continue
        return candidate, budget
    return len(data), budget


def _assemble(header: Header, chunks: Iterable[_Chunk], damaged: list[str] | None) -> Contents:
    """Chunks in file order to contents; `damaged` is None when loss is an error."""
    found: dict[bytes, bytes] = {}
    packets: list[Packet] = []
    rank = -1
    for chunk in chunks:
        if chunk.type not in _RANK and chunk.type[:1].isupper():
            raise VersionError(f"{chunk}: a critical chunk this Foveal does not know: pip install -U foveal")
        if chunk.type not in _RANK:
            continue
        rank = _check_rank(chunk, rank)
        if chunk.type == b"PCKT":
            packets.append(_packet(chunk, packets, header))
        else:
            found[chunk.type] = chunk.payload
    if b"BASE" not in found:
        raise CorruptError("the base layer (BASE) is missing; the file cannot be decoded")
    if b"ALPH" in found and not header.alpha:
        raise CorruptError("an ALPH chunk in a picture without alpha")
    if (b"CLAS" in found) != (header.classes > 1):
        state = "present" if b"CLAS" in found else "missing"
        raise CorruptError(f"the class map (CLAS) is {state} in a picture of {header.classes} classes")
    more, losses = _more(header, found)
    if len(more) < header.base_parts - 1:
        packets = []  # they cannot be decoded
    losses += _losses(header, packets, b"ALPH" in found)
    if losses and damaged is None:
        raise CorruptError(f"{'; '.join(losses)}; {CONCEAL}")
    classes, alpha, icc, exif, xmp = map(found.get, (b"CLAS", b"ALPH", *METADATA))
    lost = (*(damaged or ()), *losses)
    filter_ = found.get(b"fILT") if len(more) == header.base_parts - 1 else None
    return Contents(header, found[b"BASE"], tuple(packets), classes, alpha, icc, exif, xmp, lost, more, filter_)


def _more(header: Header, found: dict[bytes, bytes]) -> tuple[tuple[bytes, ...], list[str]]:
    """The further parts of the base layer up to the first that is missing, and a line about that one."""
    if header.base_parts == 1 and (extra := [name for name in MORE if name in found]):
        raise CorruptError(
            f"{_printable(extra[0])} in a file of version {header.version}, whose base layer is one chunk"
        )
    parts: list[bytes] = []
    for name in MORE[: header.base_parts - 1]:
        if name not in found:
            return tuple(parts), [f"a part of the base layer ({name.decode()}) is missing, so no packet can be used"]
        parts.append(found[name])
    return tuple(parts), []


def _packet(chunk: _Chunk, before: list[Packet], header: Header) -> Packet:
    if len(chunk.payload) < _U16.size:
        raise CorruptError(f"{chunk}: {len(chunk.payload)} bytes, expected at least {_U16.size}")
    (number,) = _U16.unpack_from(chunk.payload)
    if number >= header.packets:
        raise CorruptError(f"{chunk}: packet number {number} in a file of {header.packets}")
    if before and number <= before[-1].number:
        raise CorruptError(f"{chunk}: packet number {number} after {before[-1].number}; numbers must rise")
    return Packet(number, chunk.payload[_U16.size :])


def _losses(header: Header, packets: list[Packet], has_alpha: bool) -> list[str]:
    """What the header promises and the file lacks, one line each."""
    losses = []
    if len(packets) < header.packets:
        missing = sorted(set(range(header.packets)) - {p.number for p in packets})
        names = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        losses.append(f"{len(missing)} of {header.packets} packets missing: {names}")
    if header.alpha and not has_alpha:
        losses.append("the alpha plane (ALPH) is missing")
    return losses


# --- checks ---


def _chunk_at(data: bytes, offset: int, limits: Limits) -> _Chunk:
    """The chunk that begins at `offset`, its type, length and CRC checked."""
    if offset + _LENGTH_TYPE.size > len(data):
        raise TruncatedError(f"the file ends at byte {len(data)}, before IEND; get it again, or {CONCEAL}")
    length, type_ = _LENGTH_TYPE.unpack_from(data, offset)
    name = f"{_printable(type_)} at byte {offset}"
    if not _TYPE.fullmatch(type_):
        raise CorruptError(f"no chunk at byte {offset}: type {type_!r}")
    if length > limits.of_chunk(type_):
        raise LimitError(f"{name}: {length} bytes, at most {limits.of_chunk(type_)}")
    if fault := _crc_fault(data, offset, length):
        error = TruncatedError if offset + 12 + length > len(data) else CorruptError
        raise error(f"{name}: {fault}; get the file again, or {CONCEAL}")
    return _Chunk(type_, offset, data[offset + 8 : offset + 8 + length])


def _crc_fault(data: bytes, offset: int, length: int) -> str | None:
    """What is wrong with the checksum of the chunk at `offset`, None if nothing. Copies no payload."""
    end = offset + 8 + length
    if end + 4 > len(data):
        return f"{length} bytes and a CRC promised, {max(len(data) - offset - 8, 0)} bytes left"
    stored = _U32.unpack_from(data, end)[0]
    computed = zlib.crc32(memoryview(data)[offset + 4 : end])
    return None if stored == computed else f"CRC 0x{computed:08x}, expected 0x{stored:08x}"


def _check_signature(start: bytes) -> None:
    if start == SIGNATURE:
        return
    if SIGNATURE.startswith(start):
        raise TruncatedError(f"the file ends after {len(start)} bytes, inside the signature")
    if start.startswith(SIGNATURE[:4]):
        raise NotFovealError("a damaged Foveal signature; was the file sent in text mode? send it as binary")
    raise NotFovealError(f"not a Foveal file: it begins {start!r}")


def _check_rank(chunk: _Chunk, before: int) -> int:
    """The chunk's place in the order, after the one `before`; its payload must be empty for IEND alone."""
    if (chunk.type == b"IEND") != (not chunk.payload):
        raise CorruptError(f"{chunk}: {len(chunk.payload)} bytes; IEND has none and every other chunk some")
    rank = _RANK[chunk.type]
    if rank < before or (rank == before and chunk.type != b"PCKT"):
        raise CorruptError(f"{chunk}: twice or out of order")
    return rank


def _as_bytes(data: Data, limits: Limits) -> bytes:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise InputError(f"expected the bytes of a .fov file, got {type(data).__name__}")
    size = data.nbytes if isinstance(data, memoryview) else len(data)
    if size > limits.max_bytes:
        raise LimitError(f"file is {size} bytes, at most {limits.max_bytes}")
    return data if isinstance(data, bytes) else bytes(data)


def _printable(type_: bytes) -> str:
    return "".join(chr(b) if 32 < b < 127 else "?" for b in type_)
