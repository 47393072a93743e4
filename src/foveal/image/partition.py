"""The symbols of a picture's tokens, and how they are shared out among layers and packets. Part of the hall.

Both ``compress`` and ``repack`` end here: the one with symbols it has just quantised, the other with those of a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from foveal import datagrams
from foveal.errors import InputError
from foveal.header import Header
from foveal.image import packets, rangecoder
from foveal.image.packets import Layer
from foveal.image.rangecoder import Ints, Tables

GROUP = 16384  # tokens of a packet whose slices are coded together; bounds memory, fixed by the format
MAX_PACKETS = 65535
BASE_PARTS = (0, 2, 4)  # first pass of the thumbnail in BASE, BAS2 and BAS3


@dataclass(frozen=True)
class Layout:
    """How a file is cut: ``packets`` of every layer, or as many as make datagrams of ``mtu`` bytes; quality ``layers``,
    and whether the dropped tokens follow them (``complete``); the file's ``version``, 1 or 2."""

    packets: int = 1
    mtu: int | None = None
    layers: int = 1
    complete: bool = False
    version: int = 2

    @classmethod
    def of(cls, packets: int, mtu: int | None, layers: int, complete: bool) -> Layout:
        """A layout in the oldest version that has it: one packet of everything is version 1."""
        plain = packets == 1 and mtu is None and layers == 1 and not complete
        return cls(packets, mtu, layers, complete, 1 if plain else 2)


def bare(head: Header | Layout) -> bool:
    """Whether the only packet there is holds everything, and so says nothing of its run."""
    return head.version == 1 and head.packets == 1


def layers_of(
    head: Header | Layout, classes: NDArray[np.uint8], salience: Ints, columns: int, slices: int
) -> list[Layer]:
    """The layers of a file: which tokens, in which order, with which slices. FORMAT.md, "PCKT payload"."""
    kept = packets.order(classes, salience)
    dropped = packets.order((classes == 0).astype(np.uint8), salience) if head.complete else kept[:0]
    if head.version > 1:
        kept, dropped = (packets.spread(tokens, classes, columns) for tokens in (kept, dropped))
    return packets.layers(kept, dropped, head.layers, slices)


def base_payloads(tables: Tables, batches: Sequence[tuple[Ints, Ints]], version: int) -> list[bytes]:
    """The base layer's symbols with their scale indices, hyper-latent first, then pass after pass -> BASE, BAS2, BAS3."""
    edges = [0, *(1 + first for first in BASE_PARTS[1:]), len(batches)] if version > 1 else [0, len(batches)]
    found = []
    for a, b in pairwise(edges):
        coder = rangecoder.Pusher(tables)
        for symbols, index in batches[a:b]:
            coder.push(symbols.ravel(), index.ravel())
        found.append(coder.finish())
    return found


class TokenSymbols:
    """symbols int16 and scale indices uint8 of all tokens, (T, channels) each; ``cuts`` are the bounds of the slices,
    the first one that of the thumbnail."""

    def __init__(self, tokens: int, cuts: Sequence[int]) -> None:
        self.cuts = [cut - cuts[0] for cut in cuts]
        self.symbols = np.zeros((tokens, self.cuts[-1]), np.int16)
        self.index = np.zeros((tokens, self.cuts[-1]), np.uint8)

    def put(self, tokens: Ints, number: int, symbols: Ints, index: Ints) -> None:
        """Slice ``number`` of these tokens: symbols and scale indices (n, b - a)."""
        a, b = self.cuts[number : number + 2]
        self.symbols[tokens, a:b], self.index[tokens, a:b] = symbols, index

    def bits(self, tables: Tables, layer: Layer) -> NDArray[np.float64]:
        """Estimated cost of every unit of a layer, bits (n,)."""
        bits, a, b = np.zeros(len(layer.tokens)), self.cuts[layer.a], self.cuts[layer.b]
        for rows in _groups(0, len(bits)):
            at = layer.tokens[rows]
            symbols, index = self.symbols[at, a:b].astype(np.int64), self.index[at, a:b].astype(np.int64)
            bits[rows] = tables.cost(symbols, index).sum(1)
        return bits

    def code(self, tables: Tables, layer: Layer, first: int, count: int) -> bytes:
        """The stream of ``count`` units of a layer from its ``first`` on: FORMAT.md, "PCKT payload"."""
        coder = rangecoder.Pusher(tables)
        for rows in _groups(first, first + count):
            at = layer.tokens[rows]
            for a, b in pairwise(self.cuts[layer.a : layer.b + 1]):
                symbols, index = self.symbols[at, a:b], self.index[at, a:b]
                coder.push(symbols.astype(np.int64).ravel(), index.astype(np.int64).ravel())
        return coder.finish()

    def payloads(self, tables: Tables, layers: Sequence[Layer], layout: Layout) -> list[bytes]:
        """PCKT payloads. A packet of a refining layer has tokens of one packet of the layer below, so that it is of no
        use only if that very packet is lost."""
        found: list[bytes] = []
        cuts: list[tuple[int, int]] = []
        for layer in layers:
            if layer.a == 0:
                cuts = [(0, len(layer.tokens))] if len(layer.tokens) else []
                if layout.mtu is None:
                    cuts = packets.runs(len(layer.tokens), layout.packets)
            if bare(layout):
                return [self.code(tables, layer, *cut) for cut in cuts]
            coded = [run for cut in cuts for run in self._runs(tables, layer, *cut, layout.mtu)]
            cuts = [(first, count) for first, count, _ in coded]
            found += [payload for _, _, payload in coded]
        if len(found) > MAX_PACKETS:
            raise InputError(f"{len(found)} packets, a file has at most {MAX_PACKETS}; allow larger or fewer ones")
        return found

    def _runs(
        self, tables: Tables, layer: Layer, first: int, count: int, mtu: int | None
    ) -> list[tuple[int, int, bytes]]:
        """(first, count, payload) of the packets that hold the units first .. first + count - 1 of a layer."""
        if mtu is None:
            run = layer.start + first, count
            return [(first, count, packets.wrap(run, self.code(tables, layer, first, count)))]
        part = Layer(layer.start + first, layer.tokens[first : first + count], layer.a, layer.b)
        found = packets.by_size(
            self.bits(tables, part), mtu - datagrams.PACKET_OVERHEAD, partial(self.code, tables, part), part.start
        )
        return [(first + at, n, payload) for at, n, payload in found]


def _groups(first: int, end: int) -> list[slice]:
    return [slice(start, min(start + GROUP, end)) for start in range(first, end, GROUP)]
