"""Efforts 6 to 10: what is rounded is moved, round by round, to where the decoded picture and later symbols want it.

A round codes the picture, decodes it and asks two gradients: that of the squared error of the filtered pixels, through the
synthesis, and that of what the symbols behind cost (``foresight``). The thumbnail is moved like the latents: all
else is predicted from it. Effort 10 goes on patch by patch: with the thumbnail as it is, a patch keeps a step towards both
and some noise only if that lowers its own bits + lambda x error, so that it leaves the fixed point of the rounds for a
better one. Gradients are fp32, so these efforts may choose other symbols on another machine; what a file decodes to is
the same everywhere.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal.image import foresight, quantize
from foveal.image.decoder import parts
from foveal.image.prior import BASE

if TYPE_CHECKING:
    from foveal.image.encoder import Base, Encoder

Floats = NDArray[np.float64]
ROUNDS = {6: 2, 7: 3, 8: 5, 9: 8, 10: 8}  # by effort
TRIALS = {10: 16}  # rounds after these in which every patch keeps what is better for itself
STRIDE = 0.4  # of the way to the target that a round goes
REFIT = 4  # rounds after which the filter is fitted anew
FOLLOWED = 0.5  # of the way that a round goes towards what later symbols ask for
FURTHEST = 0.5  # steps that later symbols may move a target
TRIED = (0.3, 1.0)  # of the way to what the gradients ask for that a trial goes, at random in between for each patch
NOISE = 0.1  # steps that a trial adds, standard deviation
AFRESH = 8  # trials after which the patches are judged anew, for their neighbours have changed


class Round(NamedTuple):
    """What one coding of all tokens came to: decoded ``values`` (T, D), ``bits`` (T,) behind the thumbnail, and ``asked``
    (T, D): how many steps away from where distortion has it later symbols want each target."""

    values: Tensor
    bits: Floats
    asked: Tensor


class Kept(NamedTuple):
    """The best that is known for each token: what was coded as, ``tried`` (T, D), what that ``cost`` (T,), bits + lambda x
    error, the ``values`` (T, D) it decodes to, and where it is ``wanted`` (T, D) by both gradients."""

    tried: Tensor
    cost: Floats
    values: Tensor
    wanted: Tensor

    def or_better(self, other: Kept) -> Kept:
        """For each token the one that costs less."""
        better = other.cost < self.cost
        mask = torch.from_numpy(better)[:, None]
        tried, values, wanted = (
            torch.where(mask, theirs, own)
            for own, theirs in zip((self.tried, *self[2:]), (other.tried, *other[2:]), strict=True)
        )
        return Kept(tried, np.where(better, other.cost, self.cost), values, wanted)


def _coded(
    encoder: Encoder, level: int, wanted: Tensor, shifted: Tensor, classes: NDArray[np.uint8], base: Base
) -> Round:
    """All tokens coded as ``wanted`` (T, D), thumbnail included, of which ``shifted`` (T, D) steps are for later symbols."""
    network, flat, levels = encoder.network, classes.ravel(), quantize.class_levels(level)
    which, every = torch.from_numpy(flat.astype(np.int64)), torch.arange(flat.size)
    bits = np.zeros(flat.size)
    values, slopes = torch.zeros(wanted.shape, dtype=network.prior.dtype), torch.zeros_like(wanted)
    price = encoder.prices(level, which, every)
    for part in parts(every.numpy()):
        coded, values[part] = encoder.slices(level, wanted, classes, base, part)
        sent, moved = (flat[part] > 0)[:, None], shifted[part].numpy()
        bits[part] = sum((network.tables.cost(s, i) * sent).sum(1) for s, i, _ in coded)
        cuts = pairwise(network.prior.cuts)
        true = [(s, i, r - moved[:, a:b]) for (s, i, r), (a, b) in zip(coded, cuts, strict=True)]
        slopes[part, BASE:], of_thumbnail = foresight.slopes(
            network, base.values, base.features, encoder.index, levels, which[part], every[part], true, price[part]
        )
        slopes[:, :BASE] += of_thumbnail
    return Round(values, bits, (-slopes / (2 * torch.from_numpy(price))).clamp(-FURTHEST, FURTHEST))


def refined(
    encoder: Encoder, level: int, latents: Tensor, classes: NDArray[np.uint8], base: Base
) -> tuple[Tensor, Base]:
    """Latents and thumbnail, of all rounds those with the least true D + R/lambda. At a fixed point, rounding has minimised
    rate plus pixel error to first order. Trials follow if the effort has any."""
    network, weight = encoder.network, quantize.rate_weight(level)
    which = torch.from_numpy(classes.ravel().astype(np.int64))
    levels, dropped = torch.tensor(quantize.class_levels(level))[which], which == 0
    step = network.steps_of(level, levels)
    free = ~dropped[:, None] | (torch.arange(latents.shape[1]) < BASE)
    aim = torch.cat([encoder.coefficients[:, :BASE], latents[:, BASE:]], 1)
    tried, shift, taps = aim, torch.zeros_like(aim), None
    best, least = (latents, base), np.inf
    for number in range(ROUNDS[encoder.effort] + 1):
        if number:
            tried = aim + step * shift
            base = encoder.base(level, tried)
        now = _coded(encoder, level, tried, shift, classes, base)
        if number % REFIT == 0:
            taps = encoder.fit(level, classes, now.values, dropped.numpy())
        target, errors = network.targets(
            now.values, level, levels, dropped, encoder.grid, encoder.rgb, taps, encoder.worth
        )
        of_base = sum(float(network.tables.cost(s, i).sum()) for s, i in (base.hyper, *base.passes))
        cost = of_base + float((now.bits + weight * errors).sum())
        if cost < least:
            best, least = (tried, base), cost
        aim = torch.where(free, aim + STRIDE * (target - aim), aim)
        shift = shift + (FOLLOWED if number else 1.0) * (now.asked * free - shift)
    if encoder.effort in TRIALS:
        return _tried_by_patch(encoder, level, *best, classes, TRIALS[encoder.effort]), best[1]
    return best


def _tried_by_patch(
    encoder: Encoder, level: int, latents: Tensor, base: Base, classes: NDArray[np.uint8], trials: int
) -> Tensor:
    """Latents (T, D) of which each token's is the best of so many trials, the thumbnail and the other tokens being as they
    are; what a trial does to the neighbours' pixels is seen when all are judged anew."""
    network, weight = encoder.network, quantize.rate_weight(level)
    which = torch.from_numpy(classes.ravel().astype(np.int64))
    levels, dropped = torch.tensor(quantize.class_levels(level))[which], which == 0
    step, unmoved, random = network.steps_of(level, levels), torch.zeros_like(latents), torch.Generator().manual_seed(0)
    free = ~dropped[:, None] & (torch.arange(latents.shape[1]) >= BASE)

    def judged(tried: Tensor) -> Kept:
        now = _coded(encoder, level, tried, unmoved, classes, base)
        target, errors = network.targets(
            now.values, level, levels, dropped, encoder.grid, encoder.rgb, taps, encoder.worth
        )
        return Kept(tried, now.bits + weight * errors, now.values, target + step * now.asked)

    taps = encoder.fit(level, classes, _coded(encoder, level, latents, unmoved, classes, base).values, dropped.numpy())
    kept = judged(latents)
    for number in range(trials):
        if number and number % AFRESH == 0:
            taps = encoder.fit(level, classes, kept.values, dropped.numpy())
            kept = judged(kept.tried)
        way = torch.rand(len(latents), 1, generator=random, dtype=latents.dtype) * (TRIED[1] - TRIED[0]) + TRIED[0]
        noise = NOISE * torch.randn(latents.shape, generator=random, dtype=latents.dtype)
        trial = kept.tried + way * (kept.wanted - kept.tried) + step * noise
        kept = kept.or_better(judged(torch.where(free, trial, kept.tried)))
    return kept.tried
