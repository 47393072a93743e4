"""The restoration network: plain at first, the parts of the patent, folding, tiles, sizes, and its weights files."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from foveal.errors import InputError, UnknownModelError
from foveal.video import attention_sr as sr
from foveal.video.attention_sr import MODES, SIZES, AttentionSR

VARIANTS = {
    "serial": {},
    "parallel": {"parallel": True},
    "no channel attention": {"channel": False},
    "no spatial attention": {"spatial": False},
    "no norm": {"norm": False},
    "two convolutions": {"convs": 2},
}


def lively(size, mode, seed=0):
    """A network in evaluation whose weights and statistics are not those it starts with."""
    torch.manual_seed(seed)
    network = AttentionSR(size, mode)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
            module.running_mean.normal_()
            module.running_var.uniform_(0.3, 2)
    nn.init.normal_(network.end.weight, 0, 0.05)
    nn.init.normal_(network.end.bias, 0, 0.05)
    return network.eval().requires_grad_(False)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", SIZES)
def test_untrained_is_plain(size, mode):
    network = AttentionSR(SIZES[size], mode).eval()
    with torch.no_grad():
        out = network(torch.randn(1, MODES[mode], 12, 14))
    assert out.shape == (1, 6, 12, 14) and not out.any()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_folded_agrees_to_1e_5(variant, mode):
    network = lively(replace(SIZES["s"], **VARIANTS[variant]), mode)
    folded, x = network.fold(), torch.randn(2, MODES[mode], 20, 24) / 2
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    out = network(x)
    assert out.abs().max() > 0.05
    assert (folded(x) - out).abs().max() < 1e-5
    assert (folded.fold()(x) - folded(x)).abs().max() == 0


def test_training_statistics_do_not_reach_the_fold():
    network = lively(SIZES["s"], "x2")
    before = network.fold().state_dict()
    network.train()(torch.randn(4, 4, 16, 16))
    after = network.fold().state_dict()
    assert any((before[k] != after[k]).any() for k in before if k.startswith("blocks"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", ["s", "m"])
def test_a_tile_with_halo_equals_its_part_of_the_whole(size, mode):
    network = lively(SIZES[size], mode).fold()
    x = torch.randn(1, MODES[mode], 48, 52) / 2
    pooled = network.attention_pool(network.features(x))
    whole, r = network(x), network.reach
    tile = network(x[..., 16 - r : 32 + r, 16 - r : 30 + r], pooled)[..., r:-r, r:-r]
    assert (tile - whole[..., 16:32, 16:30]).abs().max() < 1e-5
    corner = network(x[..., : 16 + r, : 18 + r], pooled)[..., :16, :18]
    assert (corner - whole[..., :16, :18]).abs().max() < 1e-5


@pytest.mark.parametrize("size", ["s", "m"])
def test_reach_is_exactly_how_far_a_sample_sees(size):
    network = lively(SIZES[size], "x2").fold().double()
    x = torch.randn(1, 4, 41, 41, dtype=torch.float64, requires_grad=True)
    pooled = tuple(p.detach() for p in network.attention_pool(network.features(x)))
    network(x, pooled)[0, :, 20, 20].sum().backward()
    seen = x.grad.abs().sum((0, 1)).nonzero()
    assert seen.amin(0).tolist() == [20 - network.reach] * 2 and seen.amax(0).tolist() == [20 + network.reach] * 2


def test_pools_of_tiles_make_the_pool_of_the_frame():
    network = lively(SIZES["s"], "x2")
    features = network.features(torch.randn(1, 4, 24, 32))
    mean, top = network.attention_pool(features)
    parts = [network.attention_pool(p) for p in features.split((8, 24), 3)]
    assert torch.allclose(mean, parts[0][0] * 0.25 + parts[1][0] * 0.75, atol=1e-6)
    assert (top == torch.maximum(parts[0][1], parts[1][1])).all()


def test_attention_is_what_the_patent_says():
    """Shared two-layer network on mean and maximum, sum, sigmoid; then mean and maximum over channels, 7x7, sigmoid."""
    network = lively(SIZES["s"], "x2")
    f = network.features(torch.randn(1, 4, 10, 11))

    def shared(v):
        return network.excite(nn.functional.leaky_relu(network.squeeze(v), sr.LEAK))

    channel = torch.sigmoid(shared(f.mean((2, 3))) + shared(f.amax((2, 3))))[..., None, None]
    x = f * channel
    spatial = torch.sigmoid(network.look(torch.stack([x.mean(1), x.amax(1)], 1)))
    assert network.look.kernel_size == (7, 7) and spatial.shape == (1, 1, 10, 11)
    assert torch.allclose(network.attend(f), network.reduce(x * spatial), atol=1e-5)


def test_what_is_switched_off_is_gone():
    x = torch.randn(1, 4, 12, 12)
    nets = {name: lively(replace(SIZES["s"], **change), "x2") for name, change in VARIANTS.items()}
    assert not hasattr(nets["no channel attention"], "squeeze") and not hasattr(nets["no spatial attention"], "look")
    nets["parallel"].load_state_dict(nets["serial"].state_dict())
    assert (nets["parallel"](x) - nets["serial"](x)).abs().max() > 1e-6
    assert nets["no spatial attention"].reach == nets["serial"].reach - 3


@pytest.mark.parametrize(("size", "parameters", "kmac"), [("s", 28e3, 4.8), ("m", 116e3, 21), ("l", 0.9e6, 191)])
def test_sizes_are_within_their_budgets(size, parameters, kmac):
    network = AttentionSR(SIZES[size], "x2").eval()
    assert 0.9 * parameters < network.parameters_count < parameters
    assert 0.9 * kmac < network.kmac_per_pixel <= kmac
    counted = []

    def count(module, _, out):
        counted.append(module.weight.numel() * out.shape[2] * out.shape[3])

    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module is not network.reduce:
            module.register_forward_hook(count)
    with torch.no_grad():
        network(torch.zeros(1, 4, 16, 16))
    counted.append(network.reduce.weight.numel() * 256)
    assert sum(counted) / 32**2 / 1000 == pytest.approx(network.kmac_per_pixel)


def test_inputs_are_planes_on_the_work_grid():
    y, u, v = torch.full((2, 1, 8, 10), 0.75), torch.full((2, 1, 8, 10), 0.25), torch.full((2, 1, 8, 10), 0.5)
    x = sr.network_input(y, u, v, torch.tensor([0.3, 0.6]), "x2")
    assert x.shape == (2, 4, 8, 10)
    assert x[1, :, 3, 3].tolist() == pytest.approx([0.25, -0.25, 0, 0.6]) and x[0, 3, 0, 0] == pytest.approx(0.3)
    large = torch.arange(16 * 20.0).view(1, 1, 16, 20)
    x = sr.network_input(large, u[:1], v[:1], sr.UNKNOWN, "x1")
    assert x.shape == (1, 7, 8, 10) and (x[:, 6] == -1).all()
    assert (x[0, :4, 0, 0] + 0.5).tolist() == [0, 1, 20, 21]


def test_the_residual_lands_on_its_samples():
    residual = torch.zeros(1, 6, 4, 5)
    residual[0, :, 1, 2] = torch.tensor([1.0, 2, 3, 4, 5, 6])
    plain = (torch.zeros(1, 1, 8, 10), torch.zeros(1, 1, 4, 5), torch.ones(1, 1, 4, 5))
    y, u, v = sr.add_residual(plain, residual)
    assert y[0, 0, 2:4, 4:6].tolist() == [[1, 2], [3, 4]] and y.sum() == 10
    assert u[0, 0, 1, 2] == 5 and v[0, 0, 1, 2] == 7 and v.sum() == 26


def test_weights_files_hold_both_modes_in_half_precision(tmp_path, monkeypatch):
    monkeypatch.setattr(sr, "WEIGHTS", tmp_path)
    sr.load_weights.cache_clear()
    networks = {mode: lively(SIZES["s"], mode, seed) for seed, mode in enumerate(MODES)}
    sr.save_weights(tmp_path / "video-s.safetensors", networks, {"size": "s"})
    assert [p.name for p in tmp_path.iterdir()] == ["video-s.safetensors"] and sr.trained() == ["s"]
    for mode, network in networks.items():
        x = torch.randn(1, MODES[mode], 9, 9) / 2
        loaded = sr.load_weights("s", mode)
        assert loaded is sr.load_weights("s", mode) and not loaded.training and not loaded.size.norm
        assert torch.allclose(loaded(x), network(x), atol=5e-3, rtol=1e-2)
    sr.load_weights.cache_clear()


def test_missing_and_damaged_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(sr, "WEIGHTS", tmp_path)
    sr.load_weights.cache_clear()
    for name in ("m", "xl", "../s"):
        with pytest.raises(UnknownModelError, match=r"has none"):
            sr.load_weights(name)
    sr.save_weights(tmp_path / "video-s.safetensors", {"x2": lively(SIZES["s"], "x2")}, {})
    with pytest.raises(UnknownModelError, match=r"\(has s\)"):
        sr.load_weights("m")
    with pytest.raises(UnknownModelError, match=r"'s' for scale 1 or 1\.5 "):
        sr.load_weights("s", "x1")
    (tmp_path / "video-s.safetensors").write_bytes(b"not tensors")
    with pytest.raises(UnknownModelError, match="no x2 weights"):
        sr.load_weights("s")


def test_other_modes_are_refused():
    with pytest.raises(InputError, match="x3"):
        AttentionSR(SIZES["s"], "x3")
