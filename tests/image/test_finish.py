"""The convolutions at full resolution: nothing at first, the same in strips, and a part of M's synthesis alone."""

import pytest
import torch

from foveal.image import finish
from foveal.image.finish import Finish
from foveal.image.transform import NODES, PATCH, SIZES, GridWindows, Shortcut, Synthesis


@pytest.fixture
def trained():
    """One whose weights are all other than at the start."""
    torch.manual_seed(1)
    module = Finish(8, 3, 12, NODES)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


def inputs(rows=10, columns=6):
    random = torch.Generator().manual_seed(2)
    tables = [torch.randn(2, rows, columns, 8, generator=random) for _ in range(2)]
    pixels = 255 * torch.rand(2, 3, PATCH * rows, PATCH * columns, generator=random)
    return pixels, torch.randn(2, 12, 2 * rows, 2 * columns, generator=random), *tables


def test_it_begins_as_nothing():
    pixels, *rest = inputs()
    assert torch.equal(Finish(8, 3, 12, NODES)(pixels, *rest), pixels)


@pytest.mark.parametrize("tile", [(1, 100), (3, 2), (100, 1)])
def test_tiles_are_as_the_whole(trained, monkeypatch, tile):
    pixels, *rest = inputs()
    free = pixels.clone().requires_grad_(True)
    whole = trained(free, *rest)
    slope = torch.autograd.grad(whole.square().mean(), free)[0]
    assert (whole - pixels).abs().max() > 1
    monkeypatch.setattr(finish, "WHOLE", pixels.shape[2] * pixels.shape[3] - 1)
    monkeypatch.setattr(finish, "TILE", tuple(PATCH * n for n in tile))
    parted = trained(free, *rest)
    torch.testing.assert_close(parted, whole)
    torch.testing.assert_close(torch.autograd.grad(parted.square().mean(), free)[0], slope)
    with torch.no_grad():
        torch.testing.assert_close(trained(pixels, *rest), whole.detach())


def test_what_it_adds_stays_within_the_halo(trained):
    pixels, *rest = inputs()
    other = pixels.clone()
    other[:, :, 80] += 50
    changed = (trained(other, *rest) - other) - (trained(pixels, *rest) - pixels)
    reach = torch.nonzero(changed.abs().amax((0, 1, 3)) > 0)[:, 0]
    assert len(reach) > 1 and reach.min() >= 80 - finish.HALO and reach.max() <= 80 + finish.HALO


def test_each_patch_has_its_own_level(trained):
    """A level that changes in the last column of patches changes nothing beyond the halo."""
    pixels, features, level, gain = inputs()
    other = level.clone()
    other[:, :, -1] += 1
    changed = (trained(pixels, features, other, gain) - trained(pixels, features, level, gain)).abs().amax((0, 1, 2))
    edge = pixels.shape[3] - PATCH
    assert changed[edge:].min() > 0 and changed[: edge - finish.HALO].max() == 0


def test_only_sizes_with_channels_for_it_have_one():
    assert {name: Synthesis(size).finish is not None for name, size in SIZES.items()} == {"s": False, "m": True}


def test_weights_of_before_load_with_one_that_does_nothing():
    torch.manual_seed(3)
    size = SIZES["m"]
    old = Synthesis(size)
    state = {k: v for k, v in old.state_dict().items() if not k.startswith("finish.")}
    fresh = Synthesis(size)
    fresh.load_state_dict(state)
    latents, masked = torch.randn(1, 2, 3, size.latent), torch.zeros(1, 2, 3, dtype=torch.bool)
    args = latents, torch.full((1, 2, 3), 30.0), masked, Shortcut(size), GridWindows(~masked)
    assert torch.equal(fresh(*args), old(*args))
    del state["lapped.bias"]
    with pytest.raises(RuntimeError, match=r"lapped\.bias"):
        Synthesis(size).load_state_dict(state)
