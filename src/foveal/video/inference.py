"""AttentionSR run fast on a CPU: a band of rows goes through every layer while it is in the cache.

A convolution of height 2k + 1 needs k rows above and below; each layer keeps the last 2k rows of its input for the next
band, so nothing is computed twice and memory does not grow with the height. Channel attention is known beforehand:
its weights, all positive, are folded into the convolution before it (a leaky ReLU commutes with positive factors).
The result is the module's own within 1e-5 in fp32; bf16 is for CPUs that multiply it natively.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from foveal.errors import InputError

if TYPE_CHECKING:
    from foveal.video.attention_sr import AttentionSR

BAND = 20480  # samples of the work grid that go through the layers together: 32 rows of 640
GROUPED = 8  # columns that the spatial attention's convolution computes as channels
SMALLEST = 1e-6  # channel weights below it count as it, so that they can be divided out again

Pooled = tuple[Tensor, Tensor]
Layer = Callable[[Tensor, bool], Tensor]  # a band of rows, whether it is the last
Convolve = Callable[[Tensor, Tensor, Tensor | None, tuple[int, int], float | None], Tensor]


class Attention(NamedTuple):
    """Channel weights (1, 4C, 1, 1) in (0, 1], and the convolutions around them with the weights folded into one."""

    weights: Tensor
    widen: tuple[Tensor, Tensor]
    reduce: tuple[Tensor, Tensor]


def native_bf16() -> bool:
    """Whether this CPU multiplies bf16 (AVX-512 BF16 or AMX), so that it is worth while."""
    ask = getattr(torch.cpu, "get_capabilities", dict)
    found: dict[str, object] = ask()
    return bool(found.get("avx512_bf16") or found.get("amx_bf16"))


def _plain_convolve(x: Tensor, w: Tensor, b: Tensor | None, padding: tuple[int, int], leak: float | None) -> Tensor:
    out = F.conv2d(x, w, b, padding=padding)
    return out if leak is None else F.leaky_relu_(out, leak)


def _fused_convolve(x: Tensor, w: Tensor, b: Tensor | None, padding: tuple[int, int], leak: float | None) -> Tensor:
    kind, scalars = ("none", []) if leak is None else ("leaky_relu", [leak])
    run = torch.ops.mkldnn._convolution_pointwise
    return cast(Tensor, run(x, w, b, padding, (1, 1), (1, 1), 1, kind, scalars, ""))


@cache
def _convolve(kind: torch.dtype) -> Convolve:
    """oneDNN's convolution with the activation in it where this torch has it for numbers of this kind on this CPU and it is
    right, else torch's own, which on one thread leaves oneDNN aside for some shapes."""
    try:
        x = torch.linspace(-1, 1, 4 * 5 * 6).reshape(1, 4, 5, 6).to(kind, memory_format=torch.channels_last)
        w = torch.linspace(-1, 1, 16 * 4 * 9).reshape(16, 4, 3, 3).to(kind, memory_format=torch.channels_last)
        near = 1e-5 if kind == torch.float32 else 0.02
        with torch.inference_mode():
            fused, plain = (run(x, w, None, (0, 1), 0.1) for run in (_fused_convolve, _plain_convolve))
            same = torch.allclose(fused, plain, rtol=near, atol=near)
    except (AttributeError, RuntimeError, TypeError, NotImplementedError):
        return _plain_convolve
    return _fused_convolve if same else _plain_convolve


class _Rows:
    """The last 2k rows that came, put before the next ones; rows of zeros beyond the first and the last."""

    def __init__(self, k: int) -> None:
        self.k = k
        self.held: Tensor | None = None

    def __call__(self, x: Tensor, last: bool) -> Tensor:
        """(1, C, n, w) -> (1, C, n + 2k, w), k less at the start and k more at the end."""
        edge = x
        if self.held is None or last:
            edge = x.new_zeros(1, x.shape[1], self.k, x.shape[3]).contiguous(memory_format=torch.channels_last)
        rows = [edge if self.held is None else self.held, x, *([edge] if last else [])]
        out = torch.cat(rows, 2)
        self.held = out[:, :, -2 * self.k :]
        return out


class _Pools:
    """Mean and maximum of features that come band by band."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.largest: Tensor | None = None
        self.count = 0

    def add(self, x: Tensor) -> None:
        self.total = self.total + _sum(x)
        top = _largest(x, (2, 3)).float()
        self.largest = top if self.largest is None else torch.maximum(self.largest, top)
        self.count += x.shape[2] * x.shape[3]

    def result(self) -> Pooled:
        assert isinstance(self.total, Tensor) and self.largest is not None
        return self.total / self.count, self.largest


def _samples(x: Tensor) -> Tensor:
    """(1, C, h, w), channels last -> (h w, C)"""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _sum(x: Tensor) -> Tensor:
    """(1, C, h, w) -> (1, C) fp32. Of bf16 by a matrix product, which adds in fp32 and rounds once."""
    if x.dtype != torch.bfloat16:
        return x.sum((2, 3))
    samples = _samples(x)
    return (samples.new_ones(1, len(samples)) @ samples).float()


def _mean_of_channels(x: Tensor) -> Tensor:
    """(1, C, h, w) -> (1, h, w)"""
    if x.dtype != torch.bfloat16:
        return x.mean(1)
    _, channels, height, width = x.shape
    return (_samples(x) @ x.new_full((channels, 1), 1 / channels)).reshape(1, height, width)


def _largest(x: Tensor, dim: int | tuple[int, int], keepdim: bool = False) -> Tensor:
    """``x.amax``; bf16 numbers that are not negative are ordered like the integers of their bits, which is faster."""
    if x.dtype != torch.bfloat16:
        return x.amax(dim, keepdim=keepdim)
    bits = x.view(torch.int16).amax(dim, keepdim=keepdim)
    return x.amax(dim, keepdim=keepdim) if bool((bits < 0).any()) else bits.view(torch.bfloat16)


def _group_columns(kernel: Tensor) -> Tensor:
    """(1, 2, 7, 7) -> (8, 16, 7, 3): the same convolution for rows cut into groups of 8 columns, which are channels."""
    out = kernel.new_zeros(GROUPED, GROUPED, 2, 7, 3)  # column out, column in, plane, dy, group
    for column in range(GROUPED):
        for dx in range(-3, 4):
            group, source = divmod(column + dx, GROUPED)
            out[column, source, :, :, group + 1] = kernel[0, :, :, dx + 3]
    return out.reshape(GROUPED, 2 * GROUPED, 7, 3)


class Runner:
    """An AttentionSR, folded if it is not yet, ready to run. ``bf16``: compute in bf16. ``gain``: factor of the residual.
    ``band``: samples of a band, about."""

    leak = 0.1  # slope of the activations below zero

    def __init__(self, net: AttentionSR, *, bf16: bool = False, gain: float = 1.0, band: int = BAND) -> None:
        self.net = net.fold() if net.size.norm else net
        self.size, self.reach, self.band = net.size, net.reach, band
        self.kind = torch.bfloat16 if bf16 else torch.float32
        self._conv = _convolve(self.kind)
        self.gain = gain
        self._head, self._end = self._pack(net.head), self._pack(net.end, gain)
        self._blocks = [[self._pack(conv) for conv in block.convs] for block in self.net.blocks]  # type: ignore[union-attr]
        if net.size.spatial:
            self._look = self._pack(net.look)
            bias = cast(Tensor, net.look.bias).repeat(GROUPED)
            self._look_grouped = (
                self._tensor(_group_columns(net.look.weight.detach())),
                self._tensor(bias),
            )

    def _tensor(self, x: Tensor) -> Tensor:
        x = x.detach().to(self.kind)
        return x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x

    def _pack(self, layer: nn.Module, gain: float = 1.0) -> tuple[Tensor, Tensor]:
        conv = cast(nn.Conv2d, layer)
        return self._tensor(conv.weight * gain), self._tensor(cast(Tensor, conv.bias) * gain)

    def change(self, added: NDArray[np.float32] | None) -> None:
        """From now on add this to the last layer's weights of luma (4, C, 3, 3); None: they are the network's own.
        InputError for another shape."""
        weight, bias = self.net.end.weight.detach().clone(), cast(Tensor, self.net.end.bias)
        if added is not None:
            if added.shape != weight[:4].shape:
                raise InputError(
                    f"a change of {added.shape} is not for a last layer of luma of {tuple(weight[:4].shape)}"
                )
            weight[:4] += torch.from_numpy(added)
        self._end = self._tensor(weight * self.gain), self._tensor(bias * self.gain)

    def attention(self, pooled: Pooled | None) -> Attention:
        """What channel attention makes of a picture with these ``pooled`` features, mean and maximum (1, 4C) each."""
        widen, reduce = self.net.widen, self.net.reduce
        if pooled is None or not self.size.channel:
            return Attention(torch.ones(1, widen.out_channels, 1, 1), self._pack(widen), self._pack(reduce))
        weights = self.net.channel_weights(pooled).clamp_min(SMALLEST)
        if self.size.parallel:  # spatial attention looks at the features before
            folded = self._tensor(reduce.weight * weights), self._tensor(cast(Tensor, reduce.bias))
            return Attention(weights, self._pack(widen), folded)
        column = weights.flatten()
        bias = cast(Tensor, widen.bias) * column
        return Attention(
            weights, (self._tensor(widen.weight * column[:, None, None, None]), self._tensor(bias)), self._pack(reduce)
        )

    def pool(self, inputs: Tensor) -> Pooled:
        """Mean and maximum (1, 4C) each of the features of a whole picture (1, planes, h, w)."""
        pools = _Pools()
        for features, _ in self._features(inputs, self.attention(None)):
            pools.add(features)
        return pools.result()

    def residual(self, inputs: Tensor, attention: Attention, measure: bool = False) -> tuple[Tensor, Pooled | None]:
        """(1, planes, h, w) -> residual (1, 6, h, w) fp32; with ``measure`` also what ``pool`` would say.

        A part of a picture has the picture's result ``reach`` samples away from where it was cut off.
        """
        out, done, end = torch.empty(1, 6, *inputs.shape[2:]), 0, _Rows(1)
        pools = _Pools() if measure else None
        for x, last in self._before_end(inputs, attention, pools):
            made = self._conv(end(x, last), *self._end, (0, 1), None)
            out[:, :, done : done + made.shape[2]] = made
            done += made.shape[2]
        return out, self._unfolded(pools.result(), attention) if pools else None

    def last_inputs(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Of a whole picture (1, planes, h, w): what the last layer looks at (1, C, h, w), times ``gain``, and what it makes
        of it, the residual (1, 6, h, w); fp32."""
        seen = [x.float() for x, _ in self._before_end(inputs, self.attention(self.pool(inputs)), None)]
        whole = torch.cat(seen, 2)
        kernel, bias = (x.float() for x in self._end)
        return whole * self.gain, F.conv2d(whole, kernel, bias, padding=1)

    def _before_end(self, inputs: Tensor, attention: Attention, pools: _Pools | None) -> Iterator[tuple[Tensor, bool]]:
        """Bands of what the last layer looks at (1, C, n, w), and whether it is the last; ``pools`` sees the features."""
        attend, blocks = self._attend(attention), [self._block(convs) for convs in self._blocks]
        for features, last in self._features(inputs, attention):
            if pools:
                pools.add(features)
            x = attend(features, last)
            for block in blocks:
                x = block(x, last)
            yield x, last

    def _unfolded(self, pooled: Pooled, attention: Attention) -> Pooled:
        if self.size.parallel:
            return pooled
        weights = attention.weights.flatten(1)
        return pooled[0] / weights, pooled[1] / weights

    def _features(self, inputs: Tensor, attention: Attention) -> Iterator[tuple[Tensor, bool]]:
        """Bands of the features (1, 4C, n, w), attended unless spatial attention is parallel; whether it is the last."""
        height, width = inputs.shape[2:]
        step = max(self.band // width, self.reach + 1)
        first, second = _Rows(1), _Rows(1)
        for top in range(0, height, step):
            last = top + step >= height
            x = inputs[:, :, top : top + step].to(self.kind).contiguous(memory_format=torch.channels_last)
            x = self._conv(first(x, last), *self._head, (0, 1), self.leak)
            yield self._conv(second(x, last), *attention.widen, (0, 1), self.leak), last

    def _attend(self, attention: Attention) -> Layer:
        """Spatial attention and reduction, (1, 4C, n, w) -> (1, C, n', w)."""
        kernel, bias = attention.reduce
        maps, later = _Rows(3), _Rows(3)

        def run(x: Tensor, last: bool) -> Tensor:
            if not self.size.spatial:
                return self._conv(x, kernel, bias, (0, 0), None)
            reduced = later(self._conv(x, kernel, None, (0, 0), None), last)[:, :, 3:-3].float()
            seen = torch.stack((_mean_of_channels(x), _largest(x, 1)), 1).contiguous(memory_format=torch.channels_last)
            weights = torch.sigmoid(self._spatial(maps(seen, last)).float())
            return torch.addcmul(bias.float()[:, None, None], reduced, weights).to(self.kind)

        return run

    def _spatial(self, maps: Tensor) -> Tensor:
        """(1, 2, n + 6, w) -> (1, 1, n, w)"""
        _, _, rows, width = maps.shape
        if width % GROUPED:
            return self._conv(maps, *self._look, (0, 3), None)
        grouped = maps.permute(0, 2, 3, 1).reshape(1, rows, width // GROUPED, 2 * GROUPED).permute(0, 3, 1, 2)
        out = self._conv(grouped, *self._look_grouped, (0, 1), None)
        return out.permute(0, 2, 3, 1).reshape(1, 1, rows - 6, width)

    def _block(self, convs: list[tuple[Tensor, Tensor]]) -> Layer:
        """x + conv(.. activation(conv(x))), (1, C, n, w) -> (1, C, n', w)."""
        rows, kept = [_Rows(1) for _ in convs], [_Rows(1) for _ in convs[1:]]

        def run(x: Tensor, last: bool) -> Tensor:
            skip = x = rows[0](x, last)
            for i, conv in enumerate(convs):
                skip = kept[i - 1](skip, last)[:, :, 1:-1] if i else skip[:, :, 1:-1]
                x = self._conv(rows[i](x, last) if i else x, *conv, (0, 1), None if i else self.leak)
            return x.add_(skip)

        return run
