"""Symbols to bytes and back, with tables of every kind."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.errors import CorruptError
from foveal.image.rangecoder import MAX_EXCESS_BITS, TOTAL, Puller, Pusher, Tables


def laplacian(silent=0):
    """64 tables of growing width, escapes included, rows summing to 65536."""
    reach = np.array([1 + i * i // 40 for i in range(64)])
    counts = np.zeros((64, 2 * reach.max() + 2), np.int64)
    for i, k in enumerate(reach):
        row = np.exp(-np.abs(np.arange(-k, k + 1)) / (0.2 + k / 4))
        row = np.maximum(1, (row / row.sum() * 65000).astype(np.int64))
        counts[i, : 2 * k + 2] = [*row, 65536 - row.sum()]
    return Tables(counts, reach, silent)


TABLES = laplacian()
MOST = int(TABLES.reach.min()) + (1 << MAX_EXCESS_BITS) - 1


def round_trip(symbols, index, tables=TABLES):
    coder = Pusher(tables)
    coder.push(symbols, index)
    data = coder.finish()
    assert (Puller(data, tables).pull(index) == symbols).all()
    return data


def drawn(count, seed=0, tables=TABLES):
    """Symbols that follow their tables."""
    random = np.random.default_rng(seed)
    index = random.integers(0, 64, count)
    scale = 0.2 + tables.reach[index] / 4
    symbols = np.trunc(random.exponential(scale)).astype(np.int64) * random.choice([-1, 1], count)
    return symbols, index


@pytest.mark.parametrize("table", range(64))
def test_every_table_codes_every_symbol(table):
    reach = int(TABLES.reach[table])
    symbols = np.arange(-reach - 3, reach + 4)
    round_trip(symbols, np.full(len(symbols), table))


def test_nothing_is_one_byte():
    none = np.zeros(0, np.int64)
    assert round_trip(none, none) == b"\0"
    assert Pusher(TABLES).finish() == b"\0"


def test_escapes_up_to_the_format_s_end():
    symbols = np.array([MOST, -MOST, 2, -2, 3, -3, 2040, -2040, 0])
    data = round_trip(symbols, np.zeros(9, np.int64))
    assert len(data) < 40


@given(st.lists(st.tuples(st.integers(-2100, 2100), st.integers(0, 63)), max_size=60))
def test_any_symbols(pairs):
    symbols, index = np.array(pairs, np.int64).reshape(-1, 2).T
    round_trip(symbols, index)


def test_slices_of_one_stream():
    coder, parts = Pusher(TABLES), [drawn(n, n) for n in (100, 1, 0, 57, 400)]
    for part in parts:
        coder.push(*part)
    coder.flags(True, 0.25)
    puller = Puller(coder.finish(), TABLES)
    assert all((puller.pull(index) == symbols).all() for symbols, index in parts)
    assert puller.flag(0.25) is True


def test_streams_end_as_early_as_they_can():
    """On average half a byte above the information they hold, whatever they hold."""
    excess = []
    for seed in range(600):
        symbols, index = drawn(seed % 40, seed)
        data = round_trip(symbols, index)
        assert not data.endswith(b"\0") or data == b"\0"
        excess.append(len(data) - TABLES.cost(symbols, index).sum() / 8)
    assert max(excess) < 2 and np.mean(excess) < 0.75


def test_ends_next_to_a_carry():
    """Symbols at the very ends of their tables drive the coder's interval against its bounds."""
    random = np.random.default_rng(11)
    for _ in range(300):
        count = int(random.integers(1, 120))
        index = np.full(count, int(random.choice([0, 5, 63])))
        reach = int(TABLES.reach[index[0]])
        round_trip(random.choice([-reach, reach + 1, reach], count, p=[0.1, 0.6, 0.3]), index)


def test_silent_tables_are_not_coded():
    tables = laplacian(silent=10)
    index = np.array([3, 20, 9, 10, 0])
    symbols = np.array([0, 4, 0, -1, 0])
    data = round_trip(symbols, index, tables)
    assert data == round_trip(symbols[[1, 3]], index[[1, 3]], tables)
    assert round_trip(np.zeros(500, np.int64), np.full(500, 9), tables) == b"\0"
    assert (tables.cost(symbols, index) == 0).tolist() == [True, False, True, False, True]


def test_cost_is_the_real_size():
    symbols, index = drawn(20_000)
    bits = TABLES.cost(symbols, index).sum()
    assert abs(8 * len(round_trip(symbols, index)) / bits - 1) < 0.01


def test_cost_of_escapes_is_the_real_size():
    symbols, index = drawn(4000)
    symbols += np.random.default_rng(1).integers(-500, 500, 4000)
    bits = TABLES.cost(symbols, index).sum()
    assert (abs(symbols) > TABLES.reach[index]).mean() > 0.5
    assert abs(8 * len(round_trip(symbols, index)) / bits - 1) < 0.01


@given(st.binary(max_size=80))
def test_garbage_is_other_symbols_or_corrupt(data):
    index = np.arange(200) % 64
    try:
        symbols = Puller(data, TABLES).pull(index)
    except CorruptError:
        return
    assert symbols.shape == index.shape
    assert (abs(symbols) < TABLES.reach[index] + (1 << MAX_EXCESS_BITS)).all()


def test_a_stream_of_ones_is_corrupt():
    with pytest.raises(CorruptError, match="stream"):
        Puller(b"\xff" * 64, TABLES).pull(np.zeros(9, np.int64))


def test_a_cut_stream_is_other_symbols_or_corrupt():
    symbols, index = drawn(500)
    data, changed = round_trip(symbols, index), 0
    for end in range(0, len(data), 7):
        try:
            changed += (Puller(data[:end], TABLES).pull(index) != symbols).any()
        except CorruptError:
            changed += 1
    assert changed == len(range(0, len(data), 7))


@pytest.mark.parametrize("bad", ["sum", "length"])
def test_tables_that_do_not_add_up(bad):
    counts = np.tile([20_000, 25_000, 20_000, 536], (64, 1))
    reach = np.ones(64 if bad == "sum" else 63, np.int64)
    counts[7, 1] += bad == "sum"
    assert TOTAL == 65536
    with pytest.raises(CorruptError, match="tables"):
        Tables(counts, reach, 0)
