"""What restoration is trained to lower: Charbonnier on luma and chroma, and near the end a little structure on luma."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.train.video_pairs import Batch
from foveal.video.attention_sr import ENLARGED, UNKNOWN, AttentionSR, add_residual, network_input
from foveal.video.resize import resize_tensors

Planes3 = tuple[Tensor, Tensor, Tensor]
EPSILON = 0.1  # where the Charbonnier loss turns from squares to absolute values, of [0, 1]: most errors count squared
CHROMA = 0.25  # weight of U and V together, against luma
STRUCTURE, GRADIENT = 0.006, 0.1  # weights of 1 - MS-SSIM and of the difference of gradients
TYPICAL = 3e-3  # squared error of plain resampling that counts once
LEAST = {"x2": 2e-3, "x1": 5e-5}  # what is added to every sample's; what was not made smaller misses far less
WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363)  # of the scales of MS-SSIM (Wang 2003, without the fifth), renormalised


def plain(y: Tensor, u: Tensor, v: Tensor, mode: str) -> Planes3:
    """What the network starts from: Lanczos to twice the size in mode x2, the input itself in mode x1."""
    if mode == "x1":
        return y, u, v
    return resize_tensors(y, u, v, 2 * y.shape[-1], 2 * y.shape[-2], ratio=0.5)


def residual_of(network: AttentionSR, inputs: Tensor, group: int, half_precision: bool) -> Tensor:
    """The network's residual, channel attention pooled over each ``group`` of samples, products in bfloat16 or not."""
    with torch.autocast(inputs.device.type, torch.bfloat16, enabled=half_precision):
        features = network.features(inputs)
        mean, top = (x.view(-1, group, x.shape[1]) for x in network.attention_pool(features))
        pooled = (mean.mean(1).repeat_interleave(group, 0), top.amax(1).repeat_interleave(group, 0))
        return network.residual(features, pooled).float()


def restored(
    network: AttentionSR,
    batch: Batch,
    quality: Tensor,
    half_precision: bool,
    residual: Callable[[AttentionSR, Tensor, int, bool], Tensor] = residual_of,
) -> Planes3:
    """The network's pictures for a batch. ``residual``: ``residual_of``, or what torch.compile made of it."""
    start = plain(batch.y, batch.u, batch.v, network.mode)
    inputs = network_input(batch.y, start[1], start[2], quality, network.mode)
    inputs = inputs.contiguous(memory_format=torch.channels_last)
    return add_residual(start, residual(network, inputs, batch.group, half_precision))


def marked(quality: Tensor, scale: Tensor) -> Tensor:
    """``quality_plane`` of many: qualities, UNKNOWN among them, and scales (B,) -> (B,)"""
    return quality + ENLARGED * ((scale > 1) & (scale < 2))


def told(batch: Batch, share: float) -> Tensor:
    """The quality plane of a batch, (B,): unknown for a ``share`` of its groups."""
    unknown = (torch.rand(len(batch.quality) // batch.group) < share).repeat_interleave(batch.group)
    known = torch.where(unknown.to(batch.quality.device), UNKNOWN, batch.quality)
    return marked(known, batch.scale)


def worth(batch: Batch, mode: str) -> Tensor:
    """What a squared error counts in each sample, (B, 1, 1, 1): the less, the more of it plain resampling leaves there.

    Gains are measured in decibels, the mean over pictures; unweighted, the worst pictures would rule.
    """
    left = (plain(batch.y, batch.u, batch.v, mode)[0] - batch.target[0]).square().mean((1, 2, 3), keepdim=True)
    return TYPICAL / (left + LEAST[mode])


def charbonnier(a: Tensor, b: Tensor, worth: Tensor | float = 1.0) -> Tensor:
    """Mean of sqrt(worth (a - b)^2 + epsilon^2) - epsilon."""
    return ((a - b).square() * worth + EPSILON**2).sqrt().mean() - EPSILON


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Means of SSIM and of its contrast-structure part, uniform window of 8, for values in [0, 1]."""

    def mean(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 8, 2)

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma * ma, mean(b * b) - mb * mb, mean(a * b) - ma * mb
    contrast = (2 * cov + 9e-4) / (va + vb + 9e-4)
    return ((2 * ma * mb + 1e-4) / (ma * ma + mb * mb + 1e-4) * contrast).mean(), contrast.mean()


def ms_ssim(a: Tensor, b: Tensor) -> Tensor:
    """Multi-scale structural similarity of (B, 1, H, W) in [0, 1], at as many of four scales as fit; 1 = equal."""
    found, used = [], 0.0
    for i, weight in enumerate(WEIGHTS):
        last = i == len(WEIGHTS) - 1 or min(a.shape[-2:]) < 16
        whole, contrast = _ssim(a, b)
        found.append((whole if last else contrast).clamp_min(1e-4).log() * weight)
        used += weight
        if last:
            break
        a, b = F.avg_pool2d(a, 2), F.avg_pool2d(b, 2)
    return (torch.stack(found).sum() / used).exp()


def loss(shown: Planes3, target: Planes3, structure: bool, worth: Tensor | float = 1.0) -> Tensor:
    """Charbonnier, luma + CHROMA x chroma, of errors that count ``worth``; with ``structure`` also MS-SSIM and gradients
    of luma.

    The borders of crops count: they teach the borders of frames.
    """
    (y, u, v), (ty, tu, tv) = shown, target
    value = charbonnier(y, ty, worth) + CHROMA * (charbonnier(u, tu, worth) + charbonnier(v, tv, worth)) / 2
    if structure:
        across, down = (charbonnier(y.diff(dim=d), ty.diff(dim=d), worth) for d in (-1, -2))
        value = value + STRUCTURE * (1 - ms_ssim(y, ty)) + GRADIENT * (across + down)
    return value
