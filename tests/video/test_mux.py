"""Writing: everything of the source kept, times exact, whole files or none."""

from __future__ import annotations

import io
import os
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import video_clips as made

from foveal.errors import FovealWarning, InputError, UnsupportedVideoError
from foveal.video import sidecar
from foveal.video.basecodec import EncoderSettings
from foveal.video.frames import Reader
from foveal.video.mux import Writer, concat
from foveal.video.types import Frame, Mastering

FAST = {"x264": EncoderSettings("x264", crf=18, preset="ultrafast"), "svtav1": EncoderSettings("svtav1", crf=20, preset=10),
        "x265": EncoderSettings("x265", crf=18, preset="ultrafast"), "ffv1": EncoderSettings("ffv1")}  # fmt: skip


def recode(source: Path, out: Path, codec: str = "x264") -> Path:
    with Reader(source) as reader, Writer(out, reader.format, FAST[codec], copy_from=source) as writer:
        for frame in reader:
            writer.write(frame)
    return out


@pytest.mark.parametrize("codec", ["x264", "x265", "svtav1"])
@pytest.mark.parametrize("kind", ["mkv", "mp4"])
def test_every_stream_and_time_is_kept(kind: str, codec: str, tmp_path: Path) -> None:
    source = made.rich(tmp_path / f"in.{kind}")
    before, after = made.facts(source), made.facts(recode(source, tmp_path / f"out.{kind}", codec))
    for stream in (*before["streams"], *after["streams"]):
        if stream["type"] == "video":
            assert stream.pop("codec") in ("h264", "hevc", "av1")
    for name in ("streams", "packets", "times", "chapters", "aspect", "rotation", "colour", "size"):
        assert after[name] == before[name], name
    assert {k: after["metadata"][k] for k in ("title", "artist", "site")} == {
        "title": "a clip", "artist": "nobody", "site": "yard 7",
    }  # fmt: skip


def test_from_mp4_to_matroska_only_the_clock_is_coarser(tmp_path: Path) -> None:
    source = made.rich(tmp_path / "in.mp4")
    before, after = made.facts(source), made.facts(recode(source, tmp_path / "out.mkv"))
    for old, new in zip(before["times"], after["times"], strict=True):
        assert abs(old - new) <= Fraction(1, 2000)
    for index in (0, 2):
        sound = before["packets"][index]
        assert [data for _, data in after["packets"][index]] == [data for _, data in sound]
        assert after["packets"][index][3][0] == pytest.approx(sound[3][0], abs=0.0011)
    assert [data for _, data in after["packets"][3]] == [b"hello", b"world"]  # timed text has become SubRip
    assert [s["type"] for s in after["streams"]] == ["audio", "video", "audio", "subtitle"]
    assert [s["language"] for s in after["streams"]] == ["fra", "eng", "deu", "spa"]
    for name in ("chapters", "aspect", "rotation", "colour"):
        assert after[name] == before[name]


def test_from_matroska_to_mp4_text_changes_its_form_and_attachments_are_told(tmp_path: Path) -> None:
    source = made.rich(tmp_path / "in.mkv")
    with pytest.warns(FovealWarning, match=r"left out, for .mp4 cannot hold them: attachment \(font.ttf\)"):
        after = made.facts(recode(source, tmp_path / "out.mp4"))
    before = made.facts(source)
    assert after["times"] == before["times"]
    assert [(t, d) for t, d in after["packets"][3] if len(d) > 2] == [(0.05, b"\0\5hello"), (0.25, b"\0\5world")]
    for name in ("chapters", "aspect", "rotation", "colour"):
        assert after[name] == before[name]


def test_sound_that_a_container_cannot_hold_is_an_error(tmp_path: Path) -> None:
    source = made.rich(tmp_path / "in.mp4")
    with pytest.raises(UnsupportedVideoError, match=r"sound \(aac\) does not go into a .webm file"):
        recode(source, tmp_path / "out.webm", "svtav1")
    assert {path.name for path in tmp_path.iterdir()} == {"in.mp4"}


def test_a_cover_picture_stays_one(tmp_path: Path) -> None:
    source = made.with_cover(tmp_path / "in.mp4")
    recode(source, tmp_path / "out.mp4")
    recode(source, tmp_path / "out.mkv")
    for name in ("in.mp4", "out.mp4", "out.mkv"):
        with av.open(str(tmp_path / name)) as container:
            videos = container.streams.video
            covers = [s for s in videos if s.disposition & av.stream.Disposition.attached_pic]
            assert (len(videos), len(covers)) == (2, 1), name
            assert next(container.decode(covers[0])).width == 16


@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_a_second_video_is_copied_as_it_is(name: str, tmp_path: Path) -> None:
    """Matroska tells no decoding times of its first pictures."""
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        streams = [out.add_stream("libx264", rate=Fraction(30000, 1001), width=64, height=48) for _ in range(2)]
        for number in range(12):
            for stream in streams:
                out.mux(stream.encode(made.picture(made.planes(number), number * made.STEP, made.BASE)))
        for stream in streams:
            out.mux(stream.encode(None))
    recode(tmp_path / "in.mkv", tmp_path / name)
    shown = []
    for path in (tmp_path / "in.mkv", tmp_path / name):
        with av.open(str(path)) as container:
            second = container.streams.video[1]
            shown.append([(f.pts * second.time_base, f.to_ndarray().tobytes()) for f in container.decode(second)])
    assert shown[0] == shown[1] and len(shown[0]) == 12


def test_timecode_and_unknown_data_do_not_stop_the_rest(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mov"), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=48, time_base=Fraction(1, 25))
        stream.metadata["timecode"] = "01:00:00:00"
        for number in range(4):
            out.mux(stream.encode(made.picture(made.planes(number), number, Fraction(1, 25))))
        out.mux(stream.encode(None))
    with av.open(str(tmp_path / "in.mov")) as container:
        assert [s.type for s in container.streams] == ["video", "data"]
    recode(tmp_path / "in.mov", tmp_path / "out.mov")
    with av.open(str(tmp_path / "out.mov")) as container:
        assert [s.type for s in container.streams] == ["video", "data"]
        assert container.streams.video[0].metadata["timecode"] == "01:00:00:00"
    recode(tmp_path / "in.mov", tmp_path / "out.mkv")
    assert len(made.facts(tmp_path / "out.mkv")["times"]) == 4


def test_a_last_frame_lasts_as_long_as_before(tmp_path: Path) -> None:
    frames = [replace(frame, duration=4 * made.STEP if n == 7 else made.STEP) for n, frame in enumerate(made.frames())]
    for codec in ("x264", "svtav1"):
        with Writer(tmp_path / "a.mp4", made.video_format(), FAST[codec]) as writer:
            for frame in frames:
                writer.write(frame)
        with av.open(str(tmp_path / "a.mp4")) as container:
            stream = container.streams.video[0]
            assert stream.duration * stream.time_base == 11 * made.STEP * made.BASE, codec


@pytest.mark.parametrize("codec", ["ffv1", "svtav1"])
def test_odd_sizes_are_kept_where_the_codec_has_them(codec: str, tmp_path: Path) -> None:
    with Writer(tmp_path / "a.mkv", made.video_format(65, 49), FAST[codec]) as writer:
        for frame in made.frames(3, 65, 49):
            writer.write(frame)
    with Reader(tmp_path / "a.mkv") as reader:
        assert (reader.format.width, reader.format.height) == (65, 49)
        gap = next(iter(reader)).planes.y.astype(int) - made.planes(0, 65, 49).y
    assert np.abs(gap).mean() < (0.01 if codec == "ffv1" else 6)


@pytest.mark.parametrize("codec", ["x264", "x265"])
def test_odd_sizes_become_even_with_a_warning(codec: str, tmp_path: Path) -> None:
    with (
        pytest.warns(FovealWarning, match=f"65x49 becomes 66x50, since {codec} codes even sizes"),
        Writer(tmp_path / "a.mkv", made.video_format(65, 49), replace(FAST[codec], crf=1)) as writer,
    ):
        for frame in made.frames(2, 65, 49):
            writer.write(frame)
    with Reader(tmp_path / "a.mkv") as reader:
        planes = next(iter(reader)).planes
    assert planes.y.shape == (50, 66)
    assert np.abs(planes.y[:49, :65].astype(int) - made.planes(0, 65, 49).y).mean() < 4
    assert np.abs(planes.y[:, 65].astype(int) - planes.y[:, 64]).mean() < 6


def test_depth_is_changed_when_asked_for(tmp_path: Path) -> None:
    for bits, wanted in ((8, 10), (10, 8)):
        settings = EncoderSettings("ffv1", bits=wanted)
        with Writer(tmp_path / "a.mkv", made.video_format(bits=bits), settings) as writer:
            for frame in made.frames(2, bits=bits):
                writer.write(frame)
        with Reader(tmp_path / "a.mkv") as reader:
            planes = next(iter(reader)).planes
        original = made.planes(0, bits=bits).y.astype(float)
        assert planes.bits == wanted
        assert np.abs(planes.y - original * (4 if wanted == 10 else 0.25)).max() <= 0.75


def test_files_without_pictures_are_not_written(tmp_path: Path) -> None:
    for name in ("a.mkv", "a.y4m"):
        with (
            pytest.raises(InputError, match="not one picture"),
            Writer(tmp_path / name, made.video_format(), FAST["x264"]),
        ):
            pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.y4m"])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interruption_leaves_what_was_there(name: str, error: type[BaseException], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    with pytest.raises(error), Writer(tmp_path / name, made.video_format(), FAST["x264"]) as writer:
        for number, frame in enumerate(made.frames()):
            writer.write(frame)
            if number == 5:
                raise error
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"precious"


def test_permissions_of_a_replaced_file_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with Writer(path, made.video_format(), FAST["x264"]) as writer:
        for frame in made.frames(2):
            writer.write(frame)
    assert path.stat().st_mode & 0o777 == 0o640 and path.stat().st_size > 100


@pytest.mark.parametrize(
    ("name", "codec", "told"),
    [
        ("a.avi", "x264", "does not go into a .avi file"),
        ("a", "x264", "does not go into a nameless file"),
        ("a.webm", "x264", "does not go into a .webm file"),
        ("a.mp4", "ffv1", "use .mkv"),
        ("none/a.mp4", "x264", "no folder"),
    ],
)
def test_targets_that_cannot_be_are_refused(name: str, codec: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=told):
        Writer(tmp_path / name, made.video_format(), FAST[codec])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "x264"), ("a.mkv", "ffv1"), ("a.y4m", "x264")])
def test_of_a_file_that_nobody_sees_nothing_is_told(name: str, codec: str, tmp_path: Path) -> None:
    video = replace(made.video_format(63), mastering=Mastering(None, (1000, 400)))
    frames = [replace(f, pts=f.pts**2) for f in made.frames(4, 63)]
    with Writer(tmp_path / name, video, FAST[codec], quiet=True) as writer:
        for frame in frames:
            writer.write(frame)
    assert (tmp_path / name).stat().st_size > 100


@pytest.mark.parametrize("target", ["out.mkv", "out.mp4"])
@pytest.mark.parametrize(
    ("source", "known", "unknown"),
    [("in.mkv", (b"A_AAC",), (b"A_XYZ",)), ("in.mov", (b"mp4a", b"esds"), (b"apac", b"dapa"))],
)
def test_sound_of_an_unknown_codec_is_left_out_and_told(
    source: str, known: tuple[bytes, ...], unknown: tuple[bytes, ...], target: str, tmp_path: Path
) -> None:
    """Telephones add a track of sound around them that FFmpeg does not know."""
    path = made.with_cover(tmp_path / source) if source == "in.mov" else made.rich(tmp_path / source)
    data = path.read_bytes()
    for old, new in zip(known, unknown, strict=True):
        data = data.replace(old, new)
    path.write_bytes(data)
    with pytest.warns(FovealWarning, match="unknown audio"):
        recode(path, tmp_path / target)
    found = made.facts(tmp_path / target)
    with Reader(path, quiet=True) as reader:
        assert len(found["times"]) == sum(1 for _ in reader) > 1
    assert not [s for s in found["streams"] if s["type"] == "audio" and s.get("codec") == "aac"]


def test_of_two_pictures_the_one_that_can_be_decoded_is_the_main_one(tmp_path: Path) -> None:
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as out:
        streams = [out.add_stream(name, rate=25, width=64, height=48) for name in ("mpeg4", "libx264")]
        for stream in streams:
            stream.pix_fmt = "yuv420p"
        for number in range(3):
            for stream in streams:
                out.mux(stream.encode(made.picture(made.planes(number), number, Fraction(1, 25))))
        for stream in streams:
            out.mux(stream.encode(None))
    path.write_bytes(path.read_bytes().replace(b"V_MPEG4/ISO/ASP", b"V_XYZ12/ISO/ASP"))
    with pytest.warns(FovealWarning, match="unknown video"):
        recode(path, tmp_path / "out.mkv")
    assert [s["type"] for s in made.facts(tmp_path / "out.mkv")["streams"]] == ["video"]


@pytest.mark.parametrize(("suffix", "codec"), [(".webm", "svtav1"), (".mkv", "svtav1"), (".mkv", "x264")])
def test_sample_aspects_are_kept_without_colour_tags_to_make_room(codec: str, suffix: str, tmp_path: Path) -> None:
    video = replace(made.video_format(128, 96), aspect=Fraction(485, 483), matrix=2, primaries=2, transfer=2)
    with Writer(
        tmp_path / f"a{suffix}", video, EncoderSettings(codec, preset="10" if codec == "svtav1" else None)
    ) as out:
        for frame in made.frames(3, 128, 96):
            out.write(frame)
    with av.open(str(tmp_path / f"a{suffix}")) as container:
        stream = container.streams.video[0]
        assert stream.sample_aspect_ratio == (Fraction(129, 128) if suffix == ".webm" else video.aspect)  # whole pixels
        assert "title" not in stream.metadata


def test_a_track_with_a_name_keeps_it_beside_its_aspect(tmp_path: Path) -> None:
    source = made.rich(tmp_path / "in.mkv")
    assert made.facts(source)["aspect"] == Fraction(4, 3)
    with Reader(source) as reader:
        settings = EncoderSettings("svtav1", preset="10")
        video = replace(reader.format, matrix=2, primaries=2, transfer=2)
        with Writer(tmp_path / "out.mkv", video, settings, copy_from=source) as out:
            for frame in reader:
                out.write(frame)
    with av.open(str(tmp_path / "out.mkv")) as container:
        (stream,) = container.streams.video
        assert (stream.sample_aspect_ratio, stream.metadata["title"]) == (Fraction(4, 3), "pictures")


def test_attachments_are_kept_but_side_information_about_other_pictures_is_not(tmp_path: Path) -> None:
    source = made.rich(tmp_path / "in.mkv")
    sidecar.put(source, bytes(range(250)))
    assert [s["name"] for s in made.facts(source)["streams"] if s["type"] == "attachment"] == ["font.ttf", sidecar.NAME]
    recode(source, tmp_path / "out.mkv")
    found = [s for s in made.facts(tmp_path / "out.mkv")["streams"] if s["type"] == "attachment"]
    assert [(s["name"], s["mime"], s["data"]) for s in found] == [
        ("font.ttf", "application/x-truetype-font", bytes(range(200)))
    ]


def test_memory_does_not_grow_with_the_sound(tmp_path: Path) -> None:
    """Copies are interleaved with the pictures, not before or behind them."""
    source = made.rich(tmp_path / "in.mkv")
    recode(source, tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        order = [
            packet.stream.type for packet in container.demux() if packet.size and packet.stream.type != "attachment"
        ]
    first, last = order.index("video"), len(order) - 1 - order[::-1].index("video")
    assert order[first:last].count("audio") > 10


# --- y4m ---


def test_y4m_to_a_file_and_to_standard_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(buffer=pipe))
    for name in (str(tmp_path / "a.y4m"), "-"):
        with Writer(name, made.video_format(9, 7, 10), FAST["x264"]) as writer:
            for frame in made.frames(3, 9, 7, 10):
                writer.write(frame)
    assert pipe.getvalue() == (tmp_path / "a.y4m").read_bytes()
    with Reader(tmp_path / "a.y4m") as reader:
        frames = list(reader)
    assert reader.format.rate == Fraction(30000, 1001) and len(frames) == 3
    assert np.array_equal(frames[2].planes.v, made.planes(2, 9, 7, 10).v)


def test_y4m_of_uneven_times_warns(tmp_path: Path) -> None:
    with (
        pytest.warns(FovealWarning, match="uneven at picture 3"),
        Writer(tmp_path / "a.y4m", made.video_format(), FAST["x264"]) as writer,
    ):
        for time, frame in zip(made.VFR, made.frames(), strict=True):
            writer.write(Frame(frame.planes, time * made.STEP))


def test_a_closed_pipe_is_an_input_error(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("no pipes here")
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb", buffering=0) as pipe:
        stdout, sys.stdout = sys.stdout, SimpleNamespace(buffer=pipe)  # type: ignore[assignment]
        try:
            with pytest.raises(InputError, match="cannot write -"):
                Writer("-", made.video_format(), FAST["x264"])
        finally:
            sys.stdout = stdout


# --- joining ---


@pytest.mark.parametrize("name", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", ["x264", "x265", "svtav1"])
def test_parts_are_joined_into_what_one_run_gives(name: str, codec: str, tmp_path: Path) -> None:
    source = made.rich(tmp_path / f"in.{name}")
    whole = made.facts(recode(source, tmp_path / f"whole.{name}", codec))
    with Reader(source) as reader:
        frames = list(reader)
    parts = []
    for number, piece in enumerate((frames[:3], frames[3:5], frames[5:])):
        parts.append(tmp_path / f"part{number}.{name}")
        with Writer(parts[-1], reader.format, FAST[codec]) as writer:
            for frame in piece:
                writer.write(frame)
    concat(parts, tmp_path / f"out.{name}", copy_from=source)
    joined = made.facts(tmp_path / f"out.{name}")
    for what in ("times", "streams", "packets", "chapters", "aspect", "colour", "rotation"):
        assert joined[what] == whole[what], what
    with Reader(tmp_path / f"out.{name}") as reader:
        for frame, original in zip(reader, frames, strict=True):
            assert np.abs(frame.planes.y.astype(int) - original.planes.y).mean() < 6


@pytest.mark.parametrize(
    ("codec", "name"),
    [(codec, name) for codec in FAST for name in ("a.mp4", "a.mkv") if (codec, name) != ("ffv1", "a.mp4")],
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_shortest_clips(codec: str, name: str, count: int, tmp_path: Path) -> None:
    with Writer(tmp_path / name, made.video_format(), FAST[codec]) as writer:
        for frame in made.frames(count):
            writer.write(frame)
    with Reader(tmp_path / name) as reader:
        times = [frame.pts * reader.format.time_base for frame in reader]
    assert times == pytest.approx([n * made.STEP / 30000 for n in range(count)], abs=0.0006)


def test_joining_nothing_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no parts"):
        concat([], tmp_path / "a.mkv")
    with pytest.raises(InputError, match="cannot read"):
        concat([tmp_path / "none.mkv"], tmp_path / "a.mkv")
    assert list(tmp_path.iterdir()) == []
