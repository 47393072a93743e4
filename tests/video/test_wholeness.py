"""Whether a file is all there, told from its boxes."""

from __future__ import annotations

from pathlib import Path

import pytest
import video_clips as made

from foveal.errors import InputError
from foveal.video.wholeness import missing_end


@pytest.fixture(params=["a.mp4", "a.mkv", "a.avi"])
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return made.clip(tmp_path / request.param, "mpeg4" if request.param == "a.avi" else "libx264")


def test_a_whole_file_misses_nothing(file: Path) -> None:
    assert missing_end(str(file)) is None


def test_every_cut_is_noticed(file: Path) -> None:
    data = file.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        file.write_bytes(data[: int(len(data) * share)])
        assert missing_end(str(file)), share


def test_a_live_matroska_file_leaves_its_size_open(tmp_path: Path) -> None:
    head = b"\x1a\x45\xdf\xa3\x80" + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff"
    (tmp_path / "live.mkv").write_bytes(head + bytes(50))
    assert missing_end(str(tmp_path / "live.mkv")) is None


@pytest.mark.parametrize("data", [b"", b"short", bytes(64), b"\x1a\x45\xdf\xa3" + b"\0" * 20, b"\x1a\x45\xdf\xa3\xff"])
def test_other_data_is_left_to_the_demuxer(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(data)
    assert missing_end(str(tmp_path / "x")) is None


def test_no_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        missing_end(str(tmp_path / "none.mp4"))
