"""The symbols of a picture's kept tokens, and how they are shared out among packets. Part of the hall.

Both ``compress`` and ``repack`` end here: the one with symbols it has just quantised, the other with those of a file.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from foveal import datagrams
from foveal.errors import InputError
from foveal.image import packets, rangecoder
from foveal.image.decoder import GROUP
from foveal.image.rangecoder import Ints, Tables

MAX_PACKETS = 65535


class TokenSymbols:
    """symbols int16 and scale indices uint8 of kept tokens, (n, channels) each, in the order in which they are sent;
    ``cuts`` are the bounds of the slices, the first one that of the thumbnail."""

    def __init__(self, tokens: int, cuts: Sequence[int]) -> None:
        self.cuts = [cut - cuts[0] for cut in cuts]
        self.symbols = np.zeros((tokens, self.cuts[-1]), np.int16)
        self.index = np.zeros((tokens, self.cuts[-1]), np.uint8)

    def put(self, first: int, number: int, symbols: Ints, index: Ints) -> None:
        """Slice ``number`` of the tokens from place ``first`` of the order on: symbols and scale indices (n, b - a)."""
        a, b = self.cuts[number : number + 2]
        rows = slice(first, first + len(symbols))
        self.symbols[rows, a:b], self.index[rows, a:b] = symbols, index

    def bits(self, tables: Tables) -> NDArray[np.float64]:
        """Estimated cost of every token, bits (n,)."""
        bits = np.zeros(len(self.symbols))
        for rows in _groups(0, len(bits)):
            symbols, index = self.symbols[rows].astype(np.int64), self.index[rows].astype(np.int64)
            bits[rows] = tables.cost(symbols, index).sum(1)
        return bits

    def code(self, tables: Tables, first: int, count: int) -> bytes:
        """The stream of a run of tokens: FORMAT.md, "PCKT payload"."""
        coder = rangecoder.Pusher(tables)
        for rows in _groups(first, first + count):
            for a, b in zip(self.cuts, self.cuts[1:], strict=False):
                symbols, index = self.symbols[rows, a:b], self.index[rows, a:b]
                coder.push(symbols.astype(np.int64).ravel(), index.astype(np.int64).ravel())
        return coder.finish()

    def payloads(self, tables: Tables, count: int, mtu: int | None) -> list[bytes]:
        """PCKT payloads: ``count`` even runs, or as many as make datagrams of ``mtu`` bytes or fewer."""
        if mtu is None:
            runs = packets.runs(len(self.symbols), count)
            return [packets.wrap(run, self.code(tables, *run)) for run in runs]
        room = mtu - datagrams.OVERHEAD
        found = packets.by_size(self.bits(tables), room, lambda first, n: self.code(tables, first, n))
        if len(found) > MAX_PACKETS:
            raise InputError(f"mtu {mtu} makes {len(found)} packets, a file has at most {MAX_PACKETS}; raise it")
        return found


def _groups(first: int, end: int) -> list[slice]:
    return [slice(start, min(start + GROUP, end)) for start in range(first, end, GROUP)]
