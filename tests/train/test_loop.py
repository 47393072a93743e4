"""The loop on a handful of pictures: it runs, restarts, logs, and steps over what is not finite."""

import copy
import json

import numpy as np
import pytest
import torch

from foveal.errors import InputError
from foveal.image.prior import BaseIndex
from foveal.image.transform import SIZES
from foveal.train import checkpoint, data, loop
from foveal.train.batch import flatness_rank, make_batch
from foveal.train.losses import ImageModel, loss, psnr_db, rate_weight

TINY = {"steps": 2, "batch": 2, "crop": 128, "threads": 1, "device": "cpu"}


def state_of(path):
    model = ImageModel(SIZES["s"])
    return checkpoint.load(path, model), model.state_dict()


def test_a_batch_is_drawn_within_its_ranges(images):
    random = np.random.default_rng(0)
    batch = make_batch(data.crops(images, 64, 64, random), random)
    assert batch.coded.shape == batch.visible.shape == batch.finer.shape == (64, 4, 4)
    assert batch.coded.dtype == batch.visible.dtype == batch.auto.dtype == torch.bool
    assert not (batch.coded & ~batch.visible).any()
    assert set(batch.finer.unique().tolist()) <= {0.0, 4.0, 8.0}
    assert batch.level.min() >= 0 and batch.level.max() <= 63
    assert (~batch.visible).any() and (batch.visible & ~batch.coded).any()


def test_flat_patches_rank_first():
    image = torch.zeros(1, 3, 32, 48)
    image[..., 16:, 32:] = torch.rand(3, 16, 16) * 255
    rank = flatness_rank(image)
    assert rank.shape == (1, 2, 3) and rank.argmax() == 5 and sorted((rank * 6).flatten().tolist()) == list(range(6))


@pytest.mark.parametrize("hard", [False, True])
def test_every_parameter_learns(model, images, hard):
    """One forward and backward pass, soft and hard: finite gradients, none of them missing."""
    torch.manual_seed(0)
    model, random = copy.deepcopy(model).requires_grad_(True), np.random.default_rng(1)
    with torch.no_grad():  # residual ends start at zero and would hide what is before them
        for p in model.parameters():
            p += torch.randn_like(p) * 0.01
    batch = make_batch(data.crops(images, 8, 128, random), random)
    out = model(batch, BaseIndex(8, 8), not hard, hard)
    assert out["bpp"].shape == (8,) and out["error"].shape == (8, 8, 8) and out["image"].shape == (8, 3, 128, 128)
    assert (out["bpp"] > out["base_bpp"]).all() and (out["base_bpp"] > 0).all()
    loss(out, batch).backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for n, g in grads.items() if n != "prior.linear.0")
    idle = {n for n, g in grads.items() if g is None or not g.any()}
    assert idle <= {"prior.linear.0"}  # pass 0 has no neighbours


def test_rate_weight_and_psnr():
    assert rate_weight(torch.tensor(8.0)) == 2 * rate_weight(torch.tensor(0.0))
    assert psnr_db(torch.tensor([1.0])).item() == pytest.approx(48.13, abs=0.01)


def test_the_loop_trains_restarts_and_logs(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    out, log, preview = tmp_path / "a.sft", tmp_path / "log.jsonl", tmp_path / "preview.png"
    assert loop.train(folder, out, log=log, preview=preview, **TINY) == out
    facts, first = state_of(out)
    assert facts["steps"] == 2 and facts["pixels"] == 2 * 2 * 128 * 128 and facts["size"] == "s"
    assert all(torch.isfinite(v).all() for v in first.values())
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2, 2] and rows[-1]["final"]
    assert all(r["skipped"] == 0 and r["loss"] > 0 and r["bpp"] > r["base_bpp"] > 0 for r in rows[:2])
    bits, decibels = zip(*rows[-1]["points"], strict=True)
    assert list(bits) == sorted(bits) and len(decibels) == 5
    assert (preview.stat().st_size > 1000) == preview.is_file()
    loop.train(folder, out, weights=out, log=log, **{**TINY, "steps": 1})
    assert state_of(out)[0]["steps"] == 3
    assert any((a != b).any() for a, b in zip(first.values(), state_of(out)[1].values(), strict=True))


def test_steps_that_are_not_finite_are_skipped(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    loop.train(folder, tmp_path / "start.sft", **TINY)
    monkeypatch.setattr(loop, "loss", lambda out, batch: loss(out, batch) * float("nan"))
    log = tmp_path / "log.jsonl"
    loop.train(folder, tmp_path / "b.sft", weights=tmp_path / "start.sft", log=log, **{**TINY, "steps": 1})
    assert json.loads(log.read_text().splitlines()[0])["skipped"] == 1
    before, after = state_of(tmp_path / "start.sft")[1], state_of(tmp_path / "b.sft")[1]
    assert all((before[k] == after[k]).all() for k in before)


def test_interrupting_keeps_what_was_learned(folder, tmp_path, monkeypatch):
    def interrupted(out, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "loss", interrupted)
    loop.train(folder, tmp_path / "a.sft", **TINY)
    assert state_of(tmp_path / "a.sft")[0]["steps"] == 0


@pytest.mark.parametrize(
    "bad", [{"size": "xl"}, {"crop": 100}, {"batch": 0}, {"steps": -1}, {"steps": None, "minutes": 0}]
)
def test_bad_options_are_named(folder, tmp_path, bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        loop.train(folder, tmp_path / "a.sft", **{**TINY, **bad})
    assert list(tmp_path.iterdir()) == []


def test_the_rate_warms_up_and_falls():
    rates = [loop.rate(n / 1000, n, 1.0) for n in range(1000)]
    assert rates[0] < 0.01 and max(rates) > 0.9 and rates[-1] < 0.02
    assert np.argmax(rates) < 2 * loop.WARMUP
