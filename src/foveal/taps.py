"""Taps of filters that a sender fits to what it codes: found by least squares with their bits in mind, and coded.

Both codecs send some: the image codec one filter for a picture, the video codec one for every 64 frames. Taps are whole
numbers of a small step, coded as differences from those before, most of which are none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from foveal.errors import CorruptError

LOWEST, HIGHEST = -128, 127
LONGEST = 7  # bits behind the first one of a difference
RIDGE = 1e-6  # of the mean square of the features, so that least squares always has one answer
SWEEPS = 12  # at most, over the taps
BITS = np.array([0.7, *(3.0 + 2 * math.floor(math.log2(n)) for n in range(1, HIGHEST - LOWEST + 1))])  # of a difference

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Put(Protocol):
    """Takes one binary decision in a context, or ``bits`` equally likely ones."""

    def put(self, context: int, bit: bool) -> None: ...
    def put_bits(self, value: int, bits: int) -> None: ...


class Get(Protocol):
    """Gives what ``Put`` took."""

    def get(self, context: int) -> bool: ...
    def get_bits(self, bits: int) -> int: ...


class Counts:
    """How often each of ``contexts`` said no and yes; a probability is Krichevsky and Trofimov's, in 65536ths."""

    def __init__(self, contexts: int) -> None:
        self.pairs = [[1, 1] for _ in range(contexts)]

    def copy(self) -> Counts:
        """The same counts, to go on with apart."""
        new = Counts(0)
        new.pairs = [list(pair) for pair in self.pairs]
        return new

    def yes(self, context: int) -> int:
        """Probability of yes x 65536, 1..65535."""
        no, yes = self.pairs[context]
        return (2 * yes - 1) * 65536 // (2 * (no + yes) - 2)

    def update(self, context: int, bit: bool) -> None:
        """Count a decision; halved beyond 255 so that it follows."""
        pair = self.pairs[context]
        pair[bit] += 1
        if pair[0] + pair[1] > 255:
            self.pairs[context] = [(n + 1) // 2 for n in pair]


def contexts(kinds: Sequence[int]) -> int:
    """How many contexts ``push`` and ``pull`` need for taps of these kinds."""
    return max(kinds) + 1 + LONGEST


def push(taps: Sequence[int], before: Sequence[int], kinds: Sequence[int], coder: Put, first: int = 0) -> None:
    """Taps after those ``before``: whether each is the same, in the context of its kind, else its sign and how far away it
    is, in an exponential Golomb code. ``first``: of the contexts."""
    longer = first + max(kinds) + 1
    for kind, tap, old in zip(kinds, taps, before, strict=True):
        coder.put(first + kind, tap == old)
        if tap == old:
            continue
        coder.put_bits(tap > old, 1)
        far = abs(tap - old)
        length = far.bit_length() - 1
        for i in range(LONGEST):
            coder.put(longer + i, i < length)
            if i == length:
                break
        if length:
            coder.put_bits(far - (1 << length), length)


def pull(before: Sequence[int], kinds: Sequence[int], coder: Get, first: int = 0) -> list[int]:
    """The inverse of ``push``. CorruptError for a tap out of range."""
    longer, out = first + max(kinds) + 1, []
    for kind, old in zip(kinds, before, strict=True):
        tap = old
        if not coder.get(first + kind):
            up, length = coder.get_bits(1), 0
            while length < LONGEST and coder.get(longer + length):
                length += 1
            far = (1 << length) + (coder.get_bits(length) if length else 0)
            tap = old + far if up else old - far
        if not LOWEST <= tap <= HIGHEST:
            raise CorruptError(f"a filter's tap of {tap} is not in {LOWEST} .. {HIGHEST}")
        out.append(tap)
    return out


def solved(a: Floats, b: Floats) -> Floats:
    """The x of least x a x - 2 b x, for ``a`` (n, n) and ``b`` (n,) summed over samples."""
    size = np.trace(a) / len(b)
    return np.linalg.solve(a + RIDGE * size * np.eye(len(b)), b) if size > 0 else np.zeros(len(b))


def descended(a: Floats, b: Floats, start: Ints, old: Ints, step: float, price: float) -> tuple[float, Ints]:
    """From ``start`` on each tap in turn is set to the multiple of ``step`` of least x a x - 2 b x + ``price`` x bits after
    ``old``, until none moves: (that cost, taps)."""
    taps = start.copy()
    slope = a @ (taps * step) - b
    for _ in range(SWEEPS):
        moved = False
        for k in range(len(taps)):
            if a[k, k] <= 0:
                continue
            best = taps[k] - slope[k] / a[k, k] / step
            ways = np.array([taps[k], old[k], np.floor(best), np.ceil(best)]).clip(LOWEST, HIGHEST).astype(np.int64)
            change = (ways - taps[k]) * step
            way = int(np.argmin(2 * slope[k] * change + a[k, k] * change**2 + price * BITS[abs(ways - old[k])]))
            if ways[way] != taps[k]:
                slope += a[:, k] * change[way]
                taps[k], moved = ways[way], True
        if not moved:
            break
    x = taps * step
    return float(x @ a @ x - 2 * b @ x + price * BITS[abs(taps - old)].sum()), taps


def fitted(a: Floats, b: Floats, old: Ints, step: float, price: float) -> tuple[float, Ints]:
    """``descended`` from the best of least squares rounded, from ``old``, and from zero."""
    starts = [np.rint(solved(a, b) / step).clip(LOWEST, HIGHEST).astype(np.int64), old, np.zeros(len(b), np.int64)]
    return min((descended(a, b, start, old, step, price) for start in starts), key=lambda found: found[0])
