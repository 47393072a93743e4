"""From float twin to integers: what was trained is what is shipped, up to rounding."""

import numpy as np
import pytest
import torch

import foveal
from foveal import registry
from foveal.errors import InputError
from foveal.image.network import Network
from foveal.image.prior import BaseIndex, IntegerPrior
from foveal.image.rangecoder import Tables
from foveal.image.transform import BASE, LEVELS, SIZES, interpolate
from foveal.train import checkpoint, export, twin
from foveal.train.export import counts_of, fitted_tables, integer_prior, parametric_tables
from foveal.train.losses import ImageModel, rate_weight

LEVEL = 20  # a whole level, where rows of integer tables are not interpolated
GRID = (12, 16)


@pytest.fixture(scope="module")
def prior(model):
    ln_step = interpolate(model.ln_step, torch.arange(LEVELS, dtype=torch.float32))
    return IntegerPrior(integer_prior(model.prior, ln_step), model.size.cuts)


@pytest.fixture(scope="module")
def scene(model, images):
    """A picture's values in steps, as training sees them, and what the twin makes of its hyper-latent."""
    h, w = GRID
    pixels = images[0][:, : 16 * h, : 16 * w].float().view(3, h, 16, w, 16).permute(1, 3, 0, 2, 4).reshape(1, h, w, 768)
    level = torch.full((1, 1, 1), float(LEVEL))
    ln_step = interpolate(model.ln_step, level)
    v = model.shortcut(pixels) / ln_step.exp()
    z, _ = model.prior.hyper(model.hyper(v), level, False)
    z = (z * 64).round() / 64
    features = model.prior.spread_out(z, level, h, w, True).flatten(1, 2)
    return {"v": v.flatten(1, 2), "z": z, "features": features, "ln_step": ln_step, "level": level}


@pytest.fixture
def recorded(monkeypatch):
    """Means (in steps) and scale indices as the twin computes them, in order."""
    found = {"mean": [], "index": []}
    split, on_grid = twin.PriorTwin._split, twin.on_grid

    def see_split(self, out, spread):
        mean, index = split(self, out, spread)
        found["index"].append(index[0])
        return mean, index

    def see_mean(x, fake):
        found["mean"].append(on_grid(x, fake)[0])
        return on_grid(x, fake)

    monkeypatch.setattr(twin.PriorTwin, "_split", see_split)
    monkeypatch.setattr(twin, "on_grid", see_mean)
    return found


def agree(integer, mean, index):
    """Scale indices within one; means within rounding and the difference that an index makes."""
    own_mean, own_index = integer
    assert (own_index - index).abs().max() <= 1
    error = (own_mean / 64 - mean).abs()
    close = error <= 0.1 + 0.1 * mean.abs()
    assert close.float().mean() > 0.98
    assert error.max() <= 1 + 0.3 * mean.abs().max()


def test_hyper_latent(model, prior):
    mean, index = prior.hyper(16 * LEVEL)
    level = torch.tensor(float(LEVEL))
    expected = interpolate(model.prior.z_mean, level)
    exact = ((interpolate(model.prior.z_scale, level) - np.log(twin.SCALE_MIN)) / twin.SPACING).clamp(0, 63)
    assert (mean / 64 - expected).abs().max() <= 1 / 16 and (index - exact).abs().max() <= 1


def test_features(prior, scene):
    found = prior.features(scene["z"][0] * 64, 16 * LEVEL, *GRID)
    error = (found - scene["features"][0] * 64).abs()
    assert error.max() <= 4 and error.mean() < 0.5 and found.max() > 20


def test_base_layer(model, prior, scene, recorded):
    index, ln_step = BaseIndex(*GRID), scene["ln_step"].view(1, 1, -1)[..., :BASE]
    weight = torch.full_like(ln_step, 1.0)
    decoded, _ = model.prior.base(scene["v"][..., :BASE], scene["features"], ln_step, weight, index, False, True)
    values = torch.zeros_like(decoded[0])
    for number, tokens in enumerate(index.tokens):
        integer = prior.base(number, values * 64, scene["features"][0] * 64, index, 16 * LEVEL)
        agree(integer, recorded["mean"][number], recorded["index"][number])
        values[tokens] = decoded[0, tokens]


def test_slices(model, prior, scene, recorded):
    index, ln_step = BaseIndex(*GRID), scene["ln_step"].view(1, 1, -1).expand_as(scene["v"])
    base = (scene["v"][..., :BASE] * 64).round() / 64
    levels = torch.full((1, GRID[0] * GRID[1]), float(LEVEL))
    context = model.prior.context(base, scene["features"], levels, index.ring, True)
    weight = rate_weight(torch.tensor(float(LEVEL))) * ln_step.exp().square()
    coded = torch.ones(1, len(base[0]), dtype=torch.bool)
    values = model.prior.slices(scene["v"], base, context, ln_step, weight, coded, False, True)[0][0]
    at, which = torch.arange(len(values)), torch.zeros(len(values), dtype=torch.int64)
    own = prior.context(base[0] * 64, scene["features"][0] * 64, index.ring, [16 * LEVEL], which, at)
    assert (own - context[0] * 64).abs().max() <= 3
    spread, done = prior.spread([16 * LEVEL])[which], [prior.squash(values[:, :BASE] * 64)]
    for number, (a, b) in enumerate(zip(prior.cuts, prior.cuts[1:], strict=False)):
        agree(prior.slice(number, own, done, spread), recorded["mean"][number], recorded["index"][number])
        done.append(prior.squash(values[:, a:b] * 64))


def test_tables_are_those_of_the_density(model):
    probabilities, reach = parametric_tables(model.prior)
    counts = counts_of(probabilities, reach)
    tables = Tables(counts, reach, 0)
    assert (np.diff(reach) >= 0).all() and 1 <= reach[0] < reach[-1]
    assert all(
        (row[: 2 * k + 2] > 0).all() and (row[2 * k + 2 :] == 0).all() for row, k in zip(counts, reach, strict=True)
    )
    symbols, index = np.array([0, 1, -3, 20]), np.array([30, 30, 40, 60])
    bits = model.prior.density.bits(torch.from_numpy(symbols).double(), torch.from_numpy(index).double())
    np.testing.assert_allclose(tables.cost(symbols, index), bits, rtol=0.02)


def test_fitted_tables_follow_what_was_counted(model):
    histogram = np.zeros((64, 2 * export.REACH_MAX + 3), np.int64)
    histogram[20, export.REACH_MAX + 1] = 90_000
    histogram[20, export.REACH_MAX + 2] = 10_000  # plus ones only: the table is symmetrical all the same
    counts = counts_of(*fitted_tables(model.prior, histogram))
    reach = parametric_tables(model.prior)[1]
    row, k = counts[20], int(reach[20])
    assert row[k] / 65536 == pytest.approx(0.9, abs=0.01) and abs(row[k - 1] - row[k + 1]) <= 1
    plain = counts_of(*parametric_tables(model.prior))
    assert np.abs(counts[21] - plain[21]).max() <= 1


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A package of one model, with an empty weights folder."""
    caches = (registry.load, registry.digest_of, Network.load)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    monkeypatch.setattr(registry, "IDS", {"s": registry.IDS["s"]})
    for cache in caches:
        cache.cache_clear()
    yield tmp_path
    for cache in caches:
        cache.cache_clear()


def test_an_untrained_model_already_codes(model, images, shipped):
    """Calibration and export give a codec before the first training step."""
    facts = {"size": "s", "steps": 0, "kmac_encode": 1.0, "kmac_decode": 1.0}
    checkpoint.save(shipped / "start.sft", model.state_dict(), facts)
    export.export(shipped / "start.sft", shipped / "image-s.safetensors")
    rgb = images[3].permute(1, 2, 0).numpy()[:100, :120]
    sizes, quality = [], []
    for q in (10, 50, 90):
        data = foveal.compress(rgb, quality=q)
        error = np.square(np.asarray(foveal.decompress(data)).astype(float) - rgb).mean()
        sizes.append(len(data))
        quality.append(10 * np.log10(255**2 / error))
    assert sizes == sorted(sizes) and quality == sorted(quality) and quality[-1] > 28
    assert foveal.models()[0].name == "s"
    assert registry.load("s").facts["cuts"] == list(SIZES["s"].cuts)


def test_finish_stores_what_doctor_checks(model, images, shipped):
    from foveal.train.finish import finish

    checkpoint.save(shipped / "start.sft", model.state_dict(), {"size": "s"})
    out = finish(shipped / "start.sft", "s", [i[:, :96, :128] for i in images], {"note": "a test"})
    assert out == shipped / "image-s.safetensors"
    for cache in (registry.load, registry.digest_of, Network.load):
        cache.cache_clear()
    facts = registry.load("s").facts
    assert facts["note"] == "a test" and 3 < facts["kmac_decode"] < 12 and 3 < facts["kmac_encode"] < 12
    assert [c for c in foveal.selftest() if not c.ok] == []


def test_only_checkpoints_are_exported(tmp_path):
    (tmp_path / "no.sft").write_bytes(b"not a checkpoint")
    for path in (tmp_path / "no.sft", tmp_path / "absent.sft"):
        with pytest.raises(InputError, match="checkpoint"):
            export.export(path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_other_sizes_are_exported_too(tmp_path):
    checkpoint.save(tmp_path / "m.sft", ImageModel(SIZES["m"]).state_dict(), {"size": "m"})
    facts = export.export(tmp_path / "m.sft", tmp_path / "m.safetensors")
    assert facts["cuts"] == list(SIZES["m"].cuts)
