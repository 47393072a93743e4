"""Training the convolutions at full resolution alone: they learn, the rest stays as it is."""

import pytest
import torch
from safetensors.torch import load_file

from foveal.errors import InputError
from foveal.image.transform import SIZES
from foveal.train import checkpoint, loop
from foveal.train.calibrate import calibrate
from foveal.train.data import Pictures, draw
from foveal.train.losses import ImageModel

OPTIONS = {"size": "m", "batch": 1, "crop": 128, "threads": 1, "device": "cpu", "finish_alone": True}


@pytest.fixture
def start(images, tmp_path):
    torch.manual_seed(4)
    model, pictures, random = ImageModel(SIZES["m"]), Pictures(images), draw(2, torch.device("cpu"))
    calibrate(model, lambda n: pictures.crops(n // 8, 128, random))
    checkpoint.save(tmp_path / "start.sft", model.state_dict(), {"size": "m", "steps": 0, "pixels": 0, "seconds": 0.0})
    return tmp_path / "start.sft"


def test_nothing_else_moves(folder, start, tmp_path):
    loop.train(folder, tmp_path / "a.sft", weights=start, steps=4, lr=1e-2, **OPTIONS)
    before, after = load_file(start), load_file(tmp_path / "a.sft")
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    own = {name for name in before if name.startswith("synthesis.finish.")}
    assert moved <= own and {"synthesis.finish.end.weight", "synthesis.finish.pixels.weight"} <= moved


def test_a_size_without_them_is_refused(folder, tmp_path):
    with pytest.raises(InputError, match="full resolution"):
        loop.train(folder, tmp_path / "a.sft", steps=1, **{**OPTIONS, "size": "s"})
    with pytest.raises(InputError, match="full resolution"):
        loop.Options(size="s", finish_lr=1e-3)


@pytest.mark.parametrize("rates", [{"lr": 0.0}, {"lr": -1e-3}, {"finish_lr": 0.0}])
def test_learning_rates_are_positive(rates):
    with pytest.raises(InputError, match="the rest positive"):
        loop.Options(size="m", **rates)


def test_they_may_learn_faster_than_the_rest():
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    torch.manual_seed(4)
    model = ImageModel(SIZES["m"])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimisers = loop.optimisers(model, 1e-3, 4e-3)
    loop.set_rate(optimisers, 1e-4)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    for optimiser in optimisers:
        optimiser.step()
    moved = {name: (p - before[name]).abs().mean().item() for name, p in model.named_parameters()}
    assert moved["synthesis.finish.end.weight"] == pytest.approx(4e-4, rel=1e-2)
    assert moved["synthesis.embed.weight"] == pytest.approx(1e-4, rel=1e-2)
    assert min(moved.values()) > 0
