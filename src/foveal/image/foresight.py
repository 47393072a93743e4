"""What moving a symbol does to the symbols that are predicted from it: the slope of the cost behind the rounding.

Rounding weighs a symbol's own bits against its own error (``quantize.optimised``). But later slices are predicted from
it, and all channels behind the thumbnail from the thumbnail. Let J be what the later symbols cost, bits + weight x
squared error, each at its best choice; by the envelope theorem J's slope is that with the symbols as they are, where
means and scales alone move. For this the integer prior is taken without its rounding, so that it has a derivative.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal.image.network import Network
from foveal.image.prior import ACT_MAX, SCALES, VALUE_UNIT, BaseIndex, Dense, IntegerPrior
from foveal.image.rangecoder import Tables

Coded = Sequence[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]  # symbols, scale indices, residuals


def _dense(layer: Dense, x: Tensor, extra: Tensor | None = None) -> Tensor:
    total = torch.addmm(layer.bias, x, layer.weight)
    return (total if extra is None else total + extra) * layer.divide - 0.5  # what rounding down takes on average


def _relu(layer: Dense, x: Tensor, extra: Tensor | None = None) -> Tensor:
    return _dense(layer, x, extra).clamp(0, ACT_MAX)


def _squash(value: Tensor) -> Tensor:
    return VALUE_UNIT * value.sign() * torch.log1p(value.abs() / VALUE_UNIT)


def _context(
    prior: IntegerPrior, base: Tensor, features: Tensor, ring: Tensor, levels: Sequence[int], which: Tensor, at: Tensor
) -> Tensor:
    """``IntegerPrior.context``, differentiable in ``base``"""
    near, own = torch.nn.functional.pad(base, (0, 0, 0, 1))[ring[at]], base[at]
    extra = torch.stack([prior.row("c_level", level) for level in levels]).to(base.dtype)[which]
    x = torch.cat([_squash(near - own[:, None]).flatten(1), _squash(own), features[at]], -1)
    return _relu(prior.c2, _relu(prior.c1, x, extra))


def _steepness(tables: Tables, symbols: NDArray[np.int64], index: NDArray[np.int64]) -> Tensor:
    """Bits that each symbol costs more per scale index, between the indices beside its own."""
    low, high = np.maximum(index - 1, 0), np.minimum(index + 1, SCALES - 1)
    return torch.from_numpy((tables.cost(symbols, high) - tables.cost(symbols, low)) / (high - low)).float()


@torch.enable_grad()
def slopes(
    network: Network,
    base: Tensor,
    features: Tensor,
    index: BaseIndex,
    levels: Sequence[int],
    which: Tensor,
    at: Tensor,
    coded: Coded,
    weight: NDArray[np.float64],
) -> tuple[Tensor, Tensor]:
    """Derivatives of J, in bits, of the tokens ``at`` (n,) by their symbols, (n, D - BASE), and by the thumbnail's values
    in steps, (T, BASE), which they are predicted from as well.

    base (T, BASE) decoded values, features (T, 64), ``which`` (n,) picks the level of each token among ``levels`` as in
    ``IntegerPrior.context``; ``coded``: of each slice; weight (n, D) bits per squared step.
    """
    prior = network.prior
    shown = base.clone().requires_grad_(True)
    context = _context(prior, shown, features, index.ring, levels, which, at)
    spread, done = prior.spread(levels)[which], [_squash(shown[at])]
    moved, total = [], torch.zeros(())
    for number, ((a, b), (symbols, scale, residual)) in enumerate(
        zip(itertools.pairwise(prior.cuts), coded, strict=True)
    ):
        x = _relu(prior.s2[number], _relu(prior.s1[number], torch.cat([context, *done], -1)))
        mean, change = _dense(prior.s3[number], x).chunk(2, -1)
        mean = mean.clamp(-512, ACT_MAX) * (prior.scales[torch.from_numpy(scale)] / 256)
        soft = ((change + spread[:, a:b]) / 16).clamp(0, SCALES - 1)
        missed = torch.from_numpy(residual - symbols).float() - (mean - mean.detach()) / VALUE_UNIT
        total = total + (_steepness(network.tables, symbols, scale) * soft).sum()
        total = total + (torch.from_numpy(weight[:, a:b]).float() * missed.square()).sum()
        moved.append(torch.zeros(symbols.shape, requires_grad=True))
        done.append(_squash(mean + VALUE_UNIT * (torch.from_numpy(symbols) + moved[-1])))
    *found, thumbnail = torch.autograd.grad(total, [*moved[:-1], shown])
    return torch.cat([*found, torch.zeros_like(moved[-1])], 1).double(), thumbnail.double() * VALUE_UNIT
