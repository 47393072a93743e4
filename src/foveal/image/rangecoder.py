"""Symbols to bytes and back: constriction's range coder with 64 frozen tables. No torch, no floats of our own.

A table covers symbols -K..K and one escape, which is followed by the sign and an Elias-gamma code of the excess.
Symbols are coded grouped by table (one call per table and slice), escapes after their slice.
``push`` and ``pull`` are inverse.
"""

from __future__ import annotations

from typing import Any

import constriction
import numpy as np
from numpy.typing import NDArray

from foveal.errors import CorruptError

TOTAL = 1 << 16  # counts of a table add up to this
MAX_EXCESS_BITS = 13

Ints = NDArray[np.int64]


class Tables:
    """``counts`` (n, width) integer, rows summing to 65536: 2K+1 symbols, then escape, then zero padding; ``reach``
    (n,) holds K. ``silent``: the first tables of which nothing is coded, their symbols are certainly zero."""

    def __init__(self, counts: NDArray[Any], reach: NDArray[Any], silent: int) -> None:
        self.reach = reach.astype(np.int64)
        self.silent = silent
        if len(counts) != len(reach) or not (counts.astype(np.int64).sum(1) == TOTAL).all():
            raise CorruptError("entropy tables do not add up to 65536; reinstall foveal")
        width = 2 * int(self.reach.max()) + 2
        self.bits = np.full((len(counts), width), 64.0)
        self.models = []
        for i, k in enumerate(self.reach):
            row = counts[i, : 2 * k + 2].astype(np.float64)
            # counts / 2^16 are exact in fp64, so the coder derives the same fixed-point table everywhere
            self.models.append(constriction.stream.model.Categorical(row / TOTAL, perfect=False))
            self.bits[i, : 2 * k + 2] = -np.log2(np.maximum(row, 1) / TOTAL)

    def cost(self, symbols: Ints, index: Ints) -> NDArray[np.float64]:
        """Bits of ``symbols`` under tables ``index``, escapes included; same shape as both."""
        reach = self.reach[index]
        inside = np.abs(symbols) <= reach
        at = np.where(inside, symbols + reach, 2 * reach + 1)
        bits = self.bits[index, at]
        excess = np.maximum(np.abs(symbols) - reach, 1).astype(np.float64)
        bits = bits + np.where(inside, 0.0, 1 + np.log2(MAX_EXCESS_BITS) + np.floor(np.log2(excess)))
        return np.where(index < self.silent, 0.0, bits)


def _groups(index: Ints, silent: int) -> tuple[Ints, list[tuple[int, int, int]]]:
    order = np.argsort(index.astype(np.uint8), kind="stable")
    edges = np.searchsorted(index[order], np.arange(65))
    return order, [(t, int(edges[t]), int(edges[t + 1])) for t in range(silent, 64) if edges[t] < edges[t + 1]]


class Pusher:
    """An entropy-coded stream being written. ``tables`` are needed for symbols, not for flags."""

    def __init__(self, tables: Tables | None = None) -> None:
        self._coder, self._tables = constriction.stream.queue.RangeEncoder(), tables

    def push(self, symbols: Ints, index: Ints) -> None:
        """Append symbols (N,) coded with tables ``index`` (N,) in 0..63."""
        assert self._tables is not None
        order, groups = _groups(index, self._tables.silent)
        if not groups:
            return
        sorted_symbols, reach = symbols[order], self._tables.reach[index[order]]
        outside = np.abs(sorted_symbols) > reach
        coded = np.where(outside, 2 * reach + 1, sorted_symbols + reach).astype(np.int32)
        for table, a, b in groups:
            self._coder.encode(coded[a:b], self._tables.models[table])
        first = groups[0][1]
        for i in np.nonzero(outside[first:])[0] + first:
            self._escape(int(sorted_symbols[i]), int(reach[i]))

    def _escape(self, symbol: int, reach: int) -> None:
        excess = abs(symbol) - reach
        bits = excess.bit_length() - 1
        for value, size in ((int(symbol < 0), 2), (bits, MAX_EXCESS_BITS), (excess - (1 << bits), 1 << bits)):
            if size > 1:
                self.uniform(value, size)

    def flags(self, bit: bool, probability: float) -> None:
        """Append one binary decision; ``probability`` of True."""
        self._coder.encode(np.array([bit], np.int32), constriction.stream.model.Bernoulli(probability, perfect=False))

    def uniform(self, value: int, size: int) -> None:
        """Append one of ``size`` equally likely values, 2 or more."""
        self._coder.encode(np.array([value], np.int32), constriction.stream.model.Uniform(size))

    def finish(self) -> bytes:
        """Big-endian 32-bit words, the last ones chosen among those that decode alike so that the most trailing bytes
        are zero; these are left out and restored by ``Puller``. At least one byte."""
        words = self._coder.get_compressed().astype(">u4").tobytes()
        count, (low, width) = self._coder.pos()  # words that are final; any end in [low, low + width) decodes alike
        end = int.from_bytes(words[4 * count :].ljust(8, b"\0"), "big")
        first = end - (end - low) % (1 << 64)
        last, first = min(first + width, 1 << 64) - 1, max(first, 0)
        shortest = next(v for bits in range(56, -1, -8) if (v := -(-first >> bits) << bits) <= last)
        return (words[: 4 * count] + shortest.to_bytes(8, "big")).rstrip(b"\0") or b"\0"


class Puller:
    """The same stream being read. A stream that was cut or invented decodes to other symbols, never to an error of
    another kind than CorruptError; the container's CRC tells damaged streams apart before."""

    def __init__(self, data: bytes, tables: Tables | None = None) -> None:
        words = np.frombuffer(data + b"\0" * (-len(data) % 4), ">u4").astype(np.uint32)
        self._coder, self._tables = constriction.stream.queue.RangeDecoder(words), tables

    def pull(self, index: Ints) -> Ints:
        """Symbols (N,) coded with tables ``index`` (N,)."""
        assert self._tables is not None
        order, groups = _groups(index, self._tables.silent)
        coded, reach = np.zeros(len(index), np.int64), self._tables.reach[index[order]]
        if not groups:
            return coded
        try:
            for table, a, b in groups:
                coded[a:b] = self._coder.decode(self._tables.models[table], b - a)
            first = groups[0][1]
            escaped = np.nonzero(coded[first:] == 2 * reach[first:] + 1)[0] + first
            coded[first:] -= reach[first:]
            for i in escaped:
                coded[i] = self._escape(int(reach[i]))
        except AssertionError as e:
            raise CorruptError(f"entropy-coded stream is invalid ({e}); get the file again") from e
        out = np.empty_like(coded)
        out[order] = coded
        return out

    def _escape(self, reach: int) -> int:
        negative, bits = self.uniform(2), self.uniform(MAX_EXCESS_BITS)
        magnitude = reach + (1 << bits) + (self.uniform(1 << bits) if bits else 0)
        return -magnitude if negative else magnitude

    def flag(self, probability: float) -> bool:
        """The next binary decision."""
        return bool(self._coder.decode(constriction.stream.model.Bernoulli(probability, perfect=False), 1)[0])

    def uniform(self, size: int) -> int:
        """The next of ``size`` equally likely values."""
        return int(self._coder.decode(constriction.stream.model.Uniform(size), 1)[0])
