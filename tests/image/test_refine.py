"""Efforts 6 to 10: latents and thumbnail refined against the decoder's pixels and the symbols behind them."""

import numpy as np
import pytest
import torch
from PIL import Image

import foveal
from foveal.image import finish, foresight, postfilter, quantize, refine, thrift, transform
from foveal.image import network as networks
from foveal.image.encoder import Encoder
from foveal.image.network import Network
from foveal.image.quantize import CARE


@pytest.fixture(scope="module")
def crop(request):
    with Image.open(request.config.rootpath / "demo" / "dog.png") as image:
        return np.asarray(image.convert("RGB"))[200:360, 150:342]


def cost(rgb, **options):
    """Bits per pixel + lambda * squared error, of the decoded file."""
    data = foveal.compress(rgb, keep="all", **options)
    level = quantize.level_of(options["quality"])
    error = np.square(np.asarray(foveal.decompress(data)).astype(float) - rgb).mean()
    return 8 * len(data) / (rgb.size / 3) + quantize.rate_weight(level) * error


@pytest.mark.parametrize("quality", [50, 80])
def test_refinement_lowers_rate_plus_distortion(crop, quality):
    plain, optimised, refined = (cost(crop, quality=quality, effort=e) for e in (3, 4, 8))
    assert refined < min(optimised, plain)


@pytest.mark.parametrize("model", ["s", "m"])
def test_every_effort_is_worth_its_time(crop, model):
    found = [cost(crop, quality=40, effort=e, model=model) for e in (4, 6, 8, 10)]
    assert found == sorted(found, reverse=True) and len(set(found)) == 4


@pytest.mark.parametrize("without", ["FOLLOWED", "STRIDE"])
def test_both_gradients_are_worth_following(crop, monkeypatch, without):
    both = cost(crop, quality=40, effort=8)
    monkeypatch.setattr(refine, without, 0.0)
    assert both < cost(crop, quality=40, effort=8)


def test_slopes_say_what_later_symbols_cost(crop):
    """Thumbnail moved along the slopes and against them: the symbols predicted from it, chosen anew each time, cost more
    and less, by about as much as the slopes say."""
    encoder, level = Encoder(Network.load("s"), crop, np.ones((10, 12), np.uint8), 4, 1), 500
    classes, every = np.ones((10, 12), np.uint8), np.arange(120)
    latents, base = encoder.latents(classes), encoder.base(level, encoder.coefficients)
    which = torch.ones(120, dtype=torch.int64)
    price = encoder.prices(level, which, torch.arange(120))

    def later(values):
        coded, _ = encoder.slices(level, latents, classes, base._replace(values=values), every)
        total, start = 0.0, 6
        for symbols, index, residual in coded:
            end = start + symbols.shape[1]
            total += encoder.network.tables.cost(symbols, index).sum()
            total += (price[:, start:end] * (residual - symbols) ** 2).sum()
            start = end
        return total, coded

    now, coded = later(base.values)
    slopes = foresight.slopes(
        encoder.network, base.values, base.features, encoder.index, quantize.class_levels(level), which,
        torch.arange(120), coded, price,
    )[1]  # fmt: skip
    way = (slopes / slopes.abs().max() * 24).round().float()
    told = float((slopes * way).sum()) / 64
    up, down = (later(base.values + sign * way)[0] - now for sign in (1, -1))
    assert up > 0 > down
    assert 0.5 < (up - down) / 2 / told < 2


@pytest.mark.parametrize("model", ["s", "m"])
def test_bands_leave_no_seam_in_the_targets(monkeypatch, model):
    network, random = Network.load(model), np.random.default_rng(0)
    shape, level = (72, 9), 500
    rgb = random.integers(0, 256, (72 * 16 - 5, 9 * 16, 3), np.uint8)
    values = torch.from_numpy(random.integers(-100, 100, (72 * 9, network.size.latent)).astype(np.float32))
    levels, dropped = torch.full((72 * 9,), level), torch.from_numpy(random.random(72 * 9) < 0.2)
    taps, worth = random.integers(-8, 8, postfilter.COUNT), random.uniform(0.5, 2, shape)

    def found():
        return network.targets(values, level, levels, dropped, shape, rgb, taps, worth)

    whole, errors = found()
    monkeypatch.setattr(networks, "GRADIENT_BAND", 1)  # rows of one window
    monkeypatch.setattr(finish, "WHOLE", 1)
    monkeypatch.setattr(finish, "TILE", (128, 48))  # eight patches by three
    banded, same = found()
    assert same.sum() == pytest.approx(errors.sum(), rel=1e-5)
    assert same == pytest.approx(errors, rel=1e-3)
    calm = values / 8  # the picture stays between 0 and 255
    shown = networks.to_bytes(torch.cat([b.pixels for b in network.rendered(calm, level, levels, dropped, shape)], 1))
    plain = network.targets(calm, level, levels, dropped, shape, rgb, None, np.ones(shape))[1]
    missed = np.square(shown[: len(rgb)].astype(float) - rgb).mean(2)
    assert plain.reshape(shape)[3, 5] == pytest.approx(missed[48:64, 80:96].sum(), rel=0.002)
    assert plain.sum() == pytest.approx(missed.sum(), rel=0.002)
    assert (banded - whole).abs().max() < 1e-3 * (whole - values.double()).abs().max()


@pytest.mark.parametrize("model", ["s", "m"])
def test_blocks_that_are_computed_again_give_the_same_targets(monkeypatch, model):
    network, random = Network.load(model), np.random.default_rng(0)
    rgb = random.integers(0, 256, (160, 144, 3), np.uint8)
    values = torch.from_numpy(random.integers(-100, 100, (90, network.size.latent)).astype(np.float32))
    levels, dropped = torch.full((90,), 500), torch.from_numpy(random.random(90) < 0.2)
    counted = []
    monkeypatch.setattr(
        transform.Block, "_attended", lambda *a, f=transform.Block._attended: counted.append(1) or f(*a)
    )

    def found():
        counted.clear()
        return network.targets(values, 500, levels, dropped, (10, 9), rgb, None, np.ones((10, 9)))

    once, blocks = found(), len(counted)
    monkeypatch.setattr(transform, "KEPT", 0)
    again = found()
    assert (len(counted), blocks) == (2 * blocks, network.size.decoder_blocks)
    assert torch.equal(once[0], again[0]) and np.array_equal(once[1], again[1])


def test_trials_keep_for_every_patch_what_costs_it_less(crop, monkeypatch):
    """The better of both where two are known, and none of the trials where all cost more."""
    torch.manual_seed(0)
    costs = np.random.default_rng(0).random((2, 120))
    one, other = (refine.Kept(a, cost, b, c) for cost, (a, b, c) in zip(costs, torch.rand(2, 3, 120, 5), strict=True))
    both = one.or_better(other)
    for number in range(120):
        best = other if other.cost[number] < one.cost[number] else one
        assert both.cost[number] == best.cost[number]
        for found, wanted in ((both.tried, best.tried), (both.values, best.values), (both.wanted, best.wanted)):
            assert (found[number] == wanted[number]).all()
    encoder = Encoder(Network.load("s"), crop.copy(), np.ones((10, 12), np.uint8), 10, 1)
    level = quantize.level_of(40)
    base, latents = encoder.base(level, encoder.coefficients), encoder.latents(encoder.forced)
    monkeypatch.setattr(refine, "NOISE", 1e3)
    found = refine._Search(encoder, level, encoder.forced).trials(latents, base, 2)
    assert (found == latents).all()


def test_dropped_patches_and_the_thumbnail_are_not_tried(crop):
    classes = np.ones((10, 12), np.uint8)
    classes[:, 6:] = 0
    encoder = Encoder(Network.load("s"), crop.copy(), classes, 10, 1)
    level = quantize.level_of(40)
    base, latents = encoder.base(level, encoder.coefficients), encoder.latents(classes)
    found = refine._Search(encoder, level, classes).trials(latents, base, 4)
    moved = (found != latents).numpy()
    kept = (classes > 0).ravel()
    assert moved[kept].any() and not moved[~kept].any() and not moved[:, :6].any()


def test_refinement_leaves_dropped_patches_out(crop):
    mask = np.zeros((10, 12), bool)
    mask[:, 6:] = True
    data = foveal.compress(crop, mask=mask, effort=6)
    assert foveal.inspect(data).dropped == 60
    assert foveal.decompress(data).size == (192, 160)


def test_careful_rounding_keeps_more_symbols(crop):
    """What later slices are predicted from is not given up for its own bits alone."""
    encoder, kept = Encoder(Network.load("s"), crop, np.ones((10, 12), np.uint8), 4, 1), {}
    for encoder.care in (1.0, CARE, 3.0):
        seen = []
        encoder.at(500, lambda symbols, _, seen=seen: seen.append(np.count_nonzero(symbols)), finish=False)
        kept[encoder.care] = sum(seen)
    assert kept[1.0] < kept[CARE] < kept[3.0]


def test_auto_keeps_a_patch_that_loses_less_than_its_mask_costs(monkeypatch):
    """Patches whose symbols cost a little more than they are worth are kept; without the margin they are dropped."""
    random = np.random.default_rng(0)
    clouds = np.array(Image.fromarray(random.normal(0, 1, (64, 64)).astype(np.float32)).resize((256, 256)))
    rgb = np.clip(120 + 12 * clouds, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)
    encoder, dropped = Encoder(Network.load("s"), rgb, None, 3, 1), []
    for margin in (0.0, thrift.MASKED, 1e6):
        monkeypatch.setattr(thrift, "MASKED", margin)
        dropped.append(int((encoder.at(300, finish=False).classes == 0).sum()))
    assert dropped[0] > dropped[1] > dropped[2] == 0
