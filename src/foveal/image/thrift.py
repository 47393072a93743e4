"""Which patches are worth their bits, the price of saying so included. Part of the hall's ``--keep auto``.

A patch is kept where coding it lowers D + R/lambda. The class map that tells the decoder is context coded, so that a
patch unlike its neighbours costs several bits: at low rates that is more than most lone patches save.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Classes = NDArray[np.uint8]
ROUNDS = 4
SWITCH = 24.0  # bits: payload, chunk and start-up of a class map, below which everything is kept
MASKED = 3.0  # bits that a dropped patch is worth less than its symbols say: it shows as a mask token, and unfiltered


def contexts(kept: NDArray[np.integer]) -> NDArray[np.int64]:
    """(h, w) 0 or 1 -> context of each patch, 0..8, as ``packets`` codes the map: how many of west and north, and of the
    two diagonals above, are kept; outside counts as dropped."""
    around = np.pad(kept.astype(np.int64), 1)
    near = around[1:-1, :-2] + around[:-2, 1:-1]
    far = around[:-2, :-2] + around[:-2, 2:]
    return 3 * near + far


def prices(kept: NDArray[np.integer]) -> Floats:
    """(9, 2) bits of a 0 and of a 1 in each context, by how often this map has them there."""
    counts = np.ones((9, 2))
    np.add.at(counts, (contexts(kept).ravel(), kept.ravel().astype(np.int64)), 1)
    bits: Floats = -np.log2(counts / counts.sum(1, keepdims=True))
    return bits


def settle(gain: Floats) -> Classes:
    """(h, w) bits saved by coding each patch -> (h, w) uint8 classes 0 and 1, with the map's own cost weighed in.

    Iterated conditional modes: patches that share no context (every second row, every third column) are decided
    together, each by its gain, its own bit and those of the four patches whose context it is.
    """
    kept = (gain > 0).astype(np.uint8)
    rows, columns = np.indices(kept.shape)
    for _ in range(ROUNDS):
        price = prices(kept)
        for colour in range(6):
            own = (rows % 2 == colour // 3) & (columns % 3 == colour % 3)
            cost = [_nearby(np.where(own, value, kept), price) for value in (0, 1)]
            kept = np.where(own, gain + cost[0] > cost[1], kept).astype(np.uint8)
    spent = prices(kept)[contexts(kept), kept].sum() + SWITCH
    whole = gain[kept == 0].sum()  # what keeping the dropped ones too would change
    return kept if whole + spent < 0 else np.ones_like(kept)


def _nearby(kept: NDArray[np.integer], price: Floats) -> Floats:
    """(h, w): bits of each patch and of the four patches after it that have it in their context."""
    bits = np.pad(price[contexts(kept), kept], 1)
    total: Floats = bits[1:-1, 1:-1] + bits[1:-1, 2:] + bits[2:, 1:-1] + bits[2:, 2:] + bits[2:, :-2]
    return total
