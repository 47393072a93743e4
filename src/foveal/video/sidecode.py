"""Side information as bytes: facts about a coded clip, weights of blocks, taps of the filter, changes of the last layer.

``push`` and ``pull`` are inverse. ``docs/video-side-information.md`` describes the bytes; every size is checked
before anything is allocated for it, and whatever was not written by a ``Pusher`` ends in a typed error or in some weights.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import constriction
import numpy as np
from numpy.typing import NDArray

from foveal import taps as taps_of
from foveal.errors import CorruptError, InputError, LimitError, TruncatedError, VersionError
from foveal.taps import Counts, Get, Put
from foveal.video.types import BLEND_BLOCK, DETAIL, GROUP, IDENTITY, MOMENTS, NEAR, OWN, REACH, SCALES, Planes

MAGIC, VERSION = b"FVSI", 4  # 1 to 3, which told less, are from before the first release and not read
WEIGHTS = np.array([0.0, 0.5, 1.0, 1.5], np.float32)
USUAL = 2  # index of weight 1, which holds before the first frame
STEP = 64  # taps are in 64ths
FIRST_TAPS = tuple(int(tap) * STEP for tap in IDENTITY)  # before the first group
CODECS, KERNELS = ("", "svtav1", "x265", "x264", "ffv1"), ("lanczos", "bicubic", "area")
MAX_BYTES, MAX_PIXELS, MOST_CHANNELS = 1 << 26, 1 << 26, 128
UNKNOWN_CRF = 0xFFFF
COEFFICIENTS = 36  # of the last layer's change, per channel

_HEAD = struct.Struct(">4sBBBBHBB8sHHIIB")
Indices = NDArray[np.uint8]  # of WEIGHTS


@dataclass(frozen=True)
class Facts:
    """What side information is about. ``scale``: output / coded size. ``codec``, ``crf``: of the coded video, "" and None
    if unknown. ``kernel``: of the downscaling. ``model``: one letter; ``weights``: 8 bytes that tell its weights
    from others. ``width``, ``height``: of the output. ``frames``: in all. ``check``: CRC-32 of the first
    coded frame, decoded: its samples, y, u, v, row by row, those of 10 bits as two bytes, low byte first. ``channels``: that
    the network's last layer looks at, 0 when nothing is told of it.
    """

    scale: float
    codec: str
    crf: float | None
    kernel: str
    model: str
    weights: bytes
    width: int
    height: int
    frames: int = 0
    check: int = 0
    channels: int = 0

    @property
    def blocks(self) -> tuple[int, int]:
        """Rows and columns of blocks."""
        return -(-self.height // BLEND_BLOCK), -(-self.width // BLEND_BLOCK)

    def to_bytes(self) -> bytes:
        """The 33 bytes of the header. InputError for facts that it cannot hold."""
        letter = self.model.encode()
        if self.scale not in SCALES or self.codec not in CODECS or self.kernel not in KERNELS or len(letter) != 1:
            raise InputError(
                f"no side information for scale {self.scale}, {self.codec!r}, {self.kernel!r}, {self.model!r}"
            )
        if len(self.weights) != 8 or not (0 < self.width < 1 << 16 and 0 < self.height < 1 << 16):
            raise InputError(f"no side information for weights {self.weights!r}, {self.width}x{self.height}")
        if not 0 <= self.channels <= MOST_CHANNELS:
            raise InputError(f"no side information for {self.channels} channels, at most {MOST_CHANNELS}")
        crf = UNKNOWN_CRF if self.crf is None else round(self.crf * 100)
        codec, kernel = CODECS.index(self.codec), KERNELS.index(self.kernel)
        sizes = self.width, self.height, self.frames, self.check, self.channels
        return _HEAD.pack(
            MAGIC, VERSION, round(self.scale * 2), codec, kernel, crf, letter[0], GROUP, self.weights, *sizes
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Facts:
        """The facts in a header. Every field is checked before anything is made of it."""
        magic, version, halves, codec, kernel, crf, letter, group, weights, *sizes = _HEAD.unpack_from(data)
        if magic != MAGIC:
            raise CorruptError(f"side information begins with {magic!r}, expected {MAGIC!r}")
        if version > VERSION:
            raise VersionError(
                f"side information of version {version}, this Foveal reads {VERSION}: pip install -U foveal"
            )
        if 1 <= version < VERSION:
            raise VersionError(
                f"side information of version {version}, from before the first release: encode the video again"
            )
        if version < 1 or not 2 <= halves <= 4 or codec >= len(CODECS) or kernel >= len(KERNELS) or group != GROUP:
            raise CorruptError(
                f"side information: {version=} {halves=} {codec=} {kernel=} {group=} are not all possible"
            )
        if not 97 <= letter <= 122 or (crf > 6300 and crf != UNKNOWN_CRF) or min(sizes[:3]) < 1:
            raise CorruptError(f"side information: {letter=} {crf=} {sizes=} are not all possible")
        if sizes[4] > MOST_CHANNELS:
            raise CorruptError(f"side information for {sizes[4]} channels, at most {MOST_CHANNELS} are possible")
        if sizes[0] * sizes[1] > MAX_PIXELS:
            raise LimitError(f"side information is for {sizes[0]}x{sizes[1]}, above {MAX_PIXELS} pixels")
        told = None if crf == UNKNOWN_CRF else crf / 100
        return cls(halves / 2, CODECS[codec], told, KERNELS[kernel], chr(letter), weights, *sizes)


def check_of(planes: Planes) -> int:
    """``Facts.check`` of a clip that begins with this coded frame."""
    crc = 0
    for plane in (planes.y, planes.u, planes.v):
        crc = zlib.crc32(plane.astype(plane.dtype.newbyteorder("<")).tobytes(), crc)
    return crc


# --- symbols <-> decisions ---


SAME_FRAME, CHANGED, FIRST, SECOND, TAP = 0, 1, 10, 13, 16


def _kinds() -> list[int]:
    """What kind each tap is: near or far of coded luma, the residual's own or beside it, other frames, chroma."""
    side = range(-REACH, REACH + 1)
    detail = [int(max(abs(y), abs(x)) > 1) for y in side for x in side if y or x]
    around = (2 * NEAR + 1) ** 2
    return [*detail, *(2 if DETAIL + i == OWN else 3 for i in range(around)), *(4 for _ in MOMENTS), 5, 5]


KINDS = tuple(_kinds())
LAYER = TAP + taps_of.contexts(KINDS)
CONTEXTS = LAYER + 1 + taps_of.contexts(range(12))


@lru_cache(maxsize=8)
def kinds_of_change(channels: int) -> tuple[int, ...]:
    """What kind each coefficient of the last layer's change is: of one of four patterns, and there a mean over the 3x3, a
    slope, or another wave."""
    waves = 0, 1, 2, 1, 2, 2, 2, 2, 2
    return tuple(3 * pattern + wave for pattern in range(4) for _ in range(channels) for wave in waves)


def others(weight: int) -> list[int]:
    """The other three weights, the nearest first, of two as near the smaller."""
    return sorted((k for k in range(4) if k != weight), key=lambda k: (abs(k - weight), k))


_OTHERS = [others(k) for k in range(4)]


def push_frame(frame: Indices, before: Indices, coder: Put) -> None:
    """The weights of a frame (rows, columns) after those of the one before."""
    same = bool((frame == before).all())
    coder.put(SAME_FRAME, same)
    if same:
        return
    above, above_old = [-1] * frame.shape[1], [-1] * frame.shape[1]
    for row, row_old in zip(frame.tolist(), before.tolist(), strict=True):
        left = left_old = -1
        for x, (weight, old) in enumerate(zip(row, row_old, strict=True)):
            near = left, above[x]
            coder.put(_changed_context(near, (left_old, above_old[x]), old), weight != old)
            if weight != old:
                first, second, _ = _OTHERS[old]
                coder.put(FIRST + near.count(first), weight == first)
                if weight != first:
                    coder.put(SECOND + near.count(second), weight == second)
            left, left_old = weight, old
        above, above_old = row, row_old


def pull_frame(before: Indices, coder: Get) -> Indices:
    """The inverse of ``push_frame``."""
    if coder.get(SAME_FRAME):
        return before
    rows: list[list[int]] = []
    above, above_old = [-1] * before.shape[1], [-1] * before.shape[1]
    for row_old in before.tolist():
        row, left, left_old = [], -1, -1
        for x, old in enumerate(row_old):
            near, weight = (left, above[x]), old
            if coder.get(_changed_context(near, (left_old, above_old[x]), old)):
                first, second, third = _OTHERS[old]
                weight = first
                if not coder.get(FIRST + near.count(first)):
                    weight = second if coder.get(SECOND + near.count(second)) else third
            row.append(weight)
            left, left_old = weight, old
        rows.append(row)
        above, above_old = row, row_old
    return np.array(rows, np.uint8)


def _changed_context(near: tuple[int, int], near_old: tuple[int, int], old: int) -> int:
    """How many of left and above changed themselves, and how many have another weight than this block had."""
    changed = (near[0] != near_old[0]) + (near[1] != near_old[1])
    different = (near[0] not in (old, -1)) + (near[1] not in (old, -1))
    return CHANGED + 3 * changed + different


# --- decisions <-> bytes ---


class Tally:
    """Counts the bits that a stream would grow by."""

    def __init__(self, counts: Counts) -> None:
        self.counts, self.bits = counts.copy(), 0.0

    def put(self, context: int, bit: bool) -> None:
        yes = self.counts.yes(context)
        self.bits += 16 - math.log2(yes if bit else 65536 - yes)
        self.counts.update(context, bit)

    def put_bits(self, value: int, bits: int) -> None:
        self.bits += bits


class Pusher:
    """A stream being written."""

    def __init__(self) -> None:
        self.counts, self._coder = Counts(CONTEXTS), constriction.stream.queue.RangeEncoder()

    def put(self, context: int, bit: bool) -> None:
        self._coder.encode(np.array([bit], np.int32), _bernoulli(self.counts.yes(context)))
        self.counts.update(context, bit)

    def put_bits(self, value: int, bits: int) -> None:
        self._coder.encode(np.array([value], np.int32), constriction.stream.model.Uniform(1 << bits))

    def finish(self) -> bytes:
        """Big-endian 32-bit words without the zero bytes at their end."""
        return bytes(self._coder.get_compressed().astype(">u4").tobytes()).rstrip(b"\0")


class Puller:
    """A stream being read; beyond its end are zeros. CorruptError for what no ``Pusher`` wrote."""

    def __init__(self, data: bytes) -> None:
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), ">u4").astype(np.uint32)
        self.counts, self._coder = Counts(CONTEXTS), constriction.stream.queue.RangeDecoder(words)

    def get(self, context: int) -> bool:
        bit = bool(self._pull(_bernoulli(self.counts.yes(context))))
        self.counts.update(context, bit)
        return bit

    def get_bits(self, bits: int) -> int:
        return self._pull(constriction.stream.model.Uniform(1 << bits))

    def _pull(self, model: object) -> int:
        try:
            return int(self._coder.decode(model, 1)[0])
        except AssertionError as e:
            raise CorruptError(f"side information is invalid ({e})") from e


@lru_cache(maxsize=4096)
def _bernoulli(yes: int) -> object:
    return constriction.stream.model.Bernoulli(yes / 65536, perfect=False)


# --- the whole ---


def unchanged(facts: Facts) -> list[int]:
    """Coefficients of the last layer's change before the first group: none."""
    return [0] * (COEFFICIENTS * facts.channels)


class SideWriter:
    """Side information being written, a group at a time."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.pusher = facts, Pusher()
        self.frames = 0
        self.taps: Sequence[int] = FIRST_TAPS
        self.change: Sequence[int] = unchanged(facts)
        self.weights = np.full(facts.blocks, USUAL, np.uint8)

    def cost(self, weights: list[Indices], taps: Sequence[int], change: Sequence[int] | None = None) -> float:
        """Bits that ``push`` of this group would add."""
        tally = Tally(self.pusher.counts)
        self._push(weights, taps, self.change if change is None else change, tally)
        return tally.bits

    def push(self, weights: list[Indices], taps: Sequence[int], change: Sequence[int] | None = None) -> None:
        """The next group: (rows, columns) indices of WEIGHTS for each of its 1..64 frames, its taps in 64ths, and the
        coefficients of the last layer's change, see ``lastlayer``; None: those of the group before."""
        change = self.change if change is None else change
        self._push(weights, taps, change, self.pusher)
        self.frames, self.taps, self.change, self.weights = self.frames + len(weights), taps, change, weights[-1]

    def _push(self, weights: list[Indices], taps: Sequence[int], change: Sequence[int], coder: Put) -> None:
        if self.facts.channels:
            changed = list(change) != list(self.change)
            coder.put(LAYER, changed)
            if changed:
                taps_of.push(change, self.change, kinds_of_change(self.facts.channels), coder, LAYER + 1)
        taps_of.push(taps, self.taps, KINDS, coder, TAP)
        for before, frame in zip([self.weights, *weights[:-1]], weights, strict=True):
            push_frame(frame, before, coder)

    def finish(self, check: int) -> bytes:
        """All of it: header, stream, checksum. ``check``: see Facts. InputError when there is no frame."""
        if not self.frames:
            raise InputError("there is no frame to give side information of")
        head = replace(self.facts, frames=self.frames, check=check).to_bytes()
        body = head + self.pusher.finish()
        return body + zlib.crc32(body).to_bytes(4, "big")


class SideReader:
    """Side information read back, frame by frame; ``facts`` says what it is about."""

    def __init__(self, data: bytes) -> None:
        """TruncatedError, CorruptError, VersionError or LimitError for bytes that are no side information."""
        if len(data) > MAX_BYTES:
            raise LimitError(f"side information has {len(data)} bytes, at most {MAX_BYTES} are read")
        if len(data) < _HEAD.size + 4:
            raise TruncatedError(f"side information has {len(data)} bytes, expected {_HEAD.size + 4} or more")
        self.facts = Facts.from_bytes(data)
        told, found = int.from_bytes(data[-4:], "big"), zlib.crc32(data[:-4])
        if told != found:
            raise CorruptError(f"side information: CRC {found:#010x}, expected {told:#010x}")
        self._stream = data[_HEAD.size : -4]
        self._rewind()

    def _rewind(self) -> None:
        self._puller, self._next, self._groups = Puller(self._stream), 0, 0  # frames and heads of groups that are read
        self._taps: Sequence[int] = FIRST_TAPS
        self._change: Sequence[int] = unchanged(self.facts)
        self._weights = np.full(self.facts.blocks, USUAL, np.uint8)

    def frame(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Blend weights (rows, columns) and taps (39,) of a frame; fastest in order. InputError beyond the last."""
        self._reach(number)
        while self._next <= number:
            self._pull_frame()
        return WEIGHTS[self._weights], (np.array(self._taps) / STEP).astype(np.float32)

    def change(self, number: int) -> Sequence[int]:
        """Coefficients (36 x channels) of the last layer's change in the group of a frame, see ``lastlayer``. Fastest with
        the first frame of each group. InputError beyond the last."""
        self._reach(number)
        return self._change

    def _reach(self, number: int) -> None:
        """Read as far as the head of the group of a frame."""
        if not 0 <= number < self.facts.frames:
            raise InputError(f"side information is of {self.facts.frames} frames, there is no frame {number}")
        if number < self._next - 1 or number // GROUP < self._groups - 1:
            self._rewind()
        while self._groups <= number // GROUP:
            while self._next < self._groups * GROUP:
                self._pull_frame()
            if self.facts.channels and self._puller.get(LAYER):
                kinds = kinds_of_change(self.facts.channels)
                self._change = taps_of.pull(self._change, kinds, self._puller, LAYER + 1)
            self._taps = taps_of.pull(self._taps, KINDS, self._puller, TAP)
            self._groups += 1

    def _pull_frame(self) -> None:
        self._weights = pull_frame(self._weights, self._puller)
        self._next += 1
