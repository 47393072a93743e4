"""A training batch: levels, importance classes and losses drawn at random for every crop."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveal.image.transform import CLASS_LEVELS, PATCH
from foveal.train.losses import Batch


def flatness_rank(images: Tensor) -> Tensor:
    """Rank of each patch by mean gradient, 0 = flattest, in [0, 1): (B, 3, H, W) -> (B, h, w)"""
    luma = images.mean(1)
    gradient = luma.diff(dim=1)[:, :, :-1].abs() + luma.diff(dim=2)[:, :-1].abs()
    means = F.avg_pool2d(gradient[:, None], PATCH, PATCH, ceil_mode=True)[:, 0]
    b, h, w = means.shape
    return means.flatten(1).argsort(1).argsort(1).view(b, h, w) / (h * w)


def make_batch(images: Tensor, random: np.random.Generator) -> Batch:
    """A level per sample. On six samples in ten rate and distortion decide what is dropped, on two in ten a share of the
    flattest patches is; on a quarter the busiest are one or two classes finer, on one in eight random tokens are lost
    after coding."""
    b = len(images)
    rank = flatness_rank(images)
    kind = random.random(b)
    drop = np.where(kind < 0.2, 0.6 * random.random(b) ** 1.5, 0.0)
    refine = np.where((kind > 0.15) & (kind < 0.4), random.random(b) * 0.6, 0.0)
    lost = np.where(kind > 0.88, 0.3 * random.random(b), 0.0)

    def column(x: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(x).to(images.device, torch.float32)[:, None, None]

    visible = rank >= column(drop)
    finer = CLASS_LEVELS * ((rank > 1 - column(refine)).float() + (rank > 1 - column(refine) / 2).float())
    arrived = torch.from_numpy(random.random(rank.shape)).to(images.device) >= column(lost)
    level = torch.from_numpy(random.random(b) * 63).to(images.device, torch.float32)
    auto = torch.from_numpy((kind > 0.2) & (kind < 0.8)).to(images.device)
    return Batch(images, level, visible & arrived, visible, finer, auto)
