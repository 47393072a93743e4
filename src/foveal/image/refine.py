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
STRIDE = 0.3  # of the way to the target that a round goes
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


class _Search:
    """A picture whose patches have ``classes``, at a level, and what codings of it cost."""

    def __init__(self, encoder: Encoder, level: int, classes: NDArray[np.uint8]) -> None:
        self.encoder, self.network, self.level, self.classes = encoder, encoder.network, level, classes
        self.which = torch.from_numpy(classes.ravel().astype(np.int64))
        self.levels, self.dropped = torch.tensor(quantize.class_levels(level))[self.which], self.which == 0
        self.step, self.weight = self.network.steps_of(level, self.levels), quantize.rate_weight(level)

    def coded(self, wanted: Tensor, shifted: Tensor, base: Base) -> Round:
        """All tokens coded as ``wanted`` (T, D), thumbnail included, of which ``shifted`` (T, D) steps are for later
        symbols."""
        encoder, network, flat = self.encoder, self.network, self.classes.ravel()
        levels = quantize.class_levels(self.level)
        every, bits = torch.arange(flat.size), np.zeros(flat.size)
        values, slopes = torch.zeros(wanted.shape, dtype=network.prior.dtype), torch.zeros_like(wanted)
        price = encoder.prices(self.level, self.which, every)
        for part in parts(every.numpy()):
            coded, values[part] = encoder.slices(self.level, wanted, self.classes, base, part)
            sent, moved = (flat[part] > 0)[:, None], shifted[part].numpy()
            bits[part] = sum((network.tables.cost(s, i) * sent).sum(1) for s, i, _ in coded)
            cuts = pairwise(network.prior.cuts)
            true = [(s, i, r - moved[:, a:b]) for (s, i, r), (a, b) in zip(coded, cuts, strict=True)]
            slopes[part, BASE:], of_thumbnail = foresight.slopes(
                network,
                base.values,
                base.features,
                encoder.index,
                levels,
                self.which[part],
                every[part],
                true,
                price[part],
            )
            slopes[:, :BASE] += of_thumbnail
        return Round(values, bits, (-slopes / (2 * torch.from_numpy(price))).clamp(-FURTHEST, FURTHEST))

    def filter(self, now: Round | Kept) -> NDArray[np.int64] | None:
        """Taps of the filter for what was decoded."""
        return self.encoder.fit(self.level, self.classes, now.values, self.dropped.numpy())

    def judged(self, now: Round, taps: NDArray[np.int64] | None) -> tuple[Tensor, Floats]:
        """Where the decoded latents should rather be for the pixels behind the filter, (T, D), and what the tokens cost as
        they are, thumbnail left out, (T,): bits + lambda x error."""
        encoder = self.encoder
        target, errors = self.network.targets(
            now.values, self.level, self.levels, self.dropped, encoder.grid, encoder.rgb, taps, encoder.worth
        )
        return target, now.bits + self.weight * errors

    def rounds(self, latents: Tensor, base: Base, count: int) -> tuple[Tensor, Base]:
        """Latents and thumbnail, of all rounds those with the least true D + R/lambda. At a fixed point, rounding has
        minimised rate plus pixel error to first order."""
        cost_of = self.network.tables.cost
        free = ~self.dropped[:, None] | (torch.arange(latents.shape[1]) < BASE)
        aim = torch.cat([self.encoder.coefficients[:, :BASE], latents[:, BASE:]], 1)
        tried, shift, taps = aim, torch.zeros_like(aim), None
        best, least = (latents, base), np.inf
        for number in range(count + 1):
            if number:
                tried = aim + self.step * shift
                base = self.encoder.base(self.level, tried)
            now = self.coded(tried, shift, base)
            if number % REFIT == 0:
                taps = self.filter(now)
            target, costs = self.judged(now, taps)
            cost = sum(float(cost_of(s, i).sum()) for s, i in (base.hyper, *base.passes)) + float(costs.sum())
            if cost < least:
                best, least = (tried, base), cost
            aim = torch.where(free, aim + STRIDE * (target - aim), aim)
            shift = shift + (FOLLOWED if number else 1.0) * (now.asked * free - shift)
        return best

    def trials(self, latents: Tensor, base: Base, count: int) -> Tensor:
        """Latents (T, D) of which each token's is the best of so many trials, the thumbnail and the other tokens being as
        they are; what a trial does to the neighbours' pixels is seen when all are judged anew."""
        unmoved, random = torch.zeros_like(latents), torch.Generator().manual_seed(0)
        free = ~self.dropped[:, None] & (torch.arange(latents.shape[1]) >= BASE)

        def known(tried: Tensor, now: Round) -> Kept:
            target, costs = self.judged(now, taps)
            return Kept(tried, costs, now.values, target + self.step * now.asked)

        now = self.coded(latents, unmoved, base)
        taps = self.filter(now)
        kept = known(latents, now)
        for number in range(count):
            if number and number % AFRESH == 0:
                taps = self.filter(kept)
                kept = known(kept.tried, self.coded(kept.tried, unmoved, base))
            part = torch.rand(len(latents), 1, generator=random, dtype=latents.dtype)
            noise = NOISE * torch.randn(latents.shape, generator=random, dtype=latents.dtype)
            way = TRIED[0] + (TRIED[1] - TRIED[0]) * part
            trial = torch.where(free, kept.tried + way * (kept.wanted - kept.tried) + self.step * noise, kept.tried)
            kept = kept.or_better(known(trial, self.coded(trial, unmoved, base)))
        return kept.tried


def refined(
    encoder: Encoder, level: int, latents: Tensor, classes: NDArray[np.uint8], base: Base
) -> tuple[Tensor, Base]:
    """Latents (T, D) and thumbnail after the rounds, and trials if there are any, of the encoder's effort."""
    search = _Search(encoder, level, classes)
    latents, base = search.rounds(latents, base, ROUNDS[encoder.effort])
    return (search.trials(latents, base, TRIALS[encoder.effort]) if encoder.effort in TRIALS else latents), base
