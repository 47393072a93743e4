"""Published restoration weights back into a network with batch normalisation, so that training goes on from them alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from foveal.train.video_export import facts_of
from foveal.video import attention_sr
from foveal.video.attention_sr import MODES, AttentionSR, Block, SRSize


def published(path: Path) -> dict[str, dict[str, Any]]:
    """What a file of published weights says of the training of each of its modes; {} for any other file."""
    facts: dict[str, Any] = facts_of(path)
    return {mode: facts[mode] for mode in MODES if mode in facts}


@torch.no_grad()
def unfold(path: Path, size: SRSize, mode: str, inputs: Tensor) -> AttentionSR:
    """A network with norms that computes what the folded one of ``mode`` in ``path`` does, up to rounding.

    Each norm's statistics are what its convolution gives on ``inputs`` (B, 4 or 7, h, w), as training would have found
    them, and its gain and bias undo them. Raises UnknownModelError when ``path`` holds no such weights.
    """
    folded = attention_sr.read_weights(path, size.name, mode)
    out = AttentionSR(size, mode)
    out.load_state_dict(folded.state_dict(), strict=False)  # all but the norms
    if size.norm:
        x = folded.attend(folded.features(inputs))
        for block in out.blocks:
            x = _set_norms(cast(Block, block), x)
    return out


def _set_norms(block: Block, x: Tensor) -> Tensor:
    """Fill a block's norms so that they change nothing; its output for ``x`` (B, C, h, w), what the next one is given."""
    start = x
    for i, (conv, norm) in enumerate(zip(block.convs, cast(nn.ModuleList, block.norms), strict=True)):
        x, norm = conv(x), cast(nn.BatchNorm2d, norm)
        mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(var)
        norm.weight.copy_((var + norm.eps).sqrt())
        norm.bias.copy_(mean)
        if i == 0:
            x = nn.functional.leaky_relu(x, attention_sr.LEAK)
    return start + x
