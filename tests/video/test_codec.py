"""The hall: small and back, through the public door."""

from __future__ import annotations

import inspect
from dataclasses import is_dataclass
from pathlib import Path

import numpy as np
import pytest
import video_clips as made

import foveal.video
from foveal.errors import InputError
from foveal.video.frames import Reader


def luma_error(path: Path, width: int, height: int) -> float:
    """Mean squared error against the pictures that ``made.clip`` made; sizes must be equal."""
    with Reader(path) as reader:
        gaps = [frame.planes.y - made.planes(n, width, height).y.astype(float) for n, frame in enumerate(reader)]
    return float(np.mean(np.square(gaps)))


def test_the_door_has_four_names_and_no_more() -> None:
    assert foveal.video.__all__ == ["decode", "encode", "models", "restore"]
    assert all(callable(getattr(foveal.video, name)) for name in foveal.video.__all__)
    with pytest.raises(AttributeError, match="no_such"):
        foveal.video.no_such  # noqa: B018


@pytest.mark.parametrize("name", ["encode", "decode", "restore"])
def test_everything_but_files_is_by_keyword(name: str) -> None:
    parameters = list(inspect.signature(getattr(foveal.video, name)).parameters.values())
    assert [p.name for p in parameters[:2]] == ["source", "out"]
    assert {p.kind for p in parameters[2:]} == {inspect.Parameter.KEYWORD_ONLY}
    assert parameters[-1].name == "progress"


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("codec", ["x264", "x265", "svtav1"])
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_small_and_back(codec: str, kind: str, tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=128, height=96)
    preset = 10 if codec == "svtav1" else "fast"
    small, back, plain = (tmp_path / f"{name}.{kind}" for name in ("small", "back", "plain"))
    coded = foveal.video.encode(source, small, scale=2, codec=codec, crf=12, preset=preset)
    decoded = foveal.video.decode(small, back, crf=0)
    restored = foveal.video.restore(small, plain, crf=0, use_side=False)
    assert all(map(is_dataclass, (coded, decoded, restored)))
    assert (decoded.frames, decoded.side_information, restored.side_information) == (made.COUNT, True, False)
    with Reader(back) as reader:
        assert (reader.format.width, reader.format.height) == (128, 96)
    assert coded.gain_db is not None and coded.gain_db >= 0
    assert luma_error(back, 128, 96) < luma_error(plain, 128, 96)  # the weights are noise, and side information knows


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_all_there_and_back_again(kind: str, tmp_path: Path) -> None:
    source = made.rich(tmp_path / f"in.{kind}")
    foveal.video.encode(source, tmp_path / f"small.{kind}", codec="x264", preset="fast", scale=2)
    foveal.video.decode(tmp_path / f"small.{kind}", tmp_path / f"back.{kind}")
    before, after = made.facts(source), made.facts(tmp_path / f"back.{kind}")
    streams = [s for s in after["streams"] if s.get("name") != "foveal-side.bin"]
    assert streams == before["streams"]
    for name in ("packets", "times", "chapters", "aspect", "rotation", "colour", "size"):
        assert after[name] == before[name], name


@pytest.mark.usefixtures("weights")
def test_odd_pictures_come_back_at_their_size(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=65, height=49, times=range(3))
    for scale in (1.5, 2):
        foveal.video.encode(source, tmp_path / "small.mp4", scale=scale, codec="x264", preset="fast")
        foveal.video.decode(tmp_path / "small.mp4", tmp_path / "back.y4m")
        with Reader(tmp_path / "back.y4m") as reader:
            assert (reader.format.width, reader.format.height) == (65, 49)


@pytest.mark.usefixtures("weights")
def test_a_lossless_result_has_no_crf(tmp_path: Path) -> None:
    source, small = made.clip(tmp_path / "in.mkv", "ffv1", width=64, height=48, times=range(2)), tmp_path / "small.mkv"
    foveal.video.encode(source, small, scale=2, codec="x264", preset="ultrafast")
    for door in (foveal.video.decode, foveal.video.restore):
        with pytest.raises(InputError, match=r"^crf 20: ffv1 is lossless"):
            door(small, tmp_path / "out.mkv", codec="ffv1", crf=20)
        assert not (tmp_path / "out.mkv").exists()
        door(small, tmp_path / "out.mkv", codec="ffv1")
        with Reader(tmp_path / "out.mkv") as reader:
            assert reader.format.width == 64 and len(list(reader)) == 2
        (tmp_path / "out.mkv").unlink()


@pytest.mark.parametrize("arguments", [{"crf": 23, "bitrate": 100000}, {"crf": 64}, {"codec": "vp8"}, {"bits": 12}])
def test_settings_are_checked_before_anything_is_read(arguments: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(InputError):
        foveal.video.encode(tmp_path / "none.mp4", tmp_path / "out.mp4", **arguments)  # type: ignore[arg-type]
