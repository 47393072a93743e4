"""A training batch: levels, importance classes and losses drawn at random for every crop."""

import torch
import torch.nn.functional as F
from torch import Tensor

from foveal.image.transform import CLASS_LEVELS, LEVELS, PATCH
from foveal.train.data import Draw
from foveal.train.losses import Batch


def flatness_rank(images: Tensor) -> Tensor:
    """Rank of each patch by mean gradient, 0 = flattest, in [0, 1): (B, 3, H, W) -> (B, h, w)"""
    luma = images.mean(1)
    gradient = luma.diff(dim=1)[:, :, :-1].abs() + luma.diff(dim=2)[:, :-1].abs()
    means = F.avg_pool2d(gradient[:, None], PATCH, PATCH, ceil_mode=True)[:, 0]
    b, h, w = means.shape
    return means.flatten(1).argsort(1).argsort(1).view(b, h, w) / (h * w)


def make_batch(images: Tensor, draw: Draw) -> Batch:
    """A level per sample. On two samples in ten rate and distortion decide what is dropped, on two in ten a share of the
    flattest patches is; on a quarter the busiest are one or two classes finer, on one in eight random tokens are lost
    after coding."""
    kind, share, finest, loss, level = draw.uniform(len(images), 5).unbind(1)
    rank = flatness_rank(images)
    drop = torch.where(kind < 0.2, 0.6 * share**1.5, 0.0)
    refine = torch.where((kind > 0.15) & (kind < 0.4), 0.6 * finest, 0.0)
    lost = torch.where(kind > 0.88, 0.3 * loss, 0.0)
    visible = rank >= drop[:, None, None]
    arrived = draw.uniform(*rank.shape) >= lost[:, None, None]
    once, twice = (rank > 1 - refine[:, None, None] / n for n in (1, 2))
    finer = CLASS_LEVELS * (once.float() + twice.float())
    return Batch(images, level * (LEVELS - 1), visible & arrived, visible, finer, (kind > 0.2) & (kind < 0.4))
