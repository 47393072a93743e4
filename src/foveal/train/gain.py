"""How large the analysis should have left each coefficient: a factor by channel and level, found after training.

The straight-through gradient of a squared error pulls coefficients up out of the dead zone, and the analysis does not know
the level: much of what it would send at low rates is hardly seen by the synthesis. Effort 9 (``image/refine.py``) asks the
decoded picture instead. What it makes of latents is, by least squares, a factor below 1 for most channels.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal.image import refine
from foveal.image.encoder import Encoder
from foveal.image.network import Network
from foveal.image.transform import BASE, LEVELS, NODE_SPACING, NODES

EFFORT, SIDE = 9, 256
LEAST, MOST = 0.25, 1.25
DOUBT = 0.05  # of the median channel's weight, drawn towards 1: channels that are hardly ever sent


def crops(images: list[Tensor], count: int, seed: int = 0) -> list[tuple[NDArray[np.uint8], int]]:
    """``count`` crops of the pictures in turn, at random places, (SIDE, SIDE, 3) or as large as they are if that is less,
    each with a random level (sixteenths)."""
    random, found = np.random.default_rng(seed), []
    for number in range(count):
        image = images[number % len(images)]
        y, x = (int(random.integers(0, max(n - SIDE, 0) + 1)) for n in image.shape[1:])
        level = int(random.integers(0, 16 * (LEVELS - 1) + 1))
        cut = image[:, y : y + SIDE, x : x + SIDE].permute(1, 2, 0).cpu().numpy()
        found.append((np.ascontiguousarray(cut), level))
    return found


def fitted_gain(network: Network, examples: list[tuple[NDArray[np.uint8], int]]) -> Tensor:
    """(NODES, D) factors, 1 for the thumbnail: by least squares what takes the latents of ``examples`` (pictures
    (h, w, 3) uint8, levels in sixteenths) to what effort 9 makes of them, a parabola over the levels for each channel."""
    channels = network.size.latent
    squares, products = torch.zeros(channels, 3, 3, dtype=torch.float64), torch.zeros(channels, 3, dtype=torch.float64)
    for rgb, level in examples:
        encoder = Encoder(network, rgb, None, EFFORT, 1)
        base = encoder.base(level, encoder.coefficients)
        classes = encoder.classes_at(level, base)
        latents = encoder.latents(classes)
        wanted = refine.refined(encoder, level, latents, classes, base)[0]
        kept = torch.from_numpy((classes > 0).ravel())
        own, change = latents[kept], (wanted - latents)[kept]
        powers = _powers(level / 16)
        squares += own.square().sum(0)[:, None, None] * powers[:, None] * powers
        products += (own * change).sum(0)[:, None] * powers
    diagonal = squares.diagonal(dim1=1, dim2=2)
    doubt = DOUBT * diagonal[:, :1].median() * torch.eye(3, dtype=torch.float64)
    parabola = torch.linalg.solve(squares + doubt, products)
    nodes = torch.stack([_powers(float(min(NODE_SPACING * n, LEVELS - 1))) for n in range(NODES)])
    gain: Tensor = (1 + nodes @ parabola.t()).clamp(LEAST, MOST)
    gain[:, :BASE] = 1
    return gain


def _powers(level: float) -> Tensor:
    at = level / (LEVELS - 1)
    return torch.tensor([1.0, at, at * at], dtype=torch.float64)
