"""What the sender tells the receiver: never worse than plain, worth its bits, within its limit."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import pytest
import torch
import video_clips as made
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal import taps as taps_of
from foveal.errors import InputError
from foveal.video import blend
from foveal.video.blend import Facts, SideReader, SideWriter, Sums
from foveal.video.moments import Moments
from foveal.video.postfilter import PAIRS, Luma
from foveal.video.sidecode import FIRST_TAPS
from foveal.video.types import AROUND, IDENTITY, LUMA, MOMENTS, OWN, TAPS, Planes

WIDTH, HEIGHT = 200, 130
FACTS = Facts(2.0, "x264", 30.0, "lanczos", "s", bytes(8), WIDTH, HEIGHT)


class Parts(NamedTuple):
    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    residual: np.ndarray
    luma: Luma

    @property
    def shown(self) -> torch.Tensor:
        height, width = self.y.shape
        return torch.from_numpy(self.y) + self.luma.residual[:height, :width]

    def kept(self) -> Parts:
        return self

    def amid(self, own: torch.Tensor, around: list[torch.Tensor | None]) -> Parts:
        return self._replace(luma=self.luma._replace(shown=own, around=around))


class Fake:
    """Stands for a Restorer: plain is the original minus an error of which the residual is ``share``, plus noise."""

    def __init__(
        self, originals: list[Planes], share: float, noise: float, bad: tuple[slice, slice] | None = None
    ) -> None:
        self.rng, self.waiting = np.random.default_rng(0), list(originals)
        self.share, self.noise, self.bad = share, noise, bad
        self.told: list[Parts] = []

    def parts(self, planes: Planes) -> Parts:
        original = self.waiting.pop(0)
        rows, columns = original.u.shape
        error = self.rng.normal(0, 6, (6, rows, columns)).astype(np.float32)
        residual = self.share * error + self.rng.normal(0, self.noise, error.shape).astype(np.float32)
        if self.bad is not None:
            residual[(slice(None), *self.bad)] *= -1
        y = original.y.astype(np.float32)
        for i in range(4):
            part = y[i // 2 :: 2, i % 2 :: 2]
            part -= error[i, : part.shape[0], : part.shape[1]]
        coded = self.rng.normal(100, 30, (rows, columns)).astype(np.float32)
        luma = Luma.of(coded, residual, True)
        self.told.append(Parts(y, original.u - error[4], original.v - error[5], residual, luma))
        return self.told[-1]


def restored(parts: Parts, weights: np.ndarray, taps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Luma before rounding, plain and restored, as docs/video-side-information.md has it."""
    (height, width), (rows, columns) = parts.y.shape, parts.u.shape
    coded, own = np.pad(parts.luma.coded.numpy(), 2, "edge"), np.pad(parts.luma.residual.numpy(), 1, "edge")
    out = np.zeros((2 * rows, 2 * columns))
    for i, j in itertools.product(range(2), range(2)):
        sy, sx = 1 - 2 * i, 1 - 2 * j
        at = [(sy * y, sx * x) for y in range(-2, 3) for x in range(-2, 3) if y or x]
        for tap, (y, x) in zip(taps[:24], at, strict=True):
            near = coded[2 + y : 2 + y + rows, 2 + x : 2 + x + columns].astype(np.float64)
            out[i::2, j::2] += tap * (near - coded[2 : 2 + rows, 2 : 2 + columns])
        for tap, (y, x) in zip(taps[24:33], itertools.product(range(-1, 2), range(-1, 2)), strict=True):
            y, x = 1 + i + sy * y, 1 + j + sx * x
            out[i::2, j::2] += tap * own[y : y + 2 * rows : 2, x : x + 2 * columns : 2][:rows, :columns]
    for tap, other in zip(taps[33:37], parts.luma.around, strict=False):
        if other is not None:
            out[:height, :width] += tap * (other - parts.shown).clamp(-8, 8).numpy()
    spread = weights.repeat(64, 0).repeat(64, 1)[:height, :width]
    return parts.y, parts.y + spread * out[:height, :width]


def run(fake: Fake, originals: list[Planes], bits: float | None = None) -> tuple[bytes, SideWriter]:
    writer = SideWriter(FACTS, bits)
    for original in originals:
        writer.add(original, fake, made.planes(0, 100, 66))
    return writer.finish(), writer


def luma_errors(data: bytes, fake: Fake, originals: list[Planes]) -> tuple[float, float]:
    reader, errors, moments = SideReader(data), np.zeros(2), Moments[Parts, Planes]()
    pairs = [moments.push(parts, original) for parts, original in zip(fake.told, originals, strict=True)]
    for number, (parts, original) in enumerate(itertools.chain(*pairs, moments.end())):
        errors += [np.square(original.y - x).sum(dtype=np.float64) for x in restored(parts, *reader.frame(number))]
    return float(errors[0]), float(errors[1])


@pytest.mark.parametrize("size", [(200, 130), (63, 65), (129, 127)])
def test_sums_tell_the_error_of_any_taps(size: tuple[int, int]) -> None:
    original, rng = made.planes(1, *size), np.random.default_rng(2)
    parts = Fake([original], 0.7, 1).parts(original)
    around = [
        parts.shown + torch.from_numpy(rng.normal(0, 8, parts.y.shape)).float() if k != 2 else None for k in range(4)
    ]
    parts = parts.amid(parts.shown, around)
    sums = blend.measure(original, parts)
    rows, columns = -(-size[1] // 64), -(-size[0] // 64)
    assert sums.luma.shape[:2] == (rows, columns)
    taps = IDENTITY + rng.normal(0, 0.1, TAPS)
    luma, chroma = blend.errors(Sums(sums.luma[None], sums.chroma[None]), taps)
    for k, weight in enumerate(blend.WEIGHTS):
        _, shown = restored(parts, np.full((rows, columns), weight), taps)
        for r, c in itertools.product(range(rows), range(columns)):
            at, fine = (
                np.s_[64 * r : 64 * r + 64, 64 * c : 64 * c + 64],
                np.s_[32 * r : 32 * r + 32, 32 * c : 32 * c + 32],
            )
            assert np.isclose(luma[0, r, c, k], np.square((original.y - shown)[at]).sum(), rtol=1e-3)
            wanted = 0.0
            for i, (own, plain) in enumerate(((original.u, parts.u), (original.v, parts.v))):
                gap = own - plain - weight * taps[LUMA + i] * parts.residual[4 + i].astype(np.float64)
                wanted += np.square(gap[fine]).sum()
            assert np.isclose(chroma[0, r, c, k], wanted, rtol=1e-3)


def random_sums(seed: int, frames: int = 6, blocks: tuple[int, int] = (2, 3)) -> Sums:
    """Blocks in some of which the residual helps, and in some it harms; the other taps see noise that tells a little."""
    rng = np.random.default_rng(seed)
    e = rng.normal(0, 3, (frames, *blocks, 50))
    z = rng.normal(0, 3, (frames, *blocks, LUMA + 1, 50)) + rng.normal(0, 0.1, (LUMA + 1, 1)) * e[..., None, :]
    z[..., OWN, :] *= rng.gamma(1, 1, (frames, *blocks, 1))
    z[..., OWN, :] += rng.normal(0.3, 0.5, (frames, *blocks, 1)) * e
    z[..., LUMA, :] = e
    grams = (z @ z.swapaxes(-1, -2))[..., PAIRS[0], PAIRS[1]].astype(np.float32)
    e, r = rng.normal(0, 3, (2, frames, 2, *blocks, 50))
    r += rng.normal(0.3, 0.5, (frames, 1, *blocks, 1)) * e
    return Sums(grams, np.stack([(a * b).sum(-1) for a, b in ((e, e), (e, r), (r, r))], 1))


@given(st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_no_tap_moved_alone_would_be_better(seed: int) -> None:
    sums = random_sums(seed)
    weights = blend.WEIGHTS[np.random.default_rng(seed).integers(0, 4, (6, 2, 3))].astype(float)
    taps = np.array(blend.told_taps(sums, weights, FIRST_TAPS, 0.0))
    place = 0
    for a, plain in blend.normal_equations(sums, weights):
        b = blend._kept_sharp(a, plain)
        own = taps[place : place + len(b)]
        costs = [
            x @ a @ x - 2 * b @ x
            for x in (own / 64, *(own / 64 + np.eye(len(b)) / 64), *(own / 64 - np.eye(len(b)) / 64))
        ]
        assert costs[0] <= min(costs) + 1e-9 * abs(costs[0])
        place += len(b)


def test_it_does_not_smooth_even_where_that_would_be_nearer_to_the_original() -> None:
    """Coded luma with noise that the original has not: least squares alone would blur."""
    rng, blocks = np.random.default_rng(0), np.s_[:64, :64]
    clean = np.kron(rng.integers(60, 200, (8, 8)), np.ones((16, 16))).astype(np.float32)[blocks]
    coded = clean[::2, ::2] + rng.normal(0, 8, (32, 32)).astype(np.float32)
    residual = np.zeros((6, 32, 32), np.float32)
    plain = np.repeat(np.repeat(coded, 2, 0), 2, 1)
    original = Planes(clean.astype(np.uint8), np.zeros((32, 32), np.uint8), np.zeros((32, 32), np.uint8))
    zero = np.zeros((32, 32), np.float32)
    parts = Parts(plain, zero, zero, residual, Luma.of(coded, residual, True))
    one = blend.measure(original, parts)
    sums, weights = Sums(one.luma[None], one.chroma[None]), np.ones((1, 1, 1))
    a, b = blend.normal_equations(sums, weights)[0]
    free = taps_of.solved(a, b)
    network = blend.DETAIL_OF_PLAIN @ a @ IDENTITY[:LUMA]
    assert blend.DETAIL_OF_PLAIN @ a @ free < network - 1000
    taps = np.array(blend.told_taps(sums, weights, FIRST_TAPS, 0.0))[:LUMA] / 64
    assert blend.DETAIL_OF_PLAIN @ a @ taps > network - 0.1 * (network - blend.DETAIL_OF_PLAIN @ a @ free)


def test_taps_that_save_nothing_stay() -> None:
    sums, weights = random_sums(4), np.ones((6, 2, 3))
    free, dear = (blend.told_taps(sums, weights, FIRST_TAPS, price) for price in (0.0, 30.0))
    assert sum(a == b for a, b in zip(free, FIRST_TAPS, strict=True)) < sum(
        a == b for a, b in zip(dear, FIRST_TAPS, strict=True)
    )
    assert blend.told_taps(sums, weights, free, 1e9) == free


def test_paths_through_time_are_the_cheapest() -> None:
    rng = np.random.default_rng(0)
    cost, before = rng.random((4, 1, 2, 4)) * 30, np.array([[2, 0]], np.uint8)
    path = blend.smoothest(cost, before, 2.0)

    def total(block: int, steps: tuple[int, ...]) -> float:
        bits = sum(blend.STAY if a == b else blend.CHANGE for a, b in itertools.pairwise((before[0, block], *steps)))
        return 2.0 * bits + sum(cost[t, 0, block, k] for t, k in enumerate(steps))

    for block in range(2):
        best = min(total(block, steps) for steps in itertools.product(range(4), repeat=4))
        assert np.isclose(total(block, tuple(path[:, 0, block])), best)


@given(st.integers(0, 10**6), st.floats(0, 100))
@settings(max_examples=30, deadline=None)
def test_no_plane_of_a_group_is_worse_than_plain(seed: int, price: float) -> None:
    sums = random_sums(seed)
    path, taps = blend.choose(sums, blend.wished(sums), np.full((2, 3), 2, np.uint8), FIRST_TAPS, price)
    luma, _ = blend.errors(sums, np.array(taps) / 64)
    assert blend._taken(luma, path) <= luma[..., 0].sum() * (1 + 1e-6)
    for i in range(2):
        scale, (ee, er, rr) = blend.WEIGHTS[path] * taps[LUMA + i] / 64, sums.chroma[:, :, i].swapaxes(0, 1)
        assert (ee - 2 * scale * er + scale**2 * rr).sum() <= ee.sum() * (1 + 1e-9)


def test_bits_buy_error_and_are_not_spent_on_noise() -> None:
    sums, before = random_sums(3, 20), np.full((2, 3), 2, np.uint8)
    wish = blend.wished(sums)
    paths = [blend.choose(sums, wish, before, FIRST_TAPS, price)[0] for price in (0.0, 3.0, 1e9)]
    moves = [int((np.diff(path, axis=0, prepend=before[None]) != 0).sum()) for path in paths]
    assert moves[0] > moves[1] >= moves[2] == 0


def test_what_the_network_spoils_is_left_plain_and_the_rest_restored() -> None:
    originals = [made.planes(i, WIDTH, HEIGHT) for i in range(6)]
    spoilt = (slice(32, 64), slice(0, 32))
    fake = Fake(originals, 0.8, 1, spoilt)
    data, writer = run(fake, originals)
    weights, taps = SideReader(data).frame(5)
    assert weights[1, 0] == 0 and (np.delete(weights.ravel(), 4) > 0).all()
    plain, better = luma_errors(data, fake, originals)
    assert better < 0.3 * plain
    assert np.isclose(writer.gain_db, 10 * np.log10(plain / better), atol=0.01)
    assert np.isclose(weights.max() * taps[OWN], 0.8 * 36 / (0.64 * 36 + 1), atol=0.05)  # e r / r r


def test_a_network_that_only_harms_is_not_worse_than_plain() -> None:
    originals = [made.planes(i, WIDTH, HEIGHT) for i in range(4)]
    fake = Fake(originals, -0.5, 5)
    data, writer = run(fake, originals)
    plain, after = luma_errors(data, fake, originals)
    assert after <= plain * (1 + 1e-6) and writer.gain_db >= 0


@pytest.mark.parametrize("noise", [1.0, 12.0])
def test_it_stays_under_4_kbit_per_second_of_720p25(noise: float) -> None:
    """Sums of 12 x 20 blocks whose best weights jump about, which only the limit keeps from being told."""
    facts, rng = Facts(2.0, "x264", 30.0, "lanczos", "s", bytes(8), 1280, 720), np.random.default_rng(0)
    writer = SideWriter(facts, video_bits=1e9)  # at that rate any bit of side information would pay
    for _ in range(150):
        rr = rng.gamma(2, 2000, facts.blocks)
        er = rr * (0.8 + noise / 5 * rng.normal(0, 1, facts.blocks))
        grams = np.zeros((*facts.blocks, len(PAIRS[0])), np.float32)
        for (a, b), value in (((OWN, OWN), rr), ((OWN, LUMA), er), ((LUMA, LUMA), rr * 8)):
            grams[..., (PAIRS[0] == a) & (PAIRS[1] == b)] = value[..., None]
        writer._group.append(Sums(grams, np.stack([[x, x] for x in (rr * 8, er, rr)])))
        writer._frames += 1
        if len(writer._group) == blend.GROUP:
            writer._close_group()
    size = len(writer.finish())
    assert size * 8 * 25 / 150 <= 4000
    assert writer.gain_db > 0.3


def test_a_bit_is_worth_less_where_the_video_has_few() -> None:
    originals = [made.planes(i, WIDTH, HEIGHT) for i in range(5)]
    sizes = [len(run(Fake(originals, 0.4, 6), originals, bits)[0]) for bits in (1e7, 100.0)]
    assert sizes[0] > sizes[1]


def test_other_frames_help_where_the_scene_stands_still_and_not_across_cuts() -> None:
    """Every frame has its own noise, so the mean of several is nearer to what they show."""
    still, cuts = ([made.planes(n, WIDTH, HEIGHT) for n in numbers] for numbers in ([1] * 8, range(1, 400, 50)))
    found = []
    for originals in (still, cuts):
        fake = Fake(originals, 0.0, 0.0)
        data, writer = run(fake, originals, 1e7)
        found.append((writer.gain_db, SideReader(data).frame(4)[1][AROUND : AROUND + len(MOMENTS)]))
    assert found[0][0] > 3 and (found[0][1] > 0.1).all()
    assert 0 <= found[1][0] < 0.1 * found[0][0]


def test_groups_and_an_exact_copy() -> None:
    originals = [made.planes(i % 3, WIDTH, HEIGHT) for i in range(blend.GROUP + 2)]
    fake = Fake(originals, 0.5, 1)
    reader = SideReader(run(fake, originals)[0])
    assert reader.facts.frames == blend.GROUP + 2
    assert reader.facts.check == blend.check_of(made.planes(0, 100, 66))
    assert reader.frame(blend.GROUP + 1)[0].shape == (3, 4)
    silent = SideWriter(FACTS)
    assert silent.gain_db == 0
    with pytest.raises(InputError, match="no frame"):
        silent.finish()
