"""What several tests of the image codec look at: the shipped model, a photograph, a picture made of numbers."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveal.image.network import Network


@pytest.fixture(scope="session")
def network():
    return Network.load("s")


@pytest.fixture(scope="session")
def photo():
    """(160, 208, 3) uint8 of a photograph: fur, grass and something out of focus."""
    with Image.open(Path(__file__).parents[2] / "demo" / "dog.png") as image:
        return np.array(image.convert("RGB"))[200:360, 180:388]


@pytest.fixture(scope="session")
def drawing():
    """(h, w) -> (h, w, 3) uint8: slopes, edges and a noisy corner."""

    def draw(height, width, seed=0):
        y, x = np.mgrid[:height, :width]
        planes = [x * 3 + y, y * 2 + 40, 255 - x * 2 + (x // 20 % 2) * 60]
        picture = np.stack(planes, -1) % 256
        noise = np.random.default_rng(seed).integers(-50, 50, (height // 2, width // 2, 3))
        picture[: height // 2, : width // 2] += noise
        return picture.clip(0, 255).astype(np.uint8)

    return draw
