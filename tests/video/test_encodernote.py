"""The CRF that x264 and x265 note in their streams: found where it is, not taken from where it is not, and used."""

from __future__ import annotations

from pathlib import Path

import pytest
import video_clips as made

from foveal.video import receiver
from foveal.video.basecodec import EncoderSettings
from foveal.video.encodernote import crf_in
from foveal.video.frames import Reader
from foveal.video.sender import send

X264 = b"\x06\x05\xff" + bytes(16) + b"x264 - core 165 - options: cabac=1 rc=crf mbtree=1 crf=31.5 qcomp=0.60\x00\x80"
X265 = b"x265 (build 216) - options: rc=crf crf=28.0 qcomp=0.60 crf-max=0.0 crf-min=0.0\x80"


@pytest.mark.parametrize(
    ("codec", "places", "crf"),
    [
        ("h264", [X264], 31.5),
        ("h264", [b"", bytes(9000) + X264], 31.5),
        ("hevc", [X265], 28.0),
        ("hevc", [X264], None),  # what another encoder wrote before
        ("av1", [X264, X265], None),
        ("h264", [], None),
        ("h264", [X264.replace(b"rc=crf", b"rc=abr").replace(b"crf=31.5", b"bitrate=800")], None),
        ("h264", [X264.replace(b"31.5", b"51.5")], None),
        ("h264", [X264.replace(b"31.5", b"0.0")], None),
        ("h264", [X264.replace(b"31.5", b"-12.0")], None),
        ("hevc", [X265.replace(b" crf=28.0", b"")], None),  # crf-max is another number
        ("h264", [b"x264 - core " + bytes(5000) + b" crf=23.0 "], None),
    ],
)
def test_the_note_is_read_and_nothing_else(codec: str, places: list[bytes], crf: float | None) -> None:
    assert crf_in(codec, *places) == crf


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("codec", ["x264", "x265", "svtav1"])
def test_what_real_encoders_note(codec: str, suffix: str, tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=96, height=64, times=range(3))
    for settings in (EncoderSettings(codec, crf=33), EncoderSettings(codec, bitrate=100_000)):
        out = tmp_path / f"out{suffix}"
        send(source, out, settings, scale=1, side_information=False)
        with Reader(out) as reader:
            known = settings.crf if codec != "svtav1" else None
            assert reader.format.crf == known
            assert sum(1 for _ in reader) == 3
    with Reader(source) as reader:
        assert reader.format.crf is None


@pytest.mark.usefixtures("weights")
def test_side_information_goes_before_the_note(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=128, height=96, times=range(3))
    send(source, tmp_path / "out.mkv", EncoderSettings("x264", crf=33), scale=2)
    with Reader(tmp_path / "out.mkv") as reader:
        plans = {use: receiver.choose(str(tmp_path / "out.mkv"), reader.format, 2, "s", use) for use in (True, False)}
    assert plans[False].quality() == pytest.approx(33 / 51) and "coded at crf 33" in plans[False].why
    side = plans[True].side
    assert side is not None and "coded at" not in plans[True].why
    assert plans[True].quality() == (None if side.facts.crf is None else pytest.approx(33 / 51))
