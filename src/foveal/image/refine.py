"""Efforts 6 to 9: what is rounded is moved, round by round, to where the decoded picture and later symbols want it.

A round codes the picture, decodes it and asks two gradients: that of the squared error of the filtered pixels, through the
synthesis, and that of what the symbols behind cost (``foresight``). The thumbnail is moved like the latents: all
else is predicted from it. Gradients are fp32, so these efforts may choose other symbols on another machine; what a file
decodes to is the same everywhere.
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

ROUNDS = {6: 2, 7: 3, 8: 5, 9: 8}  # by effort
STRIDE = 0.4  # of the way to the target that a round goes
REFIT = 4  # rounds after which the filter is fitted anew
FOLLOWED = 0.5  # of the way that a round goes towards what later symbols ask for
FURTHEST = 0.5  # steps that later symbols may move a target


class Round(NamedTuple):
    """What one coding of all tokens came to: decoded ``values`` (T, D), ``bits``, and ``asked`` (T, D): how many steps away
    from where distortion has it later symbols want each target."""

    values: Tensor
    bits: float
    asked: Tensor


def _coded(
    encoder: Encoder, level: int, wanted: Tensor, shifted: Tensor, classes: NDArray[np.uint8], base: Base
) -> Round:
    """All tokens coded as ``wanted`` (T, D), thumbnail included, of which ``shifted`` (T, D) steps are for later symbols."""
    network, flat, levels = encoder.network, classes.ravel(), quantize.class_levels(level)
    which, every = torch.from_numpy(flat.astype(np.int64)), torch.arange(flat.size)
    bits = sum(float(network.tables.cost(s, i).sum()) for s, i in (base.hyper, *base.passes))
    values, slopes = torch.zeros(wanted.shape, dtype=network.prior.dtype), torch.zeros_like(wanted)
    price = encoder.prices(level, which, every)
    for part in parts(every.numpy()):
        coded, values[part] = encoder.slices(level, wanted, classes, base, part)
        sent, moved = (flat[part] > 0)[:, None], shifted[part].numpy()
        bits += sum(float((network.tables.cost(s, i) * sent).sum()) for s, i, _ in coded)
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
    rate plus pixel error to first order."""
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
        target, error = network.targets(
            now.values, level, levels, dropped, encoder.grid, encoder.rgb, taps, encoder.worth
        )
        if now.bits + weight * error < least:
            best, least = (tried, base), now.bits + weight * error
        aim = torch.where(free, aim + STRIDE * (target - aim), aim)
        shift = shift + (FOLLOWED if number else 1.0) * (now.asked * free - shift)
    return best
