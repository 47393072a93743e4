"""Reading: pictures as they are, what is converted, and every way a file can be bad."""

from __future__ import annotations

import io
import itertools
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import video_clips as made

from foveal.errors import (
    CorruptError,
    FovealError,
    FovealWarning,
    InputError,
    LimitError,
    TruncatedError,
    UnsupportedVideoError,
)
from foveal.video.frames import Limits, Reader, _seconds
from foveal.video.types import Frame


def read(path: Path | str, **options: object) -> list[Frame]:
    with Reader(path, **options) as reader:  # type: ignore[arg-type]
        return list(reader)


def test_without_standard_input_files_are_read_and_a_pipe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W16 H16 F25:1\nFRAME\n" + bytes(16 * 24))
    monkeypatch.setattr(sys, "stdin", None)  # as under a daemon
    assert len(read(tmp_path / "a.y4m")) == 1
    with pytest.raises(InputError, match="standard input is closed"):
        Reader("-")


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [(64, 48), (65, 49), (1, 1), (34, 30)])
def test_lossless_420_comes_as_it_is(bits: int, size: tuple[int, int], tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", "ffv1", width=size[0], height=size[1], bits=bits)
    frames = read(path)
    assert len(frames) == made.COUNT
    for number, frame in enumerate(frames):
        wanted = made.planes(number, *size, bits)
        for plane, other in zip(
            (frame.planes.y, frame.planes.u, frame.planes.v), (wanted.y, wanted.u, wanted.v), strict=True
        ):
            assert plane.dtype == other.dtype and np.array_equal(plane, other)


def test_pictures_come_in_the_order_they_are_shown_with_their_times(tmp_path: Path) -> None:
    frames = read(made.clip(tmp_path / "a.mp4", times=made.VFR, options={"bf": "3"}))
    assert [frame.pts for frame in frames] == [time * made.STEP for time in made.VFR]
    assert frames[0].key and not frames[1].key
    assert np.abs(frames[5].planes.y.astype(int) - made.planes(5).y).mean() < 6


def test_the_format_says_what_the_file_says(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.mp4"):
        with Reader(made.rich(tmp_path / name)) as reader:
            found = reader.format
        assert (found.width, found.height, found.bits, found.codec) == (made.WIDTH, made.HEIGHT, 8, "h264")
        assert (found.full_range, found.matrix, found.primaries, found.transfer) == (True, 9, 9, 16)
        assert (found.chroma_location, found.aspect, found.rotation) == (3, Fraction(4, 3), 90)
    assert found.time_base == made.BASE and found.frames == made.COUNT
    assert found.seconds == pytest.approx(11 * made.STEP / 30000, rel=0.4)


def test_the_rate_is_the_streams_own(tmp_path: Path) -> None:
    with Reader(made.clip(tmp_path / "a.mp4")) as reader:
        assert reader.format.rate == Fraction(30000, 1001)


def test_memory_is_the_readers_alone(tmp_path: Path) -> None:
    """A picture that is kept stays as it was, whatever the decoder does next, and may be written to."""
    path = made.clip(tmp_path / "a.mp4")
    with Reader(path) as reader:
        first = next(iter(reader))
        before = first.planes.y.copy()
        first.planes.y[:] = 7
        rest = list(reader)
    again = read(path)
    assert np.array_equal(again[0].planes.y, before)
    assert all(np.array_equal(a.planes.y, b.planes.y) for a, b in zip(rest, again[1:], strict=True))


def test_skipping_is_reading_and_dropping(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mp4")
    frames = read(path)
    with Reader(path) as reader:
        assert [frame.pts for frame in itertools.islice(reader, 4)] == [frame.pts for frame in frames[:4]]
        assert sum(1 for _ in reader) == made.COUNT - 4
        assert list(reader) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_start_leaves_out_what_comes_before(name: str, tmp_path: Path) -> None:
    path = made.clip(tmp_path / name, times=range(30), options={"g": "10"})
    frames = read(path, start=0.5)
    assert len(frames) == 15
    whole = read(path)
    assert frames[0].pts == whole[15].pts
    assert np.array_equal(frames[0].planes.y, whole[15].planes.y)
    with pytest.raises(UnsupportedVideoError, match="not one picture"):
        read(path, start=50)


@pytest.mark.parametrize(
    ("pixel_format", "told"),
    [("yuv422p", "4:2:2 becomes 4:2:0"), ("yuv444p", "4:4:4 becomes 4:2:0"), ("yuv422p10le", "4:2:2"),
     ("yuv444p12le", "12 bits become 10"), ("bgr0", "bgr0 become 4:2:0"), ("yuva420p", "transparency")],
)  # fmt: skip
def test_other_formats_are_converted_rightly_with_a_warning(pixel_format: str, told: str, tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", "ffv1", pixel_format=pixel_format, times=range(2))
    with pytest.warns(FovealWarning, match=told):
        frames = read(path)
    shift = 0 if frames[0].planes.bits == 8 else 2
    wanted = made.planes(1)
    for plane, other in (
        (frames[1].planes.y, wanted.y),
        (frames[1].planes.u, wanted.u),
        (frames[1].planes.v, wanted.v),
    ):
        gap = np.abs(plane.astype(int) - (other.astype(int) << shift)) >> shift
        # RGB has been through another matrix; other samplings were made from 4:2:0 and lose twice.
        limit = (
            20 if pixel_format == "bgr0" else 0.01 if plane is frames[1].planes.y or pixel_format == "yuva420p" else 6
        )
        assert gap[4:-4, 4:-4].mean() < limit


def test_rgb_becomes_bt709_limited_and_says_so(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=25, width=16, height=16, pix_fmt="bgr0")
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[..., 0] = 255
        out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="bgr0")))
        out.mux(stream.encode(None))
    with pytest.warns(FovealWarning), Reader(tmp_path / "a.mkv") as reader:
        frame = next(iter(reader))
    assert (reader.format.matrix, reader.format.full_range) == (1, False)
    assert [
        int(p[8, 8] if p is frame.planes.y else p[4, 4]) for p in (frame.planes.y, frame.planes.u, frame.planes.v)
    ] == (pytest.approx([63, 102, 240], abs=2))


def test_grey_gets_neutral_chroma_without_a_warning(tmp_path: Path) -> None:
    frames = read(made.clip(tmp_path / "a.mkv", "ffv1", pixel_format="gray", times=range(2)))
    assert (frames[0].planes.u == 128).all() and frames[0].planes.v.shape == (24, 32)


def test_full_range_formats_keep_their_values(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", "mjpeg", pixel_format="yuvj444p", times=range(2), options={"q": "1"})
    with pytest.warns(FovealWarning, match="4:4:4"), Reader(path) as reader:
        frame = next(iter(reader))
    assert reader.format.full_range
    assert np.abs(frame.planes.y.astype(int) - made.planes(0).y).mean() < 25


# --- what is refused ---


def test_no_such_file_and_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path):
        with pytest.raises(InputError, match="cannot read"):
            Reader(path)


def test_text_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("hello " * 100)
    with pytest.raises(UnsupportedVideoError, match="not a video"):
        Reader(tmp_path / "a.mp4")
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UnsupportedVideoError, match="not a video"):
        Reader(tmp_path / "a.mp4")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        track = out.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(track.encode(frame))
        out.mux(track.encode(None))
    with pytest.raises(UnsupportedVideoError, match=r"no video .* only audio"):
        Reader(tmp_path / "a.mp4")


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVideoError, match="no video"):
        Reader(made.with_cover(tmp_path / "a.mp4", pictures=False))
    assert len(read(made.with_cover(tmp_path / "b.mp4"))) == made.COUNT


def test_no_pictures_at_all(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w") as out:
        out.add_stream("libx264", rate=25, width=64, height=48)
        out.start_encoding()
    with pytest.raises(UnsupportedVideoError):
        Reader(tmp_path / "a.mkv")


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_file_is_told_at_once(name: str, share: float, tmp_path: Path) -> None:
    path = made.clip(tmp_path / name, times=range(30), options={"movflags": "faststart"} if name == "a.mp4" else None)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(TruncatedError, match=r"a\.m"):
        Reader(path)


def test_a_truncated_file_yields_what_there_is_when_tolerated(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", times=range(30))
    whole, data = read(path), path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.6)])
    with pytest.warns(FovealWarning, match="what there is, is used"):
        frames = read(path, tolerant=True)
    assert 5 < len(frames) < 30
    assert np.array_equal(frames[3].planes.y, whole[3].planes.y)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "mpeg4"])
def test_damage_in_the_middle_is_an_error_or_a_warning_never_silence(codec: str, tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mp4", codec, times=range(12))
    with av.open(str(path)) as container:
        place = [packet.pos for packet in container.demux(video=0) if packet.size][6]
    data = bytearray(path.read_bytes())
    data[place : place + 24] = b"\xff" * 24
    path.write_bytes(bytes(data))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            read(path)
        except CorruptError as error:
            assert "damaged after picture" in str(error)
        else:
            assert any(issubclass(w.category, FovealWarning) for w in told)
        told.clear()
        frames = read(path, tolerant=True)
        assert 0 < len(frames) <= 12
        assert any("damaged places" in str(w.message) for w in told)


def test_a_change_of_size_on_the_way_is_refused(tmp_path: Path) -> None:
    parts = [made.clip(tmp_path / f"{w}.h264", width=w, height=48) for w in (64, 80)]
    (tmp_path / "both.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    refusal = pytest.raises(UnsupportedVideoError, match=r"picture 8 is 80x48 .* before it are 64x48")
    with Reader(tmp_path / "both.h264") as reader, refusal:
        list(reader)


def test_interlaced_pictures_are_refused_with_a_remedy(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", options={"x264-params": "tff=1"})
    with pytest.raises(UnsupportedVideoError, match="deinterlace it first"):
        Reader(path)


def test_hostile_sizes_are_refused_before_they_are_decoded(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", width=256, height=128, times=range(2))
    with pytest.raises(LimitError, match="256x128"):
        Reader(path, limits=Limits(pixels=256 * 127))
    with pytest.raises(LimitError, match="256x128"):
        Reader(path, limits=Limits(side=255))
    assert len(read(path, limits=Limits(256 * 128, 256))) == 2
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W1000000 H1000000 F25:1\nFRAME\n")
    with pytest.raises(LimitError, match="1000000x1000000"):
        Reader(tmp_path / "a.y4m")
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W0 H4 F25:1\nFRAME\n")
    with pytest.raises(UnsupportedVideoError, match="no size"):
        Reader(tmp_path / "a.y4m")


def test_a_size_hidden_in_the_bitstream_is_refused_too(tmp_path: Path) -> None:
    """The container says 64x48, the pictures are larger."""
    made.clip(tmp_path / "big.h264", width=512, height=256, times=range(2))
    with av.open(str(tmp_path / "big.h264")) as big, av.open(str(tmp_path / "a.mkv"), "w") as out:
        stream = out.add_mux_stream("h264", rate=25, width=64, height=48, time_base=Fraction(1, 25))
        for number, packet in enumerate(big.demux(video=0)):
            if packet.size:
                packet.pts = packet.dts = number
                packet.time_base, packet.stream = Fraction(1, 25), stream
                out.mux(packet)
    with pytest.raises((LimitError, UnsupportedVideoError)):
        read(tmp_path / "a.mkv", limits=Limits(64 * 64))


def test_playlists_open_no_other_file(tmp_path: Path) -> None:
    made.clip(tmp_path / "a.ts", times=range(4))
    for target in ("a.ts", "http://127.0.0.1:9/a.ts"):
        (tmp_path / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n")
        with pytest.raises(InputError):
            read(tmp_path / "list.m3u8")


def test_a_file_name_is_never_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made.clip(tmp_path / "a.mp4").rename("http:a.mp4")
    assert len(read("http:a.mp4")) == made.COUNT


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
def test_mutilated_files_end_in_pictures_or_in_errors_of_ours(name: str, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    whole = made.clip(tmp_path / name, "mpeg4" if name == "a.avi" else "libx264").read_bytes()
    outcomes = set()
    for _ in range(40):
        data = bytearray(whole)
        for place in random.integers(0, len(data), random.integers(1, 12)):
            data[place] = random.integers(0, 256)
        (tmp_path / name).write_bytes(bytes(data))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FovealWarning)
            try:
                outcomes.add(bool(read(tmp_path / name, limits=Limits(1 << 20), tolerant=bool(random.integers(2)))))
            except FovealError as error:
                outcomes.add(type(error).__name__)
    assert len(outcomes) > 1


# --- y4m ---


def test_y4m_comes_from_a_file_and_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"YUV4MPEG2 W4 H2 F30:1\n" + b"".join(b"FRAME\n" + bytes([n] * 12) for n in range(3))
    (tmp_path / "a.y4m").write_bytes(data)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
    for name in (str(tmp_path / "a.y4m"), "-"):
        frames = read(name)
        assert [(f.pts, int(f.planes.v[0, 0])) for f in frames] == [(0, 0), (1, 1), (2, 2)]
    assert not sys.stdin.buffer.closed


def test_y4m_without_pictures_and_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W4 H2 F30:1\n")
    with pytest.raises(UnsupportedVideoError, match="without a picture"):
        Reader(path)
    path.write_bytes(b"YUV4MPEG2 W4 H2 F30:1\nFRAME\n" + bytes(12) + b"FRAME\n" + bytes(5))
    with pytest.raises(TruncatedError, match="inside a picture"):
        read(path)
    with pytest.warns(FovealWarning, match="inside a picture"):
        assert len(read(path, tolerant=True)) == 1


def test_y4m_of_444_is_converted(tmp_path: Path) -> None:
    (tmp_path / "a.y4m").write_bytes(b"YUV4MPEG2 W4 H2 F30:1 C444\nFRAME\n" + bytes([9] * 24))
    with pytest.warns(FovealWarning, match="4:4:4"):
        (frame,) = read(tmp_path / "a.y4m")
    assert frame.planes.u.shape == (1, 2) and (frame.planes.u == 9).all()


# --- how long it lasts ---


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
@pytest.mark.parametrize(("late", "sound"), [(0, 0), (0, 12), (100, 0), (100, 12)])
def test_seconds_are_of_the_pictures_alone(name: str, late: int, sound: int, tmp_path: Path) -> None:
    with Reader(made.outlasted(tmp_path / name, late=late, sound=sound)) as reader:
        assert reader.format.seconds == pytest.approx(2, abs=0.05)


@pytest.mark.parametrize(
    ("kind", "tags", "start", "told", "seconds"),
    [
        ("matroska,webm", {"DURATION": "01:02:05.250000000"}, 5, 4000, 3720.25),
        ("matroska,webm", {"DURATION-eng": "00:00:12.5"}, 0, 60, 12.5),
        ("matroska,webm", {"DURATION": "00:00:12"}, 100, 112, 12),  # counted from the track's start
        ("matroska,webm", {"DURATION": "soon"}, 100, 112, 12),
        ("matroska,webm", {}, 0.5, 3, 2.5),
        ("matroska,webm", {}, 100, 12, 12),
        ("matroska,webm", {}, 0, None, None),
        ("avi", {"DURATION": "00:00:09"}, 100, 112, 112),
    ],
)
def test_seconds_where_the_stream_has_none(
    kind: str, tags: dict[str, str], start: float, told: float | None, seconds: float | None
) -> None:
    base = Fraction(1, 1000)
    stream = SimpleNamespace(duration=None, start_time=round(start / base), time_base=base, metadata=tags)
    container = SimpleNamespace(duration=told and round(told * 1e6), format=SimpleNamespace(name=kind))
    assert _seconds(stream, container) == seconds
