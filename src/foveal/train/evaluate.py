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


def _centre(image: Tensor) -> Tensor:
    y, x = (image.shape[1] - SIDE) // 2, (image.shape[2] - SIDE) // 2
    return image[None, :, y : y + SIDE, x : x + SIDE].float()


@torch.no_grad()
def _coded(model: ImageModel, image: Tensor, level: float, fake: bool) -> tuple[dict[str, Tensor], Tensor]:
    device = model.ln_step.device
    index = BaseIndex(SIDE // PATCH, SIDE // PATCH, device)
    whole = torch.ones(1, SIDE // PATCH, SIDE // PATCH, dtype=torch.bool, device=device)
    batch = Batch(_centre(image), torch.tensor([level], device=device), whole, whole, whole * 0.0, whole[:, 0, 0])
    out = model(batch, index, noise=False, fake=fake)
    return out, out["image"].clamp(0, 255).round()


def evaluate(model: ImageModel, held: list[Tensor], fake: bool) -> list[tuple[float, float]]:
    """Mean (bits per pixel, PSNR dB) over centre crops of the held-out pictures at five levels, hard rounding."""
    points = []
    for level in LEVELS:
        rows = []
        for image in large(held)[:PICTURES]:
            out, shown = _coded(model, image, level, fake)
            rows.append((out["bpp"].item(), psnr_db((shown - _centre(image)).square().mean()).item()))
        points.append((sum(r[0] for r in rows) / max(len(rows), 1), sum(r[1] for r in rows) / max(len(rows), 1)))
    return points


def preview_picture(model: ImageModel, image: Tensor, path: Path) -> None:
    """A PNG: the centre of ``image``, then decoded at a low, a middle and a high level."""
    shown = [_centre(image)] + [_coded(model, image, level, False)[1] for level in LEVELS[::2]]
    strip = torch.cat(shown, 3)[0].permute(1, 2, 0).to(torch.uint8).cpu().numpy()
    Image.fromarray(strip).save(path)
