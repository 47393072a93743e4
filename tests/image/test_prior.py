"""The integer prior: the same bits in fp32 and fp64, for any batch, and equal to whole numbers in numpy."""

import numpy as np
import pytest
import torch

from foveal import registry
from foveal.errors import CorruptError
from foveal.image.prior import (
    ACT_MAX,
    BASE,
    EXACT,
    MAX_LEVEL,
    PASSES,
    RING,
    SCALES,
    VALUE_MAX,
    BaseIndex,
    Dense,
    IntegerPrior,
    base_pass,
    neighbours,
    reconstruct,
)

GRID = (9, 14)
COUNT = GRID[0] * GRID[1]


@pytest.fixture(scope="module")
def tensors(network):
    return {k.removeprefix("prior."): v for k, v in registry.load("s").tensors.items() if k.startswith("prior.")}


@pytest.fixture(scope="module")
def priors(network, tensors):
    return [IntegerPrior(tensors, network.prior.cuts, dtype) for dtype in (torch.float32, torch.float64)]


def whole(shape, limit, dtype, seed=0):
    """Integers in -limit..limit, most of them small."""
    random = np.random.default_rng(seed)
    values = random.laplace(0, limit / 40, shape).round().clip(-limit, limit)
    values.flat[:2] = (limit, -limit)
    return torch.from_numpy(values).to(dtype)


def everything(prior, level):
    """Every result of a prior on made-up decoded values: means and indices of all passes and slices."""
    dtype, (h, w) = prior.dtype, GRID
    index = BaseIndex(h, w)
    mean, scale = prior.hyper(level)
    z = reconstruct(whole((3, 4, len(mean)), 20, dtype), mean)
    features = prior.features(z, level, h, w)
    values, found = torch.zeros(COUNT, BASE, dtype=dtype), [mean, scale, features]
    for number, at in enumerate(index.tokens):
        mean, scale = prior.base(number, values, features, index, level)
        values[at] = reconstruct(whole(mean.shape, 2040, dtype, number), mean)
        found += [mean, scale]
    levels = [level, level, min(level + 64, MAX_LEVEL)]
    which = torch.arange(COUNT) % 3
    context = prior.context(values, features, index.ring, levels, which, torch.arange(COUNT))
    done, spread = [prior.squash(values)], prior.spread(levels)[which]
    for number in range(len(prior.cuts) - 1):
        mean, scale = prior.slice(number, context, done, spread)
        done.append(prior.squash(reconstruct(whole(mean.shape, 300, dtype, number), mean)))
        found += [mean, scale]
    return [context, values, *found]


@pytest.mark.parametrize("level", [0, 500, 777, MAX_LEVEL])
def test_fp32_and_fp64_give_the_same_integers(priors, level):
    for single, double in zip(*(everything(p, level) for p in priors), strict=True):
        assert (single.double() == double.double()).all()
        assert (double == double.to(torch.int64)).all()


@pytest.mark.parametrize("level", [3, 900])
def test_results_stay_in_their_ranges(priors, level):
    context, values, _, _, features, *pairs = everything(priors[0], level)
    assert values.abs().max() <= VALUE_MAX
    for activations in (context, features):
        assert activations.min() >= 0 and activations.max() <= ACT_MAX
    for index in pairs[1::2]:
        assert index.dtype == torch.int64 and index.min() >= 0 and index.max() < SCALES


def test_dense_is_whole_number_arithmetic():
    random = np.random.default_rng(0)
    weight, bias = random.integers(-90, 91, (40, 120)), random.integers(-100_000, 100_001, 40)
    shift, x = random.integers(1, 21, 40), random.integers(-ACT_MAX, ACT_MAX + 1, (57, 120))
    expected = (x @ weight.T + bias) // 2**shift
    for dtype in (torch.float32, torch.float64):
        layer = Dense(*(torch.from_numpy(a) for a in (weight, bias, shift)), None, dtype)
        found = layer(torch.from_numpy(x).to(dtype))
        assert (found.numpy() == expected).all()
        assert (layer.relu(torch.from_numpy(x).to(dtype)).numpy() == expected.clip(0, ACT_MAX)).all()


def test_shipped_layers_are_whole_number_arithmetic(priors, tensors):
    x = np.random.default_rng(2).integers(0, ACT_MAX + 1, (19, tensors["z2.weight"].shape[1]))
    weight, bias, shift = (tensors[f"z2.{k}"].numpy().astype(np.int64) for k in ("weight", "bias", "shift"))
    expected = (x @ weight.T + bias) // 2**shift
    assert (priors[0].z2(torch.from_numpy(x).float()).numpy() == expected).all()


@pytest.mark.parametrize(
    ("place", "most"), [("weight", (EXACT - 1) // ACT_MAX), ("bias", EXACT - 1), ("extra", EXACT - 1)]
)
def test_layers_beyond_exactness_are_refused(place, most):
    shapes = {"weight": (2, 40), "bias": (2,), "extra": (64, 2)}
    parts = {name: torch.zeros(shape, dtype=torch.int64) for name, shape in shapes.items()}

    def layer():
        return Dense(parts["weight"], parts["bias"], torch.ones(2), parts["extra"], torch.float32)

    parts[place].view(-1)[0] = -most
    assert layer().bias.dtype == torch.float32
    parts[place].view(-1)[0] = -(most + 1)
    with pytest.raises(CorruptError, match=r"2\^24"):
        layer()


def test_a_prior_with_inexact_weights_is_refused(network, tensors):
    for name in ("z_level", "s3.4.bias"):
        spoilt = tensors[name].clone()
        spoilt.view(-1)[5] = 2**24
        with pytest.raises(CorruptError, match="reinstall"):
            IntegerPrior({**tensors, name: spoilt}, network.prior.cuts)
    with pytest.raises(CorruptError, match="squash"):
        IntegerPrior({**tensors, "squash_from": torch.arange(600)}, network.prior.cuts)


def test_tokens_and_batches_do_not_see_each_other(priors):
    """Any subset of tokens, in any order, gives the same means and indices: packets rely on it."""
    prior, level = priors[0], 640
    index, levels = BaseIndex(*GRID), [640, 704]
    values, features = whole((COUNT, BASE), 4000, prior.dtype), whole((COUNT, 64), 100, prior.dtype).abs()
    which = torch.arange(COUNT) % 2
    done = [prior.squash(values), prior.squash(whole((COUNT, 18), 900, prior.dtype))]

    def run(at):
        context = prior.context(values, features, index.ring, levels, which[at], at)
        return prior.slice(1, context, [d[at] for d in done], prior.spread(levels)[which[at]])

    mean, scale = run(torch.arange(COUNT))
    for size in (1, 7, 64):
        at = torch.from_numpy(np.random.default_rng(size).permutation(COUNT)[:size].copy())
        some_mean, some_scale = run(at)
        assert (some_mean == mean[at]).all() and (some_scale == scale[at]).all()
    assert level in levels


def test_squash_is_the_logarithm_by_table(priors):
    v = torch.arange(-140_000, 140_001, 7).float()
    exact = 64 * torch.sign(v) * torch.log1p(v.abs().clamp_max(VALUE_MAX) / 64)
    found = priors[0].squash(v)
    assert (found == -priors[0].squash(-v)).all()
    assert (found - exact).abs().max() <= 0.75
    assert found.abs().max() <= ACT_MAX


def test_reconstruct_clamps_hostile_symbols():
    symbols, mean = torch.tensor([-9000.0, 0, 3, 9000]), torch.tensor([5.0, -32_767, 1, 32_767])
    assert reconstruct(symbols, mean).tolist() == [-VALUE_MAX, -32_767, 193, VALUE_MAX]


def test_rows_interpolate_between_levels(tensors):
    prior = IntegerPrior(tensors, (6, 24, 64, 128, 224, 384))
    table = tensors["c_level"].long()
    assert (prior.row("c_level", 160) == table[10]).all()
    assert (prior.row("c_level", 164) == (3 * table[10] + table[11]) // 4).all()
    assert (prior.row("c_level", MAX_LEVEL) == table[79]).all()


@pytest.mark.parametrize("grid", [(1, 1), (2, 5), (8, 8), (11, 13)])
def test_base_passes_cover_the_grid_and_look_back_only(grid):
    h, w = grid
    which, index = base_pass(h, w).flatten(), BaseIndex(h, w)
    assert sorted(torch.cat(index.tokens).tolist()) == list(range(h * w))
    before = torch.cat([which, torch.tensor([-1])])  # the zero row is always there
    for number, around in enumerate(index.around[1:], 1):
        seen = before[around[:, :4]]
        assert (seen < number).all()
    assert len(PASSES) == len(index.tokens) == 5


def test_neighbours_outside_are_mirrored_or_nothing():
    found = neighbours(2, 3, RING, 1)
    assert found.shape == (6, 8)
    assert found[0].tolist() == [4, 3, 6, 1, 1, 6, 3, 4]  # of the corner: mirrored, and two that have no mirror
    assert (neighbours(1, 1, RING, 1) == 1).all()
