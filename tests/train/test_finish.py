"""The last steps to shipped weights: gains are fitted once, and stay with what was trained with them."""

import pytest
import torch

from foveal import registry
from foveal.image.network import Network
from foveal.train import checkpoint, finish


@pytest.fixture
def shipped(tmp_path, monkeypatch, model, images):
    """A function of gains (or None): what ``finish`` makes of the model with those, and how often it fitted some."""
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    monkeypatch.setattr(finish, "kmac_per_pixel", lambda network: (1.0, 2.0))
    monkeypatch.setattr(finish, "golden_digest", lambda name: "")
    fitted = []

    def fit(network, examples):
        fitted.append(len(examples))
        return torch.full_like(model.gain, 0.75)

    monkeypatch.setattr(finish, "fitted_gain", fit)

    def ship(gain=None):
        fitted.clear()
        state = model.state_dict() if gain is None else model.state_dict() | {"gain": gain}
        checkpoint.save(tmp_path / "a.sft", state, {"size": "s"})
        finish.finish(tmp_path / "a.sft", "s", [images[0][:, :96, :96]])
        return Network.load("s"), len(fitted)

    yield ship
    for cache in (registry.load, registry.digest_of, Network.load):
        cache.cache_clear()


def test_gains_are_fitted_to_a_model_without(shipped):
    network, times = shipped()
    assert times == 1 and all((network.gain(level) == 0.75).all() for level in (0, 600, 1264))


def test_gains_that_a_model_was_trained_with_stay(shipped, model):
    gain = torch.linspace(0.5, 1, model.gain.numel()).view_as(model.gain).half().float()
    network, times = shipped(gain)
    assert times == 0 and (network.gain(0) == gain[0]).all() and (network.gain(16 * 16) != 1).any()
