"""The loop on a handful of pictures: it runs, restarts, logs, and steps over what is not finite."""

import copy
import json
import shutil

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from foveal.errors import InputError
from foveal.image.prior import BaseIndex
from foveal.image.transform import LEVELS, SIZES
from foveal.train import checkpoint, data, loop, record, twin
from foveal.train.batch import flatness_rank, make_batch
from foveal.train.losses import ImageModel, loss, psnr_db, rate_weight
from foveal.train.parallel import Gradients, Group

TINY = {"steps": 2, "batch": 2, "crop": 128, "threads": 1, "device": "cpu"}


def state_of(path):
    model = ImageModel(SIZES["s"])
    return checkpoint.load(path, model), model.state_dict()


def test_a_batch_is_drawn_within_its_ranges(images):
    draw = data.draw(0, torch.device("cpu"))
    batch = make_batch(data.Pictures(images).crops(64, 64, draw), draw)
    assert batch.coded.shape == batch.visible.shape == batch.finer.shape == (64, 4, 4)
    assert batch.coded.dtype == batch.visible.dtype == batch.auto.dtype == torch.bool
    assert not (batch.coded & ~batch.visible).any()
    assert set(batch.finer.unique().tolist()) <= {0.0, 4.0, 8.0}
    assert batch.level.min() >= 0 and 60 < batch.level.max() <= LEVELS - 1
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
    model, draw = copy.deepcopy(model).requires_grad_(True), data.draw(1, torch.device("cpu"))
    with torch.no_grad():  # residual ends start at zero and would hide what is before them
        for p in model.parameters():
            p += torch.randn_like(p) * 0.01
    batch = make_batch(data.Pictures(images).crops(8, 128, draw), draw)
    out = model(batch, BaseIndex(8, 8), not hard, hard)
    assert out["bpp"].shape == (8,) and out["error"].shape == (8, 8, 8) and out["image"].shape == (8, 3, 128, 128)
    assert (out["bpp"] > out["base_bpp"]).all() and (out["base_bpp"] > 0).all()
    loss(out, batch).backward()
    grads = {n: p.grad for n, p in model.named_parameters()}
    assert all(g is not None and torch.isfinite(g).all() for n, g in grads.items() if n != "prior.linear.0")
    idle = {n for n, g in grads.items() if g is None or not g.any()}
    assert idle <= {"prior.linear.0"}  # pass 0 has no neighbours


def test_symbols_thought_about_at_once_are_those_thought_about_one_by_one(model):
    """What CUDA does over all symbols, a CPU does over those that are not zero."""
    x, index, weight = torch.randn(5, 40) * 3, torch.rand(5, 40) * 40, torch.rand(5, 1) * 5
    _, value = twin.quantise_rd(x, False, index, weight, model.prior.density)
    whole = twin.cheaper(x.round(), x, index, weight.expand_as(x), model.prior.density)
    assert (value == whole).all() and (value != x.round()).any() and ((x.round() - value).abs() <= 1).all()


def slice_inputs(rows=3, tokens=16):
    """Latents, thumbnail, context, ln of the steps and weights, as ``PriorTwin.slices`` takes them."""
    draw = torch.Generator().manual_seed(4)
    wide, base, context = (torch.randn(rows, tokens, n, generator=draw) for n in (384, 6, 128))
    return wide, base, context.abs(), wide * 0.1, 8 * torch.rand(rows, tokens, 1, generator=draw).expand_as(wide)


def test_only_samples_that_ask_have_patches_dropped(model):
    """The same patches as when all samples are looked at, and none of samples that do not ask."""
    inputs, auto = slice_inputs(), torch.tensor([True, False, True])
    pays = model._pays(auto, inputs, False)
    with torch.no_grad():
        gain = model.prior.slices(*inputs, torch.ones(3, 16, dtype=torch.bool), False, False)[2]
    assert pays[1].all() and (pays[auto] == (gain[auto] > 0)).all()
    assert 0 < (gain > 0).sum() < gain.numel()
    assert model._pays(torch.zeros(3, dtype=torch.bool), inputs, False).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_compiled_symbols_and_their_gradients_are_the_same(model):
    plain = copy.deepcopy(model.prior).requires_grad_(True)
    fused, coded = copy.deepcopy(plain), torch.ones(3, 16, dtype=torch.bool)
    fused.fuse()
    latents, *rest = slice_inputs()
    found = []
    for prior in (plain, fused):
        own = latents.clone().requires_grad_(True)
        values, bits, _ = prior.slices(own, *rest, coded, False, True)
        (values.square().mean() + bits.mean()).backward()
        found.append((values.detach(), bits.detach(), own.grad, prior.s3[2].weight.grad))
    assert found[0][1].min() > 0 and found[0][2].abs().max() > 0
    for a, b in zip(*found, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)


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
    assert all(r["mpx_per_s"] > 0 and r["tflops"] > 0 and 0 < r["share_of_peak"] < 1 for r in rows[:2])
    assert facts["progress"] == 1
    assert (preview.stat().st_size > 1000) == preview.is_file()
    loop.train(folder, out, weights=out, log=log, **{**TINY, "steps": 1})
    assert state_of(out)[0]["steps"] == 3
    assert any((a != b).any() for a, b in zip(first.values(), state_of(out)[1].values(), strict=True))


def test_gradients_that_are_not_finite_count_as_zero(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    loop.train(folder, tmp_path / "start.sft", **TINY)
    monkeypatch.setattr(loop, "loss", lambda out, batch: loss(out, batch) * float("nan"))
    log = tmp_path / "log.jsonl"
    loop.train(folder, tmp_path / "b.sft", weights=tmp_path / "start.sft", log=log, **{**TINY, "steps": 1})
    row = json.loads(log.read_text().splitlines()[0])
    assert row["skipped"] == 1 and row["loss"] == 0
    before, after = state_of(tmp_path / "start.sft")[1], state_of(tmp_path / "b.sft")[1]
    assert all(torch.allclose(before[k], after[k], rtol=1e-6, atol=0) for k in before)  # weight decay alone


def test_interrupting_keeps_what_was_learned(folder, tmp_path, monkeypatch):
    def interrupted(out, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "loss", interrupted)
    loop.train(folder, tmp_path / "new" / "a.sft", **TINY)
    assert state_of(tmp_path / "new" / "a.sft")[0]["steps"] == 0


def test_a_schedule_goes_on_from_the_file_alone_until_it_is_over(folder, tmp_path, monkeypatch):
    """Slices of one second each; the file holds the place, and the learning rate follows it."""
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    seen = []
    monkeypatch.setattr(loop, "rate", lambda done, step, *rest: seen.append((done, step, *rest)) or 1e-4)
    out, log = tmp_path / "a.sft", tmp_path / "log.jsonl"
    settings = {**TINY, "steps": 3, "batch": 1, "log": log, "resume": True}
    monkeypatch.setattr(loop.Pace, "goes_on", lambda self: self.step < 2 and self.done < 1)  # a slice holds two steps
    loop.train(folder, out, **settings)
    facts = state_of(out)[0]
    assert facts["progress"] == pytest.approx(2 / 3) and facts["steps"] == 2
    assert "paused" in log.read_text() and "final" not in log.read_text()
    loop.train(folder, out, **settings)
    facts, state = state_of(out)
    assert facts["progress"] == 1 and facts["steps"] == 3 and "final" in log.read_text()
    assert [round(done * 3) for done, *_ in seen] == [0, 1, 2] and [step for _, step, *_ in seen] == [0, 1, 0]
    assert [warm_up for *_, warm_up in seen] == [loop.WARMUP, loop.WARMUP, loop.REWARM]
    loop.train(folder, out, **settings)  # nothing is left to do
    assert len(seen) == 3 and all(
        (a == b).all() for a, b in zip(state.values(), state_of(out)[1].values(), strict=True)
    )


def test_a_step_reads_nothing_from_the_device(model, images):
    """Noise phase: drawing, forward, loss, backward, settling and metering copy no number to the host."""

    class Reads(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            name = func.__name__.split(".")[0]
            assert name not in {"_local_scalar_dense", "masked_select", "_unique2", "equal"}, name
            return func(*args, **(kwargs or {}))

    own = copy.deepcopy(model).requires_grad_(True)
    group, pictures, meter = Group(torch.device("cpu")), data.Pictures(images), record.Meter()
    gradients, draw, index = Gradients(own), data.draw(0, group.device), BaseIndex(8, 8)
    with Reads():
        batch = make_batch(pictures.crops(2, 128, draw), draw)
        value = loss(own(batch, index, True, False), batch)
        torch.autograd.backward(value)
        meter.add(value.detach(), value.detach(), value.detach(), gradients.settle(group))
    assert meter.read(1)[0]["norm"] > 0


@pytest.mark.parametrize(
    "bad", [{"size": "xl"}, {"crop": 100}, {"batch": 0}, {"steps": -1}, {"minutes": 0}, {"slice_minutes": 0.0}]
)
def test_bad_options_are_named(folder, tmp_path, bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        loop.train(folder, tmp_path / "a.sft", **{**TINY, **bad})
    assert list(tmp_path.iterdir()) == []


def test_the_rate_warms_up_and_falls():
    rates = [loop.rate(n / 1000, n, 1.0, loop.WARMUP) for n in range(1000)]
    assert rates[0] < 0.01 and max(rates) > 0.9 and rates[-1] < 0.02
    assert rates.index(max(rates)) < 2 * loop.WARMUP
