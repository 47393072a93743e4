"""What goes along with the pictures stays in step: hidden sound of an MP4, clocks that begin anywhere, parts joined."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import video_clips as made

from foveal.errors import FovealWarning, InputError
from foveal.video.basecodec import EncoderSettings
from foveal.video.frames import Reader
from foveal.video.mux import Writer, concat
from foveal.video.receiver import receive

FAST = EncoderSettings("x264", crf=18, preset="ultrafast")
RATE = 48000


def recode(source: Path, out: Path) -> Path:
    with Reader(source) as reader, Writer(out, reader.format, FAST, copy_from=source) as writer:
        for frame in reader:
            writer.write(frame)
    return out


def with_sound(path: Path, early: float, start: int = 0) -> Path:
    """Pictures from second ``start`` on, and half a second of sound besides, before which come ``early`` seconds that in
    MP4 an edit list hides."""
    with av.open(str(path), "w") as out:
        codecs = ("mpeg2video", "mp2") if path.suffix == ".mpg" else ("libx264", "aac")
        video = out.add_stream(codecs[0], rate=25, width=made.WIDTH, height=made.HEIGHT, time_base=Fraction(1, 25))
        video.options, video.pix_fmt = {"bf": "2"}, "yuv420p"
        sound = out.add_stream(codecs[1], rate=RATE, layout="mono")
        form, size = sound.codec_context.format.name, 1152 if path.suffix == ".mpg" else 1024
        first = -round(early * RATE)
        tone = np.sin(np.arange(RATE // 2 - first) ** 1.3 / 60).astype(np.float32) / 2
        tone = tone if form == "fltp" else (tone * 32767).astype(np.int16)
        for place in range(0, len(tone) - size + 1, size):
            frame = av.AudioFrame.from_ndarray(tone[None, place : place + size].copy(), format=form, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, first + place + start * RATE, Fraction(1, RATE)
            out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        for number in range(made.COUNT):
            out.mux(video.encode(made.picture(made.planes(number), number + 25 * start, Fraction(1, 25))))
        out.mux(video.encode(None))
    return path


def heard(path: Path) -> tuple[float, Any]:
    """When the sound begins, and its samples."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    return float(frames[0].pts * frames[0].time_base), np.concatenate([f.to_ndarray() for f in frames], axis=1)


@pytest.mark.parametrize("early", [0, 0.01, 0.7, 2.5])
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_sound_that_an_edit_list_hides_stays_hidden(early: float, name: str, tmp_path: Path) -> None:
    source = with_sound(tmp_path / "in.mp4", early)
    out = recode(source, tmp_path / name)
    assert made.facts(out)["times"] == [Fraction(number, 25) for number in range(made.COUNT)]
    (begins, before), (begins_now, after) = heard(source), heard(out)
    assert begins_now == pytest.approx(begins, abs=0.001)
    samples = RATE // 2 - 2048  # the last packet may be padded
    assert np.abs(after[:, :samples] - before[:, :samples]).max() < 1e-3


def test_long_hidden_sound_is_not_carried_along(tmp_path: Path) -> None:
    out = recode(with_sound(tmp_path / "in.mp4", 2.5), tmp_path / "out.mkv")
    first = made.facts(out)["packets"][1][0][0]
    assert -1 <= first < -0.5


def test_subtitles_and_chapters_stay_with_the_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as out:
        video = out.add_stream("libx264", rate=25, width=made.WIDTH, height=made.HEIGHT, time_base=Fraction(1, 25))
        text, sound = out.add_stream("mov_text"), out.add_stream("aac", rate=RATE, layout="mono")
        text.codec_context.subtitle_header = b"[Script Info]\n[V4+ Styles]\nFormat: Name\nStyle: Default\n[Events]\n"
        out.set_chapters([
            {"id": 1, "start": 0, "end": 160, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}},
            {"id": 2, "start": 160, "end": 320, "time_base": Fraction(1, 1000), "metadata": {"title": "two"}},
        ])  # fmt: skip
        for number in range(made.COUNT):
            out.mux(video.encode(made.picture(made.planes(number), number, Fraction(1, 25))))
        out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, -512, Fraction(1, RATE)
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
        for words, begin, end in (("one", 0, 120), ("two", 120, 240)):
            packet = av.Packet(len(words).to_bytes(2, "big") + words.encode())
            packet.pts = packet.dts = begin
            packet.duration, packet.time_base, packet.stream = end - begin, Fraction(1, 1000), text
            out.mux(packet)
    found = made.facts(recode(tmp_path / "in.mp4", tmp_path / "out.mkv"))
    assert found["times"][0] == 0
    assert found["packets"][1] == [(0.0, b"one"), (0.12, b"two")]
    assert found["chapters"] == [(0, 0.16, "one"), (0.16, 0.32, "two")]


def test_a_second_video_begins_where_it_can_be_decoded(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.mp4"), "w") as out:
        base = Fraction(1, 25)
        streams = [out.add_stream("libx264", rate=25, width=64, height=48, time_base=base) for _ in range(2)]
        for stream in streams:
            stream.options = {"g": "6", "bf": "0"}
        for stream, early in zip(streams, (0, 4), strict=True):
            for number in range(12):
                out.mux(stream.encode(made.picture(made.planes(number), number - early, Fraction(1, 25))))
            out.mux(stream.encode(None))
    with pytest.warns(FovealWarning, match="stream 1 begins at its first key picture that is not hidden"):
        recode(tmp_path / "in.mp4", tmp_path / "out.mkv")
    times = []
    for number in range(2):
        with av.open(str(tmp_path / "out.mkv")) as container:
            times.append([f.pts for f in container.decode(video=number)])
    assert times == [[40 * n for n in range(12)], [40 * n for n in range(2, 8)]]


@pytest.mark.parametrize("kind", ["ts", "mpg"])
@pytest.mark.parametrize("name", ["out.mkv", "out.mp4"])
def test_clocks_that_begin_anywhere_are_not_kept(kind: str, name: str, tmp_path: Path) -> None:
    source = with_sound(tmp_path / f"in.{kind}", 0, start=50000 if kind == "ts" else 5000)
    with av.open(str(source)) as container:
        assert container.start_time > 4e9
    with Reader(source) as reader:
        times = [frame.pts * reader.format.time_base for frame in reader]
    assert 0 <= times[0] < 0.05
    after = made.facts(recode(source, tmp_path / name))
    assert after["times"] == pytest.approx(times, abs=0.001)
    with av.open(str(source)) as container:
        before = [p.pts * p.time_base for p in container.demux() if p.size and p.stream.type == "audio"]
        gap = float(before[0] - Fraction(container.start_time, 1_000_000))
    assert after["packets"][1][0][0] == pytest.approx(gap, abs=0.001)
    with av.open(str(tmp_path / name)) as container:
        assert container.duration < 2e6


def test_an_offset_of_other_files_is_kept(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", times=range(50, 54))
    with Reader(source) as reader:
        assert next(iter(reader)).pts * reader.format.time_base == Fraction(1668, 1000)


# --- joining ---


def pieces(folder: Path, times: list[range]) -> list[Path]:
    base = Fraction(1, 1000)
    return [made.clip(folder / f"part{n}.mkv", times=part, step=40, base=base) for n, part in enumerate(times)]


def test_a_first_part_that_was_moved_is_put_back(tmp_path: Path) -> None:
    """A muxer may have moved it behind the sound; the next parts are where they belong."""
    parts = pieces(tmp_path, [range(9, 13), range(4, 8)])
    concat(parts, tmp_path / "out.mkv", begins=Fraction(0))
    assert made.facts(tmp_path / "out.mkv")["times"] == [Fraction(n, 25) for n in range(8)]
    with pytest.raises(InputError, match="begins at 160, but the part before it ends at 480"):
        concat(parts, tmp_path / "again.mkv")
    assert not (tmp_path / "again.mkv").exists()


def test_a_joined_file_says_its_rate(tmp_path: Path) -> None:
    concat(pieces(tmp_path, [range(4), range(4, 8)]), tmp_path / "out.mkv")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert float(container.streams.video[0].average_rate) == 25


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("kind", ["mp4", "ts"])
def test_resumed_with_hidden_sound_equals_in_one_go(kind: str, weights: Path, tmp_path: Path) -> None:
    source, out = with_sound(tmp_path / f"in.{kind}", 0.7 if kind == "mp4" else 0), tmp_path / "out.mkv"

    with pytest.raises(KeyboardInterrupt):
        receive(source, out, FAST, scale=1, progress=made.interrupt_at(3))
    part = made.facts(tmp_path / "out.mkv.part-000.mkv")
    assert len(part["times"]) == 3 and part["packets"][1]  # it plays, with sound
    receive(source, out, FAST, scale=1, resume=True)
    receive(source, tmp_path / "whole.mkv", FAST, scale=1)
    assert made.facts(out) == made.facts(tmp_path / "whole.mkv")
    rates = []
    for path in (out, tmp_path / "whole.mkv"):
        with av.open(str(path)) as container:
            rates.append(container.streams.video[0].average_rate)
    assert rates == [25, 25]


def test_y4m_is_known_in_capitals(weights: Path, tmp_path: Path) -> None:
    source, back = tmp_path / "IN.Y4M", tmp_path / "back.mkv"
    with Writer(source, made.video_format(), FAST) as writer:
        for frame in made.frames(3):
            writer.write(frame)
    assert len(made.facts(recode(source, back))["times"]) == 3
    assert receive(source, back, FAST, scale=2).why.endswith("y4m has no side information")


# --- metadata ---


def test_metadata_without_a_usual_name_do_not_cost_the_cover(tmp_path: Path) -> None:
    recode(made.with_cover(tmp_path / "in.mp4"), tmp_path / "in.mkv")
    with av.open(str(tmp_path / "in.mkv")) as found, av.open(str(tmp_path / "tagged.mkv"), "w") as out:
        video, cover = found.streams.video
        new = out.add_stream_from_template(video, opaque=True)
        out.add_attachment("cover.jpg", "image/jpeg", bytes(next(found.demux(cover))))
        out.metadata.update({"title": "a clip", "ARTIST": "nobody", "site": "yard 7"})
        found.seek(0)
        for packet in found.demux(video):
            if packet.size:
                packet.stream = new
                out.mux(packet)
    with pytest.warns(FovealWarning, match=r"left out, .*: metadata beside a cover picture \(.*[Ss][Ii][Tt][Ee].*\)"):
        recode(tmp_path / "tagged.mkv", tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        covers = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
        assert len(covers) == 1 and next(container.decode(covers[0])).width == 16
        kept = {k.lower(): v for k, v in container.metadata.items()}
    assert (kept["title"], kept["artist"]) == ("a clip", "nobody") and "site" not in kept
