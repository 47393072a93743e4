"""Where training goes on from: published weights, with batch normalisation put back, or a checkpoint of either mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from foveal.train import checkpoint
from foveal.train.video_export import facts_of, mode_in
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


@torch.no_grad()
def in_mode(network: AttentionSR, mode: str) -> AttentionSR:
    """A network of another mode that begins with what this one has learned, and shows plain resampling as yet: its first
    layer sees the mean of the four planes of luma where that of x2 sees luma, its end is zero."""
    out, state = AttentionSR(network.size, mode), network.state_dict()
    luma, rest = state["head.weight"].split([MODES[network.mode] - 3, 3], 1)
    more = MODES[mode] - 3
    luma = luma.expand(-1, more, -1, -1) / more if mode == "x1" else luma.sum(1, keepdim=True)
    state["head.weight"] = torch.cat([luma, rest], 1)
    out.load_state_dict({k: v for k, v in state.items() if not k.startswith("end.")}, strict=False)
    return out


def begun(path: Path, size: SRSize, mode: str) -> tuple[AttentionSR, dict[str, Any]]:
    """The network of a checkpoint, put into ``mode``, and what is known of its training. InputError for one of another
    size."""
    network = AttentionSR(size, mode_in(path) or mode)
    known = checkpoint.load(path, network)
    if network.mode == mode:
        return network, known
    return in_mode(network, mode), {"begun": {"mode": network.mode, "steps": known.get("steps")}}


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
