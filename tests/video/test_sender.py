"""The sender: small files that play, with all that was in the source, side information in them, and nothing by halves."""

from __future__ import annotations

import gc
import io
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import video_clips as made

from foveal.errors import (
    CorruptError,
    FovealWarning,
    InputError,
    TruncatedError,
    UnknownModelError,
    UnsupportedVideoError,
)
from foveal.video import attention_sr, restore, sender, sidecar
from foveal.video.attention_sr import quality_plane
from foveal.video.basecodec import EncoderSettings
from foveal.video.blend import best
from foveal.video.choice import Coded, shrink
from foveal.video.frames import Reader
from foveal.video.resize import resize_planes
from foveal.video.restorer import Restorer
from foveal.video.sender import EncodeReport, send
from foveal.video.sidecode import SideReader
from foveal.video.types import TAPS, Planes, VideoFormat

FAST = EncoderSettings("x264", crf=20, preset="ultrafast")


def code(source: Path | str, out: Path, settings: EncoderSettings = FAST, **options: Any) -> EncodeReport:
    return send(source, out, settings, **({"scale": 2, "side_information": False} | options))


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_everything_but_the_size_is_kept(kind: str, tmp_path: Path) -> None:
    source, out = made.rich(tmp_path / f"in.{kind}"), tmp_path / f"out.{kind}"
    report = code(source, out, side_information=True)
    before, after = made.facts(source), made.facts(out)
    assert after["size"] == (32, 24)
    if kind == "mkv":
        side = after["streams"].pop()
        assert (side["name"], side["mime"]) == (sidecar.NAME, sidecar.MIME)
    for name in ("streams", "packets", "times", "chapters", "aspect", "rotation", "colour"):
        assert after[name] == before[name], name
    assert (report.frames, report.scale, report.codec, report.crf) == (made.COUNT, 2, "x264", 20)
    assert report.bytes == out.stat().st_size
    assert {path.name for path in tmp_path.iterdir()} == {source.name, out.name}


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(("scale", "size"), [(1, (65, 49)), (1.5, (44, 34)), (2, (34, 26))])
def test_sizes_of_odd_pictures(scale: float, size: tuple[int, int], tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=65, height=49, times=range(3))
    settings = EncoderSettings("svtav1", crf=10, preset=10)
    code(source, tmp_path / "out.mp4", settings, scale=scale, side_information=True)
    with Reader(tmp_path / "out.mp4") as reader:
        assert (reader.format.width, reader.format.height) == size
        coded = next(iter(reader)).planes
    wanted = shrink(made.planes(0, 65, 49), scale, 0)
    assert np.abs(coded.y.astype(int) - wanted.y).mean() < 8
    data = sidecar.find(tmp_path / "out.mp4").data
    assert data is not None
    facts = SideReader(data).facts
    assert (facts.width, facts.height, facts.scale, facts.frames) == (65, 49, scale, 3)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("bits", [None, 8, 10])
def test_side_information_never_loses_to_plain_resampling(
    bits: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sender, "TRIED", 0)  # no frame is tried: the receiver is told the CRF
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=128, height=96)
    settings = EncoderSettings("x264", crf=18, preset="fast", bits=bits)
    report = code(source, tmp_path / "out.mkv", settings, side_information=True)
    found = sidecar.find(tmp_path / "out.mkv")
    assert found.data is not None and len(found.data) == report.side_bytes
    assert report.gain_db is not None and report.gain_db >= 0
    side, errors = SideReader(found.data), np.zeros(2)
    assert (side.facts.codec, side.facts.crf, side.facts.model) == ("x264", 18, "s")
    with Reader(tmp_path / "out.mkv") as reader:
        assert reader.format.bits == (bits or 8)
        restorer = Restorer.for_model("s", 2, 128, 96, reader.format.bits, 18 / 51, reader.format.chroma_location)
        for number, frame in enumerate(reader):
            blend, taps = side.frame(number)
            restored, plain = restorer.restore(frame.planes, blend=blend, taps=taps), restorer.plain(frame.planes)
            original = made.planes(number, 128, 96).y * (4.0 if bits == 10 else 1.0)
            errors += [((p.y - original) ** 2).mean() for p in (restored, plain)]
    assert 10 * np.log10(errors[1] / errors[0]) == pytest.approx(report.gain_db, abs=0.05)


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("better", ["told", "not told"])
def test_the_receiver_is_told_the_crf_where_the_network_does_better_with_it(
    better: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def helped(restorer: Restorer, small: Planes, original: Planes) -> tuple[None, np.ndarray]:
        """Restores exactly where the network is told what it does better with, else a sample off everywhere."""
        told = restorer.quality != quality_plane(None, 2)
        return None, original.y + np.float32(told != (better == "told"))

    monkeypatch.setattr(sender, "_helped", helped)
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=128, height=96)
    report = code(source, tmp_path / "out.mkv", EncoderSettings("x264", crf=18, preset="fast"), side_information=True)
    found = sidecar.find(tmp_path / "out.mkv").data
    assert found is not None and report.crf == 18
    assert SideReader(found).facts.crf == (18 if better == "told" else None)


@pytest.mark.usefixtures("weights")
def test_a_coded_file_that_ends_sooner_when_it_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender.scout, "changes", lambda *_: iter(()))
    source = made.clip(tmp_path / "in.mkv", "ffv1", times=range(3))
    with pytest.raises(CorruptError, match="3 frames were coded, 0 come back"):
        code(source, tmp_path / "out.mkv", side_information=True)
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_without_weights_there_is_a_warning_and_a_file(tmp_path: Path, weights: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", times=range(2))
    with pytest.warns(FovealWarning, match="no weights of video model 'm'.*without side information"):
        report = code(source, tmp_path / "out.mkv", side_information=True, model="m")
    assert (report.side_bytes, report.gain_db) == (0, None)
    assert sidecar.find(tmp_path / "out.mkv").data is None
    assert code(source, tmp_path / "out.mkv", model="m").side_bytes == 0  # nobody asks the network: no warning
    with pytest.raises(UnknownModelError, match="'xl'"):
        code(source, tmp_path / "none.mkv", side_information=True, model="xl")


def test_a_model_that_restores_at_one_scale_alone(tmp_path: Path, weights: Path) -> None:
    only = {"x2": attention_sr.load_weights("s", "x2")}
    attention_sr.save_weights(weights / "video-s.safetensors", only, {})
    attention_sr.load_weights.cache_clear()
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=96, height=64, times=range(6))
    with pytest.warns(FovealWarning, match=r"'s' for scale 1 or 1\.5 .*without side information"):
        report = code(source, tmp_path / "out.mkv", scale=1, side_information=True)
    assert report.side_bytes == 0 and report.frames == 6
    assert code(source, tmp_path / "half.mkv", scale=2, side_information=True).side_bytes > 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FovealWarning)
        report = code(source, tmp_path / "out.mkv", scale="auto", side_information=True)
    assert report.why.count("crf") == 3 and (report.side_bytes > 0) == (report.scale == 2)
    with pytest.raises(UnknownModelError, match=r"'s' for scale 1 or 1\.5 "):
        restore(tmp_path / "out.mkv", tmp_path / "restored.mkv", scale=1, model="s")
    assert not (tmp_path / "restored.mkv").exists()


@pytest.mark.usefixtures("weights")
def test_auto_decides_and_says_why(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=96, height=64, times=range(6))
    for side in (True, False):
        report = code(source, tmp_path / "out.mkv", scale="auto", side_information=side)
        assert report.scale in (1, 1.5, 2)
        assert "dB luma" in report.why and report.why.count("crf") == 3
        with Reader(tmp_path / "out.mkv") as reader:
            assert reader.format.width in (96, 64, 48)


@pytest.mark.usefixtures("weights")
def test_a_target_in_vmaf_is_reached(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=160, height=96, times=range(4))
    settings = EncoderSettings("x264", preset="ultrafast")
    report = code(source, tmp_path / "out.mkv", settings, target_vmaf=70)
    assert report.why.startswith("half size: VMAF 7") and report.crf


@pytest.mark.usefixtures("weights")
def test_two_runs_give_the_same_bytes(tmp_path: Path) -> None:
    source = made.rich(tmp_path / "in.mkv")
    for name in ("a.mkv", "b.mkv"):
        code(source, tmp_path / name, side_information=True)
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


@pytest.mark.usefixtures("weights")
def test_progress_counts_the_frames_of_both_passes(tmp_path: Path) -> None:
    source, told = made.clip(tmp_path / "in.mp4"), []
    code(source, tmp_path / "out.mp4", side_information=True, progress=lambda *step: told.append(step))
    assert told == [(n + 1, 2 * made.COUNT) for n in range(2 * made.COUNT)]


@pytest.mark.usefixtures("weights")
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    """Pictures are let go: at no time are there more than the encoder and the network's neighbours want."""
    most = 0

    def count(done: int, total: int | None) -> None:
        nonlocal most
        most = max(most, [type(found) for found in gc.get_objects()].count(Planes))

    source = made.clip(tmp_path / "in.mkv", times=range(40))
    code(source, tmp_path / "out.mkv", side_information=True, progress=count)
    assert 0 < most < 14


@pytest.mark.usefixtures("weights")
def test_ctrl_c_leaves_what_was_there(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mp4")
    (tmp_path / "out.mp4").write_bytes(b"precious")
    for moment in (3, made.COUNT + 3):  # while coding, while measuring

        def interrupt(done: int, total: int | None, moment: int = moment) -> None:
            if done == moment:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            code(source, tmp_path / "out.mp4", side_information=True, progress=interrupt)
        assert {path.name for path in tmp_path.iterdir()} == {"in.mp4", "out.mp4"}
        assert (tmp_path / "out.mp4").read_bytes() == b"precious"


@pytest.mark.usefixtures("weights")
def test_standard_input_is_coded_without_side_information(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"YUV4MPEG2 W64 H48 F25:1\n" + b"".join(b"FRAME\n" + bytes([50 + n] * 64 * 72) for n in range(3))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    with pytest.warns(FovealWarning, match="read once"):
        report = code("-", tmp_path / "out.mp4", side_information=True)
    assert (report.frames, report.side_bytes) == (3, 0)
    with pytest.raises(InputError, match="cannot be probed"):
        code("-", tmp_path / "out.mp4", scale="auto")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": 3}, "scale 3"),
        ({"target_vmaf": 80}, "one of the three"),
        ({"target_vmaf": 101, "settings": EncoderSettings("x264")}, "at most 100"),
        ({"out": "in.mkv"}, "is the input"),
        ({"out": "out.y4m"}, "encode writes"),
        ({"out": "-"}, "encode writes"),
        ({"out": "none/out.mkv"}, "no folder"),
        ({"source": "none.mkv"}, "cannot read"),
        ({"source": "none.mkv", "out": "in.mkv"}, "cannot read"),
        ({"out": "out.webm"}, "does not go into"),
    ],
)
def test_what_cannot_be_meant_is_refused(options: dict[str, Any], told: str, tmp_path: Path, weights: Path) -> None:
    made.clip(tmp_path / "in.mkv", times=range(2))
    arguments = {"source": "in.mkv", "out": "out.mkv", "settings": FAST} | options
    with pytest.raises(InputError, match=told):
        code(tmp_path / arguments.pop("source"), tmp_path / arguments.pop("out"), **arguments)
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("side", [True, False])
def test_bad_sources_leave_nothing(side: bool, tmp_path: Path) -> None:
    whole = made.clip(tmp_path / "whole.mkv", times=range(30)).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    parts = [made.clip(tmp_path / f"{w}.h264", width=w, height=48).read_bytes() for w in (64, 80)]
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    before = sorted(tmp_path.iterdir())
    with pytest.raises(TruncatedError):
        code(tmp_path / "cut.mkv", tmp_path / "out.mkv", side_information=side)
    with pytest.raises(UnsupportedVideoError, match="picture 8 is 80x48"):
        code(tmp_path / "both.h264", tmp_path / "out.mkv", side_information=side)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.usefixtures("weights")
def test_times_before_zero_and_late_starts_are_kept(tmp_path: Path) -> None:
    for first in (-3, 40):
        source = made.clip(tmp_path / "in.mp4", times=[first + n for n in made.VFR])
        with Reader(source) as reader:
            times = [frame.pts * reader.format.time_base for frame in reader]
        code(source, tmp_path / "out.mp4")
        assert made.facts(tmp_path / "out.mp4")["times"] == times
    assert float(times[0]) == pytest.approx(40 * made.STEP / 30000, abs=0.001)


@pytest.mark.usefixtures("weights")
def test_what_the_probes_show_is_what_the_restorer_shows() -> None:
    original, settings = made.planes(0, 130, 98), EncoderSettings("x264", crf=18)
    small = shrink(original, 2, 0)
    wanted = Restorer.for_model("s", 2, 130, 98, 8, settings.quality, 0)
    taps, blend = best(original, wanted.parts(small))
    assert blend.shape == (2, 3) and taps.shape == (TAPS,)
    receiver = sender._receiver(VideoFormat(130, 98, 8, Fraction(1, 25)), "s", True)
    shown = receiver(2, settings, Coded(1, 1e4, []))(small, original)
    restored = wanted.restore(small, blend=blend, taps=taps)
    assert np.abs(shown.y.astype(int) - restored.y).max() <= 1
    assert np.array_equal(shown.u, resize_planes(small, 130, 98, ratio=0.5).u)
    errors = [np.square(original.y - x.y.astype(float)).mean() for x in (shown, wanted.plain(small))]
    assert errors[0] < errors[1]


@pytest.mark.usefixtures("weights")
def test_errors_and_warnings_name_the_files_that_were_given(tmp_path: Path) -> None:
    source = made.rich(tmp_path / "in.mkv")
    with pytest.warns(FovealWarning, match=r"/out\.mp4: left out, .*font\.ttf") as told:
        code(source, tmp_path / "out.mp4", side_information=True)
    assert len(told) == 1
    other = made.clip(tmp_path / "444.mkv", "ffv1", pixel_format="yuv444p", times=range(3))
    with pytest.warns(FovealWarning, match=r"/444\.mkv: 4:4:4") as told:
        code(other, tmp_path / "out.mkv", scale="auto", side_information=True)
    assert len(told) == 1


@pytest.mark.usefixtures("weights")
def test_names_may_be_in_capitals(tmp_path: Path) -> None:
    made.clip(tmp_path / "in.mp4", times=range(2)).rename(tmp_path / "IN.MP4")
    for name in ("OUT.MP4", "OUT.MKV", "OUT.M4V"):
        code(tmp_path / "IN.MP4", tmp_path / name, side_information=name != "OUT.M4V")
        with Reader(tmp_path / name) as reader:
            assert len(list(reader)) == 2


def test_a_player_plays_it_as_it_is(tmp_path: Path, weights: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1")
    for name in ("out.mp4", "out.mkv"):
        code(source, tmp_path / name, side_information=True)
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == made.COUNT


HDR = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


def mastered(path: Path) -> Path:
    """A 10-bit HEVC clip that says what it was mastered for."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx265", rate=25)
        stream.width, stream.height, stream.pix_fmt = made.WIDTH, made.HEIGHT, "yuv420p10le"
        stream.options = {"x265-params": f"log-level=none:pools=none:hdr10=1:{HDR}"}
        for n in range(4):
            picture = av.VideoFrame.from_ndarray(
                np.full((made.HEIGHT * 3 // 2, made.WIDTH), 300 + 40 * n, np.uint16), format="yuv420p10le"
            )
            picture.pts = n
            out.mux(stream.encode(picture))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("codec", ["x264", "x265", "svtav1"])
def test_what_hdr_was_mastered_for_is_kept(codec: str, tmp_path: Path) -> None:
    source, out = mastered(tmp_path / "hdr.mkv"), tmp_path / "out.mkv"
    code(source, out, EncoderSettings(codec), scale=1)
    with Reader(source) as before, Reader(out) as after:
        first, second = before.format.mastering, after.format.mastering
    assert first and second and first.display and second.display and first.light == second.light == (1000, 400)
    assert [float(x) for x in second.display] == pytest.approx([float(x) for x in first.display], rel=2e-3)
    assert float(first.display[0]) == pytest.approx(0.68) and first.display[9] == 1000


def test_a_codec_without_a_place_for_hdr_warns(tmp_path: Path) -> None:
    with pytest.warns(FovealWarning, match="HDR10"):
        code(mastered(tmp_path / "hdr.mkv"), tmp_path / "out.mkv", EncoderSettings("ffv1"), scale=1)
