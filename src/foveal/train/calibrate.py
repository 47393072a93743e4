"""Calibration before the first step: the untrained codec already works, so that training starts from a codec."""

from collections.abc import Callable

import torch
from torch import Tensor

from foveal.image.prior import BaseIndex
from foveal.image.transform import BASE, PATCH
from foveal.train.losses import ImageModel


@torch.no_grad()
def calibrate(model: ImageModel, crops: Callable[[int], Tensor]) -> None:
    """Token mean and std of the linear coefficients, the prior's per-channel spread, and least-squares predictors of
    the thumbnail from its neighbours, all from ``crops(n)`` -> (n, 3, S, S) float pixel values."""
    images = torch.cat([crops(64) for _ in range(4)])
    b, _, height, width = images.shape
    h, w = height // PATCH, width // PATCH
    patches = images.view(b, 3, h, PATCH, w, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w, -1)
    shortcut, prior = model.shortcut, model.prior
    shortcut.mean.zero_()
    t = shortcut(patches)
    shortcut.mean.copy_(t.mean((0, 1)))
    t = t - shortcut.mean
    shortcut.std.copy_(t.std((0, 1)) + 0.05)
    prior.scale.copy_((t.abs().mean((0, 1)) * 0.8 + 0.5).log())
    index = BaseIndex(h, w, images.device)
    thumb = t[..., :BASE]
    for i, (tokens, around) in enumerate(zip(index.tokens, index.around, strict=True)):
        if i == 0:
            prior.base_scale[i] = (thumb.abs().mean((0, 1)) + 0.5).log()
            continue
        near = torch.nn.functional.pad(thumb, (0, 0, 0, 1))[:, around].flatten(2).flatten(0, 1)
        target = thumb[:, tokens].flatten(0, 1)
        ridge = 1e-3 * near.square().mean() * len(near) * torch.eye(near.shape[1], device=near.device)
        solution = torch.linalg.solve(near.T @ near + ridge, near.T @ target)
        prior.linear[i].copy_(solution)
        prior.base_scale[i] = ((target - near @ solution).abs().mean(0) * 0.8 + 0.5).log()
