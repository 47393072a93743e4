"""The display aspect in a Matroska header."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
import video_clips as made

from foveal.video.matroska import write_aspect


def aspect_of(path: Path) -> Fraction:
    with av.open(str(path)) as container:
        found: Fraction = container.streams.video[0].sample_aspect_ratio
        return found


@pytest.mark.parametrize("aspect", [Fraction(4, 3), Fraction(64, 45), Fraction(1, 2), Fraction(12, 11)])
def test_aspect_is_read_back_and_nothing_else_changes(aspect: Fraction, tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", "libsvtav1", options={"preset": "10"})
    before = made.facts(path)
    size = path.stat().st_size
    assert write_aspect(path, made.WIDTH, made.HEIGHT, aspect)
    assert aspect_of(path) == aspect
    assert path.stat().st_size == size
    assert made.facts(path) == before | {"aspect": aspect}
    assert write_aspect(path, made.WIDTH, made.HEIGHT, Fraction(1))
    assert aspect_of(path) == 1


def test_without_room_the_file_stays_as_it_was(tmp_path: Path) -> None:
    for name, aspect in (("a.mkv", Fraction(10**12 + 39, 10**12 + 61)), ("a.webm", Fraction(3, 2))):
        path = made.clip(tmp_path / name, "libsvtav1", options={"preset": "10"})
        data = path.read_bytes()
        assert not write_aspect(path, made.WIDTH, made.HEIGHT, aspect, webm=name == "a.webm")
        assert path.read_bytes() == data


@pytest.mark.parametrize(
    "data", [b"", bytes(100), b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff", b"\x18\x53\x80\x67\x88" * 9]
)
def test_other_files_are_left_alone(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    assert not write_aspect(tmp_path / "x", 64, 48, Fraction(4, 3))
    assert (tmp_path / "x").read_bytes() == data
