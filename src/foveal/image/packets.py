"""The class map ("position information") and the partition of tokens into packets.

Tokens are ordered by falling class, within a class by falling salience (an integer both sides derive from the base
layer), in version 2 by quarters of it and within a quarter along a lattice, so that what travels together lies apart.
A *unit* is a token's channel slices of one quality layer; units, layer after layer, are cut into runs, and packet
payloads begin with their run (first, count), so any subset of packets decodes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foveal.errors import CorruptError, InputError
from foveal.taps import Counts

RUN = struct.Struct(">II")
QUARTERS = 4  # of a class by salience, each spread by itself
LATTICE = (49472, 37345)  # 65536 over the plastic number, and over its square: consecutive tokens lie far apart
Classes = NDArray[np.uint8]
Ints = NDArray[np.int64]


class Flags(Protocol):
    """Writes one binary decision with the probability of True."""

    def flags(self, bit: bool, probability: float, /) -> None: ...


class Pull(Protocol):
    """Reads one binary decision with the probability of True."""

    def flag(self, probability: float, /) -> bool: ...


def _context(rows: list[list[int]], y: int, x: int, decision: int) -> int:
    """0..26: of west, north and the two diagonals above, how many are beyond the decision; outside counts as not."""
    above = rows[y - 1] if y else None
    near = (x > 0 and rows[y][x - 1] > decision) + (above is not None and above[x] > decision)
    far = above is not None and (x > 0 and above[x - 1] > decision) + (x + 1 < len(above) and above[x + 1] > decision)
    return 9 * decision + 3 * near + int(far)


def push_classes(classes: Classes, count: int, coder: Flags) -> None:
    """Code a (h, w) map of classes < ``count`` as unary binary decisions ("more than 0?", "more than 1?", ...)."""
    rows: list[list[int]] = classes.tolist()
    model = Counts(9 * count)
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            for decision in range(min(value + 1, count - 1)):
                context = _context(rows, y, x, decision)
                coder.flags(value > decision, model.yes(context) / 65536)
                model.update(context, value > decision)


def pull_classes(h: int, w: int, count: int, coder: Pull) -> Classes:
    """The inverse of ``push_classes``."""
    rows: list[list[int]] = []
    model = Counts(9 * count)
    for y in range(h):
        rows.append([0] * w)
        for x in range(w):
            value = 0
            while value < count - 1:
                context = _context(rows, y, x, value)
                more = coder.flag(model.yes(context) / 65536)
                model.update(context, more)
                if not more:
                    break
                value += 1
            rows[y][x] = value
    return np.array(rows, np.uint8)


def order(classes: NDArray[np.uint8], salience: NDArray[np.int64]) -> NDArray[np.int64]:
    """Kept tokens (class > 0) by falling class, then falling salience, then raster order: indices (n,) int64."""
    flat = classes.ravel().astype(np.int64)
    ranked = np.lexsort((-salience, -flat))
    return np.asarray(ranked[: int((flat > 0).sum())], np.int64)


def spread(tokens: Ints, classes: NDArray[np.uint8], columns: int) -> Ints:
    """The tokens of ``order`` so that tokens next to each other in it lie apart in the picture: each class cut into
    QUARTERS by place, each quarter by rising (49472 y + 37345 x) mod 65536, then row by row."""
    flat = classes.ravel()[tokens].astype(np.int64)
    edges = np.searchsorted(-flat, -flat, "left"), np.searchsorted(-flat, -flat, "right")
    quarter = (np.arange(len(tokens)) - edges[0]) * QUARTERS // np.maximum(edges[1] - edges[0], 1)
    lattice = (tokens // columns * LATTICE[0] + tokens % columns * LATTICE[1]) % 65536
    return np.asarray(tokens[np.lexsort((tokens, lattice, quarter, -flat))], np.int64)


@dataclass(frozen=True)
class Layer:
    """Units ``start`` .. start + len(tokens) - 1: the slices a .. b - 1 of these tokens, in the order of sending."""

    start: int
    tokens: Ints
    a: int
    b: int


def layers(kept: Ints, dropped: Ints, count: int, slices: int) -> list[Layer]:
    """``count`` quality layers of the kept tokens, of about as many of the ``slices`` each, then, if any are to be
    sent, the dropped tokens with all their slices. CorruptError for more layers than slices."""
    if not 1 <= count <= slices:
        raise CorruptError(f"{count} layers of {slices} slices of channels; get the file again")
    edges = [i * slices // count for i in range(count + 1)]
    found = [Layer(i * len(kept), kept, a, b) for i, (a, b) in enumerate(pairwise(edges))]
    return found + [Layer(count * len(kept), dropped, 0, slices)] * (len(dropped) > 0)


def runs(tokens: int, packets: int) -> list[tuple[int, int]]:
    """Cut ``tokens`` into ``packets`` even runs (first, count); fewer when there are fewer tokens."""
    if packets < 1:
        raise InputError(f"packets {packets} is below 1; a picture needs at least one packet")
    edges = [tokens * i // min(packets, max(tokens, 1)) for i in range(min(packets, max(tokens, 1)) + 1)]
    return [(a, b - a) for a, b in pairwise(edges) if b > a]


def by_size(
    bits: NDArray[np.float64], room: int, code: Callable[[int, int], bytes], start: int = 0
) -> list[tuple[int, int, bytes]]:
    """Cut units with these estimated costs (n,) into the longest runs whose payloads fit in ``room`` bytes: (first,
    count, payload) of each. The first unit has the number ``start`` in the file.

    ``code(first, count)`` codes a run. The estimate says where to cut; a payload that is longer all the same is coded
    again with fewer tokens. InputError when one token alone does not fit.
    """
    ends, found, first = np.cumsum(bits) / 8, [], 0
    while first < len(bits):
        before = ends[first - 1] if first else 0.0
        count = max(1, int(np.searchsorted(ends, before + room - RUN.size, "right")) - first)
        payload = wrap((start + first, count), code(first, count))
        while len(payload) > room and count > 1:
            spent = ends[first + count - 1] - before
            count = min(count - 1, int(np.searchsorted(ends, before + spent - (len(payload) - room), "right")) - first)
            count = max(1, count)
            payload = wrap((start + first, count), code(first, count))
        if len(payload) > room:
            raise InputError(f"a patch takes {len(payload)} bytes where packets have {room}; allow larger datagrams")
        found.append((first, count, payload))
        first += count
    return found


def wrap(run: tuple[int, int], stream: bytes) -> bytes:
    """Payload of one packet."""
    return RUN.pack(*run) + stream


def unwrap(payload: bytes, units: int, bare: bool = False) -> tuple[tuple[int, int], bytes]:
    """(first, count) and the range-coder stream; CorruptError when the run leaves the ``units`` there are. ``bare``: the
    payload is the stream of all units, without a run."""
    if len(payload) < RUN.size and not bare:
        raise CorruptError(f"packet holds {len(payload)} bytes, fewer than its {RUN.size}-byte run; get the file again")
    first, count = (0, units) if bare else RUN.unpack_from(payload)
    if count < 1 or first + count > units:
        raise CorruptError(f"packet covers units {first}..{first + count} of {units}; get the file again")
    return (first, count), payload if bare else payload[RUN.size :]
