"""The last layer's change: its basis, its choice, and that receiver and sender mean the same by it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import video_clips as made

from foveal.errors import InputError
from foveal.video import blend, lastlayer, scout, sidecar, sidecode
from foveal.video.attention_sr import SIZES, AttentionSR
from foveal.video.basecodec import EncoderSettings
from foveal.video.frames import Reader
from foveal.video.receiver import receive
from foveal.video.restorer import Parts, Restorer
from foveal.video.sender import send
from foveal.video.types import GROUP, Planes

C = SIZES["s"].c
LOSSLESS = EncoderSettings("ffv1")


def restorer(scale: float = 2, strength: float = 0.02, bits: int = 8, bf16: bool = False) -> Restorer:
    torch.manual_seed(5)
    net = AttentionSR(SIZES["s"], "x2" if scale == 2 else "x1").eval().requires_grad_(False)
    torch.nn.init.normal_(net.end.weight, std=strength)
    return Restorer(net, scale, 96, 80, bits, 0.5, bf16=bf16)


def change(*told: tuple[int, int, int, int]) -> list[int]:
    """Coefficients that are 0 but for (pattern, channel, wave, value)."""
    out = np.zeros((4, C, 9), int)
    for pattern, channel, wave, value in told:
        out[pattern, channel, wave] = value
    return [int(x) for x in out.reshape(-1)]


def test_patterns_and_waves_are_orthonormal() -> None:
    assert np.allclose(lastlayer.PATTERNS @ lastlayer.PATTERNS.T, np.eye(4))
    assert np.allclose(lastlayer.WAVES @ lastlayer.WAVES.T, np.eye(9))


def test_a_coefficient_is_what_the_page_says() -> None:
    wave = np.outer([1, -2, 1], [1, 0, -1]) / np.sqrt(6) / np.sqrt(2)
    pattern = np.array([1, -1, 1, -1]) / 2
    found = lastlayer.added(change((2, 3, 7, 5)))
    assert found.shape == (4, C, 3, 3) and not found[:, [i for i in range(C) if i != 3]].any()
    assert np.allclose(found[:, 3], 5 / 64 * pattern[:, None, None] * wave)


@pytest.mark.parametrize("scale", [2, 1.5, 1])
def test_the_residual_is_that_of_a_network_with_other_weights(scale: float) -> None:
    small = made.planes(1, *({2: (48, 40), 1.5: (64, 54), 1: (96, 80)}[scale]))
    added = lastlayer.added(change((0, 1, 0, 40), (3, 7, 8, -20), (1, 0, 4, 9)))
    run, other = restorer(scale), restorer(scale)
    before = run.parts(small).residual.copy()
    assert other.runner is not None
    other.runner.net.end.weight[:4] += torch.from_numpy(added)
    wanted = Restorer(other.runner.net, scale, 96, 80, 8, 0.5, bf16=False).parts(small).residual
    run.adapt(added)
    assert np.abs(wanted - before).max() > 0.1
    assert np.allclose(run.parts(small).residual, wanted, atol=1e-3)
    run.adapt(None)
    assert np.allclose(run.parts(small).residual, before, atol=1e-3)


def test_a_change_of_another_network_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(4, 8, 3, 3\)"):
        restorer().adapt(np.zeros((4, 8, 3, 3), np.float32))


@pytest.mark.parametrize("bits", [8, 10])
def test_what_the_last_layer_looks_at_makes_the_residual(bits: int) -> None:
    small, run = made.planes(1, 48, 40, bits), restorer(bits=bits)
    told = run.parts(small).residual.copy()
    parts, seen = run.looked_into(small)
    assert seen.shape == (C, 40, 48) and np.abs(parts.residual - told).max() < 2e-3
    net = run.runner.net if run.runner else None
    assert net is not None
    top = 255 if bits == 8 else 1023
    bias = net.end.bias
    assert bias is not None
    made_of_it = F.conv2d(seen[None], net.end.weight, bias * top, padding=1)[0]
    assert np.abs(made_of_it.numpy() - told).max() < 2e-3
    with pytest.raises(InputError, match="no network"):
        Restorer(None, 2, 96, 80).looked_into(small)


def original_of(small: Planes, added: np.ndarray, noise: float = 0.0) -> Planes:
    """What the network would show with another last layer, and noise."""
    run = restorer()
    run.adapt(added)
    y, u, v = run.parts(small).restored()
    rng = np.random.default_rng(0)
    return Planes(y.numpy() + rng.normal(0, noise or 1e-9, y.shape).astype(np.float32), u.numpy(), v.numpy())  # type: ignore[arg-type]


def test_sums_tell_the_error_of_any_coefficients() -> None:
    """z a z - 2 b z is what the best taps beside z leave of the error, up to a constant."""
    small = made.planes(3, 48, 40)
    original = original_of(small, lastlayer.added(change((0, 1, 0, 60), (1, 2, 3, 40))), 2.0)
    sums, run = scout.Sums(C), restorer()
    parts, seen = run.looked_into(small)
    sums.add(original, parts, seen)
    a, b = sums.system()

    def left(z: list[int]) -> float:
        own = restorer()
        own.adapt(lastlayer.added(z))
        new = own.parts(small)._replace(y=parts.y)
        features = _features(new, parts, original)
        x, *_ = np.linalg.lstsq(features[:, :-1], features[:, -1], rcond=None)
        return float(np.square(features[:, :-1] @ x - features[:, -1]).sum())

    def _features(new: Parts, old: Parts, original: Planes) -> np.ndarray:
        """What the taps look at, the old residual's neighbours, and the error less what the change adds."""
        from foveal.video.postfilter import samples

        adds = _whole(new.residual) - _whole(old.residual)
        rows = samples(old.luma, original.y - old.y - adds, (0, 40)).permute(1, 0, 2, 3).reshape(34, -1)
        return rows.numpy().astype(np.float64).T

    def _whole(residual: np.ndarray) -> np.ndarray:
        return F.pixel_shuffle(torch.from_numpy(residual[:4])[None], 2)[0, 0].numpy()

    zero = change()
    for z in (change((0, 1, 0, 30)), change((3, 5, 8, -30), (0, 2, 4, 20))):
        x = np.array(z) * lastlayer.STEP
        assert x @ a @ x - 2 * b @ x == pytest.approx(left(z) - left(zero), rel=2e-2, abs=1e-4 * left(zero))


def quadratic(seed: int, channels: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0, 1, (300, 36 * channels))
    truth = np.where(rng.random(36 * channels) < 0.2, rng.normal(0, 0.3, 36 * channels), 0)
    return rows.T @ rows, rows.T @ (rows @ truth + rng.normal(0, 0.5, 300))


@pytest.mark.parametrize("price", [0.01, 0.3, 3.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_coefficient_moved_alone_would_be_better(seed: int, price: float) -> None:
    (a, b), old = quadratic(seed), np.zeros(72, np.int64)
    old[::7] = 5

    def total(z: np.ndarray) -> float:
        x = z * lastlayer.STEP
        return float(x @ a @ x - 2 * b @ x + price * lastlayer.cost(z, old))

    found = lastlayer.chosen(a, b, old, price)
    least = total(found)
    assert least < total(old)
    slope = a @ (found * lastlayer.STEP) - b
    for k in range(72):
        best = found[k] - slope[k] / a[k, k] / lastlayer.STEP
        for way in (old[k], np.floor(best), np.ceil(best)):
            other = found.copy()
            other[k] = way
            assert total(other) >= least - 1e-9


def test_bits_that_save_nothing_are_not_spent() -> None:
    (a, b), old = quadratic(1), np.arange(72) % 3
    assert np.array_equal(lastlayer.chosen(a, b, old, 1e9), old)


def luma_error(original: Planes, small: Planes, told: list[int]) -> float:
    """Squared error of luma, restored with the change ``told``, without a filter."""
    run = restorer()
    run.adapt(lastlayer.added(told))
    return float(np.square(run.parts(small).restored()[0].numpy() - original.y).sum())


def test_the_scout_finds_what_the_clip_wants_in_each_group_and_stays_below_the_limit() -> None:
    wanted, none = change((0, 1, 0, 60), (1, 2, 3, 50), (0, 9, 1, -70)), change()
    smalls = [made.planes(i, 48, 40) for i in range(GROUP + 5)]
    clip = [(original_of(s, lastlayer.added(wanted if i < GROUP else none), 0.5), s) for i, s in enumerate(smalls)]
    first, second = scout.changes(clip, restorer(), C, 1e-4, 1e6)
    assert luma_error(*clip[0], first) < 0.2 * luma_error(*clip[0], none)
    assert luma_error(*clip[-1], first) > 2 * luma_error(*clip[-1], none)
    assert luma_error(*clip[-1], second) < 0.1 * luma_error(*clip[-1], first)
    assert 3 <= np.count_nonzero(first) < 30
    few = next(scout.changes(clip[:GROUP], restorer(), C, 1e-4, 150 / GROUP))
    assert any(few) and lastlayer.cost(np.array(few), np.array(none)) <= 150
    sums = scout.Sums(C)
    sums.add(clip[0][0], *restorer().looked_into(clip[0][1]))
    assert lastlayer.left(*sums.system(), np.array(few)) < 0 <= lastlayer.left(*sums.system(), np.array(none))
    assert list(scout.changes(clip[:2], restorer(), C, 1e-4, 1e6)) == [none]  # no frame of so few is looked at


@pytest.mark.usefixtures("weights")
def test_sender_and_receiver_restore_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over two groups, with side information for which a small clip has no room otherwise: the gain the sender tells is the
    one the receiver's picture has."""
    monkeypatch.setattr(blend, "BITS_PER_BLOCK", 60.0)
    monkeypatch.setattr(scout, "TRUSTED", 1e3)
    count = GROUP + 6
    source = made.clip(tmp_path / "in.mkv", "ffv1", times=range(count), width=128, height=96)
    settings = EncoderSettings("x264", crf=20, preset="fast")
    report = send(source, tmp_path / "out.mkv", settings, scale=2.0, model="s")
    found = sidecar.find(tmp_path / "out.mkv").data
    assert found is not None and any(sidecode.SideReader(found).change(0))
    receive(tmp_path / "out.mkv", tmp_path / "restored.mkv", LOSSLESS)
    errors = np.zeros(2)
    with (
        Reader(source) as originals,
        Reader(tmp_path / "restored.mkv") as shown,
        Reader(tmp_path / "out.mkv") as smalls,
    ):
        plain = Restorer(None, 2, 128, 96, chroma_location=smalls.format.chroma_location)
        for original, restored, small in zip(originals, shown, smalls, strict=True):
            for i, y in enumerate((plain.plain(small.planes).y, restored.planes.y)):
                errors[i] += np.square(y - original.planes.y.astype(np.float64)).mean()
    assert report.gain_db == pytest.approx(10 * np.log10(errors[0] / errors[1]), abs=0.03)
