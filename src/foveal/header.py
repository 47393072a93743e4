"""The HEAD chunk of a .fov file, and the limits a reader sets: plain types. FORMAT.md has the table."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Literal

from foveal.errors import CorruptError, InputError, LimitError, VersionError

VERSION = 1
MAX_SIDE = 65_535  # pixels
MAX_LEVEL = 1264  # sixteenths of a level: 79.0
METADATA = (b"iCCP", b"eXIF", b"xMP_")

_MODES: dict[int, Literal["L", "RGB"]] = {1: "L", 3: "RGB"}
_HEAD = struct.Struct(">BBBBHHH8sHHBB")


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
    version: int = VERSION

    @property
    def columns(self) -> int:
        """Tokens in a row of the grid."""
        return -(-self.width // self.patch)

    @property
    def rows(self) -> int:
        """Tokens in a column of the grid."""
        return -(-self.height // self.patch)

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
        return _HEAD.pack(
            self.version, mode, self.alpha, self.patch, self.width, self.height,
            self.model, self.weights, self.level, self.packets, self.classes, 0,
        )  # fmt: skip

    @classmethod
    def from_bytes(cls, payload: bytes) -> Header:
        """The header in a HEAD payload. VersionError when it is newer, CorruptError when it is no header."""
        version = payload[0] if payload else 0
        if version > VERSION:
            raise VersionError(f"file version {version}, this Foveal reads {VERSION}: pip install -U foveal")
        if len(payload) != _HEAD.size:
            raise CorruptError(f"HEAD is {len(payload)} bytes, expected {_HEAD.size}")
        _, mode, alpha, patch, width, height, model, weights, *rest, reserved = _HEAD.unpack(payload)
        if mode not in _MODES or alpha > 1 or reserved:
            raise CorruptError(f"HEAD: mode {mode}, alpha {alpha}, reserved {reserved}; expected 1|3, 0|1, 0")
        level, packets, classes = rest
        header = cls(width, height, _MODES[mode], bool(alpha), model, weights, level, packets, classes, patch, version)
        if fault := _header_fault(header):
            raise CorruptError(f"HEAD: {fault}")
        return header


def _header_fault(header: Header) -> str | None:
    """The first field of a header that is out of range, with its value; None if there is none."""
    ranges = {
        "version": (VERSION, VERSION), "patch": (16, 16), "width": (1, MAX_SIDE), "height": (1, MAX_SIDE),
        "model": (0, 0xFFFF), "level": (0, MAX_LEVEL), "packets": (0, 0xFFFF), "classes": (1, 4),
    }  # fmt: skip
    for name, (low, high) in ranges.items():
        if not low <= getattr(header, name) <= high:
            return f"{name} is {getattr(header, name)}, expected {low}..{high}"
    if header.mode not in _MODES.values():
        return f"mode is {header.mode!r}, expected 'L' or 'RGB'"
    return None if len(header.weights) == 8 else f"weights is {len(header.weights)} bytes, expected 8"
