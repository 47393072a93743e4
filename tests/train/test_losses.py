"""What training minimises: bits plus weighted error, and how much an error counts that cannot be helped."""

import torch

from foveal.image.prior import BaseIndex
from foveal.image.transform import SIZES
from foveal.train import data
from foveal.train.calibrate import calibrate
from foveal.train.losses import BARE_LEVEL, Batch, ImageModel, loss, rate_weight


def case(level, coded, error):
    """(loss, its gradient by the patches' errors) for one picture of 2 x 2 patches."""
    grid = torch.ones(1, 2, 2, dtype=torch.bool)
    errors = torch.full((1, 2, 2), error, requires_grad=True)
    batch = Batch(torch.zeros(1, 3, 32, 32), torch.tensor([level]), grid & coded, grid, grid * 0.0, grid[:, 0, 0])
    value = loss({"bpp": torch.tensor([0.5]), "error": errors}, batch)
    value.backward()
    return value.item(), errors.grad


def test_a_coded_patch_counts_by_its_level_and_a_bare_one_a_quarter_of_that():
    for level in (4.0, 20.0):
        whole, bare = case(level, True, 10.0)[1], case(level, False, 10.0)[1]
        torch.testing.assert_close(bare, whole / 4)


def test_a_bare_patch_never_outweighs_the_rest():
    """lambda of level 72 times the error of a lost patch would be a hundred times the picture's bits."""
    relative = [case(level, False, 800.0)[1].sum() / case(level, True, 800.0)[1].sum() for level in (28.0, 72.0)]
    expected = rate_weight(torch.tensor(BARE_LEVEL)) / rate_weight(torch.tensor(72.0)) / 4
    torch.testing.assert_close(torch.stack(relative), torch.stack([torch.tensor(0.25), expected]))


def test_no_rate_dominates():
    """At the error that a level is made for (steps of sqrt(20 / lambda)), losses of low and high levels are alike."""
    values = [case(level, True, float(2.0 / rate_weight(torch.tensor(level))))[0] for level in (8.0, 64.0)]
    assert 1 < values[0] / values[1] < 10


def test_emphasis_shifts_the_loss_towards_low_rates():
    grid = torch.ones(1, 2, 2, dtype=torch.bool)
    out = {"bpp": torch.tensor([0.5]), "error": torch.zeros(1, 2, 2)}
    change = []
    for level in (4.0, 68.0):
        batch = Batch(torch.zeros(1, 3, 32, 32), torch.tensor([level]), grid, grid, grid * 0.0, grid[:, 0, 0])
        change.append(loss(out, batch, 0.6) / loss(out, batch, 0.4))
    torch.testing.assert_close(change[0] / change[1], torch.tensor(2.0 ** (64 / 8 * 0.2)))


def test_a_prior_alone_is_judged_by_the_error_of_its_coefficients(images):
    """Untrained, the synthesis is the linear inverse, so pixels are off by what coefficients are off: nearly, for errors of
    luma and chroma are counted apart."""
    torch.manual_seed(3)
    model, pictures, draw = ImageModel(SIZES["s"]), data.Pictures(images), data.draw(4, torch.device("cpu"))
    calibrate(model, lambda n: pictures.crops(n // 8, 128, draw))
    model.train_prior_alone()
    crops, whole = pictures.crops(2, 128, draw), torch.ones(2, 8, 8, dtype=torch.bool)
    for level in (10.0, 40.0):
        batch = Batch(crops, torch.full((2,), level), whole, whole, whole * 0.0, ~whole[:, 0, 0])
        out = model(batch, BaseIndex(8, 8), False, True, bf16=False)
        with torch.no_grad():
            shown = model(batch, BaseIndex(8, 8), False, True, bf16=False)
        assert "image" not in out and out["bpp"].shape == (2,) and out["error"].shape == (2, 8, 8)
        torch.testing.assert_close(shown["error"].mean(), out["error"].mean().detach(), rtol=0.08, atol=0)
