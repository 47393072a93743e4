"""Datagrams: the parts of a .fov file as messages that may be lost, doubled or arrive in any order.

FORMAT.md, "Datagrams", is the page this follows. A message is a *share* of one section of a file:

    base      what must arrive (HEAD, CLAS, the base layer, fILT): any `needed` of its shares rebuild it
    packet    one PCKT each; whatever arrives helps
    parity    what rebuilds lost packets, as many as there are of it
    the rest  ALPH, iCCP, eXIF, xMP_, one section each: every share is needed, the picture is not lost without

`split` and `join` are inverses. Plain bytes; no torch and no numpy.

The base is protected by a Reed-Solomon erasure code over GF(256) in its Cauchy form (Bloemer et al., "An XOR-based
erasure-resilient coding scheme", 1995): shares 0 .. k - 1 are its pieces, share k + j is the sum over the pieces i of
piece i / ((k + j) xor i). Any k shares then determine the pieces, which repeating them does not achieve: of 24 pieces
sent twice, at 30 % loss, one is lost in both copies in 9 cases of 10; of 48 shares, 24 arrive in 999 cases of 1000.
A large base is cut into blocks that are each coded so; the number of a share is 256 * block + share. The packets are
pieces of the same code, each with its length in front and zeros behind; only shares beyond the pieces travel as parity.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from numbers import Integral, Real

from foveal.errors import CorruptError, InputError, LimitError

MAGIC = b"FVD1"
BASE, PACKET, ALPHA, ICC, EXIF, XMP, PARITY = range(7)
NAMES = ("base", "packet", "alpha", "iccp", "exif", "xmp", "parity")
MIN_MTU, MAX_MTU = 128, 65_507  # bytes; the upper one is what UDP over IPv4 carries
PIECES = 24  # of a base at least, where they have PIECE bytes: the more there are, the fewer bytes protect them
PIECE = 128
SHARES = 255  # of a block of the base layer at most, each a number of GF(256)
BLOCKS = 256

_HEAD = struct.Struct(">4sIBHHI")
_CRC = struct.Struct(">I")
_LENGTH = struct.Struct(">H")
OVERHEAD = _HEAD.size + _CRC.size  # bytes of a datagram beside its payload
PACKET_OVERHEAD = OVERHEAD + _LENGTH.size  # for a packet, so that its parity fits too


@dataclass(frozen=True)
class Datagram:
    """One message. file: CRC-32 of the file that all of them make. kind: BASE .. PARITY. number: of this share. needed:
    shares that make up the section, or a block of BASE or PARITY; for PACKET the packets of the file, of which none is
    needed. size: bytes of the section, 0 for PACKET; for PARITY the packets of the file."""

    file: int
    kind: int
    number: int
    needed: int
    size: int
    payload: bytes

    @property
    def name(self) -> str:
        """E.g. "base-0003" or "packet-0017"."""
        return f"{NAMES[self.kind]}-{self.number:04}"

    def to_bytes(self) -> bytes:
        head = _HEAD.pack(MAGIC, self.file, self.kind, self.number, self.needed, self.size) + self.payload
        return head + _CRC.pack(zlib.crc32(head))

    @classmethod
    def from_bytes(cls, data: bytes) -> Datagram | None:
        """The datagram, or None when it is damaged, of no known kind, or none at all."""
        if not OVERHEAD <= len(data) <= MAX_MTU or not data.startswith(MAGIC):
            return None
        if _CRC.unpack(data[-4:])[0] != zlib.crc32(data[:-4]):
            return None
        _, file, kind, number, needed, size = _HEAD.unpack_from(data)
        index, limit = (number & 255, SHARES) if kind in (BASE, PARITY) else (number, needed)
        limit *= kind != PARITY or needed <= index
        valid = kind < len(NAMES) and 1 <= needed <= limit and index < limit and (kind == PACKET) == (size == 0)
        return cls(file, kind, number, needed, size, data[_HEAD.size : -4]) if valid else None


@dataclass(frozen=True)
class Sections:
    """A file in its sections. packets: payload by number, of `count`. rest: whole sections by kind (ALPHA .. XMP).
    lost: in words, what did not arrive."""

    base: bytes
    packets: dict[int, bytes]
    count: int
    rest: dict[int, bytes] = field(default_factory=dict)
    lost: tuple[str, ...] = ()


def split(file: int, sections: Sections, mtu: int, copies: float, parity: float = 0) -> list[Datagram]:
    """Sections -> datagrams of at most `mtu` bytes, in the order in which to send them.

    The pieces of the base come first, its further shares spread among the packets, so that a burst of losses does not
    take them together. `copies`: bytes sent for the base over its size, 1 or more. `parity`: datagrams of parity per
    packet; none for a file that lacks packets. InputError for options out of range, LimitError when a section is too
    large for its datagrams to be counted.
    """
    check(mtu, copies, parity)
    room = mtu - OVERHEAD
    needed, shares = _base_shares(sections.base, room, copies)
    base = [Datagram(file, BASE, i, needed, len(sections.base), share) for i, share in shares.items()]
    pieces, further = [d for d in base if d.number & 255 < needed], [d for d in base if d.number & 255 >= needed]
    first = pieces + _pieces(file, ICC, sections.rest.get(ICC, b""), room)
    packets = [Datagram(file, PACKET, n, sections.count, 0, body) for n, body in sorted(sections.packets.items())]
    for datagram in packets:
        if len(datagram.payload) > mtu - PACKET_OVERHEAD:
            size, most = len(datagram.payload), mtu - PACKET_OVERHEAD
            raise InputError(
                f"packet {datagram.number} has {size} bytes, datagrams of {mtu} hold {most}: repack the file"
            )
    if parity and len(packets) == sections.count:
        packets += _parity(file, sections, parity)
    last = [d for kind in (ALPHA, EXIF, XMP) for d in _pieces(file, kind, sections.rest.get(kind, b""), room)]
    return first + _spread(packets + last, further)


def join(messages: Iterable[bytes]) -> tuple[int, Sections]:
    """(file, sections) from any of a file's datagrams, in any order, with duplicates; damaged ones are left out.

    InputError when there is no datagram or they are of several files; CorruptError when the base cannot be rebuilt, or
    datagrams contradict each other.
    """
    if isinstance(messages, (bytes, bytearray, memoryview)):
        raise InputError("datagrams are given as one piece of bytes; give a list with the bytes of each")
    if not isinstance(messages, Iterable):
        raise InputError(f"datagrams are given as {type(messages).__name__}; give a list with the bytes of each")
    found: dict[tuple[int, int], Datagram] = {}
    kinds: dict[int, Datagram] = {}
    for datagram in filter(None, map(_parsed, messages)):
        old = found.setdefault((datagram.kind, datagram.number), datagram)
        first = kinds.setdefault(datagram.kind, datagram)
        other = next(iter(kinds.values()))
        if datagram.file != other.file:
            raise InputError(f"datagrams of two files, {other.file:08x} and {datagram.file:08x}; unpack one at a time")
        if old != datagram or (first.needed, first.size) != (datagram.needed, datagram.size):
            raise CorruptError(f"two datagrams {datagram.name} of one file contradict each other; send it again")
    if not kinds:
        raise InputError("no intact datagram among these; nothing to unpack")
    return next(iter(kinds.values())).file, _sections(found, kinds)


def _parsed(message: object) -> Datagram | None:
    if not isinstance(message, (bytes, bytearray, memoryview)):
        raise InputError(f"a datagram is given as {type(message).__name__}; give its bytes")
    return Datagram.from_bytes(bytes(message))


def check(mtu: int, copies: float = 1, parity: float = 0) -> None:
    """InputError when datagrams cannot be of this size, or the base not be sent so often, or with so much parity."""
    if not (isinstance(mtu, Integral) and MIN_MTU <= mtu <= MAX_MTU):
        raise InputError(f"mtu {mtu!r} is not a whole number of bytes in {MIN_MTU}..{MAX_MTU}")
    if not (isinstance(copies, Real) and 1 <= copies <= SHARES):
        raise InputError(f"copies {copies!r} is not a number in 1..{SHARES}")
    if not (isinstance(parity, Real) and 0 <= parity <= SHARES - 1):
        raise InputError(f"parity {parity!r} is not a number of datagrams per packet in 0..{SHARES - 1}")


def _sections(found: dict[tuple[int, int], Datagram], kinds: dict[int, Datagram]) -> Sections:
    of = {kind: {n: d.payload for (k, n), d in sorted(found.items()) if k == kind} for kind in range(len(NAMES))}
    lost: list[str] = []
    if BASE not in kinds:
        raise CorruptError("every datagram of the base layer is lost; the picture cannot be decoded, send it again")
    base = _rebuild(of[BASE], kinds[BASE].needed, kinds[BASE].size)
    packets, count = _packets(of[PACKET], of[PARITY], kinds)
    rest = {}
    for kind in (ALPHA, ICC, EXIF, XMP):
        if kind in kinds:
            whole, size = b"".join(of[kind].values()), kinds[kind].size
            if len(of[kind]) == kinds[kind].needed and len(whole) == size:
                rest[kind] = whole
            elif missing := kinds[kind].needed - len(of[kind]):
                lost.append(f"{missing} of {kinds[kind].needed} datagrams of {NAMES[kind]}")
            else:
                lost.append(f"bytes of {NAMES[kind]}")
    if len(packets) < count:
        lost.append(f"{count - len(packets)} of {count} packets")
    return Sections(base, packets, count, rest, tuple(lost))


def _spread(many: list[Datagram], few: list[Datagram]) -> list[Datagram]:
    """Both lists in their order, the second spread evenly over the first."""
    places = [(i / max(len(many), 1), 0, d) for i, d in enumerate(many)]
    places += [((i + 0.5) / len(few), 1, d) for i, d in enumerate(few)]
    return [d for _, _, d in sorted(places, key=lambda place: place[:2])]


def _pieces(file: int, kind: int, data: bytes, room: int) -> list[Datagram]:
    """A section that is not protected: as few datagrams as hold it."""
    needed = -(-len(data) // room)
    if needed > 0xFFFF:
        raise LimitError(f"{NAMES[kind]} of {len(data)} bytes takes {needed} datagrams: allow larger ones")
    return [Datagram(file, kind, i, needed, len(data), data[i * room : (i + 1) * room]) for i in range(needed)]


# --- the code that protects base and packets ---


def _parity(file: int, sections: Sections, parity: float) -> list[Datagram]:
    """Datagrams of parity for all packets. Piece i of block b of B is packet i * B + b, so that a burst of losses falls
    on several blocks."""
    count = sections.count
    blocks = max(1, -(-count // int(SHARES / (1 + parity))))
    if blocks > BLOCKS:
        raise LimitError(f"{count} packets and their parity take more than {BLOCKS} blocks: allow larger datagrams")
    k = -(-count // blocks)
    more, length = min(math.ceil(parity * k), SHARES - k), max(map(len, sections.packets.values()), default=0)
    out: list[Datagram] = []
    for block in range(-(-count // k) if count else 0):
        numbers = _of_block(block, k, count)
        pieces = [_piece(sections.packets[n], length) for n in numbers]
        for n in range(k, k + more):
            share = _combine([_inverse(n ^ i) for i in range(len(pieces))], pieces)
            out.append(Datagram(file, PARITY, 256 * block + n, k, count, share))
    return out


def _packets(
    arrived: dict[int, bytes], parity: dict[int, bytes], kinds: dict[int, Datagram]
) -> tuple[dict[int, bytes], int]:
    """The packets that arrived or can be rebuilt, and how many the file has."""
    if PARITY not in kinds:
        return arrived, kinds[PACKET].needed if PACKET in kinds else 0
    k, count, size = kinds[PARITY].needed, kinds[PARITY].size, len(kinds[PARITY].payload)
    longest = max(map(len, arrived.values()), default=0) + _LENGTH.size
    unlike = any(len(share) != size or n >> 8 >= -(-count // k) for n, share in parity.items())
    if unlike or longest > size or (PACKET in kinds and kinds[PACKET].needed != count):
        raise CorruptError("packets and the datagrams of their parity contradict each other; send the file again")
    found = dict(arrived)
    for block in {n >> 8 for n in parity}:
        numbers = _of_block(block, k, count)
        shares = {i: _piece(arrived[n], size - 2) for i, n in enumerate(numbers) if n in arrived}
        shares |= {i: bytes(size) for i in range(len(numbers), k)}
        own = {n & 255: share for n, share in parity.items() if n >> 8 == block}
        if len(shares) == k or len(shares) + len(own) < k:
            continue
        whole = _block(shares | own, k)
        found |= {n: _unpiece(whole[i * size : (i + 1) * size]) for i, n in enumerate(numbers)}
    return dict(sorted(found.items())), count


def _of_block(block: int, k: int, count: int) -> range:
    return range(block, count, -(-count // k))


def _piece(payload: bytes, length: int) -> bytes:
    """A packet as a piece of the code: its length, itself, zeros up to the length of the longest."""
    return _LENGTH.pack(len(payload)) + payload.ljust(length, b"\0")


def _unpiece(piece: bytes) -> bytes:
    (length,) = _LENGTH.unpack_from(piece)
    if length > len(piece) - _LENGTH.size:
        raise CorruptError("a packet rebuilt from its parity is damaged; send the file again")
    return piece[_LENGTH.size : _LENGTH.size + length]


def _base_shares(data: bytes, room: int, copies: float) -> tuple[int, dict[int, bytes]]:
    """(pieces of a block, share by number). As many pieces as the room asks for, or up to PIECES of PIECE bytes."""
    pieces = max(-(-len(data) // room), min(PIECES, len(data) // PIECE), 1)
    blocks = math.ceil(pieces * copies / SHARES)
    k = -(-pieces // blocks)
    length = -(-len(data) // (k * blocks))
    if blocks > BLOCKS:
        raise LimitError(f"base layer of {len(data)} bytes takes {pieces} datagrams: allow larger ones")
    total = min(math.ceil(k * copies), SHARES)
    shares: dict[int, bytes] = {}
    for block in range(-(-len(data) // (k * length))):
        part = data[block * k * length : (block + 1) * k * length].ljust(k * length, b"\0")
        own = [part[i * length : (i + 1) * length] for i in range(k)]
        own += [_combine([_inverse(n ^ i) for i in range(k)], own) for n in range(k, total)]
        shares |= {256 * block + n: share for n, share in enumerate(own)}
    return k, shares


def _rebuild(shares: dict[int, bytes], k: int, size: int) -> bytes:
    """The base from any `k` shares of each block. CorruptError with what is missing when there are fewer."""
    length = len(next(iter(shares.values())))
    blocks = -(-size // (k * length)) if length else 0
    if any(len(share) != length or n >> 8 >= blocks for n, share in shares.items()):
        raise CorruptError("base layer: the sizes of its datagrams contradict each other; send it again")
    data = b""
    for block in range(blocks):
        own = {n & 255: share for n, share in shares.items() if n >> 8 == block}
        if len(own) < k:
            gone = ", ".join(f"base-{256 * block + n:04}" for n in range(k) if n not in own)
            arrived = f"{len(own)} of the {k} datagrams needed arrived"
            raise CorruptError(f"base layer: {arrived} and nothing replaces {gone}; send it again, or with more copies")
        data += _block(own, k)
    return data[:size]


def _block(shares: dict[int, bytes], k: int) -> bytes:
    """The pieces of a block from `k` or more of its shares."""
    pieces = {n: share for n, share in shares.items() if n < k}
    gone = [n for n in range(k) if n not in pieces]
    rows = [n for n in shares if n >= k][: len(gone)]
    # what the lost pieces alone contribute to each further share, then the Cauchy matrix undone
    sums = [_combine([1, *(_inverse(n ^ i) for i in pieces)], [shares[n], *pieces.values()]) for n in rows]
    matrix = _inverted([[_inverse(n ^ i) for i in gone] for n in rows])
    pieces |= {n: _combine(row, sums) for n, row in zip(gone, matrix, strict=True)}
    return b"".join(pieces[n] for n in range(k))


def _combine(factors: list[int], parts: list[bytes]) -> bytes:
    """The sum of parts of one length, each times its factor, byte by byte in GF(256)."""
    total = 0
    for factor, part in zip(factors, parts, strict=True):
        total ^= int.from_bytes(part.translate(_times(factor)), "big")
    return total.to_bytes(len(parts[0]), "big")


def _inverted(matrix: list[list[int]]) -> list[list[int]]:
    """The inverse of a square matrix over GF(256), by elimination; a Cauchy matrix always has one."""
    n = len(matrix)
    rows = [bytes(row) + bytes(int(i == j) for j in range(n)) for i, row in enumerate(matrix)]
    for i in range(n):
        pivot = next(j for j in range(i, n) if rows[j][i])
        rows[i], rows[pivot] = rows[pivot], rows[i]
        rows[i] = _combine([_inverse(rows[i][i])], [rows[i]])
        rows = [row if j == i else _combine([1, row[i]], [row, rows[i]]) for j, row in enumerate(rows)]
    return [list(row[n:]) for row in rows]


@lru_cache(maxsize=256)
def _times(factor: int) -> bytes:
    """The multiples of a factor in GF(256) modulo x^8 + x^4 + x^3 + x^2 + 1, as a table of all bytes."""
    table = bytearray(256)
    for value in range(256):
        product, a, b = 0, value, factor
        while b:
            product ^= a if b & 1 else 0
            a, b = (a << 1) ^ (0x11D if a & 0x80 else 0), b >> 1
        table[value] = product
    return bytes(table)


@lru_cache(maxsize=256)
def _inverse(value: int) -> int:
    return _times(value).index(1)
