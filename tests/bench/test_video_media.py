"""Clips as raw files, what ffmpeg does to them, and the bytes of a stream."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from foveal.bench import video_media as media
from foveal.errors import FovealError, InputError


def test_a_clip_is_read_from_its_header_and_size(clip) -> None:
    made = clip(width=32, height=20, frames=5)
    assert (made.width, made.height, made.rate, made.frames) == (32, 20, Fraction(25), 5)
    assert made.seconds == pytest.approx(0.2)


@pytest.mark.parametrize(
    "damage", [b"", b"RIFF", b"YUV4MPEG2 W16 H16 F25:1 C444\n", b"YUV4MPEG2 W16 H16 F25:1 C420p10\n"]
)
def test_other_files_are_no_clips(tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "x.y4m").write_bytes(damage)
    with pytest.raises(InputError, match="not an 8-bit"):
        media.read_clip(tmp_path / "x.y4m")


def test_half_a_frame_at_the_end_is_refused(clip) -> None:
    made = clip()
    made.path.write_bytes(made.path.read_bytes()[:-10])
    with pytest.raises(InputError, match="whole frames"):
        media.read_clip(made.path)


def test_preparing_takes_the_middle_frames_and_cuts_to_multiples_of_four(clip, tmp_path: Path) -> None:
    made = clip(width=70, height=50, frames=6)
    cut = media.prepare(made.path, tmp_path / "cut.y4m", 4)
    assert (cut.name, cut.width, cut.height, cut.frames) == ("pan.y4m", 68, 48, 4)
    first, second = next(iter(media.luma(cut.path, cut))), np.frombuffer(made.path.read_bytes(), np.uint8)
    head = made.path.read_bytes().index(b"FRAME\n") + 6 + (6 + 70 * 50 * 3 // 2)
    assert np.array_equal(first, second[head : head + 70 * 50].reshape(50, 70)[:48, :68])


def test_lanczos_brings_a_small_file_to_the_clips_size(clip, tmp_path: Path) -> None:
    made = clip()
    media.ffmpeg("-i", made.path, "-vf", "scale=32:24", "-c:v", "ffv1", tmp_path / "small.mkv")
    media.lanczos(tmp_path / "small.mkv", tmp_path / "big.y4m", made)
    big = media.read_clip(tmp_path / "big.y4m")
    assert (big.width, big.height, big.frames) == (64, 48, 6)
    directly = list(media.luma(tmp_path / "small.mkv", made))
    assert all(np.array_equal(a, b) for a, b in zip(directly, media.luma(big.path, made), strict=True))


def test_bytes_of_a_stream_leave_the_container_out(clip, tmp_path: Path) -> None:
    made, coded = clip(), tmp_path / "coded.mkv"
    media.ffmpeg("-i", made.path, "-c:v", "libx264", coded)
    size, packets = media.stream_bytes(coded)
    with av.open(str(coded)) as container:
        assert size == sum(packet.size for packet in container.demux(video=0))
    assert packets == made.frames and 0 < size < coded.stat().st_size


def test_ffmpegs_failure_is_a_foveal_error_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(FovealError, match="No such file"):
        media.ffmpeg("-i", tmp_path / "none.mp4", "-f", "null", "-")


def test_clips_are_found_by_the_beginnings_of_their_names(tmp_path: Path) -> None:
    for name in ("b.mkv", "a.mp4", "notes.txt", "ab.avi"):
        (tmp_path / name).write_bytes(b"")
    assert [path.name for path in media.find_clips(tmp_path)] == ["a.mp4", "ab.avi", "b.mkv"]
    assert [path.name for path in media.find_clips(tmp_path, ["b", "ab"])] == ["ab.avi", "b.mkv"]
    with pytest.raises(InputError, match="begins with 'c'"):
        media.find_clips(tmp_path, ["c"])
    with pytest.raises(InputError, match="not a folder"):
        media.find_clips(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no clips"):
        media.find_clips(tmp_path / "empty")
