"""What training has reached on held-out pictures, in estimated bits; ``foveal bench`` has the real ones."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from foveal.image.prior import BaseIndex
from foveal.image.transform import PATCH
from foveal.train.losses import Batch, ImageModel, psnr_db

LEVELS = (8.0, 20.0, 32.0, 44.0, 56.0)
SIDE, PICTURES = 256, 24


def large(pictures: list[Tensor]) -> list[Tensor]:
    """Those of at least SIDE x SIDE."""
    return [p for p in pictures if min(p.shape[1:]) >= SIDE]


def _centres(pictures: list[Tensor]) -> Tensor:
    """(B, 3, SIDE, SIDE) float: the middles of the pictures"""
    corners = [((p.shape[1] - SIDE) // 2, (p.shape[2] - SIDE) // 2) for p in pictures]
    cut = [p[:, y : y + SIDE, x : x + SIDE] for p, (y, x) in zip(pictures, corners, strict=True)]
    return torch.stack(cut).float()


@torch.no_grad()
def _coded(model: ImageModel, images: Tensor, level: float, fake: bool) -> tuple[Tensor, Tensor]:
    """Bits per pixel (B,), and what is shown (B, 3, SIDE, SIDE)"""
    device = model.ln_step.device
    index = BaseIndex(SIDE // PATCH, SIDE // PATCH, device)
    whole = torch.ones(len(images), SIDE // PATCH, SIDE // PATCH, dtype=torch.bool, device=device)
    levels = torch.full((len(images),), level, device=device)
    out = model(Batch(images, levels, whole, whole, whole * 0.0, whole[:, 0, 0]), index, noise=False, fake=fake)
    return out["bpp"], out["image"].clamp(0, 255).round()


def evaluate(model: ImageModel, held: list[Tensor], fake: bool) -> list[tuple[float, float]]:
    """Mean (bits per pixel, PSNR dB) over centre crops of the held-out pictures at five levels, hard rounding; nothing
    where none of them is large enough."""
    chosen = large(held)[:PICTURES]
    if not chosen:
        return []
    images, points = _centres(chosen), []
    for level in LEVELS:
        bpp, shown = _coded(model, images, level, fake)
        quality = psnr_db((shown - images).square().mean((1, 2, 3)))
        points.append((bpp.mean().item(), quality.mean().item()))
    return points


def preview_picture(model: ImageModel, image: Tensor, path: Path) -> None:
    """A PNG: the centre of ``image``, then decoded at a low, a middle and a high level."""
    images = _centres([image])
    shown = [images] + [_coded(model, images, level, False)[1] for level in LEVELS[::2]]
    strip = torch.cat(shown, 3)[0].permute(1, 2, 0).to(torch.uint8).cpu().numpy()
    Image.fromarray(strip).save(path)
