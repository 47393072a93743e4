"""Frames restored whole: plain upscaling, the network's residual on top, and what a frame shares with the one before.

    restored = plain + blend x filter(residual, coded luma)

The residual is kept between frames; only where the network's input changed is it computed again, in rectangles with the
network's reach around them, as long as that costs less than the whole. Channel attention sees the whole picture, so it
is held meanwhile, measured otherwise, and replaced when one of its weights moved by more than a tolerance. Every GROUP
frames everything is forgotten: a receiver that begins at such a frame gets the pictures of one that began at frame 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveal.errors import InputError
from foveal.video import attention_sr, inference, resize
from foveal.video.attention_sr import AttentionSR
from foveal.video.postfilter import Luma, filtered, whole
from foveal.video.types import BLEND_BLOCK, GROUP, LUMA, SCALES, Plane, Planes

BLOCK = 16  # side of the blocks in which input is compared, samples of the work grid
GRAIN = 32  # rectangles are made so many samples longer or less, so that few shapes occur
OVERHEAD = 2048  # what a rectangle costs besides its samples, in samples
STALE = 4.0  # pictures' worth of changed input after which channel attention is measured again
WORTH = 0.85  # of the cost of the whole: rectangles that cost more are not worth while

Floats = NDArray[np.float32]
Rectangle = tuple[int, int, int, int]  # rows from, to, columns from, to


class Parts(NamedTuple):
    """A frame before its parts are added, in units of its samples (0..255 or 0..1023), not rounded and not clipped.

    y (H, W), u and v (ceil(H/2), ceil(W/2)): plain upscaling. residual (6, ceil(H/2), ceil(W/2)): four sub-pixels of
    luma, row by row, then U and V. All float32. ``coded``, ``mirrored``, ``step``, ``own`` (its ``shown``), ``around``: see
    ``postfilter.Luma``.
    """

    y: Floats
    u: Floats
    v: Floats
    residual: Floats
    coded: Floats
    mirrored: bool
    step: float = 1.0
    own: Tensor | None = None
    around: Sequence[Tensor | None] = ()

    @property
    def luma(self) -> Luma:
        """What the filter's taps look at."""
        seen = Luma.of(self.coded, self.residual, self.mirrored)
        return seen._replace(shown=self.own, around=self.around, step=self.step)

    @property
    def shown(self) -> Tensor:
        """Luma as the network alone has it, (H, W): what other frames' filters look at."""
        height, width = self.y.shape
        return torch.from_numpy(self.y) + whole(self.residual)[:height, :width]

    def kept(self) -> Parts:
        """These parts, to hold beyond the restorer's next frame."""
        return self._replace(residual=self.residual.copy())

    def amid(self, own: Tensor, around: Sequence[Tensor | None]) -> Parts:
        """These parts with what is ``shown`` here and at MOMENTS, None where there is no frame."""
        return self._replace(own=own, around=around)

    def added(self, taps: Floats | None = None, blend: Floats | None = None) -> list[Tensor]:
        """What comes on top of the plain planes, six of (ceil(H/2), ceil(W/2)): the residual, filtered by ``taps`` (39,),
        see ``postfilter``, and times ``blend``, weights of 64x64 blocks of the output."""
        planes = list(torch.from_numpy(self.residual))
        if taps is not None:
            planes[:4] = filtered(self.luma, taps)
            planes[4:] = [plane * float(tap) for plane, tap in zip(planes[4:], taps[LUMA:], strict=True)]
        if blend is not None:
            spread = torch.from_numpy(self._spread(blend))
            planes = [plane * spread for plane in planes]
        return planes

    def restored(self, taps: Floats | None = None, blend: Floats | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """The planes with what comes on top, not rounded."""
        added, (height, width) = self.added(taps, blend), self.y.shape
        y = F.pixel_shuffle(torch.stack(added[:4])[None], 2)[0, 0, :height, :width].add_(torch.from_numpy(self.y))
        return y, torch.from_numpy(self.u) + added[4], torch.from_numpy(self.v) + added[5]

    @torch.inference_mode()
    def rounded(self, taps: Floats | None = None, blend: Floats | None = None) -> Planes:
        """``restored`` as a picture, each sample the nearest whole number in range."""
        return Planes(*(_rounded(x, 256 * self.step - 1) for x in self.restored(taps, blend)))

    def _spread(self, blend: Floats) -> Floats:
        """Weights of blocks -> weights of samples of the work grid. InputError for another number of blocks."""
        shape = (-(-self.y.shape[0] // BLEND_BLOCK), -(-self.y.shape[1] // BLEND_BLOCK))
        if blend.shape != shape:
            raise InputError(f"blend weights are {blend.shape}, expected {shape}")
        side, (_, rows, columns) = BLEND_BLOCK // 2, self.residual.shape
        return np.asarray(blend, np.float32).repeat(side, 0).repeat(side, 1)[:rows, :columns]


def weights_id(model: str, scale: float) -> bytes:
    """8 bytes that tell the shipped weights of a model for a scale from others. UnknownModelError when there are none."""
    return attention_sr.fingerprint(model, [mode_of(scale)])[:8]


def mode_of(scale: float) -> str:
    """The mode of the network for a scale. InputError for a scale that is not 1, 1.5 or 2."""
    if scale not in SCALES:
        raise InputError(f"scale {scale!r} is not 1, 1.5 or 2")
    return "x2" if scale == 2 else "x1"


class Restorer:
    """Restores the frames of one clip in order.

    ``net``: an AttentionSR in mode "x2" for scale 2, "x1" for 1 and 1.5; None: plain upscaling alone.
    ``width``, ``height``: of the output; frames that come in are resampled by exactly 1 / scale, aligned at the top
    left, and cut off there. ``quality``: CRF as a share of its
    range, 0..1; None: unknown. ``tile``: samples of the work grid that go through the
    network together. ``tolerance``: how far a weight of channel attention may move before it is replaced; 0: at
    every change. ``reuse``: keep the residual where the input did not change. ``bf16``: None where the CPU
    multiplies it natively. Raises InputError when the network is not for the scale.
    """

    def __init__(
        self,
        net: AttentionSR | None,
        scale: float,
        width: int,
        height: int,
        bits: int = 8,
        quality: float | None = None,
        tile: int = inference.BAND,
        *,
        chroma_location: int = 0,
        tolerance: float = 0.02,
        reuse: bool = True,
        bf16: bool | None = None,
    ) -> None:
        mode = mode_of(scale)
        if net is not None and net.mode != mode:
            raise InputError(f"a network of mode {net.mode!r} does not restore at scale {scale:g}")
        self.scale, self.width, self.height, self.bits = float(scale), width, height, bits
        self.rows, self.columns = (height + 1) // 2, (width + 1) // 2  # the work grid
        self.top = 255.0 if bits == 8 else 1023.0
        self.told, self.quality = quality, attention_sr.quality_plane(quality, scale)
        self.chroma_location, self.tolerance, self.reuse = chroma_location, tolerance, reuse
        fast = inference.native_bf16() if bf16 is None else bf16
        self.runner = None if net is None else inference.Runner(net, bf16=fast, gain=self.top, band=tile)
        self.frames = 0
        self.computed = 0.0  # pictures' worth of residual, of ``frames``
        self.reset()

    @classmethod
    def for_model(
        cls, model: str, scale: float, width: int, height: int, bits: int, quality: float | None, chroma_location: int
    ) -> Restorer:
        """With the shipped network of a model. UnknownModelError when there is none."""
        net = attention_sr.load_weights(model, mode_of(scale))
        return cls(net, scale, width, height, bits, quality, chroma_location=chroma_location)

    def alike(self) -> Restorer:
        """Another one for the same clip, with the network as it was trained, which has seen no frame."""
        net = None if self.runner is None else self.runner.net
        return Restorer(
            net, self.scale, self.width, self.height, self.bits, self.told, chroma_location=self.chroma_location,
            tolerance=self.tolerance, reuse=self.reuse,
        )  # fmt: skip

    def restart(self) -> None:
        """As if no frame had been restored: the next one is the first of a group."""
        self.frames, self.computed = 0, 0.0
        self.reset()

    def reset(self) -> None:
        """Forget all frames before the next."""
        self._before: Tensor | None = None
        self._residual: Tensor | None = None
        self._attention: inference.Attention | None = None
        self._stale = 0.0

    def adapt(self, change: Floats | None) -> None:
        """Restore all frames from the next on with this added to the last layer's weights of luma, see ``lastlayer.added``;
        None: as it was trained. InputError for the change of another network."""
        self.reset()
        if self.runner is not None:
            self.runner.change(change)

    @property
    def reused(self) -> float:
        """Share of the network's work, over all frames so far, that was saved by taking results from the frame before."""
        return max(1 - self.computed / self.frames, 0.0) if self.frames else 0.0

    def plain(self, planes: Planes) -> Planes:
        """The frame upscaled by Lanczos resampling alone."""
        return Planes(*(_rounded(torch.from_numpy(x), self.top) for x in self._upscaled(planes)))

    @torch.inference_mode()
    def restore(self, planes: Planes, *, blend: Floats | None = None, taps: Floats | None = None) -> Planes:
        """The next frame restored, rounded to the nearest value.

        ``blend``: (ceil(H/64), ceil(W/64)) weights of 64x64 blocks of the output, 1 everywhere if None. ``taps``: (39,)
        of the filter, see ``postfilter``; None: the residual as it is.
        """
        return self.parts(planes).rounded(taps, blend)

    @torch.inference_mode()
    def parts(self, planes: Planes) -> Parts:
        """The next frame's parts. The residual holds until the next call."""
        if self.frames % GROUP == 0:
            self.reset()
        self.frames += 1
        plain = self._plain_parts(planes)
        if self.runner is None:
            return plain
        return plain._replace(residual=self._network(self.runner, self._inputs(plain))[0].numpy())

    @torch.inference_mode()
    def looked_into(self, planes: Planes) -> tuple[Parts, Tensor]:
        """A frame's parts as if it were the only one, and what the network's last layer looks at, in units of the samples,
        (C, ceil(H/2), ceil(W/2)). The frames around it are not touched. InputError without a network."""
        if self.runner is None:
            raise InputError("there is no network to look into; choose a model")
        plain = self._plain_parts(planes)
        seen, residual = self.runner.last_inputs(self._inputs(plain))
        return plain._replace(residual=residual[0].numpy()), seen[0]

    def _plain_parts(self, planes: Planes) -> Parts:
        """Parts without what the network adds."""
        y, u, v = self._upscaled(planes)
        coded = self._coded(planes.y) if self.scale == 2 else self._even(y)
        residual = np.zeros((6, self.rows, self.columns), np.float32)
        return Parts(y, u, v, residual, coded, self.scale == 2, (self.top + 1) / 256)

    def _upscaled(self, planes: Planes) -> tuple[Floats, Floats, Floats]:
        """Plain upscaling, not rounded. InputError for a frame that is not of this clip."""
        if planes.bits != self.bits or any(
            not size - 2 < n * self.scale < size + 2 * self.scale + 2
            for n, size in zip(planes.y.shape, (self.height, self.width), strict=True)
        ):
            rows, columns = planes.y.shape
            raise InputError(
                f"a {planes.bits}-bit frame of {columns}x{rows} is not what becomes {self.bits}-bit "
                f"{self.width}x{self.height} at scale {self.scale:g}"
            )
        down, across = resize.phases(self.chroma_location)[::-1]
        return (
            self._resampled(planes.y, self.height, self.width, 0.5, 0.5),
            self._resampled(planes.u, self.rows, self.columns, down, across),
            self._resampled(planes.v, self.rows, self.columns, down, across),
        )

    def _resampled(self, plane: Plane, height: int, width: int, down: float, across: float) -> Floats:
        if self.scale == 1 and plane.shape == (height, width):
            return plane.astype(np.float32)
        vertical = resize.bands(plane.shape[0], height, ratio=1 / self.scale, phase=down)
        horizontal = resize.bands(plane.shape[1], width, ratio=1 / self.scale, phase=across)
        return resize.resize_array(plane, vertical, horizontal)

    def _even(self, y: Floats) -> Floats:
        """Luma with its last row and column repeated where the size is odd."""
        return np.pad(y, ((0, self.height % 2), (0, self.width % 2)), "edge") if (self.height | self.width) % 2 else y

    def _coded(self, y: Plane) -> Floats:
        """Small luma cut off or continued to (rows, columns)."""
        inside = y[: self.rows, : self.columns].astype(np.float32)
        return np.pad(
            inside, [(0, n - m) for n, m in zip((self.rows, self.columns), inside.shape, strict=True)], "edge"
        )

    def _inputs(self, plain: Parts) -> Tensor:
        """What ``attention_sr.network_input`` makes of these planes, (1, planes, rows, columns), channels last."""
        luma = [plain.coded]
        if self.scale != 2:
            cells = plain.coded.reshape(self.rows, 2, self.columns, 2)
            luma = [cells[:, i, :, j] for i in range(2) for j in range(2)]
        out = np.empty((self.rows, self.columns, len(luma) + 3), np.float32)
        for i, plane in enumerate((*luma, plain.u, plain.v)):
            np.multiply(plane, 1 / self.top, out=out[..., i], casting="unsafe")
            out[..., i] -= 0.5
        out[..., -1] = self.quality
        return torch.from_numpy(out).permute(2, 0, 1)[None]

    def _network(self, runner: inference.Runner, inputs: Tensor) -> Tensor:
        """(1, planes, rows, columns) -> residual (1, 6, rows, columns), computed where it may differ from the last."""
        dirty = self._dirty(inputs)
        self._before = inputs
        self._stale += float(dirty.mean())
        where, cost = rectangles(dirty, runner.reach)
        share = cost / (self.rows * self.columns)
        if self._residual is None or self._attention is None or share > WORTH or self._stale >= STALE:
            self._residual = self._whole(runner, inputs)
            self._stale, share = 0.0, 1.0
        else:
            for rectangle in where:
                self._part(runner, inputs, self._attention, self._residual, rectangle)
        self.computed += share
        return self._residual

    def _dirty(self, inputs: Tensor) -> NDArray[np.bool_]:
        """Which blocks of the input changed, (ceil(rows/16), ceil(columns/16))."""
        down, across = -(-self.rows // BLOCK), -(-self.columns // BLOCK)
        if self._before is None or not self.reuse:
            return np.ones((down, across), np.bool_)
        flat, before = (x[0].permute(1, 2, 0).reshape(self.rows, -1).numpy() for x in (inputs, self._before))
        step = BLOCK * inputs.shape[1]
        rows = np.logical_or.reduceat(flat != before, np.arange(0, self.rows, BLOCK), 0)
        return np.logical_or.reduceat(rows, np.arange(0, rows.shape[1], step), 1)

    def _whole(self, runner: inference.Runner, inputs: Tensor) -> Tensor:
        if self._attention is None:
            self._attention = runner.attention(runner.pool(inputs))
            return runner.residual(inputs, self._attention)[0]
        out, pooled = runner.residual(inputs, self._attention, measure=True)
        fresh = runner.attention(pooled)
        if float((fresh.weights - self._attention.weights).abs().max()) > self.tolerance:
            self._attention = fresh
            out = runner.residual(inputs, fresh)[0]
        return out

    def _part(
        self, runner: inference.Runner, inputs: Tensor, attention: inference.Attention, into: Tensor, where: Rectangle
    ) -> None:
        """Compute the residual again where changed blocks ``where`` reach."""
        reach = runner.reach
        (top, bottom), (left, right) = (
            (max(a * BLOCK - reach, 0), min(b * BLOCK + reach, n))
            for a, b, n in ((*where[:2], self.rows), (*where[2:], self.columns))
        )
        (y0, y1), (x0, x1) = (
            _grown(top - reach, bottom + reach, self.rows),
            _grown(left - reach, right + reach, self.columns),
        )
        out, _ = runner.residual(inputs[:, :, y0:y1, x0:x1], attention)
        into[:, :, top:bottom, left:right] = out[:, :, top - y0 : bottom - y0, left - x0 : right - x0]


def _rounded(x: Tensor, top: float) -> Plane:
    """To the nearest value, halves to even, 0..top."""
    out = x.clamp(0, top).round_()
    return out.to(torch.uint8 if top == 255 else torch.uint16).numpy()


def _grown(start: int, stop: int, limit: int) -> tuple[int, int]:
    """A range inside 0..limit around start..stop, its length a multiple of GRAIN if that fits."""
    start, stop = max(start, 0), min(stop, limit)
    length = min(-(-(stop - start) // GRAIN) * GRAIN, limit)
    start = min(start, limit - length)
    return start, start + length


def rectangles(dirty: NDArray[np.bool_], reach: int) -> tuple[list[Rectangle], int]:
    """Rectangles of blocks that cover all ``dirty`` ones, halved as long as that saves computing, and what they cost in
    samples."""
    return _cover(dirty, (0, dirty.shape[0], 0, dirty.shape[1]), reach)


def _cover(dirty: NDArray[np.bool_], where: Rectangle, reach: int) -> tuple[list[Rectangle], int]:
    """``rectangles`` for the dirty blocks inside ``where``."""
    top, _, left, _ = where
    inside = dirty[where[0] : where[1], where[2] : where[3]]
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if len(rows) == 0:
        return [], 0
    top, bottom, left, right = top + rows[0], top + rows[-1] + 1, left + columns[0], left + columns[-1] + 1
    down, across = int(bottom - top), int(right - left)
    cost = (down * BLOCK + 4 * reach) * (across * BLOCK + 4 * reach) + OVERHEAD
    whole = [(int(top), int(bottom), int(left), int(right))]
    if inside.sum() > 0.8 * down * across:
        return whole, cost
    if down > across:
        middle = (top + bottom) // 2
        halves = (top, middle, left, right), (middle, bottom, left, right)
    else:
        middle = (left + right) // 2
        halves = (top, bottom, left, middle), (top, bottom, middle, right)
    parts = [_cover(dirty, half, reach) for half in halves]
    split = sum(part[1] for part in parts)
    return (whole, cost) if split >= cost else ([r for part in parts for r in part[0]], split)
