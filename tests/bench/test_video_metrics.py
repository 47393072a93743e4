"""The measures of decoded video against their definitions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from foveal.bench import video_media as media
from foveal.bench.metrics import psnr_db
from foveal.bench.video_metrics import flicker, measure
from foveal.errors import FovealError


def test_an_equal_clip_is_perfect(clip) -> None:
    made = clip()
    quality = measure(made.path, made)
    assert (quality.psnr_y, quality.ssim_y, quality.xpsnr_y) == (99, 1, 99)
    assert quality.vmaf > 95 and quality.vmaf_neg > 95


def test_psnr_is_the_mean_over_frames_of_luma_alone(clip, tmp_path: Path) -> None:
    made, coded = clip(width=96, height=64), tmp_path / "coded.mkv"
    media.ffmpeg("-i", made.path, "-c:v", "libx264", "-crf", 40, coded)
    pairs = list(zip(media.luma(made.path, made), media.luma(coded, made), strict=True))
    expected = [psnr_db(a, b) for a, b in pairs]
    assert measure(coded, made).psnr_y == pytest.approx(np.mean(expected), abs=0.006)
    assert measure(coded, made, frames=2).psnr_y == pytest.approx(np.mean(expected[:2]), abs=0.006)


def test_every_measure_falls_with_the_bits(clip, tmp_path: Path) -> None:
    made, found = clip(width=192, height=128), []
    for crf in (25, 42):
        media.ffmpeg("-i", made.path, "-c:v", "libx264", "-crf", crf, tmp_path / "coded.mkv")
        found.append(measure(tmp_path / "coded.mkv", made))
    for name in ("psnr_y", "ssim_y", "xpsnr_y", "vmaf", "vmaf_neg"):
        assert getattr(found[0], name) > getattr(found[1], name)


def test_sharpening_fools_vmaf_more_than_vmaf_neg(clip, tmp_path: Path) -> None:
    made = clip(width=192, height=128)
    media.ffmpeg("-i", made.path, "-vf", "unsharp=5:5:1", tmp_path / "sharp.y4m")
    quality, plain = measure(tmp_path / "sharp.y4m", made), measure(made.path, made)
    assert quality.vmaf - quality.vmaf_neg > plain.vmaf - plain.vmaf_neg + 1


def test_a_clip_that_lost_frames_is_not_measured(clip, tmp_path: Path) -> None:
    made = clip()
    media.ffmpeg("-i", made.path, "-frames:v", 4, tmp_path / "short.y4m")
    with pytest.raises(FovealError, match=r"4 frames beside the 6"):
        measure(tmp_path / "short.y4m", made)


def test_flicker_counts_only_where_the_original_stands_still(clip, tmp_path: Path) -> None:
    made = clip(width=64, height=48, still=True)
    same = flicker(made.path, made)
    assert (same.original, same.decoded, same.share) == (0, 0, 0.5)
    data = bytearray(made.path.read_bytes())
    head, size = data.index(b"FRAME\n"), 6 + 64 * 48 * 3 // 2
    for k in range(1, made.frames, 2):  # every other frame is brighter by 3
        start = head + k * size + 6
        luma = np.frombuffer(data, np.uint8, 64 * 48, start).astype(int) + 3
        data[start : start + 64 * 48] = np.clip(luma, 0, 255).astype(np.uint8).tobytes()
    (tmp_path / "blinking.y4m").write_bytes(data)
    blinking = flicker(tmp_path / "blinking.y4m", made)
    assert (blinking.original, blinking.share) == (0, 0.5)
    assert blinking.decoded == pytest.approx(3)


def test_flicker_of_a_clip_that_moves_everywhere_is_unknown(clip) -> None:
    noise = clip("noise.y4m", width=16, height=16, frames=2)
    data = noise.path.read_bytes()
    head = data.index(b"FRAME\n")
    frames = np.random.default_rng(0).integers(0, 256, (2, 16 * 16 * 3 // 2), dtype=np.uint8)
    noise.path.write_bytes(data[:head] + b"".join(b"FRAME\n" + frame.tobytes() for frame in frames))
    found = flicker(noise.path, noise)
    assert math.isnan(found.original) and found.share == 0
