"""The encoder's gains: what least squares makes of where effort 9 moves latents."""

import numpy as np
import torch

from foveal.image import refine
from foveal.image.network import Network
from foveal.image.transform import BASE, LEVELS, NODE_SPACING, NODES
from foveal.train.gain import LEAST, MOST, SIDE, crops, fitted_gain


def test_crops_are_of_all_pictures_and_levels(images):
    found = crops(images, 40, seed=2)
    assert all(rgb.shape == (SIDE, SIDE, 3) and rgb.dtype == np.uint8 for rgb, _ in found)
    levels = [level for _, level in found]
    assert 0 <= min(levels) < 200 and 1000 < max(levels) <= 16 * (LEVELS - 1)
    for (rgb, _), image in zip(found, images, strict=False):
        rows = np.lib.stride_tricks.sliding_window_view(image.permute(1, 2, 0).numpy(), (SIDE, SIDE, 3))[:, :, 0]
        assert (rows == rgb).all((2, 3, 4)).any()
    small = crops([images[0][:, :96, :128]], 1)[0][0]
    assert (small == images[0][:, :96, :128].permute(1, 2, 0).numpy()).all()


def test_a_known_factor_is_found(images, monkeypatch):
    """Latents that refining multiplies by a factor which falls with the channel and rises with the level."""
    network = Network.load("s")

    def factor(level):
        return 0.5 + 0.4 * level / (16 * (LEVELS - 1)) - 0.1 * torch.arange(network.size.latent) / network.size.latent

    monkeypatch.setattr(
        refine, "refined", lambda encoder, level, latents, classes, base: (latents * factor(level), base)
    )
    gain = fitted_gain(network, crops([i[:, :128, :128] for i in images], 24))
    assert gain.shape == (NODES, network.size.latent) and (gain[:, :BASE] == 1).all()
    for node in range(3, NODES):  # below, most patches are dropped and what is left is in doubt
        expected = factor(16 * min(node * NODE_SPACING, LEVELS - 1))[BASE:24]
        assert (gain[node, BASE:24] - expected).abs().max() < 0.05


def test_what_refining_does_is_mostly_to_shrink(images):
    gain = fitted_gain(Network.load("s"), crops([i[:, :128, :128] for i in images], 4))
    assert torch.isfinite(gain).all() and gain.min() >= LEAST and gain.max() <= MOST
    assert gain[:, BASE:].mean() < 1
