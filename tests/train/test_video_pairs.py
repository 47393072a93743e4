"""Pairs: coded by the real codecs, aligned with what they were made from, kept in a file, cropped in groups alike."""

import numpy as np
import pytest
import torch

from foveal.errors import InputError
from foveal.train import video_clips, video_pairs
from foveal.train.video_losses import plain
from foveal.train.video_pairs import CODERS


def decibels(a, b):
    return 10 * np.log10(255**2 / max(np.square(a.astype(float) - b).mean(), 1e-3))


@pytest.fixture(scope="module")
def clip(images):
    return video_clips.moving(images[0], 64, 4, np.random.default_rng(11))


@pytest.mark.parametrize("coder", CODERS, ids=lambda c: c.name)
def test_codecs_return_all_frames_in_order_and_worse_for_higher_crf(clip, coder):
    fine, coarse = (video_pairs.code(clip, coder, crf, coder.presets[-1]) for crf in coder.crf)
    assert len(fine) == len(coarse) == 4 and fine[0].u.shape == (32, 32)
    for frames, least in ((fine, 30), (coarse, 15)):
        for n, frame in enumerate(frames):
            assert decibels(frame.y, clip[n].y) > least
    assert decibels(fine[2].y, clip[2].y) > decibels(coarse[2].y, clip[2].y) + 1


def test_coding_is_repeatable(clip):
    for coder in CODERS:
        one, two = (video_pairs.code(clip, coder, 35, coder.presets[1]) for _ in range(2))
        assert all((a.y == b.y).all() and (a.u == b.u).all() for a, b in zip(one, two, strict=True))


def test_pairs_have_their_sizes(pairs):
    assert set(pairs) == {"train.x2", "held.x2", "train.x1", "held.x1"}
    assert [len(pairs[k]) for k in ("train.x2", "train.x1", "held.x2")] == [24, 24, 2]
    half, same = pairs["train.x2"], pairs["train.x1"]
    assert half.y.shape == (24, 64, 64) and half.u.shape == (24, 32, 32) and half.target_y.shape == (24, 128, 128)
    assert same.y.shape == same.target_y.shape == (24, 128, 128) and same.v.shape == same.target_v.shape == (24, 64, 64)
    assert all(t.dtype == torch.uint8 for p in pairs.values() for t in (p.y, p.u, p.v, p.target_y, p.target_u))
    for p in pairs.values():
        assert p.quality.min() > 0.3 and p.quality.max() < 1 and set(p.coder.tolist()) <= {0, 1, 2}
    assert len(set(same.coder.tolist())) == 3
    assert set(half.scale.tolist()) == {2} and set(same.scale.tolist()) == {1, 1.5}


@pytest.mark.parametrize("mode", ["x2", "x1"])
def test_pairs_are_aligned(pairs, mode):
    """What plain resampling makes of the input is nearer to the target than to the target moved by a sample."""
    made = pairs[f"train.{mode}"]
    y, _, _ = plain(*(p[:, None].float() / 255 for p in (made.y, made.u, made.v)), mode)
    goal = made.target_y[:, None].float() / 255

    def error(moved):
        return (y - moved)[..., 4:-4, 4:-4].square().mean()

    here = error(goal)
    assert 0 < here < 0.02
    assert all(error(goal.roll(by, axis)) > here for by in (-1, 1) for axis in (-1, -2))


def test_pairs_are_kept_and_read(pairs, tmp_path):
    path = tmp_path / "pool.safetensors"
    video_pairs.save(path, pairs)
    again = video_pairs.load(path)
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and set(again) == set(pairs)
    for name, made in pairs.items():
        assert again[name].mode == made.mode
        assert all((t == again[name].tensors()[k]).all() for k, t in made.tensors().items())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match="made again"):
        video_pairs.load(path)


@pytest.mark.parametrize("mode", ["x2", "x1"])
def test_crops_belong_together(pairs, mode):
    made = pairs[f"train.{mode}"]
    source = video_pairs.batches(made, 8, 24, np.random.default_rng(0))
    groups = set()
    for _ in range(12):
        batch = next(source)
        groups.add(batch.group)
        n = 24 if mode == "x2" else 48
        assert batch.y.shape == (8, 1, n, n) and batch.u.shape == batch.v.shape == (8, 1, n // 2, n // 2)
        assert [tuple(t.shape) for t in batch.target] == [(8, 1, 48, 48), (8, 1, 24, 24), (8, 1, 24, 24)]
        y, u, v = plain(batch.y, batch.u, batch.v, mode)
        for near, goal, least in zip((y, u, v), batch.target, (14, 20, 20), strict=True):
            assert -10 * (near - goal).square().mean().log10() > least
    assert groups == {1, 4, 8}


def test_groups_are_of_neighbouring_quality(pairs):
    many = pairs["train.x2"]
    wide = video_pairs.Pairs("x2", **{k: t.repeat_interleave(20, 0) for k, t in many.tensors().items()})
    wide.quality[:] = torch.linspace(0.3, 0.9, 480)[torch.randperm(480, generator=torch.Generator().manual_seed(0))]
    wide.coder[:] = 0
    source = video_pairs.batches(wide, 8, 24, np.random.default_rng(0))
    spread = {1: [], 4: [], 8: []}
    for _ in range(40):
        batch = next(source)
        rows = batch.quality.view(-1, batch.group)
        spread[batch.group].append(float((rows.amax(1) - rows.amin(1)).max()))
    assert max(spread[1]) == 0 and 0 < max(spread[4]) < 0.05 and max(spread[8]) < 0.08


def test_some_clips_were_coded_before(images, monkeypatch):
    monkeypatch.setattr(video_pairs, "SIDE", 64)
    monkeypatch.setattr(video_pairs, "FRAMES", 2)
    monkeypatch.setattr(video_pairs, "BEFORE_CRF", (40, 40))
    made = []
    for share in (0.0, 1.0):
        monkeypatch.setattr(video_pairs, "BEFORE", share)
        made.append(video_pairs.source(images[:1], [], np.random.default_rng(5))()[1].y)
    assert made[0].shape == (64, 64) and 20 < decibels(*made) < 45


def test_real_clips_take_their_share(images):
    flat = [[video_pairs.Planes(*(np.full(n, 77, np.uint8) for n in ((256, 256), (128, 128), (128, 128))))] * 8]
    one = video_pairs.source(images[:1], flat, np.random.default_rng(0))
    real = sum(bool((one()[0].y == 77).all()) for _ in range(24))
    assert 1 <= real <= 14
    assert all((c.y == 77).all() for c in video_pairs.source([], flat, np.random.default_rng(0))())


@pytest.mark.parametrize("side", [33, 80])
def test_crops_that_do_not_fit_are_refused(pairs, side):
    with pytest.raises(InputError, match=f"crop {side}"):
        next(video_pairs.batches(pairs["train.x2"], 8, side, np.random.default_rng(0)))
