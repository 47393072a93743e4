"""Training of the restoration network on a few pairs: losses, the loop, its restarts, evaluation and export."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from foveal.errors import InputError
from foveal.train import checkpoint, video_export, video_loop, video_pairs, video_unfold, video_workers
from foveal.train.video_evaluate import band, gains, psnr_y, table
from foveal.train.video_losses import TYPICAL, charbonnier, loss, ms_ssim, plain, residual_of, restored, told, worth
from foveal.train.video_unfold import published, unfold
from foveal.video import attention_sr
from foveal.video.attention_sr import SIZES, AttentionSR, network_input, quality_plane

TINY = {"steps": 2, "batch": 4, "crop": 16, "threads": 1}


@pytest.fixture
def pool(pairs, tmp_path):
    path = tmp_path / "pool.safetensors"
    video_pairs.save(path, pairs)
    return path


def run(pool, out, **more):
    return video_loop.train(pool.parent, out, pool=pool, **{**TINY, **more})


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_losses_are_zero_for_equal_pictures_and_grow():
    x = torch.rand(2, 1, 40, 40)
    planes = (x, x[..., ::2, ::2], x[..., 1::2, ::2])
    assert loss(planes, planes, True).item() == pytest.approx(0, abs=1e-6)
    assert ms_ssim(x, x).item() == pytest.approx(1, abs=1e-5)
    noisy = [(x + s * torch.randn_like(x)).clamp(0, 1) for s in (0.05, 0.2)]
    assert 1 > ms_ssim(noisy[0], x) > ms_ssim(noisy[1], x) > 0
    assert charbonnier(x, x + 0.1).item() == pytest.approx(0.0414, abs=1e-3)
    worse = (noisy[0], *planes[1:])
    assert loss(worse, planes, True) > loss(worse, planes, False) > 0


@pytest.mark.parametrize("mode", ["x2", "x1"])
def test_the_same_share_of_the_error_counts_alike_in_good_and_bad_samples(pairs, mode):
    batch = next(video_pairs.batches(pairs[f"train.{mode}"], 8, 16, np.random.default_rng(0)))
    start = plain(batch.y, batch.u, batch.v, mode)
    left = (start[0] - batch.target[0]).square().mean((1, 2, 3))
    counts = worth(batch, mode)
    assert counts.shape == (8, 1, 1, 1)
    assert (counts.flatten()[left.argsort()].diff() <= 0).all()
    assert (left * counts.flatten()).max() < TYPICAL  # no sample rules the others, however bad it is
    unweighted, weighted = (loss(start, batch.target, False, w) for w in (1.0, counts))
    assert unweighted != weighted


@pytest.mark.parametrize("mode", ["x2", "x1"])
def test_an_untrained_network_is_plain_lanczos(pairs, mode):
    batch = next(video_pairs.batches(pairs[f"train.{mode}"], 4, 16, np.random.default_rng(0)))
    shown = restored(AttentionSR(SIZES["s"], mode), batch, batch.quality, True)
    for a, b in zip(shown, plain(batch.y, batch.u, batch.v, mode), strict=True):
        assert (a == b).all()


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # torch's own, while it compiles
def test_compiled_gradients_are_those_of_fp32_about(pairs):
    """In bf16, fused, the gradient of torch's ``amax`` is not a number: a maximum no longer equals what it is one of."""
    batch = next(video_pairs.batches(pairs["train.x2"], 4, 32, np.random.default_rng(0)))
    found = []
    for way, half_precision in ((residual_of, False), (torch.compile(residual_of, dynamic=False), True)):
        torch.manual_seed(0)
        network = AttentionSR(SIZES["s"], "x2").to(memory_format=torch.channels_last)
        torch.nn.init.normal_(network.end.weight, 0, 0.05)
        loss(restored(network, batch, batch.quality, half_precision, way), batch.target, False).backward()
        found.append({name: p.grad for name, p in network.named_parameters()})
    for name in ("head.weight", "widen.weight", "squeeze.weight", "look.weight", "reduce.weight", "end.weight"):
        exact, fused = (gradients[name] for gradients in found)
        assert (fused - exact).norm() < 0.25 * exact.norm(), name


def test_channel_attention_pools_over_groups(pairs):
    """A group is pooled as one picture: the same as the network on all crops side by side, away from their seams."""
    made = pairs["train.x2"]
    torch.manual_seed(0)
    network = AttentionSR(SIZES["s"], "x2").eval()
    torch.nn.init.normal_(network.end.weight, 0, 0.1)
    batch = next(b for b in video_pairs.batches(made, 4, 32, np.random.default_rng(0)) if b.group == 4)
    with torch.no_grad():
        _, u, _ = restored(network, batch, batch.quality, False)
        start = plain(batch.y, batch.u, batch.v, "x2")
        inputs = network_input(batch.y, start[1], start[2], batch.quality, "x2")
        pooled = network.attention_pool(torch.cat(list(network.features(inputs)), -1)[None])
        alone = network(inputs[2:3], pooled)
    assert torch.allclose(u[2] - start[1][2], alone[0, 4:5], atol=1e-5) and (u[2] != start[1][2]).any()


def test_quality_is_told_or_forgotten_by_groups():
    """Unknown is -1; what was enlarged from two thirds is 2 higher, as in the receiver."""
    torch.manual_seed(0)
    none = torch.zeros(0)
    scale = torch.tensor([1.0, 1.5]).repeat_interleave(200)
    batch = video_pairs.Batch(none, none, none, (none, none, none), torch.full((400,), 0.5), scale, 4)
    groups = told(batch, 0.3).view(-1, 4)
    assert (groups == groups[:, :1]).all()
    for part, enlarged in ((groups[:50, 0], 1.0), (groups[50:, 0], 1.5)):
        known, unknown = quality_plane(0.5, enlarged), quality_plane(None, enlarged)
        assert set(part.tolist()) == {known, unknown} and 5 < (part == unknown).sum() < 25
    assert [quality_plane(None, s) for s in (1, 1.5, 2)] == [-1, 1, -1]


def test_gains_are_counted_for_each_codec_and_band(pairs):
    made = pairs["train.x2"]
    network = AttentionSR(SIZES["s"], "x2").train()
    found = gains(network, made)
    assert network.training and found.shape == (24, 3) and (found[:, 0] == found[:, 1]).all()
    rows = table(found, made)
    assert rows["all"][0] == 24 and rows["all"][2:] == [0, 0]
    assert sum(rows[c.name][0] for c in video_pairs.CODERS if c.name in rows) == 24
    assert sum(row[0] for name, row in rows.items() if name.endswith("crf")) == 24
    assert rows["scale 2"] == rows["all"]
    assert [band(crf, 0) for crf in (18, 26, 27, 34, 35, 42)] == [0, 0, 1, 1, 2, 2]
    assert psnr_y(torch.zeros(1, 1, 4, 4), torch.full((1, 1, 4, 4), 1.0)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("mode", ["x2", "x1"])
def test_training_undoes_what_was_done(pairs, tmp_path, mode):
    """Inputs that are 12 levels too dark are brightened after few steps, on pairs not trained on too."""
    dark = {k: dataclasses.replace(p, y=(p.y.clamp(28, 220) - 12)) for k, p in pairs.items()}
    video_pairs.save(tmp_path / "dark.safetensors", dark)
    out = run(tmp_path / "dark.safetensors", tmp_path / "a.sft", mode=mode, steps=60, lr=4e-3, log=tmp_path / "log")
    network, facts = video_export.restore_checkpoint(out)
    assert facts["steps"] == 60 and facts["pixels"] == 60 * 4 * 32 * 32 and facts["mode"] == network.mode == mode
    for part in ("train", "held"):
        before, after, _ = gains(network, dark[f"{part}.{mode}"]).mean(0).tolist()
        assert after > before + 2


def test_the_loop_logs_and_restarts(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(video_loop, "LOG_EVERY", 1)
    monkeypatch.setattr(video_loop, "SAVE_EVERY", 2)
    out, log = tmp_path / "a.sft", tmp_path / "log.jsonl"
    assert run(pool, out, log=log) == out
    begun, *rows = rows_of(log)
    assert begun["size"] == "s" and begun["mode"] == "x2" and begun["start"] == 0 and begun["pairs"] == 24
    assert [r["step"] for r in rows] == [1, 2, 2, 2] and rows[-1]["final"] and rows[-1]["gain_db"]["all"][0] == 2
    assert all(r["skipped"] == 0 and r["loss"] > 0 for r in rows[:2])
    first = checkpoint.load(out, AttentionSR(SIZES["s"], "x2"))
    run(pool, out, weights=out, log=log, steps=1)
    again = checkpoint.load(out, AttentionSR(SIZES["s"], "x2"))
    assert (first["steps"], again["steps"]) == (2, 3)


def test_statistics_are_frozen_late(pool, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(video_loop, "WARMUP", 1)

    def spy(network, *rest):
        shown = restored(network, *rest)
        counts.append(int(network.blocks[0].norms[0].num_batches_tracked))
        return shown

    monkeypatch.setattr(video_loop, "restored", spy)
    run(pool, tmp_path / "a.sft", steps=8)
    assert counts == [1, 2, 3, 4, 5, 6, 6, 6]


def test_steps_that_are_not_finite_are_skipped(pool, tmp_path, monkeypatch):
    monkeypatch.setattr(video_loop, "LOG_EVERY", 1)
    monkeypatch.setattr(video_loop, "loss", lambda *a: loss(*a) * float("nan"))
    run(pool, tmp_path / "a.sft", log=tmp_path / "log.jsonl", steps=1)
    assert rows_of(tmp_path / "log.jsonl")[1]["skipped"] == 1
    network, _ = video_export.restore_checkpoint(tmp_path / "a.sft")
    assert not network.end.weight.any()


def test_structure_counts_from_the_share_that_was_asked_for(pool, tmp_path, monkeypatch):
    asked = []

    def spy(shown, target, structure, worth):
        asked.append(structure)
        return loss(shown, target, structure, worth)

    monkeypatch.setattr(video_loop, "loss", spy)
    for share in (0.5, 1.0):
        run(pool, tmp_path / "a.sft", steps=4, structure_from=share)
    assert asked == [False, False, True, True] + 4 * [False]


def test_interrupting_keeps_what_was_learned(pool, tmp_path, monkeypatch):
    def interrupted(*a):
        raise KeyboardInterrupt

    monkeypatch.setattr(video_loop, "loss", interrupted)
    run(pool, tmp_path / "a.sft", log=tmp_path / "log.jsonl")
    assert any(r.get("interrupted") for r in rows_of(tmp_path / "log.jsonl"))
    assert video_export.restore_checkpoint(tmp_path / "a.sft")[1]["steps"] == 0


@pytest.mark.parametrize("mode", ["x2", "x1"])
def test_the_pool_is_made_once_from_a_folder(folder, tmp_path, monkeypatch, mode):
    monkeypatch.setattr(video_pairs, "SIDE", 128)
    monkeypatch.setattr(video_pairs, "FRAMES", 3)
    monkeypatch.setattr(video_workers, "SMALLEST", 32)
    pool = tmp_path / "pool.safetensors"
    more = {"pool": pool, "mode": mode, "log": tmp_path / "log.jsonl", **TINY}
    video_loop.train(folder, tmp_path / "a.sft", pairs=4, **more)
    made = pool.read_bytes()
    assert set(video_pairs.load(pool)) == {f"train.{mode}", f"held.{mode}"}
    video_loop.train(tmp_path / "not read", tmp_path / "a.sft", **more)
    assert pool.read_bytes() == made


@pytest.mark.parametrize(
    "bad", [{"size": "xl"}, {"mode": "x3"}, {"crop": 15}, {"crop": 8}, {"batch": 0}, {"steps": -1}, {"minutes": 0}]
)
def test_bad_options_are_named(pool, tmp_path, bad):
    with pytest.raises(InputError, match=next(iter(bad))):
        run(pool, tmp_path / "a.sft", **bad)
    assert not (tmp_path / "a.sft").exists()


def test_the_rate_warms_up_and_falls_to_zero(pool, tmp_path, monkeypatch):
    rates, whole = [], torch.optim.AdamW.step
    monkeypatch.setattr(video_loop, "WARMUP", 4)

    def spy(self, *args, **kwargs):
        rates.append(self.param_groups[0]["lr"])
        return whole(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", spy)
    run(pool, tmp_path / "a.sft", steps=40, lr=1.0e-3)
    assert len(rates) == 40 and rates[0] == pytest.approx(2.5e-4, rel=0.01) and max(rates) > 9e-4
    assert rates[-1] < 5e-6 and rates[5:] == sorted(rates[5:], reverse=True)


def test_both_modes_are_published_into_one_file(pool, tmp_path, monkeypatch):
    weights = tmp_path / "weights"
    weights.mkdir()
    monkeypatch.setattr(attention_sr, "WEIGHTS", weights)
    attention_sr.load_weights.cache_clear()
    half, same = (run(pool, tmp_path / f"{m}.sft", mode=m, log=tmp_path / "log.jsonl") for m in ("x2", "x1"))
    assert "x2, " in video_export.publish([half])
    first = attention_sr.load_weights("s", "x2")
    assert "x1, x2" in video_export.publish([same])
    assert [p.name for p in weights.iterdir()] == ["video-s.safetensors"]
    x = torch.randn(1, 4, 8, 8)
    assert (attention_sr.load_weights("s", "x2")(x) == first(x)).all()
    trained, _ = video_export.restore_checkpoint(half)
    assert torch.allclose(first(x), trained.eval()(x), atol=2e-3)
    assert attention_sr.load_weights("s", "x1").mode == "x1"
    attention_sr.load_weights.cache_clear()


@pytest.mark.parametrize("size", ["s", "l"])
def test_training_goes_on_from_published_weights(pool, tmp_path, monkeypatch, size):
    """Norms are put back so that the network does what the folded one does; steps count on."""
    monkeypatch.setattr(video_loop, "SAVE_EVERY", 9)
    log = tmp_path / "log.jsonl"
    first = run(pool, tmp_path / "a.sft", size=size, steps=6, lr=0.05, log=log)
    weights = tmp_path / f"video-{size}.safetensors"
    video_export.publish([first], weights)
    folded = attention_sr.read_weights(weights, size, "x2")
    torch.manual_seed(0)
    x = torch.rand(4, 4, 16, 16)
    network = unfold(weights, SIZES[size], "x2", x)
    assert network.blocks[0].norms is not None and folded(x).abs().max() > 1e-3
    for mode in (network.eval(), network.train()):  # with stored statistics, and with those of the same pictures
        assert torch.allclose(mode(x), folded(x), atol=1e-3 * folded(x).abs().max().item())
    out = run(pool, tmp_path / "b.sft", size=size, weights=weights, steps=1, log=log)
    assert checkpoint.load(out, AttentionSR(SIZES[size], "x2"))["steps"] == 7
    assert published(weights)["x2"]["steps"] == 6 and published(first) == {}


def test_checkpoints_that_do_not_belong_together_are_refused(pool, tmp_path):
    half = run(pool, tmp_path / "a.sft", log=tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="one of each mode"):
        video_export.publish([half, half], tmp_path / "w.safetensors")
    (tmp_path / "other.sft").write_bytes(b"something else")
    with pytest.raises(InputError, match="not a training checkpoint"):
        video_export.publish([tmp_path / "other.sft"])
    checkpoint.save(tmp_path / "image.sft", {"x": torch.zeros(1)}, {"size": "s"})
    with pytest.raises(InputError, match="restoration network"):
        video_export.publish([tmp_path / "image.sft"])


@pytest.mark.parametrize(("old", "new"), [("x2", "x1"), ("x1", "x2")])
def test_training_goes_on_from_a_checkpoint_of_the_other_mode(pool, tmp_path, monkeypatch, old, new):
    """It begins with plain resampling; of a picture without detail, features are what they were."""
    first = run(pool, tmp_path / "old.sft", mode=old)
    before, _ = video_export.restore_checkpoint(first)
    begun, facts = video_unfold.begun(first, SIZES["s"], new)
    assert begun.mode == new and facts == {"begun": {"mode": old, "steps": 2}}
    flat = torch.tensor([0.2, 0.1, -0.1, 0.5])[None, :, None, None].expand(1, 4, 12, 12)
    planes = {"x2": flat, "x1": torch.cat([flat[:, :1].expand(-1, 4, -1, -1), flat[:, 1:]], 1)}
    assert torch.allclose(begun.eval().features(planes[new]), before.eval().features(planes[old]), atol=1e-5)
    assert not begun(planes[new]).any()
    again = run(pool, tmp_path / "new.sft", mode=new, weights=first, steps=8)
    network, known = video_export.restore_checkpoint(again)
    assert network.mode == new and known["steps"] == 8 and known["begun"]["mode"] == old
    assert network.end.weight.any()
    with pytest.raises(InputError, match="of this size"):
        video_unfold.begun(first, SIZES["m"], new)
