"""What a receiver does of side information that turns out damaged on the way, of signals, pipes and odd arguments."""

from __future__ import annotations

import itertools
import os
import signal
import threading
import warnings
import zlib
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import video_clips as made

import foveal.video
from foveal.errors import CorruptError, FovealWarning, InputError, TruncatedError
from foveal.video import frames, restorer, sidecar
from foveal.video.basecodec import EncoderSettings
from foveal.video.frames import Reader
from foveal.video.receiver import interruptible, receive
from foveal.video.sender import send
from foveal.video.sidecode import SideReader

LOSSLESS, FAST = EncoderSettings("ffv1"), EncoderSettings("x264", crf=20, preset="ultrafast")
HEAD = 33  # bytes of side information before its stream
pytestmark = pytest.mark.usefixtures("weights", "interruptible")


def luma(path: Path) -> list[np.ndarray]:
    with Reader(path) as reader:
        return [frame.planes.y for frame in reader]


def sealed(body: bytes) -> bytes:
    return body + zlib.crc32(body).to_bytes(4, "big")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=128, height=96)
    send(source, tmp_path / "small.mkv", FAST, scale=2)
    source.unlink()
    return tmp_path / "small.mkv"


def plainly(small: Path, out: Path) -> list[np.ndarray]:
    receive(small, out, LOSSLESS, scale=2, use_side=False)
    return luma(out)


def test_a_stream_that_is_none_is_left_aside_aloud(small: Path, tmp_path: Path) -> None:
    data = sidecar.find(small).data
    assert data is not None
    for stream in (b"\xff" * 8, np.random.default_rng(0).integers(0, 256, 400, np.uint8).tobytes()):
        sidecar.put(small, sealed(data[:HEAD] + stream))
        with pytest.warns(FovealWarning, match=r"\(frame 0\); restored without"):
            report = receive(small, tmp_path / "out.mkv", LOSSLESS)
        assert not report.side_information and report.frames == made.COUNT
        assert all(map(np.array_equal, luma(tmp_path / "out.mkv"), plainly(small, tmp_path / "plain.mkv")))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_what_there_is_of_a_cut_file_is_restored_when_asked_for(suffix: str, tmp_path: Path) -> None:
    source, whole, cut = made.rich(tmp_path / f"in{suffix}"), tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    send(source, whole, FAST, scale=2)
    data = whole.read_bytes()
    cut.write_bytes(data[: int(0.7 * len(data))])
    with pytest.raises(TruncatedError, match="--on-loss conceal"):
        receive(cut, tmp_path / "out.mkv", LOSSLESS)
    with pytest.raises(InputError, match="on_loss 'maybe'"):
        receive(cut, tmp_path / "out.mkv", LOSSLESS, on_loss="maybe")
    assert not list(tmp_path.glob("out*"))
    with pytest.warns(FovealWarning) as told:
        report = receive(cut, tmp_path / "out.mkv", LOSSLESS, on_loss="conceal")
    words = " ".join(str(warning.message) for warning in told)
    assert "what there is, is used" in words and "restored without" in words
    shown = luma(tmp_path / "out.mkv")
    assert 2 < report.frames == len(shown) < made.COUNT and not report.side_information
    expected = plainly(whole, tmp_path / "plain.mkv")
    assert all(map(np.array_equal, shown, expected))
    assert [s["type"] for s in made.facts(tmp_path / "out.mkv")["streams"]].count("audio") == 2


def test_frames_that_a_decoder_drops_in_silence_are_missed(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As FFmpeg's does with some that are damaged; side information knows how many there were."""
    decoded = frames._Container._decoded
    monkeypatch.setattr(frames._Container, "_decoded", lambda self: itertools.islice(decoded(self), made.COUNT - 1))
    told = f"{made.COUNT - 1} of its {made.COUNT} frames can be decoded"
    with pytest.raises(CorruptError, match=f"{told}.*--on-loss conceal"):
        receive(small, tmp_path / "out.mkv", LOSSLESS)
    assert not list(tmp_path.glob("out*"))
    with pytest.warns(FovealWarning, match=f"{told}; restored without"):
        report = receive(small, tmp_path / "out.mkv", LOSSLESS, on_loss="conceal")
    assert report.frames == made.COUNT - 1 and not report.side_information


def test_damage_on_the_way_ends_the_side_information_not_the_video(small: Path, tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", width=128, height=96, times=range(40))
    send(source, small, replace(FAST, preset="medium"), scale=2)
    receive(small, tmp_path / "whole.mkv", LOSSLESS)
    whole = luma(tmp_path / "whole.mkv")
    with av.open(str(small)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][20]
    data = bytearray(small.read_bytes())
    data[place + 8 : place + 24] = b"\xff" * 16
    small.write_bytes(bytes(data))
    with pytest.raises(CorruptError, match="--on-loss conceal"):
        receive(small, tmp_path / "out.mkv", LOSSLESS)
    with pytest.warns(FovealWarning) as told:
        report = receive(small, tmp_path / "out.mkv", LOSSLESS, on_loss="conceal")
    words = " ".join(str(warning.message) for warning in told)
    assert "damaged near frame" in words and "damaged places" in words
    shown = luma(tmp_path / "out.mkv")
    assert 30 < report.frames == len(shown) <= 40 and not report.side_information
    assert all(map(np.array_equal, shown[:8], whole))  # those before are as they were


def test_what_was_right_before_the_damage_is_kept(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    receive(small, tmp_path / "whole.mkv", LOSSLESS)
    whole, frame = luma(tmp_path / "whole.mkv"), SideReader.frame

    def broken(self: SideReader, number: int) -> object:
        if number >= 3:
            raise CorruptError("side information is invalid")
        return frame(self, number)

    monkeypatch.setattr(SideReader, "frame", broken)
    with pytest.warns(FovealWarning, match=r"invalid \(frame 3\); restored without") as told:
        report = receive(small, tmp_path / "out.mkv", LOSSLESS)
    assert len(told) == 1 and report.frames == made.COUNT and not report.side_information
    found = luma(tmp_path / "out.mkv")
    assert len(found) == made.COUNT
    assert all(map(np.array_equal, found[:3], whole[:3])) and not np.array_equal(found[3], whole[3])
    crf = SideReader(sidecar.find(small).data or b"").facts.crf
    with Reader(small) as reader:
        place = reader.format.chroma_location
        run = restorer.Restorer.for_model("s", 2, 128, 96, 8, None if crf is None else crf / 51, place)
        plain = [run.restore(frame.planes).y for number, frame in enumerate(reader) if number >= 6]
    assert all(map(np.array_equal, found[6:], plain))  # 4 and 5 had gone through the changed network


def test_a_model_that_is_not_there_is_no_error(small: Path, tmp_path: Path) -> None:
    data = sidecar.find(small).data
    assert data is not None
    for letter in b"zm":
        sidecar.put(small, sealed(data[:10] + bytes([letter]) + data[11:-4]))
        with pytest.warns(FovealWarning, match=f"is for model {chr(letter)}, which is not in this installation"):
            assert not receive(small, tmp_path / "out.mkv", LOSSLESS).side_information


@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_a_clip_that_was_cut_is_shown_at_the_scale_it_was_made_for(kind: str, tmp_path: Path) -> None:
    source, small = made.clip(tmp_path / "in.mkv", "ffv1", width=192, height=144), tmp_path / f"small.{kind}"
    send(source, small, FAST, scale=1.5)
    data = sidecar.find(small).data
    assert data is not None
    made.clip(small, width=128, height=96, times=range(5))
    sidecar.put(small, data)
    with pytest.warns(FovealWarning, match="restored without"):
        receive(small, tmp_path / "out.mkv", LOSSLESS)
    assert luma(tmp_path / "out.mkv")[0].shape == (144, 192)


def test_restore_uses_side_information_of_any_model(small: Path, tmp_path: Path) -> None:
    found = []
    for options in ({}, {"model": "s"}):
        found.append(foveal.video.restore(small, tmp_path / "out.mkv", codec="ffv1", **options))  # type: ignore[arg-type]
    assert all(report.side_information for report in found)


def test_ctrl_c_while_what_is_done_is_gone_through_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.groups_of(4, monkeypatch)
    source, out = made.clip(tmp_path / "in.mkv", times=range(16)), tmp_path / "out.mkv"
    with pytest.raises(KeyboardInterrupt, match="13 frames are done"):
        receive(source, out, LOSSLESS, scale=2, progress=made.interrupt_at(13))
    restored, restore = [], restorer.Restorer.restore

    def counted(self: restorer.Restorer, planes: object) -> object:
        restored.append(planes)
        return restore(self, planes)  # type: ignore[arg-type]

    begin = foveal.video.receiver.Run._begin

    def interrupted(self: object, first: object) -> object:
        signal.raise_signal(signal.SIGINT)
        return begin(self, first)  # type: ignore[arg-type]

    monkeypatch.setattr(restorer.Restorer, "restore", counted)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt, match="13 frames are done"):
        patch.setattr(foveal.video.receiver.Run, "_begin", interrupted)
        receive(source, out, LOSSLESS, scale=2, resume=True)
    assert restored == []  # it did not wait for the twelve
    receive(source, out, LOSSLESS, scale=2, resume=True)
    assert len(luma(out)) == 16 and [path.name for path in tmp_path.glob("*part*")] == []


def test_ctrl_c_in_the_moment_it_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    real = signal.signal

    def at_once(number: int, handler: object) -> object:
        before = real(number, handler)  # type: ignore[arg-type]
        if callable(handler) and handler is not signal.default_int_handler and before is not handler:
            monkeypatch.setattr(signal, "signal", real)
            signal.raise_signal(signal.SIGINT)
        return before

    monkeypatch.setattr(signal, "signal", at_once)
    with interruptible() as event:
        assert event.is_set()


def test_ctrl_c_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as event:
            signal.raise_signal(signal.SIGINT)
            assert not event.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes")
@pytest.mark.parametrize("door", [foveal.video.encode, foveal.video.decode, foveal.video.restore])
def test_a_named_pipe_is_refused(door: object, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "in.y4m")
    with pytest.raises(InputError, match=r"in\.y4m is no regular file, .*; pipe y4m in with -"):
        door(tmp_path / "in.y4m", tmp_path / "out.mkv")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": "2"}, "scale '2' is not 1, 1.5 or 2"),
        ({"crf": "20"}, "crf '20' is not a number"),
        ({"model": ""}, "''"),
        ({"out": ""}, "'' is not the name of a file"),
        ({"out": "."}, "'.' is not the name of a file"),
    ],
)
def test_arguments_of_another_kind(options: dict[str, object], told: str, small: Path, tmp_path: Path) -> None:
    for door in (foveal.video.decode, foveal.video.restore):
        given = {"out": tmp_path / "out.mkv", **options}
        with warnings.catch_warnings(), pytest.raises(foveal.FovealError, match=told):
            warnings.simplefilter("ignore", FovealWarning)
            door(small, **given)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["small.mkv"]


def test_what_is_set_of_torch_changes_nothing_and_leaves_nothing(small: Path, tmp_path: Path) -> None:
    foveal.video.decode(small, tmp_path / "out.mkv", codec="ffv1")
    wanted = luma(tmp_path / "out.mkv")
    foveal.video.attention_sr.load_weights.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        assert {found.name for found in foveal.video.models()} == {"s"}
        foveal.video.decode(small, tmp_path / "out.mkv", codec="ffv1")
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(map(np.array_equal, luma(tmp_path / "out.mkv"), wanted))
    for setting in (torch.autocast("cpu", dtype=torch.bfloat16), torch.device("meta"), torch.inference_mode()):
        with setting:
            foveal.video.decode(small, tmp_path / "out.mkv", codec="ffv1")
        assert all(map(np.array_equal, luma(tmp_path / "out.mkv"), wanted))


def test_the_sender_restores_from_the_first_frame_as_the_receiver_does() -> None:
    run = restorer.Restorer.for_model("s", 2, 64, 48, 8, 0.5, 0)
    with torch.inference_mode():
        for number in range(3):
            run.parts(made.planes(number, 32, 24))
    run.restart()
    assert (run.frames, run.reused) == (0, 0.0)
    first = run.alike().parts(made.planes(0, 32, 24)).residual
    assert np.array_equal(run.parts(made.planes(0, 32, 24)).residual, first)


def test_threads_restore_at_once(small: Path, tmp_path: Path) -> None:
    threads = [
        threading.Thread(target=foveal.video.decode, args=(small, tmp_path / f"{n}.mkv"), kwargs={"codec": "ffv1"})
        for n in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(map(np.array_equal, luma(tmp_path / "0.mkv"), luma(tmp_path / "1.mkv")))


@pytest.mark.parametrize(("location", "kept"), [(1, True), (2, False), (3, True)])
def test_chroma_does_not_drift_where_the_file_cannot_say_where_it_lies(
    location: int, kept: bool, tmp_path: Path
) -> None:
    from fractions import Fraction

    from foveal.video.mux import Writer
    from foveal.video.types import Frame, Planes, VideoFormat

    y, x = np.mgrid[:48, :64]
    chroma = np.rint(128 + 90 * np.sin(x / 4) * np.cos(y / 5)).astype(np.uint8)
    picture = Planes(np.full((96, 128), 120, np.uint8), chroma, chroma)
    source, small, back = tmp_path / "in.y4m", tmp_path / "small.mp4", tmp_path / "back.mkv"
    form = VideoFormat(128, 96, 8, Fraction(1, 25), Fraction(25), chroma_location=location)
    with Writer(source, form, LOSSLESS) as writer:
        for number in range(3):
            writer.write(Frame(picture, number, 1))
    with Reader(source) as reader:
        told = reader.format.chroma_location
    settings = EncoderSettings("svtav1", crf=5, preset=10)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        send(source, small, settings, scale=2)
    lost = [str(w.message) for w in caught if "where chroma lies" in str(w.message)]
    assert len(lost) == (0 if settings.keeps_siting(told, ".mp4") else 1)
    assert kept or told != location or lost
    receive(small, back, LOSSLESS)
    with Reader(back) as reader:
        found = next(iter(reader)).planes.u.astype(float)[4:-4, 4:-4]
    slope, wanted = np.gradient(chroma.astype(float), axis=1)[4:-4, 4:-4], chroma.astype(float)[4:-4, 4:-4]
    assert abs((slope * (found - wanted)).sum() / np.square(slope).sum()) < 0.06  # of a chroma sample


def test_sizes_at_which_svt_av1_hangs_are_refused(tmp_path: Path) -> None:
    settings = EncoderSettings("svtav1")
    for size in ((66, 24), (24, 96), (320, 16)):
        with pytest.raises(foveal.UnsupportedVideoError, match="hangs where one side has 24 pixels or less"):
            settings.check(*size, ".mkv")
    for size in ((64, 24), (96, 26), (24, 64)):
        settings.check(*size, ".mkv")
    source = made.clip(tmp_path / "in.mkv", width=192, height=48, times=range(2))
    with pytest.raises(foveal.UnsupportedVideoError, match="96x24: svtav1 hangs"):
        send(source, tmp_path / "out.mkv", settings, scale=2)
    assert replace(settings, codec="x264").too_narrow(96, 24) is False


def test_av1_does_not_go_into_mov(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", times=range(2))
    with pytest.raises(foveal.UnsupportedVideoError, match=r"svtav1 does not go into a \.mov file; use \.mp4"):
        foveal.video.encode(source, tmp_path / "out.mov", scale=1)
