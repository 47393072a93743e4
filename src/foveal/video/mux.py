"""Pictures into one video file: encoded into MP4, MOV, Matroska or WebM, or uncompressed into y4m.

``Writer`` encodes pictures and keeps what goes with them in another file: sound, subtitles, data, chapters, attachments,
metadata, dispositions, times, rotation, sample aspect and colour tags. ``concat`` joins files of pictures that are coded
already. A file appears whole or not at all.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from foveal.errors import FovealWarning, InputError
from foveal.video.basecodec import MASTERING, EncoderSettings, frame_rate, pyav
from foveal.video.copying import Muxer, beside, display_matrix, foreign, is_y4m, opened, replace
from foveal.video.packets import decoding_times
from foveal.video.sampling import at_bits
from foveal.video.types import Frame, Plane, VideoFormat
from foveal.video.y4m import Y4mOutput

__all__ = ["Writer", "concat"]


class Writer:
    """Pictures into one file. Use as a context manager: an exception leaves no file, the end a whole one.

    ``path``: .mp4, .m4v, .mov, .mkv, .webm, or uncompressed .y4m and "-" (y4m on standard output), for which the settings
    do not matter and only pictures are written. ``video``: size, time base, colour and so on of the pictures. ``copy_from``:
    the file whose other streams, chapters, attachments and metadata are kept. ``finishing``: called with the finished file
    before it takes its place; it may change it. Not for y4m. ``quiet``: no warning, for a file that nobody sees.

    Raises InputError when the file cannot be written, UnsupportedVideoError when the encoder is absent or the container
    cannot hold the pictures or the sound. Subtitles and data that it cannot hold, and sound of a codec that FFmpeg does not
    know, are left out with a FovealWarning.
    """

    def __init__(
        self,
        path: str | Path,
        video: VideoFormat,
        settings: EncoderSettings,
        *,
        copy_from: str | Path | None = None,
        finishing: Callable[[Path], None] | None = None,
        quiet: bool = False,
    ) -> None:
        self._sink: _Pipe | _Encoded
        if is_y4m(path):
            self._sink = _Pipe(path, video, settings.bits or video.bits, quiet)
        else:
            self._sink = _Encoded(path, video, settings, copy_from, finishing, quiet)

    def write(self, frame: Frame) -> None:
        """Add the next picture; times must go forward."""
        self._sink.write(frame)

    def close(self) -> None:
        """Finish the file and put it in its place. InputError when nothing was written."""
        self._sink.close()

    def abort(self) -> None:
        """Drop what was written; a file that was there before stays."""
        self._sink.abort()

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()


class _Encoded:
    """A Writer's pictures on their way through an encoder."""

    def __init__(
        self,
        path: str | Path,
        video: VideoFormat,
        settings: EncoderSettings,
        copy_from: str | Path | None,
        finishing: Callable[[Path], None] | None,
        quiet: bool,
    ) -> None:
        self.av, self.finishing = pyav(), finishing
        settings.check(video.width, video.height, Path(path).suffix.lower())
        self.video, self.settings = video, settings
        self.width, self.height = (_even(n) if settings.encoder.even else n for n in (video.width, video.height))
        if (self.width, self.height) != (video.width, video.height) and not quiet:
            told = f"{video.width}x{video.height} becomes {self.width}x{self.height}"
            warnings.warn(f"{path}: {told}, since {settings.codec} codes even sizes", FovealWarning, stacklevel=4)
        if video.mastering and settings.codec not in MASTERING and not quiet:
            told = f"{settings.codec} has no place for what the video was mastered for (HDR10); {', '.join(MASTERING)} have"
            warnings.warn(f"{path}: {told}", FovealWarning, stacklevel=4)
        self.kind = settings.pixel_format(video.bits)
        self.durations: dict[int, int] = {}
        self.step = max(1, round(1 / (frame_rate(video) * video.time_base)))
        self.count = 0
        self.muxer = Muxer(path, copy_from, quiet)
        try:
            with foreign(path):
                self.stream = self.muxer.start(self._stream, video.time_base, video.aspect)
        except BaseException:
            self.muxer.abort()
            raise

    def write(self, frame: Frame) -> None:
        picture = self.av.VideoFrame(self.width, self.height, self.kind)
        planes = at_bits(frame.planes, 8 if self.kind == "yuv420p" else 10)
        for plane, lines in zip(picture.planes, (planes.y, planes.u, planes.v), strict=True):
            fill(plane, lines)
        picture.pts, picture.time_base, picture.duration = frame.pts, self.video.time_base, frame.duration
        self.durations[frame.pts] = frame.duration
        self.count += 1
        self._send(picture)

    def close(self) -> None:
        if not self.count:
            self.abort()
            raise InputError(f"{self.muxer.path}: not one picture was written")
        try:
            self._send(None)
            with foreign(self.muxer.path):
                self.muxer.finish(self.finishing)
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        self.muxer.abort()

    def _send(self, picture: Any) -> None:
        with foreign(self.muxer.path):
            for packet in self.stream.encode(picture):
                if duration := self.durations.pop(packet.pts, 0):
                    packet.duration = duration
                if self.settings.codec == "x265" and self.count <= 2:  # it sets none for so few
                    packet.dts = packet.pts - 2 * self.step
                self.muxer.mux(packet)

    def _stream(self, out: Any) -> Any:
        video = self.video
        stream = out.add_stream(
            self.settings.encoder.name, rate=frame_rate(video), options=self.settings.options(video),
            width=self.width, height=self.height, pix_fmt=self.kind, time_base=video.time_base,
        )  # fmt: skip
        context = stream.codec_context
        context.color_range = 2 if video.full_range else 1
        context.colorspace, context.color_primaries, context.color_trc = video.matrix, video.primaries, video.transfer
        context.sample_aspect_ratio = video.aspect
        if video.rotation:
            stream.set_display_rotation(video.rotation)
        return stream


class _Pipe:
    """A Writer's pictures uncompressed, to a file or to standard output."""

    def __init__(self, path: str | Path, video: VideoFormat, bits: int, quiet: bool) -> None:
        self.path, self.bits, self.video, self.count = str(path), bits, video, 0
        self.told = quiet  # that times are uneven
        self.step = 1 / (frame_rate(video) * video.time_base)
        self.first: int | None = None
        self.part = None if self.path == "-" else beside(Path(path))
        with foreign(path):
            self.file: IO[bytes] = self.part.open("wb") if self.part else sys.stdout.buffer
            self.output = Y4mOutput(self.file, video, bits)

    def write(self, frame: Frame) -> None:
        self.first = frame.pts if self.first is None else self.first
        if not self.told and abs(frame.pts - self.first - self.count * self.step) > self.step / 2:
            told = f"times are uneven at picture {self.count}; y4m has a constant rate and keeps only the pictures"
            warnings.warn(f"{self.path}: {told}", FovealWarning, stacklevel=3)
            self.told = True
        self.count += 1
        with foreign(self.path):
            self.output.write(at_bits(frame.planes, self.bits))

    def close(self) -> None:
        if self.first is None:
            self.abort()
            raise InputError(f"{self.path}: not one picture was written")
        with foreign(self.path):
            self.file.flush()
            if self.part:
                self.file.close()
                replace(self.part, Path(self.path))

    def abort(self) -> None:
        if self.part:
            self.file.close()
            self.part.unlink(missing_ok=True)


def concat(
    parts: Iterable[str | Path],
    path: str | Path,
    *,
    copy_from: str | Path | None = None,
    begins: Fraction | None = None,
) -> None:
    """Join the video streams of ``parts``, coded with equal settings and with times that go on from part to part, into
    ``path`` without coding anew; the rest as ``Writer`` takes it from ``copy_from``. ``begins``: seconds at which the first
    picture was shown when it was written; a muxer may have moved the first part. InputError for times that go back.
    """
    names = [str(part) for part in parts]
    if not names:
        raise InputError(f"{path}: no parts to join")
    joined = Muxer(path, copy_from)
    try:
        with foreign(path):
            with opened(names[0]) as first:
                template, matrix = first.streams.video[0], display_matrix(names[0])
                headers = _headers(template)
                base, aspect = template.time_base, template.sample_aspect_ratio or Fraction(1)
                joined.start(lambda out: _template(out, template, matrix, aspect), base, aspect)
            for name in names[1:]:
                with opened(name) as other:
                    if _headers(other.streams.video[0]) != headers:
                        told = "was coded with other settings than the part before it"
                        raise InputError(f"{name}: {told}; remove the parts and begin anew")
            shown = _shown(names, None if begins is None else math.floor(begins / base + Fraction(1, 2)))
            times = iter(decoding_times([pts for part in shown for pts in part]))
            for name, part in zip(names, shown, strict=True):
                for packet, pts in zip(_coded(name), part, strict=True):
                    packet.pts, packet.dts = pts, next(times)
                    joined.mux(packet)
            joined.finish()
    except BaseException:
        joined.abort()
        raise


def _shown(names: list[str], begins: int | None) -> list[list[int]]:
    """When the pictures of each part are shown, in the order they are coded in; those of the first part moved so that they
    begin at ``begins``."""
    shown = [[packet.pts for packet in _coded(name)] for name in names]
    if not all(shown):
        raise InputError(f"{names[shown.index([])]}: not one picture in it; remove it and begin anew")
    if begins is not None:
        shift = begins - min(shown[0])
        shown[0] = [pts + shift for pts in shown[0]]
    for name, before, part in zip(names[1:], shown, shown[1:], strict=False):
        if min(part) <= max(before):
            told = f"begins at {min(part)}, but the part before it ends at {max(before)}"
            raise InputError(f"{name}: {told}; they are not of one run: remove the parts and begin anew")
    return shown


def _headers(stream: Any) -> bytes:
    """What a decoder must know beforehand of a stream; of HEVC (ISO/IEC 14496-15, 8.3.3.1) without messages such as x265's
    note of its settings, in which the CPU stands too."""
    data = bytes(stream.codec_context.extradata or b"")
    if stream.codec_context.codec.canonical_name != "hevc" or data[:1] != b"\x01" or len(data) < 23:
        return data
    kept, place = data[:22], 23
    for _ in range(data[22]):
        kind, count = data[place] & 63, int.from_bytes(data[place + 1 : place + 3], "big")
        start, place = place, place + 3
        for _ in range(count):
            place += 2 + int.from_bytes(data[place : place + 2], "big")
        kept += data[start:place] if kind not in (39, 40) else b""
    return kept


def _coded(name: str) -> Iterator[Any]:
    """The packets of the pictures of a file."""
    with opened(name) as part:
        yield from (packet for packet in part.demux(part.streams.video[0]) if packet.size)


def _template(out: Any, template: Any, matrix: list[int] | None, aspect: Fraction) -> Any:
    stream = out.add_stream_from_template(template, opaque=True)
    stream.codec_context.sample_aspect_ratio = aspect
    if rate := template.average_rate or template.guessed_rate:
        stream.codec_context.framerate = rate
    if matrix:
        stream.set_display_matrix(matrix)
    return stream


def _even(n: int) -> int:
    return n + n % 2


def fill(plane: Any, lines: Plane) -> None:
    """Copy ``lines`` into a plane of one of PyAV's pictures; where that is larger, the outermost samples go on."""
    target = np.frombuffer(plane, lines.dtype).reshape(-1, plane.line_size // lines.dtype.itemsize)
    height, width = lines.shape
    target[:height, :width] = lines
    target[:height, width:] = lines[:, -1:]
    target[height:] = target[height - 1]
