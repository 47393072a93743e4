"""What the sender, who has the original, tells the receiver of how far to trust the network.

For every 64x64 block of the output a weight 0, 1/2, 1 or 3/2 of the filtered residual, and for every group of 64 frames the
change of the network's last layer (``scout``) and the taps of the filter (``postfilter``), of least squared error + lambda
x bits. Weights are those of least error + lambda x bits over the group: a shortest path through time for each block, so
that a weight changes where that pays, not where noise says so. Lambda is what a bit saves in the coded video itself; it
rises when the bits would go over the limit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from foveal import taps as taps_of
from foveal.video import lastlayer, sidecode
from foveal.video.moments import Moments, Shown
from foveal.video.postfilter import PAIRS, Luma, grams
from foveal.video.sidecode import STEP, WEIGHTS, Facts, Indices, SideReader, check_of
from foveal.video.types import BLEND_BLOCK, GROUP, IDENTITY, LUMA, Planes

__all__ = ["Facts", "SideReader", "SideWriter", "choose", "measure"]

BITS_PER_BLOCK = 160 / 240  # at most, of a block in a frame: 4 kbit/s of 1280x720 at 25 frames/s
LEAST_BITS = 640  # that any clip may have
VALUE_OF_A_BIT = 1.3  # share of the error, per share of the video's bits, that more bits would save: 1 dB for 18 %
CHANGE, STAY = 7.0, 0.1  # bits of a block in a frame, about
TRIES = 12  # fourfold lambda each time; with the last nothing changes any more
DETAIL_OF_PLAIN = np.zeros(LUMA)  # as taps: coded luma less its eight neighbours' mean
DETAIL_OF_PLAIN[[6, 7, 8, 11, 12, 15, 16, 17]] = -1 / 8

Floats = NDArray[np.float64]


class Parts(Shown, Protocol):
    """A restored frame in parts: plain planes y, u, v, the residual (6, rows, columns), and what the filter's taps look at,
    see ``restorer.Parts``."""

    @property
    def y(self) -> NDArray[np.float32]: ...
    @property
    def u(self) -> NDArray[np.float32]: ...
    @property
    def v(self) -> NDArray[np.float32]: ...
    @property
    def residual(self) -> NDArray[np.float32]: ...
    @property
    def luma(self) -> Luma: ...


class Splitting(Protocol):
    """A Restorer, as far as it matters here."""

    def parts(self, planes: Planes, /) -> Parts: ...


class Sums(NamedTuple):
    """Sums over the samples of each block. ``luma`` (.., rows, columns, 741): products of what the taps look at and of the
    error e of plain luma, see ``postfilter.grams``. ``chroma`` (.., 3, 2, rows, columns): e e, e r and r r of U and V, with
    the residual r."""

    luma: NDArray[np.float32]
    chroma: Floats


def measure(original: Planes, parts: Parts) -> Sums:
    """The sums of one frame. Samples of both in the same units; a block is 64x64 luma samples."""
    error = np.stack([original.u - parts.u, original.v - parts.v])
    residual = parts.residual[4:]
    chroma = np.stack([_per_block(x * y) for x, y in ((error, error), (error, residual), (residual, residual))])
    return Sums(grams(parts.luma, original.y - parts.y), chroma)


def _per_block(x: NDArray[np.float32]) -> Floats:
    """(2, h, w) -> sums over blocks of 32x32 samples (2, rows, columns)"""
    side = BLEND_BLOCK // 2
    rows = np.add.reduceat(x, np.arange(0, x.shape[1], side), 1)
    return np.add.reduceat(rows, np.arange(0, x.shape[2], side), 2).astype(np.float64)


def _products(taps: Floats) -> Floats:
    """What the sums of ``Sums.luma`` count in the squared error of luma filtered by ``taps`` (37,): (741,)"""
    v = np.append(taps, -1.0)
    one, other = PAIRS
    return np.asarray(v[one] * v[other] * np.where(one == other, 1, 2), np.float64)


def errors(sums: Sums, taps: Floats) -> tuple[Floats, Floats]:
    """Squared error of luma and of chroma with each of the four weights, (frames, rows, columns, 4)."""
    w = WEIGHTS.astype(np.float64)
    parts = _products(taps[:LUMA])
    last = PAIRS[1] == LUMA  # products with the error, of which its square is the last
    square, cross = np.where(last, 0, parts).astype(np.float32), np.where(last, parts, 0).astype(np.float32)
    cross[-1] = 0
    of_square, of_cross = ((sums.luma @ x).astype(np.float64)[..., None] for x in (square, cross))
    luma = sums.luma[..., -1:] + w * of_cross + w * w * of_square
    ee, er, rr = (np.moveaxis(x, -3, -1) for x in np.moveaxis(sums.chroma, -4, 0))
    u, v = (
        ee[..., i, None] - 2 * w * taps[LUMA + i] * er[..., i, None] + (w * taps[LUMA + i]) ** 2 * rr[..., i, None]
        for i in range(2)
    )
    return np.maximum(luma, 0), np.maximum(u + v, 0)


def normal_equations(sums: Sums, weights: Floats) -> list[tuple[Floats, Floats]]:
    """(A, b) of least squares, error = e e - 2 b x + x A x, for the taps of luma and the factors of U and of V, with the
    blocks' ``weights`` (frames, rows, columns)."""
    flat, w = sums.luma.reshape(-1, sums.luma.shape[-1]), weights.reshape(-1).astype(np.float64)
    packed = np.zeros((LUMA + 1, LUMA + 1))
    packed[PAIRS] = (w * w) @ flat
    full = packed + np.triu(packed, 1).T
    along = np.zeros((LUMA + 1, LUMA + 1))
    along[PAIRS] = w @ flat
    found = [(full[:LUMA, :LUMA], along[:LUMA, LUMA])]
    for i in range(2):
        er, rr = sums.chroma[..., 1, i, :, :], sums.chroma[..., 2, i, :, :]
        found.append((np.array([[(weights**2 * rr).sum()]]), np.array([(weights * er).sum()])))
    return found


def _kept_sharp(a: Floats, b: Floats) -> Floats:
    """``b`` changed so that the taps of luma which are best for it do not smooth: least squares gives blur for noise, which
    wins PSNR and looks worse. What they add, other frames included, has then no less of DETAIL_OF_PLAIN in it, summed
    over the samples, than what the network adds; that is Lagrange's way to least squares under this one condition."""
    if len(b) != LUMA:
        return b
    against = DETAIL_OF_PLAIN @ a
    size = float(against @ DETAIL_OF_PLAIN)
    along = float(against @ (taps_of.solved(a, b) - IDENTITY[:LUMA]))
    return b - min(along, 0.0) / size * against if size > 0 else b


def best_taps(sums: Sums, weights: Floats) -> Floats:
    """The taps (39,) of least squared error under ``weights`` (frames, rows, columns), not rounded."""
    return np.concatenate([taps_of.solved(a, _kept_sharp(a, b)) for a, b in normal_equations(sums, weights)])


def told_taps(sums: Sums, weights: Floats, before: Sequence[int], price: float) -> list[int]:
    """Taps in STEPths of least squared error + ``price`` x bits after those ``before``; those of a plane that would be
    worse than plain are 0."""
    out: list[int] = []
    for a, b in normal_equations(sums, weights):
        old = np.array(before[len(out) : len(out) + len(b)])
        _, taps = taps_of.fitted(a, _kept_sharp(a, b), old, 1 / STEP, price)
        x = taps / STEP
        out += [0] * len(b) if float(x @ a @ x - 2 * b @ x) > 0 else taps.tolist()
    return out


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


def _alternated(sums: Sums, judged: Callable[[Floats, Floats], Floats]) -> Floats:
    """Weights (frames, rows, columns), found in turns with their best taps; ``judged``: what a weight costs, of
    the errors of luma and chroma."""
    weights = np.ones(sums.luma.shape[:3])
    for _ in range(2):
        found = errors(sums, best_taps(sums, weights))
        weights = WEIGHTS[judged(*found).argmin(-1)].astype(np.float64)
    return weights


def best(original: Planes, parts: Parts) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Taps (39,) and weights (rows, columns) of least squared error of luma for one frame, as if they cost nothing."""
    one = measure(original, parts)
    sums = Sums(one.luma[None], one.chroma[None])
    weights = _alternated(sums, lambda luma, _: luma)
    return best_taps(sums, weights).astype(np.float32), weights[0].astype(np.float32)


def wished(sums: Sums) -> Floats:
    """What each weight costs in a group (frames, rows, columns, 4), given its sums (frames first), with the taps that are
    best for it when bits cost nothing."""
    return cost_of(*errors(sums, best_taps(sums, _alternated(sums, cost_of))))


def choose(sums: Sums, cost: Floats, before: Indices, taps: Sequence[int], price: float) -> tuple[Indices, list[int]]:
    """Weights (frames, rows, columns) and taps of a group, given its sums and their ``wished`` cost, the weights ``before``
    it, the ``taps`` before it, and the error that a bit must save.

    No plane of the group is worse than plain.
    """
    path = smoothest(cost, before, price)
    return path, told_taps(sums, WEIGHTS[path].astype(np.float64), taps, price)


def _taken(errors: Floats, path: Indices) -> float:
    return float(np.take_along_axis(errors, path[..., None].astype(np.int64), -1).sum())


def bits_per_frame(width: int, height: int) -> float:
    """That side information of a video of this size may have at most, over the frames so far."""
    return BITS_PER_BLOCK * math.ceil(width / BLEND_BLOCK) * math.ceil(height / BLEND_BLOCK)


class SideWriter:
    """Side information of a clip. ``add`` every frame in order, then ``finish``; memory is that of a group's sums and of
    the frames around one.

    ``video_bits``: of the coded video, of a frame, so that side information is worth its bits; None: as if 0.05 per sample.
    After ``finish``: ``gain_db``, the luma PSNR that the restored clip has over plain upscaling, before rounding.
    """

    def __init__(self, facts: Facts, video_bits: float | None = None) -> None:
        self.facts, self._writer = facts, sidecode.SideWriter(facts)
        self._video_bits = video_bits or 0.05 * facts.width * facts.height
        self._moments: Moments[Parts, Planes] = Moments()
        self._group: list[Sums] = []
        self._bits = 37.0 * 8  # header and checksum
        self._frames = 0
        self._check = 0
        self._change: Sequence[int] | None = None
        self._plain = self._restored = 0.0  # squared errors of luma

    @property
    def gain_db(self) -> float:
        """dB of luma over plain upscaling; 0 for a clip that plain upscaling restores exactly."""
        return 10 * math.log10(self._plain / self._restored) if self._plain and self._restored else 0.0

    def begin(self, change: Sequence[int]) -> NDArray[np.float32]:
        """Before the first frame of a group: the coefficients of the last layer's change in it, see ``lastlayer``; returns
        what that adds to the layer's weights (4, channels, 3, 3)."""
        self._change = change
        return lastlayer.added(change)

    def add(self, original: Planes, restorer: Splitting, small: Planes) -> None:
        """The next frame: what it was, who restores it, and what it is decoded to."""
        if self._frames == 0:
            self._check = check_of(small)
        self._measured(self._moments.push(restorer.parts(small), original))
        self._frames += 1
        if self._frames % GROUP == 0:
            self._close_group()

    def finish(self) -> bytes:
        """The bytes for ``sidecar.put``. InputError when no frame was added."""
        self._measured(self._moments.end())
        self._close_group()
        return self._writer.finish(self._check)

    def _measured(self, frames: list[tuple[Parts, Planes]]) -> None:
        self._group += [measure(original, parts) for parts, original in frames]

    def _close_group(self) -> None:
        if not self._group:
            return
        sums = Sums(*(np.stack(x) for x in zip(*self._group, strict=True)))
        self._group = []
        plain = float(sums.luma[..., -1].sum(dtype=np.float64) + sums.chroma[:, 0].sum())
        price = VALUE_OF_A_BIT * plain / len(sums.luma) / self._video_bits
        limit = max(self._frames * bits_per_frame(self.facts.width, self.facts.height), LEAST_BITS)
        wish = wished(sums)
        for _ in range(TRIES):
            path, taps = choose(sums, wish, self._writer.weights, self._writer.taps, price)
            cost = self._writer.cost(list(path), taps, self._change)
            if self._bits + cost <= limit:
                break
            price *= 4
        luma, _ = errors(sums, np.array(taps) / STEP)
        self._bits += cost
        self._plain += float(luma[..., 0].sum())
        self._restored += _taken(luma, path)
        self._writer.push(list(path), taps, self._change)
