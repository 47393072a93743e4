"""What the sender, who has the original, tells the receiver of how far to trust the network.

For every 64x64 block of the output a weight 0, 1/2, 1 or 3/2 of the network's residual, and for every group of 64 frames a
scale of each of the residual's six planes. Scales are least squares. Weights are those of least error + lambda x bits
over the group: a shortest path through time for each block, so that a weight changes where that pays, not where noise
says so. Lambda is what a bit saves in the coded video itself; it rises when the bits would go over the limit.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from foveal.video import sidecode
from foveal.video.sidecode import BLOCK, GROUP, STEP, WEIGHTS, Facts, Indices, SideReader, check_of
from foveal.video.types import Planes

__all__ = ["Facts", "SideReader", "SideWriter", "choose", "measure"]

BITS_PER_BLOCK = 160 / 240  # at most, of a block in a frame: 4 kbit/s of 1280x720 at 25 frames/s
LEAST_BITS = 640  # that any clip may have
VALUE_OF_A_BIT = 1.3  # share of the error, per share of the video's bits, that more bits would save: 1 dB for 18 %
CHANGE, STAY = 7.0, 0.1  # bits of a block in a frame, about
TRIES = 12  # fourfold lambda each time; with the last nothing changes any more

Floats = NDArray[np.float64]


class Parts(Protocol):
    """A restored frame in parts: plain planes y, u, v and the residual (6, rows, columns), see ``restorer.Parts``."""

    @property
    def y(self) -> NDArray[np.float32]: ...
    @property
    def u(self) -> NDArray[np.float32]: ...
    @property
    def v(self) -> NDArray[np.float32]: ...
    @property
    def residual(self) -> NDArray[np.float32]: ...


class Splitting(Protocol):
    """A Restorer, as far as it matters here."""

    def parts(self, planes: Planes, /) -> Parts: ...


class Sums(NamedTuple):
    """Over the samples of each block, with e = original - plain and r = residual: sums of e e, e r and r r, each
    (6, rows, columns), for the residual's planes: four sub-pixels of luma, U, V."""

    ee: Floats
    er: Floats
    rr: Floats


def measure(original: Planes, parts: Parts) -> Sums:
    """The sums of one frame. Samples of both in the same units; a block is 64x64 luma samples."""
    rows, columns = original.u.shape
    error = np.zeros((6, rows, columns), np.float32)
    luma = original.y - parts.y
    height, width = luma.shape
    for i in range(4):
        part = luma[i // 2 :: 2, i % 2 :: 2]
        error[i, : part.shape[0], : part.shape[1]] = part
    error[4], error[5] = original.u - parts.u, original.v - parts.v
    residual = parts.residual
    if height % 2 or width % 2:  # beyond the border there is nothing to be right about
        residual = residual.copy()
        residual[2:4, height // 2 :] = 0
        residual[1:4:2, :, width // 2 :] = 0
    return Sums(_per_block(error * error), _per_block(error * residual), _per_block(residual * residual))


def _per_block(x: NDArray[np.float32]) -> Floats:
    """(6, h, w) -> sums over blocks of 32x32 samples (6, rows, columns)"""
    side = BLOCK // 2
    rows = np.add.reduceat(x, np.arange(0, x.shape[1], side), 1)
    return np.add.reduceat(rows, np.arange(0, x.shape[2], side), 2).astype(np.float64)


def best_gains(sums: Sums, weights: Floats) -> list[int]:
    """Scales in 32nds, 0..63, of least squared error of a group under ``weights`` (frames, rows, columns); ``sums`` with a
    first axis of frames."""
    over = (0, 2, 3)
    w = weights[:, None]
    up, down = (w * sums.er).sum(over), (w * w * sums.rr).sum(over)
    best = np.where(down > 0, up / np.maximum(down, 1e-12), 1.0)
    return [int(g) for g in np.rint(best * STEP).clip(0, 63)]


def errors(sums: Sums, gains: list[int]) -> tuple[Floats, Floats]:
    """Squared error of luma and of chroma with each of the four weights, (frames, rows, columns, 4)."""
    g = np.array(gains, np.float64)[:, None, None] / STEP
    w = WEIGHTS.astype(np.float64)
    er, rr = g * sums.er, g * g * sums.rr

    def of(planes: slice) -> Floats:
        ee, cross, square = (x[:, planes].sum(1)[..., None] for x in (sums.ee, er, rr))
        found: Floats = np.maximum(ee - 2 * w * cross + w * w * square, 0)
        return found

    return of(slice(4)), of(slice(4, 6))


def cost_of(luma: Floats, chroma: Floats) -> Floats:
    """What a weight is chosen by: the error, and once more what luma would be worse than plain."""
    return luma + chroma + np.maximum(luma - luma[..., :1], 0)


def smoothest(cost: Floats, before: Indices, price: float) -> Indices:
    """The path through time of least ``cost`` (frames, rows, columns, 4) + bits x ``price`` for every block, from its weight
    ``before`` on: (frames, rows, columns)."""
    moves = price * np.where(np.eye(4, dtype=bool), STAY, CHANGE)  # from, to
    total = cost[0] + moves[before]
    came = np.empty(cost.shape, np.uint8)
    for t in range(1, len(cost)):
        ways = total[..., :, None] + moves
        came[t] = ways.argmin(-2)
        total = ways.min(-2) + cost[t]
    path = np.empty(cost.shape[:3], np.uint8)
    path[-1] = total.argmin(-1)
    for t in range(len(cost) - 1, 0, -1):
        path[t - 1] = np.take_along_axis(came[t], path[t][..., None].astype(np.int64), -1)[..., 0]
    return path


def choose(sums: Sums, before: Indices, price: float) -> tuple[Indices, list[int]]:
    """Weights (frames, rows, columns) and scales of a group, given its sums (frames first), the weights ``before`` it and
    the error that a bit must save.

    The scales are the best for the weights, and 0 is among them: no plane of the group is worse than plain.
    """
    weights = np.ones(sums.ee.shape[:1] + sums.ee.shape[2:])
    for _ in range(2):
        gains = best_gains(sums, weights)
        weights = WEIGHTS[cost_of(*errors(sums, gains)).argmin(-1)].astype(np.float64)
    path = smoothest(cost_of(*errors(sums, best_gains(sums, weights))), before, price)
    return path, best_gains(sums, WEIGHTS[path].astype(np.float64))


def _taken(errors: Floats, path: Indices) -> float:
    return float(np.take_along_axis(errors, path[..., None].astype(np.int64), -1).sum())


class SideWriter:
    """Side information of a clip. ``add`` every frame in order, then ``finish``; memory is that of a group's sums.

    ``bits_per_frame``: of the coded video, so that side information is worth its bits; None: as if 0.05 per sample.
    After ``finish``: ``gain_db``, the luma PSNR that the restored clip has over plain upscaling, before rounding.
    """

    def __init__(self, facts: Facts, bits_per_frame: float | None = None) -> None:
        self.facts, self._writer = facts, sidecode.SideWriter(facts)
        self._bits_per_frame = bits_per_frame or 0.05 * facts.width * facts.height
        self._group: list[Sums] = []
        self._bits = 36.0 * 8  # header and checksum
        self._frames = 0
        self._check = 0
        self._plain = self._restored = 0.0  # squared errors of luma

    @property
    def gain_db(self) -> float:
        """dB of luma over plain upscaling; 0 for a clip that plain upscaling restores exactly."""
        return 10 * math.log10(self._plain / self._restored) if self._plain and self._restored else 0.0

    def add(self, original: Planes, restorer: Splitting, small: Planes) -> None:
        """The next frame: what it was, who restores it, and what it is decoded to."""
        if self._frames == 0:
            self._check = check_of(small)
        self._group.append(measure(original, restorer.parts(small)))
        self._frames += 1
        if len(self._group) == GROUP:
            self._close_group()

    def finish(self) -> bytes:
        """The bytes for ``sidecar.put``. InputError when no frame was added."""
        self._close_group()
        return self._writer.finish(self._check)

    def _close_group(self) -> None:
        if not self._group:
            return
        sums = Sums(*(np.stack(x) for x in zip(*self._group, strict=True)))
        self._group = []
        price = VALUE_OF_A_BIT * sums.ee.sum() / len(sums.ee) / self._bits_per_frame
        limit = max(self._frames * BITS_PER_BLOCK * math.prod(self.facts.blocks), LEAST_BITS)
        for _ in range(TRIES):
            path, gains = choose(sums, self._writer.weights, price)
            cost = self._writer.cost(list(path), gains)
            if self._bits + cost <= limit:
                break
            price *= 4
        luma, _ = errors(sums, gains)
        self._bits += cost
        self._plain += float(luma[..., 0].sum())
        self._restored += _taken(luma, path)
        self._writer.push(list(path), gains)
