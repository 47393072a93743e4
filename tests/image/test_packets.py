"""The class map, the order of tokens and their runs."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from foveal.errors import CorruptError, InputError
from foveal.image.packets import order, pull_classes, push_classes, runs, unwrap, wrap
from foveal.image.rangecoder import Puller, Pusher


def coded(classes, count):
    coder = Pusher()
    push_classes(classes, count, coder)
    return coder.finish()


@given(st.integers(2, 4), st.data())
def test_pull_inverts_push(count, data):
    shape = data.draw(st.tuples(st.integers(1, 12), st.integers(1, 12)))
    classes = data.draw(arrays(np.uint8, shape, elements=st.integers(0, count - 1)))
    assert (pull_classes(*shape, count, Puller(coded(classes, count))) == classes).all()


@pytest.mark.parametrize("count", [2, 3, 4])
def test_large_maps_adapt(count):
    random = np.random.default_rng(count)
    classes = (random.random((90, 70)) ** 3 * count).astype(np.uint8)
    data = coded(classes, count)
    shares = np.bincount(classes.ravel()) / classes.size
    entropy = -(shares * np.log2(shares)).sum() * classes.size
    assert (pull_classes(90, 70, count, Puller(data)) == classes).all()
    assert 8 * len(data) < 1.1 * entropy + 200


def test_a_realistic_map_costs_next_to_nothing():
    """768x512 pixels whose flat fifth is dropped in a few coherent areas: below 0.004 bits per pixel."""
    y, x = np.mgrid[:32, :48]
    field = np.sin(y / 5) + np.cos(x / 7 + y / 11) + 0.15 * np.random.default_rng(2).standard_normal((32, 48))
    classes = (field > np.quantile(field, 0.2)).astype(np.uint8)
    assert 8 * len(coded(classes, 2)) / (768 * 512) < 0.004


def test_garbage_is_some_map_or_refused():
    random = np.random.default_rng(9)
    for _ in range(100):
        try:
            classes = pull_classes(20, 30, 4, Puller(random.bytes(int(random.integers(0, 60)))))
        except (AssertionError, CorruptError):
            continue
        assert classes.shape == (20, 30) and classes.max() <= 3


def test_order_is_class_then_salience_then_raster():
    classes = np.array([[1, 0, 2], [2, 1, 1]], np.uint8)
    assert order(classes, np.array([5, 99, 1, 7, 5, 9])).tolist() == [3, 2, 5, 0, 4]
    assert order(np.zeros((2, 2), np.uint8), np.arange(4)).size == 0


@given(st.integers(0, 300), st.integers(1, 400))
def test_runs_partition_the_tokens(tokens, packets):
    found = runs(tokens, packets)
    assert [i for first, count in found for i in range(first, first + count)] == list(range(tokens))
    assert len(found) == min(tokens, packets)
    sizes = [count for _, count in found]
    assert max(sizes, default=1) - min(sizes, default=1) <= 1


def test_at_least_one_packet():
    with pytest.raises(InputError, match="packets"):
        runs(5, 0)


def test_unwrap_inverts_wrap_and_checks_the_run():
    assert unwrap(wrap((3, 4), b"words"), 7) == ((3, 4), b"words")
    bad = [
        b"",
        b"1234567",
        wrap((0, 0), b"x"),
        wrap((3, 5), b"x"),
        wrap((8, 1), b"x"),
        struct.pack(">II", 2**32 - 1, 9),
    ]
    for payload in bad:
        with pytest.raises(CorruptError):
            unwrap(payload, 7)
