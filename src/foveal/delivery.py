"""Parts of a file: cut it to a size, send it as datagrams, make a file of those that arrive.

Whole chunks are moved, none is decoded, so this needs no torch; only `pack` does, when packets are too large.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterable
from numbers import Real

from foveal import container, datagrams
from foveal.errors import CorruptError, FovealWarning, InputError, TruncatedError

_START = (b"HEAD", b"CLAS", b"BASE", *container.MORE, b"fILT")
_REST = {datagrams.ICC: b"iCCP", datagrams.ALPHA: b"ALPH", datagrams.EXIF: b"eXIF", datagrams.XMP: b"xMP_"}
_BEFORE_PACKETS = ("fILT", "iCCP", "ALPH")  # when not everything fits: what all of the picture looks better with

Chunk = tuple[str, bytes]


def truncate(data: bytes, size: int) -> bytes:
    """The file cut to at most ``size`` bytes: header, class map and base layer, or its first parts, then filter, colour
    profile and alpha plane, then whole packets in order of importance, then metadata, as far as they fit.

    The result is a file with packets missing (decode it with on_loss='auto' or 'conceal'). InputError when ``size``
    does not hold header and base layer, or its first part if it has several, FormatError for what is no intact file.
    """
    chunks = _chunks(data)
    if not (isinstance(size, Real) and size == size):
        raise InputError(f"size {size!r} is not a number of bytes")
    container.read(data, tolerant=True)  # a file that can be decoded, or the error that says why not
    if not chunks or chunks[-1][0] != "IEND":
        raise TruncatedError("the end of the file (IEND) is missing; get the file again")
    if len(data) <= size:
        return bytes(data)
    short = container.is_short(data)

    def file(chosen: set[int]) -> bytes:
        return _in_form(short, *(chunk for i, (_, chunk) in enumerate(chunks) if i in chosen))

    needed = {name for name, _ in chunks} & {"HEAD", "CLAS", "BASE", "IEND"}
    kept = {i for i, (name, _) in enumerate(chunks) if name in needed}
    left = size - len(file(kept))
    if left < 0:
        raise InputError(f"{size} bytes do not hold header and base layer, which take {size - left}; allow more")
    packets = [i for i, (name, _) in enumerate(chunks) if name == "PCKT"]
    first = [i for i, (name, _) in enumerate(chunks) if name in _BEFORE_PACKETS]
    base = [i for i, (name, _) in enumerate(chunks) if name.encode() in container.MORE]
    others = [i for i, (name, _) in enumerate(chunks) if name not in needed and i not in {*base, *first, *packets}]
    full = False
    for i in [*base, *first, *packets, *others]:
        if full and i in packets:
            continue
        length = len(file(kept | {i})) - (size - left) if short else len(chunks[i][1])  # a short file has few
        if length <= left:
            kept.add(i)
            left -= length
        elif i in base:
            break
        else:
            full |= i in packets
    return file(kept)


def pack(data: bytes, *, mtu: int = 1200, copies: float = 2.25, parity: float = 0.3) -> list[bytes]:
    """The file as datagrams of at most ``mtu`` bytes (what UDP carries; its own headers not counted), in the order in
    which to send them. Packets that are too large are coded anew in smaller ones, without loss.

    ``copies`` is how many times the base layer's bytes are sent, as an erasure code: any sufficient number of its
    datagrams rebuild it. ``parity`` is how many datagrams are sent for each packet besides: they replace as many lost ones,
    whichever these are. Unknown ancillary chunks are left out. ``mtu`` 128..65507, ``copies`` 1..255, ``parity`` 0..254.
    InputError for options, FormatError for a bad file, LimitError for one that takes more datagrams than can be counted.
    """
    datagrams.check(mtu, copies, parity)
    _chunks(data)
    contents = container.read(data, tolerant=True)
    if any(len(packet.payload) > mtu - datagrams.PACKET_OVERHEAD for packet in contents.packets):
        from foveal.image.codec import repack

        data = repack(data, mtu=mtu)
        contents = container.read(data)
    short = container.is_short(data)
    kept = (*_START, b"IEND") if short else _START
    start = _in_form(short, *(chunk for name, chunk in _chunks(data) if name.encode() in kept))
    whole = {
        datagrams.ICC: contents.icc,
        datagrams.ALPHA: contents.alpha,
        datagrams.EXIF: contents.exif,
        datagrams.XMP: contents.xmp,
    }
    sections = datagrams.Sections(
        start,
        {p.number: p.payload for p in contents.packets},
        contents.header.packets,
        {kind: body for kind, body in whole.items() if body},
    )
    return [d.to_bytes() for d in datagrams.split(zlib.crc32(_assembled(sections)), sections, mtu, copies, parity)]


def unpack(messages: Iterable[bytes]) -> bytes:
    """A .fov file of any of its datagrams, in any order, with duplicates; damaged ones count as lost.

    The same bytes as were packed when all arrived, otherwise a file with packets missing (decode it with on_loss='auto'
    or 'conceal'). FovealWarning when an alpha plane, a colour profile, EXIF or XMP is missing; of the last three that is
    only known if a part of them or all of the rest arrived. InputError when they are none or of several files, CorruptError
    when too little of the base layer is there.
    """
    file, sections = datagrams.join(messages)
    data = _assembled(sections)
    container.read(data, tolerant=True)  # a file like any other, or the error that says why not
    if zlib.crc32(data) != file and (lost := _lost_beside_packets(sections)):
        warnings.warn(f"{', '.join(lost)} did not arrive; the file is without", FovealWarning, stacklevel=2)
    return data


def _lost_beside_packets(sections: datagrams.Sections) -> list[str]:
    """What is missing, in words, of a file that is not what was packed; nothing where packets alone may be."""
    header = container.read(sections.base, tolerant=True).header
    lost = [words for words in sections.lost if not words.endswith("packets")]
    if header.alpha and datagrams.ALPHA not in sections.rest and not any(words.endswith("alpha") for words in lost):
        lost.append("the alpha plane")
    if not lost and len(sections.packets) == header.packets:
        lost.append("a colour profile, EXIF or XMP, as it seems,")
    return lost


def _assembled(sections: datagrams.Sections) -> bytes:
    """The file of these sections; CorruptError where they do not make one."""
    header = container.read(sections.base, tolerant=True).header
    if sections.packets and sections.count != header.packets:
        raise CorruptError(f"datagrams are of {sections.count} packets, the header of {header.packets}; send it again")
    start = [(name.encode(), chunk) for name, chunk in _chunks(sections.base) if name != "IEND"]
    names = [name for name, _ in start]
    expected = [b"HEAD", *[b"CLAS"] * (header.classes > 1), b"BASE", *container.MORE[: header.base_parts - 1]]
    plain = [name for name in names if name != b"fILT"]
    if b"BASE" not in names or plain != expected[: len(plain)]:
        raise CorruptError("the base datagrams do not hold header and base layer; send them again")
    rest = {_REST[kind]: _chunk(_REST[kind], body) for kind, body in sections.rest.items()}
    parts = [start[0][1], rest.pop(b"iCCP", b""), *(chunk for _, chunk in start[1:])]
    parts += [_chunk(b"PCKT", struct.pack(">H", number) + body) for number, body in sorted(sections.packets.items())]
    parts += [rest.get(type_, b"") for type_ in (b"ALPH", b"eXIF", b"xMP_")]
    return _in_form(container.is_short(sections.base), *parts, _chunk(b"IEND", b""))


def _in_form(short: bool, *chunks: bytes) -> bytes:
    """A file of these chunks, in the short form or not."""
    data = container.SIGNATURE + b"".join(chunks)
    return container.shorten(data) if short else data


def _chunks(data: bytes) -> list[Chunk]:
    """(type, whole chunk) of every chunk, all checksums right; CorruptError otherwise."""
    found = container.list_chunks(data)
    data = container.expand(data)
    wrong = [chunk.type or "the end" for chunk in found if not chunk.crc_ok]
    if wrong:
        raise CorruptError(f"{', '.join(wrong[:8])}: damaged or cut off; get the file again")
    return [(chunk.type, bytes(data[chunk.offset : chunk.offset + 12 + chunk.length])) for chunk in found]


def _chunk(type_: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + type_ + payload + struct.pack(">I", zlib.crc32(type_ + payload))
