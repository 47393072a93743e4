"""What training minimises: bits plus weighted error, and how much an error counts that cannot be helped."""

import torch

from foveal.train.losses import BARE_LEVEL, Batch, loss, rate_weight


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
