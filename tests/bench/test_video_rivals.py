"""realesr-animevideov3 beside Foveal: its real weights on a few pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from foveal.bench import video_media as media
from foveal.bench import video_rivals as rivals
from foveal.bench.video_metrics import measure
from foveal.errors import FovealError, MissingExtraError


@pytest.fixture(autouse=True)
def installed() -> None:
    try:
        rivals.check()
    except MissingExtraError as error:
        pytest.skip(str(error))


def test_it_doubles_a_picture_and_keeps_its_colour() -> None:
    flat = np.empty((12, 16, 3), np.uint8)
    flat[:] = (200, 90, 30)
    doubled = rivals.double(flat, 1)
    assert (doubled.shape, doubled.dtype) == ((24, 32, 3), np.uint8)
    assert np.abs(doubled[6:-6, 6:-6].astype(int) - (200, 90, 30)).max() <= 6


def test_a_video_of_half_size_comes_back_like_its_original(clip, tmp_path: Path) -> None:
    made = clip(width=64, height=48, frames=4)
    media.ffmpeg("-i", made.path, "-vf", "scale=32:24", "-c:v", "ffv1", tmp_path / "small.mkv")
    assert rivals.realesr(tmp_path / "small.mkv", tmp_path / "shown.y4m", made, 3) == 3
    shown = media.read_clip(tmp_path / "shown.y4m")
    assert (shown.width, shown.height, shown.frames, shown.rate) == (64, 48, 3, made.rate)
    assert measure(tmp_path / "shown.y4m", made, frames=3).psnr_y > 22


def test_a_video_that_cannot_be_read_is_refused(clip, tmp_path: Path) -> None:
    made = clip()
    (tmp_path / "broken.mkv").write_bytes(b"no video")
    with pytest.raises(FovealError):
        rivals.realesr(tmp_path / "broken.mkv", tmp_path / "shown.y4m", made, 1)
