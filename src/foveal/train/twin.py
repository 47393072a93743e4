"""The float twin of the integer prior: differentiable, same structure, exported to integers by ``export``.

Everything is measured in quantiser steps. Activations live in [0, 8) (a clamped ReLU), signed inputs in (-8, 8);
both are multiples of 1/64 in the integer prior, which ``fake`` imitates in the last phase of training.
A value's mean is predicted in units of its own predicted scale; scales are exp(index * SPACING) * SCALE_MIN.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.image.prior import PASSES, RING, BaseIndex
from foveal.image.transform import BASE, NODES, Size, interpolate, squash

SCALE_MIN, SCALES = 0.11, 64
SPACING = math.log(96.0 / SCALE_MIN) / (SCALES - 1)
LIMIT = 8.0


class Layer(nn.Linear):
    """Linear layer with a clamped ReLU; ``fake`` rounds activations to 1/64 with a straight-through gradient."""

    def forward(self, x: Tensor, fake: bool = False, bias: Tensor | float = 0.0) -> Tensor:
        y = (super().forward(x) + bias).clamp(0.0, LIMIT - 1 / 64)
        return y + ((y * 64).round() / 64 - y).detach() if fake else y


def grid(x: Tensor, fake: bool) -> Tensor:
    """A signed input to the prior's networks."""
    x = x.clamp(-LIMIT + 1 / 64, LIMIT - 1 / 64)
    return x + ((x * 64).round() / 64 - x).detach() if fake else x


class Density(nn.Module):
    """P(symbol | scale): two zero-mean Gaussians of one scale, mixture and ratio depending on the scale index.
    After training its place is taken by 64 tables of counted frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.shape = nn.Parameter(torch.tensor([-1.4, 0.0, 0.9, 0.0]))

    def bits(self, x: Tensor, index: Tensor) -> Tensor:
        """x (...) residual in steps, index (...) float in [0, 63] -> bits (...)"""
        at = index / (SCALES - 1)
        sigma = torch.exp(index * SPACING) * SCALE_MIN
        share, ratio = (
            torch.sigmoid(self.shape[0] + self.shape[1] * at),
            torch.exp(self.shape[2] + self.shape[3] * at),
        )
        x, k = x.abs(), 1 / (sigma * math.sqrt(2))
        near = torch.erf((0.5 - x) * k) + torch.erf((0.5 + x) * k)
        far = torch.erf((0.5 - x) * k / ratio) + torch.erf((0.5 + x) * k / ratio)
        p = 0.5 * ((1 - share) * near + share * far)
        return -torch.log2(p + 2e-7 / (1 + x))


class PriorTwin(nn.Module):
    """Hyper-latent, base layer and channel slices -> mean and scale of every symbol."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        c, self.cuts, self.size = size.context, size.cuts, size
        self.z_mean, self.z_scale = (
            nn.Parameter(torch.zeros(NODES, size.hyper)),
            nn.Parameter(torch.zeros(NODES, size.hyper)),
        )
        self.z1, self.z2 = Layer(9 * size.hyper, 192), Layer(192, 16 * 64)
        self.z_level = nn.Parameter(torch.zeros(NODES, 192))
        self.linear = nn.ParameterList(nn.Parameter(torch.zeros(len(o) * BASE, BASE)) for o, _ in PASSES)
        self.b1 = nn.ModuleList(Layer(len(o) * BASE + 64, 192) for o, _ in PASSES)
        self.b2 = nn.ModuleList(Layer(192, 96) for _ in PASSES)
        self.b3 = nn.ModuleList(nn.Linear(96, 2 * BASE) for _ in PASSES)
        self.base_scale = nn.Parameter(torch.zeros(len(PASSES), BASE))  # ln of each pass's spread, absolute units
        self.c1, self.c2 = Layer(64 + (len(RING) + 1) * BASE, c), Layer(c, c)
        self.c_level = nn.Parameter(torch.zeros(NODES, c))
        self.s1 = nn.ModuleList(Layer(c + a, c) for a in self.cuts[:-1])
        self.s2 = nn.ModuleList(Layer(c, c) for _ in self.cuts[:-1])
        self.s3 = nn.ModuleList(nn.Linear(c, 2 * (b - a)) for a, b in pairwise(self.cuts))
        self.scale = nn.Parameter(torch.zeros(size.latent))  # ln of each channel's spread, absolute units
        self.density = Density()
        for end in [*self.b3, *self.s3]:
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)
        for layer in [*self.b1, *self.b2, self.c1, self.c2, *self.s1, *self.s2, self.z1, self.z2]:
            nn.init.constant_(layer.bias, 0.3)  # the clamp is one-sided: start in its live half

    def _split(self, out: Tensor, spread: Tensor) -> tuple[Tensor, Tensor]:
        """Network output and base log-spread (in steps) -> (mean in steps, scale index)."""
        mean, change = out.float().chunk(2, -1)
        index = ((spread + 2 * change - math.log(SCALE_MIN)) / SPACING).clamp(0, SCALES - 1)
        return mean.clamp(-LIMIT, LIMIT - 1 / 64) * torch.exp(index * SPACING) * SCALE_MIN, index

    def hyper(self, z: Tensor, level: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
        """z (B, H, W, C), image level (B, 1, 1) -> (decoded z, bits per sample (B,))"""
        mean, ln = interpolate(self.z_mean, level), interpolate(self.z_scale, level)
        index = ((ln - math.log(SCALE_MIN)) / SPACING).clamp(0, SCALES - 1).expand_as(z)
        residual, value = quantise(z - mean, noise)
        return value + mean, self.density.bits(residual, index).sum((1, 2, 3))

    def spread_out(self, z: Tensor, level: Tensor, h: int, w: int, fake: bool) -> Tensor:
        """Decoded z (B, H, W, C) -> features of every token (B, h, w, 64)"""
        b, hz, wz, c = z.shape
        around = F.pad(grid(z, fake), (0, 0, 1, 1, 1, 1)).unfold(1, 3, 1).unfold(2, 3, 1)  # (B, H, W, C, 3, 3)
        x = around.permute(0, 1, 2, 4, 5, 3).reshape(b, hz, wz, 9 * c)
        out: Tensor = self.z2(self.z1(x, fake, interpolate(self.z_level, level)), fake)
        return out.view(b, hz, wz, 4, 4, 64).permute(0, 1, 3, 2, 4, 5).reshape(b, 4 * hz, 4 * wz, 64)[:, :h, :w]

    def base(
        self,
        v: Tensor,
        features: Tensor,
        ln_step: Tensor,
        weight: Tensor,
        index: BaseIndex,
        noise: bool,
        fake: bool,
    ) -> tuple[Tensor, Tensor]:
        """Thumbnail v (B, T, BASE) in steps, features (B, T, 64), ln_step (B, 1, BASE), weight (B, 1, BASE) bits per
        squared step -> (decoded (B, T, BASE), bits (B,))"""
        values, bits = torch.zeros_like(v), v.new_zeros(v.shape[0])
        for i, (tokens, around) in enumerate(zip(index.tokens, index.around, strict=True)):
            if not len(tokens):
                continue
            near = F.pad(values, (0, 0, 0, 1))[:, around]  # (B, t, n, BASE)
            with torch.autocast(v.device.type, enabled=False):  # the integer prior's guess is exact
                guess = near.flatten(2) @ self.linear[i] if i else torch.zeros_like(v[:, tokens])
            delta = squash(near - guess[:, :, None]).flatten(2) * (i > 0)
            x = self.b1[i](torch.cat([grid(delta, fake), features[:, tokens].to(delta.dtype)], -1), fake)
            mean, scale = self._split(self.b3[i](self.b2[i](x, fake)), self.base_scale[i] - ln_step)
            mean = on_grid(mean + guess, fake)
            residual, value = quantise_rd(v[:, tokens] - mean, noise, scale, weight, self.density)
            bits = bits + self.density.bits(residual, scale).sum((1, 2))
            values = values.index_copy(1, tokens, value + mean)
        return values, bits

    def context(self, base: Tensor, features: Tensor, level: Tensor, ring: Tensor, fake: bool) -> Tensor:
        """Decoded thumbnail (B, T, BASE), features (B, T, 64), token level (B, T) -> (B, T, context)"""
        near = F.pad(base, (0, 0, 0, 1))[:, ring]
        delta = squash(near - base[:, :, None]).flatten(2)
        x = torch.cat([grid(delta, fake), grid(squash(base), fake), features.to(delta.dtype)], -1)
        out: Tensor = self.c2(self.c1(x, fake, interpolate(self.c_level, level)), fake)
        return out

    def slices(
        self,
        v: Tensor,
        base: Tensor,
        context: Tensor,
        ln_step: Tensor,
        weight: Tensor,
        coded: Tensor,
        noise: bool,
        fake: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """v (B, T, D) latents in steps, ln_step, weight (B, T, D) bits per squared step, coded (B, T) bool (False:
        symbols are all zero, not sent) -> (decoded values (B, T, D) in steps, bits per token (B, T), gain (B, T): what
        coding a token saves in weighted distortion less its bits; under ``torch.no_grad`` alone, else its bits, negative)"""
        done, inputs = [base], [grid(squash(base), fake)]
        bits, saved = v.new_zeros(v.shape[:2]), v.new_zeros(v.shape[:2])
        symbols = self.__dict__.get("fused", self._symbols)
        widths = [self.cuts[0], *(b - a for a, b in pairwise(self.cuts))]
        parts = zip(*(torch.split(x, widths, -1)[1:] for x in (v, weight, self.scale - ln_step)), strict=True)
        for i, (own, w, spread) in enumerate(parts):
            x = self.s2[i](self.s1[i](torch.cat([context.to(v.dtype), *inputs], -1), fake), fake)
            values, own_bits, own_saved = symbols(self.s3[i](x), spread, own, w, coded, noise, fake)
            bits, saved = bits + own_bits, saved + own_saved
            done.append(values)
            inputs.append(grid(squash(values), fake))
        return torch.cat(done, -1), bits * coded, saved - bits.detach()

    def _symbols(
        self, out: Tensor, spread: Tensor, own: Tensor, weight: Tensor, coded: Tensor, noise: bool, fake: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A slice's network output (B, T, 2n), spread, latents and weights (B, T, n), coded (B, T) -> decoded values
        (B, T, n), bits and saved weighted distortion (B, T), the latter only where no gradient is asked for."""
        mean, scale = self._split(out, spread)
        mean = on_grid(mean, fake)
        target = own - mean
        residual, value = quantise_rd(target, noise, scale, weight, self.density)
        bits = self.density.bits(residual, scale).sum(-1)
        saved = torch.zeros_like(bits)
        if not torch.is_grad_enabled():
            saved = (weight * (target.square() - (target - value).square())).sum(-1)
        return value * coded[..., None] + mean, bits, saved

    def fuse(self) -> None:
        """From now on ``_symbols`` is compiled into a few loops: on a CPU its hundred passes over memory take a third of a
        training step. Needs a C++ compiler."""
        self.fused = torch.compile(self._symbols, dynamic=True)


def on_grid(x: Tensor, fake: bool) -> Tensor:
    return x + ((x * 64).round() / 64 - x).detach() if fake else x


def quantise(x: Tensor, noise: bool) -> tuple[Tensor, Tensor]:
    """(what the rate is measured on, rounded value with a straight-through gradient)"""
    value = x + (x.round() - x).detach()
    return (x + torch.rand_like(x) - 0.5 if noise else value), value


def cheaper(symbol: Tensor, x: Tensor, index: Tensor, weight: Tensor, density: Density) -> Tensor:
    """Each symbol, or the one next to it towards zero where that lowers bits + weight * error^2"""
    less = symbol - symbol.sign()
    gain = density.bits(symbol, index) - density.bits(less, index)
    return torch.where(gain + weight * ((x - symbol) ** 2 - (x - less) ** 2) > 0, less, symbol)


def quantise_rd(x: Tensor, noise: bool, index: Tensor, weight: Tensor, density: Density) -> tuple[Tensor, Tensor]:
    """Like ``quantise``, but without noise each non-zero symbol becomes one smaller where bits + weight * error^2 says so,
    as the encoder does (``quantize.optimised``); prior and synthesis learn what they will be given. The gradient passes
    through non-zero symbols only: a straight-through gradient in the wide dead zone makes the analysis amplify
    coefficients without end (docs/LOG.md)."""
    if noise:
        return quantise(x, noise)
    with torch.no_grad():
        symbol, weight = x.round(), weight.expand_as(x)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():  # most symbols are zero and need no thought
            at = torch.nonzero(symbol, as_tuple=True)
            symbol[at] = cheaper(symbol[at], x[at], index[at], weight[at], density)
        else:  # finding them would make the host wait
            symbol = cheaper(symbol, x, index, weight, density)
    value = symbol + (symbol != 0) * (x - x.detach())
    return value, value
