"""The fitted filter: what the page of the format says, the best of least squares, its payload, and where it is applied."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import foveal
from foveal import container
from foveal.errors import CorruptError
from foveal.image import network as networks
from foveal.image import postfilter
from foveal.image.postfilter import CHROMA, COUNT, LUMA, PAIRS, Fit
from foveal.image.transform import colour_matrices


def without(data: bytes) -> bytes:
    return container.shorten(container.write(replace(container.read(data), filter=None)))


def shown(data: bytes, **options: str) -> np.ndarray:
    return np.asarray(foveal.decompress(data, **options), np.float64)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255.0**2 / np.square(a - b).mean()))


def picture(h: int, w: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(0, 255, (3, h, w)).astype(np.float32))


def some_taps(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.where(rng.random(COUNT) < 0.5, rng.integers(-20, 20, COUNT), 0)


def slowly(pixels: np.ndarray, taps: np.ndarray) -> np.ndarray:
    """The filter as FORMAT.md has it, in numpy."""
    there, back = (m.numpy() for m in colour_matrices())
    planes = np.einsum("ij,jyx->iyx", there, pixels.astype(np.float64))
    padded = np.pad(planes, ((0, 0), (2, 2), (2, 2)), "edge")
    h, w = pixels.shape[1:]

    def features(i: int, clip: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
        linear, clipped = [], []
        for y, x in [(y, x) for y in range(-2, 1) for x in range(-2, 3)][:12]:
            one, other = (padded[i, 2 + s * y : 2 + s * y + h, 2 + s * x : 2 + s * x + w] - planes[i] for s in (1, -1))
            linear.append(one + other)
            clipped.append(one.clip(-clip, clip) + other.clip(-clip, clip))
        return linear, clipped

    luma, little = features(0, 4)
    change, told = np.zeros_like(planes), taps / 128
    change[0] = sum(t * f for t, f in zip(told[:36], luma + little + features(0, 14)[1], strict=True))
    for i in (1, 2):
        own, clipped = features(i, 5)
        part = told[36 * i : 36 * i + 36]
        change[i] = sum(t * f for t, f in zip(part, own + luma + clipped, strict=True))
    return pixels + np.einsum("ij,jyx->iyx", back, change)


def test_it_is_what_the_page_says(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, taps = picture(37, 50), some_taps()
    assert len(PAIRS) == 12 and COUNT == 108
    wanted = slowly(pixels.numpy(), taps)
    for rows in (1 << 17, 300):  # at once, and few rows at a time
        monkeypatch.setattr(postfilter, "AT_ONCE", rows)
        assert np.abs(postfilter.filtered(pixels, taps).numpy() - wanted).max() < 2e-3
    assert torch.equal(postfilter.filtered(pixels, taps * 0), pixels)


@pytest.mark.parametrize("edges", [(0, 2), (2, 2), (2, 0)])
def test_bands_with_rows_beside_them_leave_no_seam(edges: tuple[int, int]) -> None:
    whole, taps = picture(40, 30), some_taps()
    above, below = edges
    first, last = (10 if above else 0), (20 if below else 40)
    part = postfilter.filtered(whole[:, first - above : last + below], taps, edges)
    assert torch.allclose(part, postfilter.filtered(whole, taps)[:, first:last], atol=1e-3)


@pytest.mark.parametrize("taps", [None, some_taps(5)])
@pytest.mark.parametrize("edges", [(0, 0), (2, 0), (1, 2)])
def test_the_error_behind_the_filter_and_its_gradient(
    taps: np.ndarray | None, edges: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Part by part as torch finds them for the whole, clamping and what is outside the picture included."""
    pixels, (above, below) = (picture(40, 48, 1) * 1.2 - 20).requires_grad_(True), edges
    height = 40 - above - below - 3
    original, worth = picture(height, 45, 2), torch.rand(height, 45)
    whole = pixels[:, above : 40 - below] if taps is None else postfilter.filtered(pixels.clamp(0, 255), taps, edges)
    wanted = ((whole[:, :height, :45] - original).square() * worth).sum() / 3
    slope = torch.autograd.grad(wanted, pixels)[0]
    monkeypatch.setattr(postfilter, "AT_ONCE", 48 * 7)
    errors, found = postfilter.error_behind(pixels.detach(), taps, edges, original, worth)
    assert float(errors.double().sum()) == pytest.approx(float(wanted.detach()), rel=1e-5)
    every = ((whole[:, :height, :45] - original).square() * worth).mean(0).detach()
    assert torch.allclose(errors, every, rtol=1e-4, atol=1e-3)
    assert torch.allclose(found, slope, rtol=1e-4, atol=1e-2)


def test_errors_count_in_a_fit_what_they_are_worth() -> None:
    """Two halves that want different filters: the taps are those of the half that counts."""
    pixels, taps = picture(48, 64), some_taps(3)
    taps[:36] = 0
    other = taps.copy()
    other[36:] = -other[36:]
    wanted = postfilter.filtered(pixels, taps)
    wanted[:, 24:] = postfilter.filtered(pixels, other)[:, 24:]
    for half, right in ((slice(0, 24), taps), (slice(24, 48), other)):
        worth = torch.full((48, 64), 1e-6)
        worth[half] = 1.0
        fit = Fit(48 * 64)
        fit.add(pixels, (0, 0), wanted, worth)
        assert np.abs(fit.taps(1e3)[0] - right).max() <= 1


def test_a_fit_finds_the_filter_that_was_applied() -> None:
    """And what is outside the picture does not count: right, and below."""
    pixels, taps = picture(48, 64), some_taps(3)
    taps[np.abs(taps) < 4] = 0
    wanted = postfilter.filtered(pixels, taps)
    spoilt = wanted.clone()
    spoilt[:, 41:], spoilt[:, :, 60:] = 1e4, 1e4
    fit = Fit(41 * 60)
    fit.add(pixels[:, :26], (0, 2), spoilt[:, :24, :60])
    fit.add(pixels[:, 22:], (2, 0), spoilt[:, 24:41, :60])
    found, saved = fit.taps(1.0)
    assert found is not None and saved > 1e4
    assert np.array_equal(found, taps)


def test_a_sample_of_a_large_picture_says_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, taps, saved = picture(256, 128), some_taps(4), []
    original = postfilter.filtered(pixels, taps) + picture(256, 128, 7) / 30
    for sample in (10**9, 256 * 128 // 4):
        monkeypatch.setattr(postfilter, "SAMPLE", sample)
        fit = Fit(256 * 128)
        fit.add(pixels, (0, 0), original)
        found, bits = fit.taps(0.1)
        assert found is not None
        assert (postfilter.filtered(pixels, found) - postfilter.filtered(pixels, taps)).square().mean() < 1
        saved.append(bits)
    assert saved[1] == pytest.approx(saved[0], rel=0.05)


def test_noise_is_not_worth_a_filter() -> None:
    pixels, fit = picture(48, 64), Fit(48 * 64)
    fit.add(pixels, (0, 0), pixels + torch.from_numpy(np.random.default_rng(1).normal(0, 3, (3, 48, 64))).float())
    assert fit.taps(0.01) == (None, 0.0)


@given(st.lists(st.integers(-128, 127), min_size=COUNT, max_size=COUNT))
def test_payloads_there_and_back(taps: list[int]) -> None:
    told = np.array(taps, np.int64)
    assert np.array_equal(postfilter.decompress(postfilter.compress(told)), told)


@given(st.binary(min_size=1, max_size=80))
def test_an_invented_payload_is_some_filter_or_a_typed_error(payload: bytes) -> None:
    try:
        taps = postfilter.decompress(payload)
    except CorruptError:
        return
    assert taps.shape == (COUNT,) and np.abs(taps).max() <= 128


def test_golden_payload() -> None:
    taps = np.zeros(COUNT, np.int64)
    taps[[6, 11, 12, LUMA, LUMA + 35, LUMA + CHROMA]] = 5, -1, 127, 2, -128, 1
    assert postfilter.compress(taps).hex() == "c9f55e5114029bf80e3f4c"


@pytest.mark.parametrize("options", [{}, {"packets": 5}, {"layers": 3}, {"keep": 0.5}])
@pytest.mark.parametrize("quality", [40, 90])
def test_pictures_gain(photo: np.ndarray, options: dict[str, float], quality: float) -> None:
    data = foveal.compress(photo, quality=quality, **options)
    plain = without(data)
    assert psnr_db(photo, shown(data)) > psnr_db(photo, shown(plain)) + 0.03
    assert (5 if container.is_short(data) else 12) < len(data) - len(plain) < 120


def test_low_efforts_do_without(photo: np.ndarray) -> None:
    assert [container.read(foveal.compress(photo, effort=e)).filter is None for e in (3, 4)] == [True, False]


def test_bands_of_a_picture_are_filtered_as_one(photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    data = foveal.compress(photo, quality=70)
    whole = shown(data)
    monkeypatch.setattr(networks, "BAND", 1)  # rows of one window
    assert np.abs(shown(data) - whole).max() <= 1
    assert container.read(foveal.compress(photo, quality=70)).filter == container.read(data).filter


def test_patches_that_lack_something_are_left_unfiltered(photo: np.ndarray) -> None:
    contents = container.read(foveal.compress(photo, quality=70, packets=4))
    found, plain = (
        foveal.decode_report(container.write(replace(contents, packets=contents.packets[:2], filter=taps)))
        for taps in (contents.filter, None)
    )
    lost = found.concealed.repeat(16, 0).repeat(16, 1)[: photo.shape[0], : photo.shape[1]] > 0
    a, b = (np.asarray(report.image) for report in (found, plain))
    assert 0 < lost.mean() < 1 and (a[~lost] != b[~lost]).any()
    inside = found.concealed > 0  # the border of a lost patch follows its neighbours
    assert (a[lost] == b[lost]).mean() > 0.5 and inside.any()


def test_a_lost_filter_is_no_loss_of_patches(photo: np.ndarray) -> None:
    data = bytearray(foveal.compress(photo, quality=70))
    chunk = next(c for c in container.list_chunks(bytes(data)) if c.type == "fILT")
    data[chunk.offset + 8] ^= 1
    with pytest.raises(CorruptError, match="fILT"):
        foveal.decompress(bytes(data))
    report = foveal.decode_report(bytes(data))
    assert not report.concealed.any() and any("fILT" in line for line in report.damaged)
