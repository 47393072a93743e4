"""A larger model that starts as the smaller one: every output equal, the new numbers idle but ready to learn (Net2Net, Chen
et al. 2016). So a size too costly to train from nothing begins where the smaller one has come to."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from foveal.errors import InputError
from foveal.image.transform import Block, Size
from foveal.train.losses import ImageModel

# Columns of the small layer, and every place where their inputs lie in the large one.
Group = tuple[slice, Sequence[Tensor]]


def fits(small: Size, large: Size) -> bool:
    """Whether ``large`` can start as ``small``: as many latents, width a multiple, nothing else smaller, heads as wide,
    and slices that only divide the small one's."""
    same = ("luma", "chroma", "hyper")
    growing = ("mlp", "encoder_blocks", "decoder_blocks", "detail", "detail_blocks", "context")
    widths = ((small.width, large.width), (small.encoder_width, large.encoder_width))
    return (
        all(getattr(small, k) == getattr(large, k) for k in same)
        and all(getattr(small, k) <= getattr(large, k) for k in growing)
        and all(wide % width == 0 for width, wide in widths)
        and small.width * large.heads == large.width * small.heads
        and set(small.cuts) <= set(large.cuts)
    )


def grown(small: ImageModel, large: Size) -> ImageModel:
    """A model of size ``large`` that computes what ``small`` computes, up to rounding. The residual stream is repeated, and
    what reads it shares its weights out among the copies unevenly, so that they part in training; new heads, hidden
    units, channels and blocks end in zero weights. Raises InputError if the sizes do not fit (``fits``)."""
    if not fits(small.size, large):
        raise InputError(
            f"a model {small.size.width} wide with slices {small.size.cuts} does not grow into one {large.width} wide with "
            f"slices {large.cuts}: the width must be a multiple, heads as wide, latents equal, slices only divided and "
            "nothing smaller; give --weights of the same size, or none"
        )
    out = ImageModel(large)
    out.shortcut.load_state_dict(small.shortcut.state_dict())
    out.hyper.load_state_dict(small.hyper.state_dict())
    out.gain.copy_(small.gain)
    with torch.no_grad():
        _ends(out.analysis, small.analysis)
        _synthesis(out, small)
        _prior(out, small)
    return out


def _first(count: int) -> Tensor:
    return torch.arange(count)


def _copies(small: int, large: int) -> list[Tensor]:
    """Where each number of a residual stream of width ``small`` lies in one of width ``large``."""
    return [_first(small) + start for start in range(0, large, small)]


def _place(large: nn.Module, small: nn.Module, rows: Sequence[Tensor], groups: Sequence[Group]) -> None:
    """Put a linear layer or convolution into a larger one: at each of ``rows`` it reads ``groups`` alone, weights shared
    out unevenly among copies of an input. Other rows keep their random start."""
    assert isinstance(large, nn.Linear | nn.Conv2d) and isinstance(small, nn.Linear | nn.Conv2d)
    assert large.bias is not None and small.bias is not None
    for row in rows:
        large.weight[row] = 0
        large.bias[row] = small.bias
        for columns, places in groups:
            own = small.weight[:, columns]
            share = torch.randn(len(places), *own.shape) * own.std() if len(places) > 1 else torch.zeros(1, *own.shape)
            for place, uneven in zip(places, share - share.mean(0), strict=True):
                large.weight[row[:, None], place] = own / len(places) + uneven


def _block(large: Block, small: Block) -> None:
    width, wide = small.norm1.weight.numel(), large.norm1.weight.numel()
    stream: list[Group] = [(slice(None), _copies(width, wide))]
    for name in ("norm1", "norm2"):
        own, other = getattr(large, name), getattr(small, name)
        own.weight.copy_(other.weight.repeat(wide // width))
        own.bias.copy_(other.bias.repeat(wide // width))
    _place(large.qkv, small.qkv, [torch.cat([_first(width) + wide * part for part in range(3)])], stream)
    _place(large.proj, small.proj, _copies(width, wide), [(slice(None), [_first(width)])])
    hidden = _first(small.fc1.out_features)
    _place(large.fc1, small.fc1, [hidden], stream)
    _place(large.fc2, small.fc2, _copies(width, wide), [(slice(None), [hidden])])
    large.position[: small.heads] = small.position


def _ends(large: Any, small: Any) -> None:
    """The linear layers into and out of the residual stream, and the blocks between."""
    width, wide = small.embed.out_features, large.embed.out_features
    _place(large.embed, small.embed, _copies(width, wide), [(slice(None), [_first(small.embed.in_features)])])
    _place(large.out, small.out, [_first(small.out.out_features)], [(slice(None), _copies(width, wide))])
    for own, other in zip(large.blocks, small.blocks, strict=False):
        _block(own, other)


def _synthesis(out: ImageModel, small: ImageModel) -> None:
    own: Any = out.synthesis
    other: Any = small.synthesis
    size, large = small.size, out.size
    _ends(own, other)
    own.level.copy_(other.level.repeat(1, large.width // size.width))
    own.mask_token.copy_(other.mask_token.repeat(large.width // size.width))
    quarters = torch.cat([_first(size.detail) + large.detail * part for part in range(4)])
    _place(
        own.detail,
        other.detail,
        [quarters],
        [
            (slice(size.width), _copies(size.width, large.width)),
            (slice(size.width, None), [_first(size.latent) + large.width]),
        ],
    )
    inside: list[Group] = [(slice(None), [_first(size.detail)])]
    for conv, before in zip(own.convs, other.convs, strict=False):
        _place(conv, before, [_first(size.detail)], inside)
    for conv in own.convs[len(other.convs) :]:
        conv.weight[: size.detail] = 0
        conv.bias[: size.detail] = 0
    _place(own.lapped, other.lapped, [_first(other.lapped.out_channels)], inside)


def _prior(out: ImageModel, small: ImageModel) -> None:
    own: Any = out.prior
    other: Any = small.prior
    c, wide = small.size.context, out.size.context
    everything, here = slice(None), _first(c)
    state = other.state_dict()
    widened = ("c1.", "c2.", "c_level", "s1.", "s2.", "s3.")
    own.load_state_dict({k: v for k, v in state.items() if not k.startswith(widened)}, strict=False)
    _place(own.c1, other.c1, [here], [(everything, [_first(own.c1.in_features)])])
    _place(own.c2, other.c2, [here], [(everything, [here])])
    own.c_level.zero_()
    own.c_level[:, :c] = other.c_level
    old = list(pairwise(other.cuts))
    for i, (start, end) in enumerate(pairwise(own.cuts)):
        at = next(n for n, (a, b) in enumerate(old) if a <= start < b)
        first, last = old[at]
        _place(own.s1[i], other.s1[at], [here], [(slice(c), [here]), (slice(c, None), [_first(first) + wide])])
        _place(own.s2[i], other.s2[at], [here], [(everything, [here])])
        part, whole = end - start, last - first
        taken = torch.cat([_first(part) + start - first, _first(part) + start - first + whole])
        head = nn.Linear(c, 2 * part)
        head.weight.copy_(other.s3[at].weight[taken])
        head.bias.copy_(other.s3[at].bias[taken])
        _place(own.s3[i], head, [_first(2 * part)], [(everything, [here])])
