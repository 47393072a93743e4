"""The sender's look ahead: every fourth frame of a group tells which change of the network's last layer the group wants.

Sums of products, over all cells of those frames, of what the last layer looks at, of what the filter's taps look at, and of
the error of plain luma; then the coefficients that save more error than their bits are worth, the taps being taken as
the best ones beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveal import taps as taps_of
from foveal.video import lastlayer
from foveal.video.postfilter import samples
from foveal.video.restorer import Parts
from foveal.video.sidecode import COEFFICIENTS
from foveal.video.types import AROUND, GROUP, Planes

EVERY = 4  # frames
TRUSTED = 0.5  # of what is saved on the frames that are looked at, about, is saved on the others
STRIP = 16  # rows of cells that are summed together
HARDER = 4.0  # times as much must a bit save when the bits would be too many

Floats = NDArray[np.float64]


class LookingInto(Protocol):
    """A Restorer, as far as it matters here."""

    def looked_into(self, planes: Planes, /) -> tuple[Parts, Tensor]: ...


class Sums:
    """Sums over the samples of the frames that were added. ``inputs`` (9C, 9C): products of the last layer's inputs;
    ``own`` (AROUND + 1, AROUND + 1): of the taps' features and of the error, over all four samples of a cell; ``crossed``
    (4, AROUND + 1, 9C): of those in each of the four samples with the inputs."""

    def __init__(self, channels: int) -> None:
        self.channels = channels
        self.inputs = np.zeros((9 * channels, 9 * channels))
        self.own = np.zeros((AROUND + 1, AROUND + 1))
        self.crossed = np.zeros((4, AROUND + 1, 9 * channels))

    @torch.inference_mode()
    def add(self, original: Planes, parts: Parts, seen: Tensor) -> None:
        """One frame: what it was, its parts, and what the last layer looks at, (C, rows, columns)."""
        error = original.y - parts.y
        rows, columns = (n // 2 for n in error.shape)  # whole cells
        near = F.pad(seen, (1, 1, 1, 1))[None]
        for top in range(0, rows, STRIP):
            bottom = min(top + STRIP, rows)
            inputs = F.unfold(near[:, :, top : bottom + 2, : columns + 2], 3)[0]
            own = samples(parts.luma, error, (top, bottom))[..., :columns].reshape(4, AROUND + 1, -1)
            self.inputs += (inputs @ inputs.T).numpy()
            self.own += torch.bmm(own, own.transpose(1, 2)).sum(0).numpy()
            self.crossed += (own @ inputs.T).numpy()

    def system(self) -> tuple[Floats, Floats]:
        """(a, b) of least squares, error = .. - 2 b z + z a z, for the coefficients z of ``lastlayer``, with the taps that
        are best for each z."""
        square, cross = lastlayer.in_waves(self.inputs, self.crossed)
        taps, tap_error = self.own[:AROUND, :AROUND], self.own[:AROUND, AROUND]
        ridge = taps_of.RIDGE * max(np.trace(taps) / AROUND, 1e-30) * np.eye(AROUND)
        answer = np.linalg.solve(taps + ridge, np.column_stack([cross[:AROUND], tap_error]))
        a = np.kron(np.eye(4), square) - cross[:AROUND].T @ answer[:, :-1]
        return a, cross[AROUND] - cross[:AROUND].T @ answer[:, -1]

    def chosen(self, before: list[int], value_of_a_bit: float, limit: float) -> list[int]:
        """Coefficients after those ``before``, of at most about ``limit`` bits. ``value_of_a_bit``: share of the error of
        plain luma that one must save."""
        if not self.own.any():
            return before
        (a, b), price = self.system(), value_of_a_bit * float(self.own[-1, -1]) / TRUSTED
        old = np.array(before, np.int64)
        while True:
            found = lastlayer.chosen(a, b, old, price)
            bits = lastlayer.cost(found, old)
            if lastlayer.left(a, b, found) + price * bits >= lastlayer.left(a, b, old):
                return before
            if bits <= limit:
                return [int(x) for x in found]
            price *= HARDER


def change(
    frames: Iterable[tuple[Planes, Planes]],
    count: int,
    restorer: LookingInto,
    channels: int,
    value_of_a_bit: float,
    limit_per_frame: float,
) -> list[int]:
    """Coefficients of the last layer's change for the first group of ``count`` frames like these, all of which are looked
    at; the rest as for ``changes``."""
    sums, count = Sums(channels), min(count, GROUP)
    for original, small in frames:
        sums.add(original, *restorer.looked_into(small))
    return sums.chosen([0] * (COEFFICIENTS * channels), value_of_a_bit / count, limit_per_frame * count)


def changes(
    frames: Iterable[tuple[Planes, Planes]],
    restorer: LookingInto,
    channels: int,
    value_of_a_bit: float,
    limit_per_frame: float,
) -> Iterator[list[int]]:
    """Coefficients of the last layer's change, for each group of these frames, original and coded.

    ``restorer``: one of its own. ``value_of_a_bit``: share of one frame's error that a bit per frame must save.
    """
    before, sums, count = [0] * (COEFFICIENTS * channels), Sums(channels), 0

    def close() -> list[int]:
        return sums.chosen(before, value_of_a_bit / count, limit_per_frame * count)

    for original, small in frames:
        if count % EVERY == EVERY // 2:
            sums.add(original, *restorer.looked_into(small))
        count += 1
        if count == GROUP:
            before = close()
            yield before
            sums, count = Sums(channels), 0
    if count:
        yield close()
