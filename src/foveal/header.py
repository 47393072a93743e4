"""The HEAD chunk of a .fov file, what else a file holds, and the limits a reader sets: plain types after FORMAT.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal, NamedTuple

from foveal.errors import CorruptError, InputError, LimitError, VersionError

VERSION = 2  # the newest; files whose layout needs nothing of it are written as version 1
MAX_LAYERS = 15
COMPLETE = 0x80  # in the byte of the layers: the last packets hold the dropped tokens
MAX_SIDE = 65_535  # pixels
MAX_LEVEL = 1264  # sixteenths of a level: 79.0
METADATA = (b"iCCP", b"eXIF", b"xMP_")

_MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}
HEAD = struct.Struct(">BBBBHHH8sHHBB")


@dataclass(frozen=True)
class Limits:
    """The largest sizes that are accepted, each checked before anything is allocated for it.

    max_pixels: width x height. max_chunk, max_metadata, max_bytes: bytes of one chunk's payload, of one
    metadata payload and of a whole file. max_chunks: chunks in a file.
    """

    max_pixels: int = 1 << 28
    max_chunk: int = 256 << 20
    max_metadata: int = 16 << 20
    max_bytes: int = 1 << 30
    max_chunks: int = 70_000

    def of_chunk(self, type_: bytes) -> int:
        """The longest payload for a chunk of this type, bytes."""
        return self.max_metadata if type_ in METADATA else self.max_chunk


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Header:
    """The HEAD chunk.

    width, height: pixels, 1..65535. mode: what the pixels decode to, beside alpha. model: number of the
    model; weights: first 8 bytes of its hash. level: 0..1264, sixteenths. packets: how many PCKT chunks the
    file was written with. classes: importance classes in use, 1..4; 1 = every token has class 1 and there is
    no CLAS chunk, n > 1 = classes 0 (dropped) .. n - 1, which CLAS gives. patch: side of a patch, pixels, 16.
    version: 1, or 2 = base layer in parts and tokens spread over the packets. layers: of quality, 1..15; complete:
    dropped tokens are sent too, last of all; both of version 2 only.
    """

    width: int
    height: int
    mode: Literal["L", "RGB"]
    alpha: bool
    model: int
    weights: bytes
    level: int
    packets: int
    classes: int = 1
    patch: int = 16
    version: int = 1
    layers: int = 1
    complete: bool = False

    @property
    def columns(self) -> int:
        """Tokens in a row of the grid."""
        return -(-self.width // self.patch)

    @property
    def rows(self) -> int:
        """Tokens in a column of the grid."""
        return -(-self.height // self.patch)

    @property
    def base_parts(self) -> int:
        """Chunks of the base layer: BASE alone, or BASE, BAS2 and BAS3."""
        return 1 if self.version == 1 else 3

    def check_pixels(self, limits: Limits = DEFAULT_LIMITS) -> None:
        """LimitError when the picture has more pixels than `limits` allow."""
        if self.width * self.height > limits.max_pixels:
            size = f"{self.width}x{self.height}"
            raise LimitError(f"picture is {size}, at most {limits.max_pixels} pixels in all: scale it down")

    def to_bytes(self) -> bytes:
        """The 24 bytes of a HEAD payload. InputError or LimitError when a field is out of range."""
        if max(self.width, self.height) > MAX_SIDE:
            size = f"{self.width}x{self.height}"
            raise LimitError(f"picture is {size}, a side is at most {MAX_SIDE} pixels: scale it down")
        if fault := _header_fault(self):
            raise InputError(f"header: {fault}")
        mode = 1 if self.mode == "L" else 3
        layout = self.layers + COMPLETE * self.complete if self.version > 1 else 0
        return HEAD.pack(
            self.version, mode, self.alpha, self.patch, self.width, self.height,
            self.model, self.weights, self.level, self.packets, self.classes, layout,
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, payload: bytes) -> Header:
        """The header in a HEAD payload. VersionError when it is newer, CorruptError when it is no header."""
        version = payload[0] if payload else 0
        if version > VERSION:
            raise VersionError(f"file version {version}, this Foveal reads {VERSION}: pip install -U foveal")
        if len(payload) != HEAD.size:
            raise CorruptError(f"HEAD is {len(payload)} bytes, expected {HEAD.size}")
        _, mode, alpha, patch, width, height, model, weights, level, packets, classes, layout = HEAD.unpack(payload)
        if mode not in _MODES or alpha > 1 or (version == 1 and layout):
            raise CorruptError(f"HEAD: mode {mode}, alpha {alpha}, last byte {layout}; expected 1|3, 0|1, 0")
        layers, complete = (layout % COMPLETE, layout >= COMPLETE) if version > 1 else (1, False)
        header = cls(
            width, height, _MODES[mode], bool(alpha), model, weights, level, packets, classes, patch, version,
            layers, complete,
        )  # fmt: skip
        if fault := _header_fault(header):
            raise CorruptError(f"HEAD: {fault}")
        return header


def _header_fault(header: Header) -> str | None:
    """The first field of a header that is out of range, with its value; None if there is none."""
    ranges = {
        "version": (1, VERSION), "layers": (1, MAX_LAYERS), "patch": (16, 16), "width": (1, MAX_SIDE),
        "height": (1, MAX_SIDE), "model": (0, 0xFFFF), "level": (0, MAX_LEVEL), "packets": (0, 0xFFFF), "classes": (1, 4),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        if not low <= getattr(header, name) <= high:
            return f"{name} is {getattr(header, name)}, expected {low}..{high}"
    if header.version == 1 and (header.layers, header.complete) != (1, False):
        return f"version is 1, which has no layers, here {header.layers}, complete {header.complete}"
    if header.mode not in _MODES.values():
        return f"mode is {header.mode!r}, expected 'L' or 'RGB'"
    return None if len(header.weights) == 8 else f"weights is {len(header.weights)} bytes, expected 8"


class Packet(NamedTuple):
    """One PCKT chunk. number: 0..65534, 0 the most important. payload: the words behind the number."""

    number: int
    payload: bytes


@dataclass(frozen=True)
class Contents:
    """Everything a file holds. None is an absent chunk; `classes` is None exactly when header.classes is 1.

    base: the base layer, in version 2 its first part; more: its other parts, fewer than there should be when some are
    lost, and then no packets. packets: by rising number; fewer than header.packets when some are lost.
    damaged: one line for each thing that a tolerant `read` left out. `write` ignores it.
    """

    header: Header
    base: bytes
    packets: tuple[Packet, ...] = ()
    classes: bytes | None = None
    alpha: bytes | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    damaged: tuple[str, ...] = ()
    more: tuple[bytes, ...] = ()
    filter: bytes | None = None

    @property
    def whole_base(self) -> bool:
        """Whether all parts of the base layer are there."""
        return len(self.more) == self.header.base_parts - 1


class Metadata(NamedTuple):
    """The payloads of iCCP, eXIF and xMP_, as they are in the file."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None


class ChunkInfo(NamedTuple):
    """One chunk as it lies in a file. offset: of its length field, bytes. length: of its payload, bytes."""

    type: str
    offset: int
    length: int
    crc_ok: bool
