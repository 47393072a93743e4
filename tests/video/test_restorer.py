"""Whole frames: the network's picture whatever the tile, reuse that does not show, groups, blend and scales, bit depths."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import video_clips as made
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from foveal.errors import InputError, UnknownModelError
from foveal.video import attention_sr, resize
from foveal.video import restorer as room
from foveal.video.attention_sr import SIZES, AttentionSR
from foveal.video.moments import Moments
from foveal.video.restorer import Restorer
from foveal.video.types import IDENTITY, LUMA, OWN, TAPS, Planes


def network(mode: str = "x2", strength: float = 0.02) -> AttentionSR:
    torch.manual_seed(5)
    net = AttentionSR(SIZES["s"], mode).eval().requires_grad_(False)
    torch.nn.init.normal_(net.end.weight, std=strength)
    return net


def changed(planes: Planes, rows: slice, columns: slice) -> Planes:
    """The same picture with other luma in one place."""
    y = planes.y.copy()
    y[rows, columns] ^= 9
    return Planes(y, planes.u, planes.v)


def reference(
    net: AttentionSR, planes: Planes, scale: float, width: int, height: int, quality: float
) -> list[torch.Tensor]:
    """The restored planes in [0, 1], by the rooms of resampling and of the network alone."""
    top = 255 if planes.bits == 8 else 1023
    y, u, v = (torch.from_numpy(p.astype(np.float32))[None, None] / top for p in (planes.y, planes.u, planes.v))
    plain = resize.resize_tensors(y, u, v, width, height, ratio=1 / scale)
    rows, columns = plain[1].shape[-2:]
    even = torch.nn.functional.pad(plain[0], (0, 2 * columns - width, 0, 2 * rows - height), mode="replicate")
    luma = y[..., :rows, :columns] if scale == 2 else even
    residual = net(
        attention_sr.network_input(luma, plain[1], plain[2], attention_sr.quality_plane(quality, scale), net.mode)
    )
    out = attention_sr.add_residual((even, *plain[1:]), residual)
    return [out[0][0, 0, :height, :width], out[1][0, 0], out[2][0, 0]]


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(
    ("scale", "small", "size"),
    [(2, (48, 40), (96, 80)), (2, (48, 40), (95, 77)), (1.5, (64, 54), (96, 80)), (1, (51, 37), (51, 37))],
)
def test_it_is_plain_plus_residual(scale: float, small: tuple[int, int], size: tuple[int, int], bits: int) -> None:
    net, planes = network(room.mode_of(scale)), made.planes(3, *small, bits)
    found = Restorer(net, scale, *size, bits, 0.5, bf16=False).restore(planes)
    wanted = reference(net, planes, scale, *size, 0.5)
    plain = Restorer(net, scale, *size, bits).plain(planes)
    assert found.bits == bits and found.y.shape == size[::-1]
    for plane, exact, unrestored in zip((found.y, found.u, found.v), wanted, (plain.y, plain.u, plain.v), strict=True):
        lsb = exact.numpy() * (255 if bits == 8 else 1023)
        assert np.abs(plane - lsb.clip(0, 255 if bits == 8 else 1023)).max() < 0.51
        assert np.abs(plane.astype(float) - unrestored).mean() > 0.2


@pytest.mark.parametrize("scale", [1, 1.5, 2])
def test_without_a_network_and_with_an_untrained_one_it_is_plain(scale: float) -> None:
    planes = made.planes(1, 64, 48)
    size = round(64 * scale), round(48 * scale)
    untrained = AttentionSR(SIZES["s"], room.mode_of(scale)).eval()
    plain = resize.resize_planes(planes, *size, ratio=1 / scale)
    for net in (None, untrained):
        restorer = Restorer(net, scale, *size)
        for found in (restorer.restore(planes), restorer.plain(planes)):
            assert all(
                np.array_equal(a, b)
                for a, b in zip((found.y, found.u, found.v), (plain.y, plain.u, plain.v), strict=True)
            )


@pytest.mark.parametrize("mode", ["x2", "x1"])
def test_tiled_equals_untiled(mode: str) -> None:
    scale, size = (2, (160, 120)) if mode == "x2" else (1, (80, 60))
    planes = made.planes(2, 80, 60)
    whole, tiled = (
        Restorer(network(mode), scale, *size, tile=tile, bf16=False).parts(planes).residual for tile in (10**6, 40)
    )
    assert np.abs(whole).max() > 3
    assert np.abs(whole - tiled).max() / 255 < 1e-5


def test_reuse_equals_no_reuse_with_the_same_held_attention() -> None:
    """A small thing moves in a picture of 160x120 that stands still; then nothing moves; then another thing moves."""
    still = made.planes(0, 160, 120)
    clip = [changed(still, slice(20, 30), slice(x, x + 12)) for x in (8, 40, 44, 44)]
    clip += [changed(still, slice(100, 120), slice(150, 160))]
    reusing, computing = (
        Restorer(network(), 2, 320, 240, tolerance=9, reuse=reuse, bf16=False) for reuse in (True, False)
    )
    for planes in clip:
        a, b = reusing.parts(planes), computing.parts(planes)
        assert np.abs(a.residual - b.residual).max() / 255 < 1e-5
    assert 0.5 < reusing.reused < 1 and computing.reused == 0


def test_an_unchanged_frame_costs_no_network_and_repeats_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    restorer, planes = Restorer(network(), 2, 96, 80), made.planes(0, 48, 40)
    first = restorer.restore(planes)
    monkeypatch.setattr(restorer, "runner", type("None", (), {"reach": 9}))
    again = restorer.restore(planes)
    assert np.array_equal(first.y, again.y) and np.array_equal(first.u, again.u)
    assert restorer.reused == 0.5


def test_attention_moves_with_the_scene_and_only_then(monkeypatch: pytest.MonkeyPatch) -> None:
    net = network()
    torch.nn.init.normal_(net.excite.weight, std=2.0)
    dark = made.planes(0, 48, 40)
    scene = Planes(dark.y // 4, dark.u, dark.v), Planes(255 - dark.y[::-1].copy() // 2, dark.v, dark.u)
    fresh = Restorer(net, 2, 96, 80, bf16=False).parts(scene[1]).residual
    following, holding = (Restorer(net, 2, 96, 80, tolerance=t, bf16=False) for t in (0.02, 9.0))
    for restorer in (following, holding):
        restorer.parts(scene[0])
    assert np.abs(following.parts(scene[1]).residual - fresh).max() / 255 < 1e-5
    assert np.abs(holding.parts(scene[1]).residual - fresh).max() / 255 > 1e-4


def test_a_group_begins_afresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "GROUP", 3)
    clip = [made.planes(i, 48, 40) for i in range(6)]
    whole, later = (Restorer(network(), 2, 96, 80, tolerance=9, bf16=False) for _ in range(2))
    told = [whole.parts(planes).residual.copy() for planes in clip]
    for planes, wanted in zip(clip[3:], told[3:], strict=True):
        assert np.array_equal(later.parts(planes).residual, wanted)
    assert not np.array_equal(Restorer(network(), 2, 96, 80, tolerance=9).parts(clip[4]).residual, told[4])


def test_changes_add_up_to_a_new_look_at_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "STALE", 2.0)
    still = made.planes(0, 160, 120)
    restorer = Restorer(network(), 2, 320, 240)
    shares = []
    for x in range(0, 120, 12):
        before = restorer.computed
        restorer.parts(changed(still, slice(0, 120), slice(x, x + 24)))
        shares.append(restorer.computed - before)
    assert shares[0] == 1 and 0 < min(shares) < 0.85
    assert 1 <= shares[2:].count(1) < 5


def test_blend_and_factors() -> None:
    net, planes = network(strength=0.05), made.planes(4, 80, 60)
    blend = np.array([[0, 0.5, 1], [1.5, 0, 1]], np.float32)
    taps = IDENTITY * 0
    taps[[OWN, LUMA, LUMA + 1]] = 0.5, 0.25, 1.5
    gains = np.array([0.5] * 4 + [0.25, 1.5])
    parts = Restorer(net, 2, 160, 120, bf16=False).parts(planes)
    found = Restorer(net, 2, 160, 120, bf16=False).restore(planes, blend=blend, taps=taps)
    for row, line in enumerate(blend):
        for column, weight in enumerate(line):
            at = np.s_[64 * row : 64 * row + 64, 64 * column : 64 * column + 64]
            fine = np.s_[32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            for i in range(4):
                wanted = parts.y[at][i // 2 :: 2, i % 2 :: 2] + weight * gains[i] * parts.residual[i][fine]
                assert np.abs(found.y[at][i // 2 :: 2, i % 2 :: 2] - wanted.clip(0, 255)).max() < 0.51
            for plane, plain, i in ((found.u, parts.u, 4), (found.v, parts.v, 5)):
                wanted = plain[fine] + weight * gains[i] * parts.residual[i][fine]
                assert np.abs(plane[fine] - wanted.clip(0, 255)).max() < 0.51


def shifted(planes: Planes, step: int) -> Planes:
    """Luma brighter by ``step`` in its left half, twice as much in the right."""
    y = planes.y.astype(int)
    y[:, : y.shape[1] // 2] += step
    y[:, y.shape[1] // 2 :] += 2 * step
    return replace(planes, y=y.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("scale", "small", "size"), [(2, (50, 40), (97, 79)), (1.5, (64, 54), (96, 80)), (1, (51, 37), (51, 37))]
)
def test_taps_are_what_the_page_says(scale: float, small: tuple[int, int], size: tuple[int, int]) -> None:
    planes, taps = made.planes(4, *small), IDENTITY + np.random.default_rng(1).normal(0, 0.05, TAPS).astype(np.float32)
    run = Restorer(network(room.mode_of(scale)), scale, *size, bf16=False)
    frames = [planes if t == 1 else shifted(planes, 3 * t) for t in range(4)]
    moments = Moments[room.Parts, None]()
    given = [pair for frame in frames for pair in moments.push(run.parts(frame), None)] + moments.end()
    parts = given[1][0]
    assert np.array_equal(parts.y, run.parts(planes).y)
    shown, _, _ = parts.restored(taps)
    others = [None if t is None else given[t][0].shown.numpy() for t in (0, 2, None, 3)]
    rows, columns = parts.residual.shape[1:]
    coded = planes.y[:rows, :columns] if scale == 2 else parts.y
    whole = np.empty((2 * rows, 2 * columns), np.float32)
    for i in range(4):
        whole[i // 2 :: 2, i % 2 :: 2] = parts.residual[i]

    def at(plane: np.ndarray, y: int, x: int) -> float:
        return float(plane[min(max(y, 0), plane.shape[0] - 1), min(max(x, 0), plane.shape[1] - 1)])

    for y, x in ((0, 0), (1, 1), (6, 9), (7, 12), (size[1] - 1, size[0] - 1), (0, size[0] - 1)):
        sy, sx = (1 - 2 * (y % 2), 1 - 2 * (x % 2)) if scale == 2 else (1, 1)
        cy, cx = (y // 2, x // 2) if scale == 2 else (y, x)
        around = [(i, j) for i in range(-2, 3) for j in range(-2, 3) if i or j]
        wanted = sum(
            float(t) * (at(coded, cy + sy * i, cx + sx * j) - at(coded, cy, cx))
            for t, (i, j) in zip(taps, around, strict=False)
        )
        near = [(i, j) for i in range(-1, 2) for j in range(-1, 2)]
        wanted += sum(float(t) * at(whole, y + sy * i, x + sx * j) for t, (i, j) in zip(taps[24:], near, strict=False))
        own = parts.y[y, x] + whole[y, x]
        wanted += sum(
            float(t) * min(max(float(other[y, x] - own), -8), 8)
            for t, other in zip(taps[33:], others, strict=False)
            if other is not None
        )
        assert float(shown[y, x]) - parts.y[y, x] == pytest.approx(wanted, abs=0.01)


@pytest.mark.parametrize(("bits", "limit"), [(8, 8), (10, 32)])
def test_what_a_frame_sees_of_another_is_limited_in_its_own_units(bits: int, limit: int) -> None:
    run = Restorer(None, 2, 96, 80, bits)
    moments = Moments[room.Parts, None]()
    pushed = [moments.push(run.parts(made.planes(seed, 48, 40, bits)), None) for seed in (0, 9)]
    first = [*itertools.chain(*pushed), *moments.end()][0][0]
    seen = first.luma.difference(1)
    assert seen is not None and float(seen.max()) == limit and float(seen.min()) == -limit
    assert first.luma.difference(0) is None


def test_the_identity_changes_nothing() -> None:
    planes = made.planes(4, 50, 40)
    plainly, filtered = (Restorer(network(), 2, 97, 79).restore(planes, taps=taps) for taps in (None, IDENTITY))
    assert np.array_equal(plainly.y, filtered.y) and np.array_equal(plainly.u, filtered.u)


def test_weight_0_is_plain_exactly() -> None:
    restorer, planes = Restorer(network(), 2, 97, 79), made.planes(4, 50, 40)
    found, plain = restorer.restore(planes, blend=np.zeros((2, 2))), restorer.plain(planes)
    assert all(
        np.array_equal(a, b) for a, b in zip((found.y, found.u, found.v), (plain.y, plain.u, plain.v), strict=True)
    )


def test_bf16_is_within_a_tenth_of_a_step_on_average() -> None:
    planes = made.planes(7, 80, 60)
    fast, exact = (Restorer(network(), 2, 160, 120, bf16=bf16).parts(planes).residual for bf16 in (True, False))
    assert 0 < np.abs(fast - exact).mean() < 0.1
    assert np.abs(exact).mean() > 1


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: Restorer(network("x1"), 2, 96, 80), "does not restore at scale 2"),
        (lambda: Restorer(None, 3, 96, 80), "scale 3"),
        (lambda: Restorer(None, 2, 96, 80).restore(made.planes(0, 40, 40)), "40x40 is not what becomes"),
        (lambda: Restorer(None, 2, 96, 80).restore(made.planes(0, 48, 60)), "48x60 is not what becomes"),
        (lambda: Restorer(None, 2, 96, 80).restore(made.planes(0, 48, 40, 10)), "10-bit"),
        (
            lambda: Restorer(network(), 2, 96, 80).restore(made.planes(0, 48, 40), blend=np.ones((3, 2))),
            "blend weights",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make: Callable[[], object], match: str) -> None:
    with pytest.raises(InputError, match=match):
        make()


def test_the_shipped_network_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_sr, "WEIGHTS", tmp_path)
    attention_sr.load_weights.cache_clear()
    with pytest.raises(UnknownModelError):
        Restorer.for_model("s", 2, 96, 80, 8, None, 0)
    path = tmp_path / "video-s.safetensors"
    attention_sr.save_weights(path, {mode: network(mode) for mode in ("x2", "x1")}, {})
    try:
        assert Restorer.for_model("s", 1.5, 96, 80, 8, None, 0).runner is not None
        first = {scale: room.weights_id("s", scale) for scale in (1, 1.5, 2)}
        assert len(first[2]) == 8 and first[1] == first[1.5] != first[2]
        attention_sr.save_weights(path, {"x2": network("x2", 0.1), "x1": network("x1")}, {})
        assert room.weights_id("s", 2) != first[2] and room.weights_id("s", 1) == first[1]
    finally:
        attention_sr.load_weights.cache_clear()


@given(hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12))), st.integers(0, 22))
def test_rectangles_cover_what_changed(dirty: np.ndarray, reach: int) -> None:
    covered = np.zeros_like(dirty)
    for top, bottom, left, right in room.rectangles(dirty, reach)[0]:
        assert 0 <= top < bottom <= dirty.shape[0] and 0 <= left < right <= dirty.shape[1]
        covered[top:bottom, left:right] = True
    assert not (dirty & ~covered).any()


def test_far_apart_changes_are_apart() -> None:
    dirty = np.zeros((40, 60), np.bool_)
    dirty[:2, :2] = dirty[-2:, -2:] = True
    assert sorted(room.rectangles(dirty, 9)[0]) == [(0, 2, 0, 2), (38, 40, 58, 60)]
