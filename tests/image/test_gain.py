"""The encoder's gains: what is rounded is the latents times a factor of channel and level; decoders know nothing of it."""

import copy

import numpy as np
import pytest
import torch

from foveal.image import codec, quantize
from foveal.image.encoder import Encoder
from foveal.image.prior import BASE
from foveal.image.transform import NODES


@pytest.fixture
def scaling(network):
    """The shipped model with gains that fall with the channel and rise with the level."""
    own = copy.copy(network)
    own._gain = 0.4 + torch.arange(NODES)[:, None] / 20 - torch.arange(network.size.latent)[None] / 2000.0
    own._gain = own._gain.double()
    own._gain[:, :BASE] = 1
    return own


def test_each_token_has_the_gain_of_its_own_level(scaling, photo):
    classes = np.ones((10, 13), np.uint8)
    classes[:5], classes[0, 0] = 3, 0
    encoder, level = Encoder(scaling, photo, classes, 4, 1), 300
    found, latents = encoder.scaled(level, classes), encoder.latents(classes)
    for kind, own in enumerate(quantize.class_levels(level)):
        at = torch.from_numpy(classes.ravel() == kind)
        torch.testing.assert_close(found[at], latents[at] * scaling.gain(own))
    assert (found[:, :BASE] == latents[:, :BASE]).all() and (found[65:, BASE:].abs() < latents[65:, BASE:].abs()).any()


def test_gains_are_those_of_the_nodes_and_between_them_a_mean(scaling):
    assert (scaling.gain(9 * 16) == scaling._gain[1]).all()
    torch.testing.assert_close(scaling.gain(9 * 16 + 72), (scaling._gain[1] + scaling._gain[2]) / 2)


def test_smaller_latents_make_smaller_files_for_the_same_decoder(scaling, network, photo, monkeypatch):
    whole = len(codec.compress(photo, quality=60))
    monkeypatch.setattr(codec.Network, "load", lambda name: scaling)
    data = codec.compress(photo, quality=60)
    monkeypatch.setattr(codec.Network, "load", lambda name: network)
    error = np.square(np.asarray(codec.decompress(data)).astype(float) - photo).mean()
    assert len(data) < 0.95 * whole and error < 300
