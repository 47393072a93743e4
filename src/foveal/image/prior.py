"""The integer prior: mean and scale of every symbol, computed in integers so that every machine agrees.

Below this line there are only integers. They travel in float tensors because matrix products are fast there, but every
partial sum is exactly representable: for each output, sum|w| * max|x| + |b| < 2^24 (checked when loaded), so fp32
and fp64, any thread count and any instruction set give the same bits. Products only: no convolution, no exp, no sqrt.

Q-formats
    symbol       integer            quantised residual
    value, mean  1/64 of a step     clamped to +-131071; value = 64 * symbol + mean
    activation   1/64               0..511 after a clamped ReLU, -511..511 as a signed input
    index        1/16, then whole   scale index 0..63, scale = 0.11 * exp(index * spacing) steps
    level        1/16               0..1264

Example: mean output 32 (half a scale), scale table entry 256 (one step) -> mean (32*256 + 128) >> 8 = 32 = half a step.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from foveal.errors import CorruptError
from foveal.header import MAX_LEVEL

BASE = 6
SCALES = 64
VALUE_UNIT = 64  # values and means per quantiser step
VALUE_MAX = 131071
ACT_MAX = 511
EXACT = 1 << 24
DIAGONAL = ((-1, -1), (-1, 1), (1, -1), (1, 1), (-1, -3), (-1, 3), (1, -3), (1, 3), (-3, -1), (-3, 1), (3, -1), (3, 1))
AXIAL = ((-1, 0), (0, -1), (0, 1), (1, 0), (-1, -2), (-1, 2), (1, -2), (1, 2), (-2, -1), (-2, 1), (2, -1), (2, 1))
RING = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
# Pass 0 of the base layer sees no neighbour; 1 and 3 fill cell centres (diagonal neighbours), 2 and 4 edges (axial).
PASSES = ((AXIAL, 1), (DIAGONAL, 2), (AXIAL, 2), (DIAGONAL, 1), (AXIAL, 1))


def base_pass(h: int, w: int) -> Tensor:
    """(h, w) int64: the pass in which each token's thumbnail is coded."""
    y, x = torch.arange(h)[:, None] % 4, torch.arange(w)[None] % 4
    coarse = torch.where((y == 0) & (x == 0), 0, torch.where((y == 2) & (x == 2), 1, 2))
    fine = torch.where((y % 2 == 1) & (x % 2 == 1), 3, 4)
    return torch.where((y % 2 == 0) & (x % 2 == 0), coarse, fine)


def neighbours(h: int, w: int, offsets: Sequence[tuple[int, int]], stride: int) -> Tensor:
    """(h*w, len(offsets)) int64 indices of neighbours; one outside is mirrored about the token, or h*w (a zero row)
    if that is outside too."""
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    out = []
    for dy, dx in offsets:
        index = torch.full((h, w), h * w)
        for sign in (-1, 1):
            ny, nx = y + sign * dy * stride, x + sign * dx * stride
            inside = (ny >= 0) & (ny < h) & (nx >= 0) & (nx < w)
            index = torch.where(inside, ny * w + nx, index)
        out.append(index.flatten())
    return torch.stack(out, -1)


class BaseIndex:
    """Token and neighbour indices of the base layer's passes on an (h, w) grid."""

    def __init__(self, h: int, w: int, device: torch.device | str = "cpu") -> None:
        which = base_pass(h, w).flatten()
        self.tokens = [torch.nonzero(which == i)[:, 0].to(device) for i in range(len(PASSES))]
        self.around = [
            neighbours(h, w, o, s)[t.cpu()].to(device) for (o, s), t in zip(PASSES, self.tokens, strict=True)
        ]
        self.ring = neighbours(h, w, RING, 1).to(device)


class Dense:
    """Integer linear layer: floor((x @ w + b) / 2^shift), ``b`` holding the half that makes it round. ``extra`` (80, out)
    are the level-dependent biases that will be added."""

    def __init__(self, weight: Tensor, bias: Tensor, shift: Tensor, extra: Tensor | None, dtype: torch.dtype) -> None:
        bound = weight.to(torch.int64).abs().sum(1) * ACT_MAX + bias.to(torch.int64).abs()
        if extra is not None:
            bound += extra.to(torch.int64).abs().amax(0)
        if int(bound.max()) >= EXACT:
            raise CorruptError(f"prior weights reach {int(bound.max())} >= 2^24: not exact in fp32; reinstall foveal")
        self.weight, self.bias = weight.to(dtype).t().contiguous(), bias.to(dtype)
        self.divide = torch.ldexp(torch.ones(len(bias), dtype=dtype), -shift.to(torch.int32))  # a power of two: exact

    def __call__(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        total = torch.addmm(self.bias, x, self.weight)
        return ((total if extra is None else total + extra) * self.divide).floor_()

    def relu(self, x: Tensor, extra: Tensor | None = None) -> Tensor:
        return self(x, extra).clamp_(0, ACT_MAX)


class IntegerPrior:
    """Everything both sides compute between symbols. One image, CPU; tensors are (tokens, channels), integer-valued.

    ``tensors``: the integer arrays of a weights file, ``cuts``: channel bounds of the slices. ``dtype`` fp32 or fp64,
    same results.
    """

    def __init__(self, tensors: dict[str, Tensor], cuts: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        self.t, self.cuts, self.dtype = tensors, tuple(cuts), dtype
        self.scales = tensors["scale_q8"].to(dtype)
        magnitude = torch.arange(VALUE_MAX + 1)
        if len(tensors["squash_from"]) > ACT_MAX:
            raise CorruptError(f"prior squashes to {len(tensors['squash_from'])} > {ACT_MAX}; reinstall foveal")
        self.squash_table = torch.bucketize(magnitude, tensors["squash_from"].to(torch.int64), right=True).to(dtype)
        self.z1, self.z2, self.c1, self.c2 = (self._dense(n) for n in ("z1", "z2", "c1", "c2"))
        self.b1, self.b2, self.b3 = ([self._dense(f"{n}.{i}") for i in range(len(PASSES))] for n in ("b1", "b2", "b3"))
        self.s1, self.s2, self.s3 = (
            [self._dense(f"{n}.{i}") for i in range(len(self.cuts) - 1)] for n in ("s1", "s2", "s3")
        )

    def _dense(self, name: str) -> Dense:
        extra = self.t[f"{name[0]}_level"] if name in ("z1", "c1") else None
        weight, bias, shift = (self.t[f"{name}.{k}"] for k in ("weight", "bias", "shift"))
        return Dense(weight, bias, shift, extra, self.dtype)

    def row(self, name: str, level: int) -> Tensor:
        """A level-dependent table (80, C) at ``level`` (sixteenths): (C,) interpolated, rounded down."""
        table, (whole, part) = self.t[name].to(torch.int64), divmod(min(max(level, 0), MAX_LEVEL), 16)
        return (table[whole] * (16 - part) + table[min(whole + 1, len(table) - 1)] * part) >> 4

    def squash(self, value: Tensor) -> Tensor:
        """1/64 steps -> 1/64 units of sign(v) ln(1 + |v|), by table"""
        whole = value.clamp(-VALUE_MAX, VALUE_MAX)
        return self.squash_table[whole.abs().to(torch.int64)] * whole.sign()

    def _mean_index(self, out: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        mean, change = out.chunk(2, -1)
        index = ((change + spread + 8) / 16).floor_().clamp_(0, SCALES - 1).to(torch.int64)
        mean = ((mean.clamp(-512, ACT_MAX) * self.scales[index] + 128) / 256).floor_()
        return mean, index

    def hyper(self, level: int) -> tuple[Tensor, Tensor]:
        """mean (C,) in 64ths and scale index (C,) of the hyper-latent's symbols"""
        index = (self.row("z_index", level) + 8 >> 4).clamp(0, SCALES - 1)
        return self.row("z_mean", level).to(self.dtype), index

    def features(self, z: Tensor, level: int, h: int, w: int) -> Tensor:
        """Hyper-latent values (H, W, C) -> (h*w, 64)"""
        hz, wz, c = z.shape
        x = torch.nn.functional.pad(z.clamp(-ACT_MAX, ACT_MAX), (0, 0, 1, 1, 1, 1))
        around = x.unfold(0, 3, 1).unfold(1, 3, 1).permute(0, 1, 3, 4, 2).reshape(hz * wz, 9 * c)
        out = self.z2.relu(self.z1.relu(around, self.row("z_level", level).to(self.dtype)))
        out = out.view(hz, wz, 4, 4, 64).permute(0, 2, 1, 3, 4).reshape(4 * hz, 4 * wz, 64)
        return out[:h, :w].reshape(h * w, 64)

    def base(self, step: int, values: Tensor, features: Tensor, index: BaseIndex, level: int) -> tuple[Tensor, Tensor]:
        """Pass ``step`` over the thumbnail: values decoded so far (T, BASE) -> mean (t, BASE), scale index (t, BASE) of
        the tokens ``index.tokens[step]``"""
        tokens = index.tokens[step]
        near = torch.nn.functional.pad(values, (0, 0, 0, 1))[index.around[step]]  # (t, n, BASE)
        guess = torch.zeros(len(tokens), BASE, dtype=self.dtype)
        delta = torch.zeros(len(tokens), near.shape[1] * BASE, dtype=self.dtype)
        if step:
            linear = self.t[f"linear.{step}"].to(torch.float64)  # L1 < 2^22 on values < 2^17: exact below 2^53
            guess = ((near.flatten(1).to(torch.float64) @ linear + 8192) / 16384).floor_().to(self.dtype)
            delta = self.squash(near - guess[:, None]).flatten(1)
        x = self.b2[step].relu(self.b1[step].relu(torch.cat([delta, features[tokens]], -1)))
        mean, scale = self._mean_index(self.b3[step](x), self.row(f"base_spread.{step}", level).to(self.dtype))
        return mean + guess, scale

    def context(
        self, base: Tensor, features: Tensor, ring: Tensor, levels: Sequence[int], which: Tensor, at: Tensor
    ) -> Tensor:
        """Decoded thumbnail of all tokens (T, BASE), features (T, 64) -> (n, context) for the tokens ``at`` (n,);
        ``which`` (n,) picks each one's entry of ``levels``."""
        near, own = torch.nn.functional.pad(base, (0, 0, 0, 1))[ring[at]], base[at]
        delta = self.squash(near - own[:, None]).flatten(1)
        extra = torch.stack([self.row("c_level", level) for level in levels]).to(self.dtype)[which]
        return self.c2.relu(self.c1.relu(torch.cat([delta, self.squash(own), features[at]], -1), extra))

    def spread(self, levels: Sequence[int]) -> Tensor:
        """(len(levels), D): each level's own log-scale of every channel, 1/16 index"""
        return torch.stack([self.row("spread", level) for level in levels]).to(self.dtype)

    def slice(self, number: int, context: Tensor, done: Sequence[Tensor], spread: Tensor) -> tuple[Tensor, Tensor]:
        """Channel slice ``number`` of all tokens, given the squashed values of the slices before (base first);
        ``spread`` (T, D) -> mean and scale index (T, b - a)"""
        a, b = self.cuts[number], self.cuts[number + 1]
        x = self.s2[number].relu(self.s1[number].relu(torch.cat([context, *done], -1)))
        return self._mean_index(self.s3[number](x), spread[:, a:b])


def reconstruct(symbols: Tensor, mean: Tensor) -> Tensor:
    """value = 64 * symbol + mean, clamped; both sides clamp alike, so hostile symbols stay in range"""
    return (symbols * VALUE_UNIT + mean).clamp_(-VALUE_MAX, VALUE_MAX)
