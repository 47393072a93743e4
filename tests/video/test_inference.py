"""The network run band by band: the module's own result, whatever the band, the shape and the variant."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foveal.video import inference
from foveal.video.attention_sr import MODES, SIZES, AttentionSR, SRSize
from foveal.video.inference import Runner

VARIANTS = {
    "s": SIZES["s"],
    "l": SIZES["l"],
    "parallel": replace(SIZES["s"], parallel=True),
    "no channel attention": replace(SIZES["s"], channel=False),
    "no spatial attention": replace(SIZES["s"], spatial=False),
}


def network(size: SRSize, mode: str = "x2") -> AttentionSR:
    torch.manual_seed(3)
    made = AttentionSR(size, mode).eval().requires_grad_(False)
    torch.nn.init.normal_(made.end.weight, std=0.05)
    torch.nn.init.normal_(made.end.bias, std=0.05)
    return made


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(41, 32), (50, 37)])  # columns in groups, and not
def test_bands_give_what_the_module_gives(variant: str, shape: tuple[int, int]) -> None:
    net = network(VARIANTS[variant])
    x = torch.randn(1, 4, *shape) / 2
    whole = net(x)
    assert whole.abs().max() > 0.05
    for band in (1, 40 * shape[1], 10**6):
        runner = Runner(net, band=band)
        attention = runner.attention(runner.pool(x))
        residual, pooled = runner.residual(x, attention, measure=True)
        assert (residual - whole).abs().max() < 1e-5
        for found, wanted in zip(pooled or (), net.attention_pool(net.features(x)), strict=True):
            assert (found - wanted).abs().max() < 1e-5


def test_other_planes_and_a_gain() -> None:
    net = network(SIZES["s"], "x1")
    x = torch.randn(1, MODES["x1"], 24, 24) / 2
    runner = Runner(net, gain=255.0)
    residual, pooled = runner.residual(x, runner.attention(runner.pool(x)))
    assert pooled is None
    assert (residual / 255 - net(x)).abs().max() < 1e-5


def test_a_part_with_reach_around_it_equals_the_whole() -> None:
    net = network(SIZES["m"])
    runner, r = Runner(net, band=900), net.reach
    x = torch.randn(1, 4, 60, 64) / 2
    attention = runner.attention(runner.pool(x))
    whole, _ = runner.residual(x, attention)
    part, _ = runner.residual(x[..., 20 - r : 30 + r, 24 - r : 40 + r], attention)
    assert (part[..., r:-r, r:-r] - whole[..., 20:30, 24:40]).abs().max() < 1e-5


def test_without_the_fused_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    net, x = network(SIZES["s"]), torch.randn(1, 4, 30, 32) / 2
    monkeypatch.setattr(inference, "_fused_convolve", lambda *_: (_ for _ in ()).throw(RuntimeError("no oneDNN")))
    inference._convolve.cache_clear()
    try:
        runner = Runner(net)
        assert runner._conv is inference._plain_convolve
        assert (runner.residual(x, runner.attention(runner.pool(x)))[0] - net(x)).abs().max() < 1e-5
    finally:
        inference._convolve.cache_clear()


@pytest.mark.parametrize("lift", [0.0, -9.0])  # below zero the order of the bits is not that of the numbers
def test_bf16_is_near(lift: float) -> None:
    net = network(SIZES["s"])
    net.widen.bias += lift
    x = torch.randn(1, 4, 40, 48) / 2
    runner = Runner(net, bf16=True)
    residual, pooled = runner.residual(x, runner.attention(runner.pool(x)), measure=True)
    whole = net(x)
    assert residual.dtype == torch.float32
    assert (residual - whole).abs().mean() < 0.02 * whole.abs().mean()
    for found, wanted in zip(pooled or (), net.attention_pool(net.features(x)), strict=True):
        assert (found - wanted).abs().max() < 0.02 * wanted.abs().max()


def test_largest_of_bf16_is_exact() -> None:
    x = (torch.randn(1, 8, 5, 6) - torch.tensor([0.0, 9] * 4)[:, None, None]).to(torch.bfloat16)
    assert torch.equal(inference._largest(x, (2, 3)), x.amax((2, 3)))
    assert torch.equal(inference._largest(x - 9, 1), (x - 9).amax(1))
