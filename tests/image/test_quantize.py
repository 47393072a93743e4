"""Steps of every level, plain rounding, and rounding by rate and distortion."""

import numpy as np
import pytest

from foveal.image.quantize import (
    MAX_LEVEL,
    SYMBOL_MAX,
    class_levels,
    level_of,
    optimised,
    plain,
    rate_weight,
    steps,
)

LN_STEP = np.linspace(4, 0, 80)[:, None] + np.array([0.0, 1.0])


def cost(symbols, index):
    """A bit for each unit of magnitude, more in low tables."""
    return (np.abs(symbols) + 0.1) * (8 - index)


def test_quality_and_level():
    assert (level_of(0), level_of(100), level_of(-5), level_of(500)) == (0, MAX_LEVEL, 0, MAX_LEVEL)
    assert all(level_of(100 * level / MAX_LEVEL) == level for level in range(MAX_LEVEL + 1))


def test_classes_are_a_quarter_octave_finer():
    assert class_levels(100) == [100, 100, 164, 228]
    assert class_levels(1210) == [1210, 1210, MAX_LEVEL, MAX_LEVEL]
    assert rate_weight(128) == 2 * rate_weight(0)


def test_steps_fall_and_interpolate_in_the_logarithm():
    table = np.stack([steps(LN_STEP, level) for level in range(MAX_LEVEL + 1)])
    assert table.shape == (1265, 2) and (np.diff(table, axis=0) < 0).all()
    np.testing.assert_allclose(table[16], np.exp(LN_STEP[1]))
    np.testing.assert_allclose(np.log(table[24]), (LN_STEP[1] + LN_STEP[2]) / 2)
    assert (steps(LN_STEP, -1) == table[0]).all() and (steps(LN_STEP, 5000) == table[-1]).all()


def test_plain_rounds_half_away_from_zero_and_stays_in_range():
    assert plain(np.array([0.4, 0.5, -0.5, 1.49, -2.5, 1e9, -1e9])).tolist() == [
        0,
        1,
        -1,
        1,
        -3,
        SYMBOL_MAX,
        -SYMBOL_MAX,
    ]
    assert plain(np.zeros(0)).size == 0


@pytest.mark.parametrize("weight", [0.0, 0.5, 3.0, 1e9])
def test_optimised_is_the_best_of_its_candidates(weight):
    random = np.random.default_rng(5)
    residual, index = random.normal(0, 3, (200, 3)), random.integers(0, 8, (200, 3))
    weights = np.full(residual.shape, weight)
    found = optimised(residual, index, weights, cost)
    near = plain(residual)
    candidates = np.stack([near, near - np.sign(near), np.zeros_like(near)])
    prices = np.stack([cost(c, index) + weight * (residual - c) ** 2 for c in candidates])
    price = cost(found, index) + weight * (residual - found) ** 2
    at = near != 0
    np.testing.assert_allclose(price[at], prices.min(0)[at])
    assert (found[~at] == 0).all()
    if weight == 1e9:
        assert (found == near).all()


def test_optimised_costs_fewer_bits_than_plain():
    random = np.random.default_rng(6)
    residual, index = random.normal(0, 2, 500), random.integers(0, 8, 500)
    found = optimised(residual, index, np.ones(500), cost)
    assert cost(found, index).sum() < cost(plain(residual), index).sum()
    assert (found != plain(residual)).any()
