"""Small pictures, tiny clips and made-up measurements for the bench's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from foveal.bench.results import Point
from foveal.bench.video_media import Clip, read_clip
from foveal.bench.video_results import Point as VideoPoint


def make_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture with edges and a little noise, (height, width, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(x / 9 + c) + np.cos(y / (7 + c)) + (x > y) for c in range(3)]
    values = 110 + 40 * np.stack(waves, axis=2) + rng.normal(0, 5, (height, width, 3))
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    return make_picture


@pytest.fixture
def point() -> Callable[..., Point]:
    return make_point


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, 64x48 and 33x17."""
    target = tmp_path / "pictures"
    target.mkdir()
    Image.fromarray(make_picture(48, 64, 1)).save(target / "a.png")
    Image.fromarray(make_picture(17, 33, 2)).save(target / "b.png")
    return target


def make_point(image: str, codec: str, setting: float, bpp: float, psnr_db: float, **changes: object) -> Point:
    """A measurement of a 768x512 picture."""
    values: dict[str, object] = {
        "options": "plain",
        "setting_name": "quality",
        "width": 768,
        "height": 512,
        "bytes": round(bpp * 768 * 512 / 8),
        "ms_ssim": 1 - 10 ** (-psnr_db / 20),
        "encode_s_per_mpx": 0.5,
        "decode_s_per_mpx": 0.1,
        "encode_repeats": 3,
        "decode_repeats": 3,
        "version": "1.0",
    }
    return Point(image=image, codec=codec, setting=setting, bpp=bpp, psnr_db=psnr_db, **{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def points() -> list[Point]:
    """Two pictures through a codec "half" that takes half the bits and a quarter of the time of "jpeg"."""
    rows = []
    for image, more in (("a.png", 1.0), ("b.png", 1.5)):
        for setting, (bpp, psnr) in enumerate([(0.2, 27), (0.4, 30), (0.8, 33), (1.6, 36.5)]):
            rows.append(make_point(image, "jpeg", setting, bpp * more, psnr))
            times = {"encode_s_per_mpx": 0.125, "decode_s_per_mpx": 0.025}
            rows.append(make_point(image, "half", setting, bpp * more / 2, psnr, **times))
    return rows


def make_clip(path: Path, width: int = 64, height: int = 48, frames: int = 6, still: bool = False) -> Clip:
    """A raw clip at 25 frames/s: a smooth picture with edges that pans by two pixels a frame; `still`: its left half."""
    wide = make_picture(height, width + 2 * frames, 3)[..., 1]
    chroma = np.full((height // 2) * (width // 2) * 2, 128, np.uint8).tobytes()
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C420jpeg\n".encode())
        for k in range(frames):
            luma = wide[:, 2 * k : 2 * k + width].copy()
            if still:
                luma[:, : width // 2] = wide[:, : width // 2]
            file.write(b"FRAME\n" + luma.tobytes() + chroma)
    return read_clip(path)


@pytest.fixture
def clip(tmp_path: Path) -> Callable[..., Clip]:
    """Make a clip of a name, see make_clip."""

    def made(name: str = "pan.y4m", **changes: Any) -> Clip:
        return make_clip(tmp_path / name, **changes)

    return made


@pytest.fixture
def video_point() -> Callable[..., VideoPoint]:
    return make_video_point


def make_video_point(clip: str, variant: str, crf: float, kbps: float, psnr_y: float, **changes: Any) -> VideoPoint:
    """A measurement of ten frames of a clip of 320x240 at 25 frames/s through x264."""
    values: dict[str, Any] = {
        "codec": "x264",
        "part": "clip",
        "width": 320,
        "height": 240,
        "frames": 10,
        "scale": 1.0 if variant == "full" else 2.0,
        "bytes": round(kbps * 50),
        "side_bytes": 0,
        "ssim_y": 1 - 10 ** (-psnr_y / 20),
        "xpsnr_y": psnr_y - 2,
        "vmaf": 2 * psnr_y,
        "vmaf_neg": 2 * psnr_y - 3,
        "flicker": 0.5,
        "flicker_original": 0.4,
        "static_share": 0.5,
        **dict.fromkeys(("encode_s", "encode_cpu_s", "restore_s", "restore_cpu_s"), 0.25),
        "reused": None,
        "why": "",
        "weights": "",
    }
    return VideoPoint(clip=clip, variant=variant, crf=crf, kbps=kbps, psnr_y=psnr_y, **{**values, **changes})
