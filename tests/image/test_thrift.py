"""Dropping is decided by what it saves, and by what the class map costs to say so."""

import numpy as np
import pytest

from foveal.image import packets, rangecoder, thrift


def map_bits(classes):
    coder = rangecoder.Pusher()
    packets.push_classes(classes, 2, coder)
    return 8 * len(coder.finish())


def worth(classes, gain):
    """What a choice saves in bits: the gains of the kept patches less the map, which only a picture with drops has."""
    return gain[classes > 0].sum() - (0 if classes.all() else map_bits(classes))


def test_contexts_are_those_that_the_map_is_coded_with():
    kept = np.random.default_rng(0).integers(0, 2, (7, 9)).astype(np.uint8)
    rows = kept.tolist()
    own = [[packets._context(rows, y, x, 0) for x in range(9)] for y in range(7)]
    assert thrift.contexts(kept).tolist() == own


def test_a_large_flat_area_is_dropped_and_a_lone_flat_patch_is_not():
    gain = np.full((24, 32), 30.0)
    gain[:, 16:] = -12
    gain[5, 5] = -0.5
    classes = thrift.settle(gain)
    assert not classes[:, 16:].any()
    assert classes[:, :16].all()


def test_a_lone_patch_worth_much_is_kept_in_a_flat_area():
    gain = np.full((24, 32), -12.0)
    gain[10, 10] = 200
    classes = thrift.settle(gain)
    assert classes[10, 10] == 1
    assert classes.sum() == 1


@pytest.mark.parametrize("seed", range(6))
def test_never_worse_than_dropping_by_gain_alone_or_keeping_all(seed):
    random = np.random.default_rng(seed)
    smooth = np.cumsum(np.cumsum(random.normal(0, 1, (20, 26)), 0), 1) * 0.2
    gain = smooth - smooth.mean() + random.normal(0, 3, smooth.shape)
    found = worth(thrift.settle(gain), gain)
    assert found >= worth((gain > 0).astype(np.uint8), gain) - 16
    assert found >= worth(np.ones(gain.shape, np.uint8), gain) - 16


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (33, 1)])
def test_any_shape(shape):
    classes = thrift.settle(np.linspace(-50, 50, np.prod(shape)).reshape(shape))
    assert classes.shape == shape and classes.dtype == np.uint8
