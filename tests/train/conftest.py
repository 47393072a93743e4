"""Small pictures and a calibrated, untrained model, made once."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.image.transform import SIZES
from foveal.train import data, video_pairs
from foveal.train.calibrate import calibrate
from foveal.train.losses import ImageModel


def picture(seed, height=288, width=272):
    """(h, w, 3) uint8 with slopes, edges and texture, so that coefficients fall off as in photographs."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    out = np.zeros((height, width, 3))
    for _ in range(12):
        angle, offset = random.uniform(0, 6.3), random.uniform(0, 300)
        side = np.cos(angle) * x + np.sin(angle) * y > offset
        out += side[..., None] * random.uniform(-50, 50, 3)
    texture = random.normal(0, 1, (height, width)) * 8 * (np.sin(x / 40) > 0)
    return (
        (out + 128 + texture[..., None] + 20 * np.sin(x / random.uniform(5, 30))[..., None])
        .clip(0, 255)
        .astype(np.uint8)
    )


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def images():
    return [torch.from_numpy(picture(seed)).permute(2, 0, 1) for seed in range(4)]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Fifteen pictures; one of them is held out for validation."""
    where = tmp_path_factory.mktemp("pictures")
    for seed in range(15):
        (where / f"p{seed}.png").write_bytes(png(picture(seed)))
    return where


@pytest.fixture(scope="session")
def model(images):
    """Calibrated, then its last layers moved away from zero so that they matter."""
    torch.manual_seed(1)
    made = ImageModel(SIZES["s"])
    pictures, draw = data.Pictures(images), data.draw(2, torch.device("cpu"))
    calibrate(made, lambda n: pictures.crops(n // 8, 128, draw))
    with torch.no_grad():
        for end in [*made.prior.b3, *made.prior.s3]:
            end.weight += torch.randn_like(end.weight) * 0.02
            end.bias += torch.randn_like(end.bias) * 0.1
        for table in (made.prior.z_level, made.prior.c_level, made.prior.z_mean, made.prior.z_scale):
            table += torch.randn_like(table) * 0.3
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def pairs(images):
    """Small pairs of both modes, 24 for training and two held out, made by the real codecs from the pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(video_pairs, "SIDE", 128)
        patch.setattr(video_pairs, "FRAMES", 4)
        patch.setattr(video_pairs, "HELD", 12)
        return video_pairs.produce((images[:3], images[3:]), None, "", 24, 0)
