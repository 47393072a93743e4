"""Small clips for the tests of video, made with PyAV: moving pictures, sound, subtitles, chapters and the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from foveal.video.types import Frame, Planes, VideoFormat

os.environ.setdefault("SVT_LOG", "-1")
WIDTH, HEIGHT, COUNT = 64, 48, 8
VFR = (0, 1, 2, 4, 7, 8, 9, 13)  # frame times in units of STEP
STEP = 1001
BASE = Fraction(1, 30000)


def planes(seed: int = 0, width: int = WIDTH, height: int = HEIGHT, bits: int = 8) -> Planes:
    """A smooth picture with some texture that moves with ``seed``."""
    top = 255 if bits == 8 else 1023
    kind = np.uint8 if bits == 8 else np.uint16

    def plane(w: int, h: int, shift: float) -> Any:
        y, x = np.mgrid[:h, :w]
        wave = np.sin((x + 2 * seed) / 5 + shift) + np.cos((y + seed) / 7) + 0.3 * np.sin(x * y / 9)
        return np.rint(top * (0.5 + wave / 6)).clip(0, top).astype(kind)

    half = ((width + 1) // 2, (height + 1) // 2)
    return Planes(plane(width, height, 0), plane(*half, 1), plane(*half, 2))


def picture(made: Planes, pts: int, base: Fraction, pixel_format: str | None = None) -> Any:
    """One of PyAV's pictures."""
    name = pixel_format or ("yuv420p" if made.bits == 8 else "yuv420p10le")
    frame = av.VideoFrame(made.y.shape[1], made.y.shape[0], name)
    for target, lines in zip(frame.planes, (made.y, made.u, made.v), strict=False):
        size = lines.dtype.itemsize
        np.frombuffer(target, lines.dtype).reshape(-1, target.line_size // size)[: lines.shape[0], : lines.shape[1]] = (
            lines
        )
    frame.pts, frame.time_base = pts, base
    return frame


def clip(
    path: Path,
    codec: str = "libx264",
    *,
    times: Sequence[int] = range(COUNT),
    width: int = WIDTH,
    height: int = HEIGHT,
    bits: int = 8,
    pixel_format: str | None = None,
    step: int = STEP,
    base: Fraction = BASE,
    options: dict[str, str] | None = None,
) -> Path:
    """A file with nothing but moving pictures."""
    name = pixel_format or ("yuv420p" if bits == 8 else "yuv420p10le")
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=1 / (base * step), width=width, height=height, pix_fmt=name, time_base=base)
        stream.options = {"x265-params": "log-level=none"} if codec == "libx265" else dict(options or {})
        for number, time in enumerate(times):
            frame = picture(planes(number, width, height, bits), time * step, base)
            out.mux(stream.encode(frame if pixel_format is None else frame.reformat(format=pixel_format)))
        out.mux(stream.encode(None))
    return path


def video_format(width: int = WIDTH, height: int = HEIGHT, bits: int = 8) -> VideoFormat:
    return VideoFormat(width, height, bits, BASE, 1 / (BASE * STEP))


def frames(count: int = COUNT, width: int = WIDTH, height: int = HEIGHT, bits: int = 8) -> list[Frame]:
    return [Frame(planes(i, width, height, bits), i * STEP, STEP, i == 0) for i in range(count)]


def rich(path: Path) -> Path:
    """A file with all that is to be kept: two languages of sound, subtitles, chapters, attachments, VFR, rotation,
    sample aspect and colour; in an order that has the pictures second."""
    matroska = path.suffix == ".mkv"
    with av.open(str(path), "w", container_options={} if matroska else {"movflags": "+use_metadata_tags"}) as out:
        sound = [out.add_stream("aac", rate=48000), None]
        video = out.add_stream("libx264", rate=Fraction(30000, 1001), width=WIDTH, height=HEIGHT, time_base=BASE)
        video.pix_fmt, video.options = "yuv420p", {"crf": "10", "chroma_sample_location": "topleft"}
        sound[1] = out.add_stream("flac" if matroska else "aac", rate=48000)
        text = out.add_stream("subrip" if matroska else "mov_text")
        text.codec_context.subtitle_header = b"[Script Info]\n[V4+ Styles]\nFormat: Name\nStyle: Default\n[Events]\n"
        context = video.codec_context
        context.color_range, context.colorspace, context.color_primaries, context.color_trc = 2, 9, 9, 16
        context.sample_aspect_ratio = Fraction(4, 3)
        video.set_display_rotation(90, hflip=True)
        for stream, language in zip((*sound, text, video), ("fra", "deu", "spa", "eng"), strict=True):
            stream.metadata["language"] = language
        disposition = av.stream.Disposition
        sound[0].disposition = disposition.comment
        sound[1].disposition = disposition.default
        text.disposition = disposition.forced
        video.metadata["title"] = "pictures"
        out.metadata.update({"title": "a clip", "artist": "nobody", "site": "yard 7"})
        out.set_chapters([
            {"id": 1, "start": 0, "end": 200, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}},
            {"id": 2, "start": 200, "end": 460, "time_base": Fraction(1, 1000), "metadata": {"title": "two"}},
        ])  # fmt: skip
        if matroska:
            out.add_attachment("font.ttf", "application/x-truetype-font", bytes(range(200)))
        for track in sound:
            for number in range(20):
                tone = np.sin(np.arange(1024) / (9 + number))[None].repeat(2, 0).astype(np.float32)
                kind = track.codec_context.format.name
                if kind != "fltp":
                    tone = (tone * 20000).astype(np.int16).T.reshape(1, -1)
                frame = av.AudioFrame.from_ndarray(tone, format=kind, layout="stereo")
                frame.sample_rate, frame.pts, frame.time_base = 48000, number * 1024, Fraction(1, 48000)
                out.mux(track.encode(frame))
            out.mux(track.encode(None))
        for number, time in enumerate(VFR):
            out.mux(video.encode(picture(planes(number), time * STEP, BASE)))
        out.mux(video.encode(None))
        for number, words in enumerate(("hello", "world")):
            raw = words.encode()
            packet = av.Packet(raw if matroska else len(raw).to_bytes(2, "big") + raw)
            packet.pts = packet.dts = 50 + 200 * number
            packet.duration, packet.time_base, packet.stream = 100, Fraction(1, 1000), text
            out.mux(packet)
    return path


def facts(path: Path) -> dict[str, Any]:
    """What ffprobe would say of a file, through PyAV: streams, times, tags, chapters, attachments."""
    found: dict[str, Any] = {"streams": [], "packets": {}}
    with av.open(str(path)) as container:
        found["chapters"] = [
            (float(c["start"] * c["time_base"]), float(c["end"] * c["time_base"]), c["metadata"].get("title"))
            for c in container.chapters()
        ]
        found["metadata"] = {k.lower(): v for k, v in container.metadata.items()}
        for stream in container.streams:
            context = stream.codec_context
            told = {"type": stream.type, "language": stream.language, "disposition": int(stream.disposition)}
            if stream.type == "attachment":
                told |= {"name": stream.name, "mime": stream.mimetype, "data": bytes(stream.data)}
            elif stream.type != "data" and context is not None:
                told["codec"] = context.codec.canonical_name
            if stream.type == "audio":
                told |= {"rate": context.sample_rate, "layout": context.layout.name}
            found["streams"].append(told)
        for packet in container.demux():
            if packet.dts is not None and packet.stream.type in ("audio", "subtitle"):
                time = round(float(packet.pts * packet.time_base), 3)
                found["packets"].setdefault(packet.stream_index, []).append((time, bytes(packet)))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        shown = list(container.decode(stream))
        matrix = shown[0].side_data.get("DISPLAYMATRIX")
        found["times"] = [frame.pts * stream.time_base for frame in shown]
        found["aspect"] = stream.sample_aspect_ratio
        found["rotation"] = None if matrix is None else np.frombuffer(matrix, np.int32).tolist()
        found["colour"] = tuple(
            int(x) for x in (shown[0].color_range, shown[0].colorspace, shown[0].color_primaries, shown[0].color_trc)
        )
        found["size"] = (shown[0].width, shown[0].height)
    return found


def with_cover(path: Path, pictures: bool = True) -> Path:
    """A file with a cover picture (MP4: the atom covr), and moving pictures besides."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=Fraction(30000, 1001), width=WIDTH, height=HEIGHT) if pictures else None
        cover = out.add_stream("mjpeg", rate=25, width=16, height=16, pix_fmt="yuvj420p")
        cover.disposition = av.stream.Disposition.attached_pic
        sound = out.add_stream("aac", rate=48000)
        out.mux(cover.encode(av.VideoFrame(16, 16, "yuvj420p")))
        out.mux(cover.encode(None))
        if video:
            for number in range(COUNT):
                out.mux(video.encode(picture(planes(number), number * STEP, BASE)))
            out.mux(video.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts = 48000, 0
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def outlasted(path: Path, *, late: int = 0, sound: int = 12) -> Path:
    """Two seconds of pictures, 25 in a second, with ``sound`` seconds of silence; all of it ``late`` seconds late."""
    with av.open(str(path), "w") as out:
        video = out.add_stream(
            "libx264", rate=25, width=WIDTH, height=HEIGHT, pix_fmt="yuv420p", time_base=Fraction(1, 25)
        )
        track = out.add_stream("aac", rate=8000, layout="mono") if sound else None
        for number in range(50):
            out.mux(video.encode(picture(planes(number), 25 * late + number, Fraction(1, 25))))
        out.mux(video.encode(None))
        if track is not None:
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * sound), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8000, 8000 * late, Fraction(1, 8000)
            out.mux(track.encode(frame))
            out.mux(track.encode(None))
    return path


def interrupt_at(count: int) -> Callable[[int, int | None], None]:
    """For ``progress``: Ctrl-C when so many frames are done."""

    def progress(done: int, total: int | None) -> None:
        if done == count:
            signal.raise_signal(signal.SIGINT)

    return progress


def groups_of(frames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Groups of so few frames that short clips have several."""
    for room in ("restorer", "receiver", "sidecode", "blend", "moments"):
        monkeypatch.setattr(f"foveal.video.{room}.GROUP", frames)
