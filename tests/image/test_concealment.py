"""Lost patches extended from their neighbours."""

import numpy as np
import pytest

import foveal
from foveal import container
from foveal.image import concealment

PLANE = np.zeros((2, 3, 16, 16))  # a slope to the right and one downwards, of all colours
PLANE[0] = np.linspace(-1, 1, 16)
PLANE[1] = np.linspace(-1, 1, 16)[:, None]
BASIS = PLANE.reshape(2, -1)


def slope(h, w, lost):
    """(16h, 16w, 3): a slope of 16 grey levels a patch each way, flat with the right mean where patches are lost."""
    y, x = np.mgrid[: 16 * h, : 16 * w]
    whole = np.repeat((x + y)[..., None] + 20, 3, 2).astype(np.uint8)
    damaged = whole.copy()
    for y, x in np.argwhere(lost):
        patch = np.s_[16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
        damaged[patch] = whole[patch].mean().round()
    return whole, damaged


def error(a, b):
    return np.square(a.astype(float) - b).mean()


@pytest.mark.parametrize("at", [(1, 1), (0, 0), (2, 3)])
def test_a_slope_goes_on_in_a_lost_patch(at):
    lost = np.zeros((3, 4), bool)
    lost[at] = True
    whole, damaged = slope(3, 4, lost)
    out = concealment.extend(damaged, lost, BASIS, np.full((1, 2), 1000.0))
    assert error(out, whole) < 0.02 * error(damaged, whole)
    untouched = ~lost.repeat(16, 0).repeat(16, 1)
    assert np.array_equal(out[untouched], damaged[untouched])


def test_what_cannot_be_large_stays_small():
    lost = np.zeros((3, 3), bool)
    lost[1, 1] = True
    whole, damaged = slope(3, 3, lost)
    errors = [
        error(concealment.extend(damaged, lost, BASIS, np.full((1, 2), s)), whole) for s in (1e-6, 1.0, 3.0, 50.0)
    ]
    assert errors[0] == error(damaged, whole) and errors == sorted(errors, reverse=True) and errors[-1] < errors[0] / 4


def test_patches_without_a_neighbour_that_arrived_stay_as_they_are():
    lost = np.ones((3, 3), bool)
    _, damaged = slope(3, 3, lost)
    assert np.array_equal(concealment.extend(damaged, lost, BASIS, np.full((9, 2), 50.0)), damaged)
    lost[0, 0] = False
    out = concealment.extend(damaged, lost, BASIS, np.full((8, 2), 50.0))
    changed = (out != damaged).any(2).reshape(3, 16, 3, 16).any((1, 3))
    assert changed.tolist() == [[False, True, False], [True, False, False], [False, False, False]]


def test_many_patches_are_solved_for_in_batches_alike(monkeypatch):
    random = np.random.default_rng(0)
    pixels, lost = random.integers(0, 256, (96, 160, 3)).astype(np.uint8), random.random((6, 10)) < 0.4
    sigma = random.uniform(1, 30, (int(lost.sum()), 2))
    one = concealment.extend(pixels, lost, BASIS, sigma)
    monkeypatch.setattr(concealment, "BATCH", 7)
    assert np.array_equal(concealment.extend(pixels, lost, BASIS, sigma), one)


def test_a_lossy_photograph_is_nearer_to_the_original(photo, monkeypatch):
    data = foveal.compress(photo, quality=60, packets=6)
    contents = container.read(data)
    errors = []
    for n in range(6):
        kept = tuple(p for p in contents.packets if p.number != n)
        cut = container.write(
            container.Contents(contents.header, contents.base, kept, contents.classes, more=contents.more)
        )
        shown = [np.asarray(foveal.decompress(cut, on_loss="conceal"))]
        with monkeypatch.context() as patched:
            patched.setattr(concealment, "extend", lambda pixels, *_: pixels)
            shown.append(np.asarray(foveal.decompress(cut, on_loss="conceal")))
        errors.append([error(picture, photo) for picture in shown])
    better, before = np.mean(errors, 0)
    assert better < 0.985 * before
