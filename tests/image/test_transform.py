"""Transforms: the DCT shortcut, windows over all and over visible tokens, and banding that leaves no seam."""

import numpy as np
import pytest
import torch

from foveal.image import network as network_module
from foveal.image import patches
from foveal.image.network import Network
from foveal.image.pieces import in_pieces
from foveal.image.transform import (
    BASE,
    SIZES,
    WINDOW,
    Analysis,
    GridWindows,
    PackedWindows,
    Shortcut,
    Size,
    Synthesis,
    interpolate,
    squash,
)

SMALL = Size(width=24, heads=3, encoder_blocks=3, detail=8, hyper=8, context=16)


def randomised(module, seed=0):
    """Every parameter away from its start, for the ends of residual branches start at zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += 0.1 * torch.randn(p.shape, generator=generator)
    return module.double().eval().requires_grad_(False)


def packed(visible):
    rows, cols = torch.nonzero(visible, as_tuple=True)
    return PackedWindows(rows, cols)


def psnr_db(a, b):
    return 10 * np.log10(255.0**2 / np.square(a.astype(np.float64) - b).mean())


# --- the shortcut ---


@pytest.fixture(scope="module")
def matrices():
    """The shortcut as two matrices (384, 768), got by feeding it unit pictures and unit coefficients."""
    shortcut = Shortcut(SIZES["s"]).double()
    analysis = shortcut(128.0 + torch.eye(768, dtype=torch.float64)).t()
    return analysis, shortcut.inverse(torch.eye(384, dtype=torch.float64)) - 128.0


def test_shortcut_is_a_transform_pair(matrices):
    analysis, synthesis = matrices
    assert analysis.shape == synthesis.shape == (384, 768)
    assert (analysis @ synthesis.t() - torch.eye(384)).abs().max() < 1e-6


def test_a_unit_error_costs_the_same_in_every_channel(matrices):
    energy = matrices[1].square().sum(1)
    torch.testing.assert_close(energy, torch.full_like(energy, 3.0), rtol=1e-5, atol=0)


def test_the_first_channels_are_the_thumbnail(matrices):
    analysis = matrices[0]
    flat = torch.full((3, 16, 16), 10.0, dtype=torch.float64)
    coefficients = analysis @ flat.flatten()
    assert coefficients[0] > 100 and coefficients[1:].abs().max() < 1e-2
    slope = (torch.arange(16.0, dtype=torch.float64) - 7.5).expand(3, 16, 16)
    for picture in (slope, slope.transpose(1, 2)):
        assert (analysis @ picture.flatten()).abs().argmax() in (3, 4)


def test_shortcut_is_invertible_on_a_photograph(photo):
    shortcut = Shortcut(SIZES["s"])
    shortcut.mean += torch.linspace(-5, 5, 384)
    tokens = torch.from_numpy(patches.split(photo)).float()
    back = shortcut.inverse(shortcut(tokens)).clamp(0, 255)
    assert psnr_db(tokens.numpy(), back.numpy()) > 40


def test_squash_is_odd_and_interpolate_hits_its_nodes():
    x = torch.tensor([-3.0, 0.0, 3.0])
    torch.testing.assert_close(squash(x), torch.tensor([-np.log(4.0), 0, np.log(4.0)], dtype=torch.float32))
    table = torch.arange(20.0).view(10, 2)
    torch.testing.assert_close(interpolate(table, torch.tensor([0.0, 9, 63])), table[[0, 1, 7]])
    torch.testing.assert_close(interpolate(table, torch.tensor(99.0)), table[8] + (table[9] - table[8]) * 7 / 9)
    torch.testing.assert_close(interpolate(table, torch.tensor(4.5)), (table[0] + table[1]) / 2)


# --- windows ---


@pytest.mark.parametrize("grid", [(1, 1), (8, 8), (13, 21), (24, 16)])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.95])
def test_packed_windows_equal_grid_windows(grid, share):
    """The encoder's cheap form, over visible tokens only, gives those what the trained form gives them."""
    analysis, (h, w) = randomised(Analysis(SMALL)), grid
    generator = torch.Generator().manual_seed(h * w)
    visible = torch.rand(h, w, generator=generator) >= share
    visible[h // 2, w // 2] = True
    x = torch.randn(h, w, SMALL.latent, dtype=torch.float64, generator=generator) * 30
    std = torch.ones(SMALL.latent, dtype=torch.float64)
    whole = torch.nn.functional.pad(x[None], (0, 0, 0, -w % WINDOW, 0, -h % WINDOW))
    dense = analysis(whole, std, GridWindows(visible[None]))[0, :h, :w][visible]
    sparse = analysis(x[visible], std, packed(visible))
    torch.testing.assert_close(sparse, dense, rtol=1e-9, atol=1e-9)
    assert (sparse[:, BASE:] - x[visible][:, BASE:]).abs().max() > 1e-3  # the network did something
    assert (sparse[:, :BASE] == x[visible][:, :BASE]).all()


@pytest.mark.parametrize("odd", [0, 1])
def test_join_inverts_split(odd):
    x = torch.randn(2, 16, 24, 3)
    windows = GridWindows(torch.ones(2, 16, 24, dtype=torch.bool))
    assert (windows.join(windows.split(x, odd), odd) == x).all()
    visible = torch.rand(13, 21) > 0.5
    some = packed(visible)
    tokens = torch.randn(int(visible.sum()), 3)
    assert (some.join(some.split(tokens, odd), odd) == tokens).all()


def test_a_window_reaches_no_further_than_its_halo():
    """A change in one token moves latents within one window per block, and no others."""
    analysis, blocks = randomised(Analysis(SMALL)), SMALL.encoder_blocks
    x = torch.randn(1, 64, 16, SMALL.latent, dtype=torch.float64)
    windows, std = GridWindows(torch.ones(1, 64, 16, dtype=torch.bool)), torch.ones(SMALL.latent).double()
    changed = x.clone()
    changed[0, 0] += 5
    rows = torch.nonzero((analysis(x, std, windows) != analysis(changed, std, windows)).any(-1).any(2)[0])
    assert WINDOW <= rows.max() < WINDOW * blocks


# --- the network ---


def test_a_dropped_token_changes_no_other_latent(network, photo):
    coefficients = network.coefficients(patches.split(photo), (10, 13))
    visible = np.random.default_rng(0).random(130) > 0.3
    changed = coefficients.clone()
    changed[~visible] += torch.randn(int((~visible).sum()), 384, dtype=torch.float64) * 100
    kept = network.analyse(coefficients, visible, (10, 13))
    other = network.analyse(changed, visible, (10, 13))
    assert (kept[visible] == other[visible]).all()
    assert (other[~visible] == changed[~visible]).all()


@pytest.fixture
def small_bands(monkeypatch):
    def bands(tokens):
        monkeypatch.setattr(network_module, "BAND", tokens)
        monkeypatch.setattr(network_module, "PIECE", tokens)

    return bands


def test_bands_leave_no_seam_in_analysis(network, small_bands):
    random = np.random.default_rng(1)
    grid = (70, 9)
    visible = random.random(630) > 0.2
    coefficients = torch.from_numpy(random.laplace(0, 20, (630, 384)))
    whole = network.analyse(coefficients, visible, grid), network.hyper_latent(coefficients, grid)
    small_bands(100)
    assert len(network_module._bands(*grid, 8, network_module.BAND)) > 3
    banded = network.analyse(coefficients, visible, grid), network.hyper_latent(coefficients, grid)
    for a, b in zip(whole, banded, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_bands_leave_no_seam_in_synthesis(network, small_bands):
    random = np.random.default_rng(2)
    grid = (70, 9)
    values = torch.from_numpy(random.laplace(0, 20, (630, 384)).round()).float()
    levels = torch.from_numpy(random.choice([500, 564, 628], 630))
    masked = torch.from_numpy(random.random(630) < 0.2)
    whole = network.synthesise(values, 500, levels, masked, grid)
    small_bands(100)
    banded = network.synthesise(values, 500, levels, masked, grid)
    assert whole.shape == (70 * 16, 9 * 16, 3)
    assert np.abs(whole.astype(int) - banded).max() <= 1


def test_a_halo_is_all_that_a_band_depends_on(network):
    """What lies beyond it changes nothing, what lies just inside does."""
    random, (h, w) = np.random.default_rng(3), (72, 8)
    values = torch.from_numpy(random.laplace(0, 20, (h * w, 384)).round()).float()
    levels, masked = torch.full((h * w,), 500), torch.zeros(h * w, dtype=torch.bool)
    own, halo = slice(32, 40), network_module.halo(SIZES["s"].decoder_blocks, 3)
    assert halo == 16

    def shown(changed: slice):
        other = values.clone()
        other.view(h, w, -1)[changed] += 2000
        return network.synthesise(other, 500, levels, masked, (h, w))[own.start * 16 - 16 : own.stop * 16 + 16]

    plain = shown(slice(0, 0))
    for outside in (slice(0, own.start - halo), slice(own.stop + halo, h)):
        assert np.array_equal(shown(outside), plain)
    assert not np.array_equal(shown(slice(own.start - halo, own.start - halo + 8)), plain)


@pytest.mark.parametrize(
    ("blocks", "reach", "rows"),
    [(0, 0, 0), (0, 1, 8), (1, 0, 0), (1, 1, 8), (2, 0, 8), (3, 3, 16), (4, 4, 16), (4, 5, 24)],
)
def test_halos_are_whole_windows(blocks, reach, rows):
    assert network_module.halo(blocks, reach) == rows


def test_pieces_are_the_whole():
    x, y = torch.arange(10.0)[:, None], torch.arange(10)
    seen = []

    def f(a, b):
        seen.append(len(a))
        return a + b[:, None]

    with torch.no_grad():
        assert torch.equal(in_pieces(f, 4, x, y), x + y[:, None])
    assert seen == [4, 4, 2]
    in_pieces(f, 4, x, y)
    assert seen[3:] == [10]  # where a gradient may be wanted they go together


def test_bands_tile_the_rows():
    for h, w in ((1, 1), (300, 2000), (4096, 500)):
        bands = network_module._bands(h, w, 16, network_module.BAND)
        assert [y for *_, start, end in bands for y in range(start, end)] == list(range(h))
        assert all(first % WINDOW == 0 and first <= start < end <= last for first, last, start, end in bands)
        assert max((last - first) * w for first, last, *_ in bands) < 2 * network_module.BAND + 100 * WINDOW * w


def test_untrained_synthesis_is_the_inverse_shortcut(photo):
    """All residual ends start at zero: what remains is linear, so training starts from a codec."""
    size = SIZES["s"]
    shortcut, synthesis = Shortcut(size), Synthesis(size).eval()
    tokens = torch.from_numpy(patches.split(photo)).float()
    latents = shortcut(tokens).view(1, 10, 13, -1)
    whole = torch.ones(1, 10, 13, dtype=torch.bool)
    with torch.no_grad():
        out = synthesis(latents, torch.full((1, 10, 13), 20.0), ~whole, shortcut, GridWindows(whole))
    assert out.shape == (1, 3, 160, 208)
    assert psnr_db(photo.transpose(2, 0, 1)[None], out.clamp(0, 255).numpy()) > 40


def test_the_thumbnail_keeps_the_pictures_step_whatever_the_classes(network):
    """With every token in class 2, base values are still in steps of the picture's level."""
    grid, values = (2, 2), torch.zeros(4, 384)
    values[:, 0] = 48.0
    none = torch.zeros(4, dtype=torch.bool)
    same = network.synthesise(values, 300, torch.full((4,), 300), none, grid)
    finer = network.synthesise(values, 300, torch.full((4,), 364), none, grid)
    other = network.synthesise(values, 364, torch.full((4,), 364), none, grid)
    assert np.abs(same.astype(float) - finer).mean() < np.abs(other.astype(float) - finer).mean()


def test_network_is_loaded_once():
    assert Network.load("s") is Network.load("s")
