"""One output file: coded pictures and everything that goes with them in another file, interleaved by time.

Sound, subtitles, data, cover pictures, chapters, attachments, metadata, dispositions and the display matrix are copied
packet by packet, in step with the pictures, so that memory stays constant. ``concat`` joins pictures that are coded
already. The file is written beside its place and moved there at the end.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from foveal.errors import FovealError, FovealWarning, InputError, UnsupportedVideoError
from foveal.video.basecodec import pyav
from foveal.video.matroska import write_aspect
from foveal.video.subtitles import ACCEPTED, ASS_HEADER, TEXT_FORMATS, Change, converter

SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,vvc,obu,ivf,m4v,mxf,nut,dv,gif,rm,wtv,mjpeg"
SIDE_INFORMATION = "foveal-side.bin"  # name of the attachment
_OWN = {"encoder", "major_brand", "minor_version", "compatible_brands"}  # a muxer writes its own
_STALE = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_", "ENCODER", "encoder", "vendor_id")  # of coded pictures
_PLAIN = {
    "title", "artist", "album_artist", "album", "author", "comment", "composer", "copyright", "creation_time", "date",
    "description", "disc", "episode_id", "genre", "grouping", "location", "lyrics", "make", "media_type", "model",
    "network", "rating", "season_number", "show", "sort_name", "synopsis", "timecode", "track", "year",
}  # fmt: skip
_ATTACHED = {"matroska"}  # formats with attachments


def concat(
    parts: Iterable[str | Path],
    path: str | Path,
    *,
    copy_from: str | Path | None = None,
    attachments: Mapping[str, bytes] | None = None,
) -> None:
    """Join the video streams of ``parts``, coded with equal settings and with times that go on from part to part, into
    ``path`` without coding anew; the rest as ``Writer`` takes it from ``copy_from``."""
    names = [str(part) for part in parts]
    if not names:
        raise InputError(f"{path}: no parts to join")
    joined = Muxer(path, copy_from, dict(attachments or {}))
    try:
        with foreign(path):
            with opened(names[0]) as first:
                template, matrix = first.streams.video[0], display_matrix(names[0])
                aspect = template.sample_aspect_ratio or Fraction(1)
                joined.start(lambda out: _template(out, template, matrix, aspect), template.time_base, aspect)
            times = iter(_decoding_times([packet.pts for packet in _coded(names)]))
            for packet, dts in zip(_coded(names), times, strict=True):
                packet.dts = dts
                joined.mux(packet)
            joined.finish()
    except BaseException:
        joined.abort()
        raise


class Muxer:
    """One output file: a stream of coded pictures and the copies that go with it, interleaved by time."""

    def __init__(self, path: str | Path, copy_from: str | Path | None, attachments: dict[str, bytes]) -> None:
        self.av, self.path, self.attachments = pyav(), Path(path), attachments
        self.kind = SUFFIXES.get(self.path.suffix.lower(), "")
        if not self.kind:
            raise UnsupportedVideoError(f"{path}: files are {', '.join(SUFFIXES)}, .y4m or - for a pipe")
        if attachments and self.kind not in _ATTACHED:
            raise UnsupportedVideoError(f"{path}: only .mkv files have attachments")
        self.source_path: Any = None if copy_from is None or _is_y4m(copy_from) else copy_from
        self.part = beside(self.path)
        self.source: Any = None if self.source_path is None else opened(self.source_path)
        self.main: Any = main_stream(self.source) if self.source else None
        self.copies: dict[int, tuple[Any, Any]] = {}
        self.out: Any = None
        self.video: Any = None
        self.waiting: Iterator[Any] = iter(())
        self.ahead: Any = None

    def start(self, add_video: Callable[[Any], Any], time_base: Fraction, aspect: Fraction) -> Any:
        """Write the header, first with every stream; where the container refuses that, without data streams.

        ``add_video``: adds the stream of pictures, with times in ``time_base``, to PyAV's container, and returns it.
        """
        told: list[str] = []
        self.time_base, self.aspect = time_base, aspect
        try:
            video = self._build(add_video, True, told)
        except (self.av.error.FFmpegError, ValueError):
            if self.source is None or not any(s.type == "data" for s in self.source.streams):
                raise
            self.out, told = None, ["data streams"]
            video = self._build(add_video, False, told)
        if told:
            names = ", ".join(dict.fromkeys(told))
            warnings.warn(
                f"{self.path}: left out, for {self.path.suffix} cannot hold them: {names}", FovealWarning, stacklevel=6
            )
        wanted = [self.source.streams[index] for index in self.copies] if self.source else []
        self.waiting = self._packets(wanted) if wanted else iter(())
        self.ahead = next(self.waiting, None)
        return video

    def mux(self, packet: Any) -> None:
        """One packet of the pictures, behind all copies that come before it."""
        self._copy_until(_time(packet))
        packet.stream = self.video
        self.out.mux_one(packet)

    def finish(self, finishing: Callable[[Path], None] | None = None) -> None:
        """The rest of the copies, the end of the file, what ``finishing`` does to it, and the file in its place."""
        self._copy_until(None)
        size = self.video.codec_context.width, self.video.codec_context.height
        self.out.close()
        self._write_aspect(*size)
        self._close_source()
        if finishing:
            finishing(self.part)
        replace(self.part, self.path)

    def abort(self) -> None:
        with suppress(Exception):
            if self.out is not None:
                self.out.close()
        self._close_source()
        self.part.unlink(missing_ok=True)

    def _write_aspect(self, width: int, height: int) -> None:
        """Matroska's display size, which PyAV cannot hand to the muxer."""
        if self.kind not in ("matroska", "webm") or self.aspect in (0, 1):
            return
        if not write_aspect(self.part, width, height, self.aspect, self.kind == "webm"):
            warnings.warn(f"{self.path}: no room for the sample aspect {self.aspect}", FovealWarning, stacklevel=5)

    def _close_source(self) -> None:
        if self.source is not None:
            self.source.close()

    def _build(self, add_video: Callable[[Any], Any], data: bool, told: list[str]) -> Any:
        options = {"fflags": "+bitexact"}
        metadata = {k: v for k, v in (self.source.metadata if self.source else {}).items() if k.lower() not in _OWN}
        if self.kind in ("mp4", "mov"):
            custom = "+use_metadata_tags" if any(k.split("-")[0] not in _PLAIN for k in metadata) else ""
            options["movflags"] = "+faststart" + custom
            clock = self.time_base.denominator  # that of edit lists, which say when a stream begins
            options["movie_timescale"] = str(clock * -(-1000 // clock))
        self.out = out = self.av.open(str(self.part), "w", format=self.kind, container_options=options)
        self.copies = {}
        for stream in self.source.streams if self.source else ():
            if self.main is not None and stream.index == self.main.index:
                self.video = add_video(out)
            elif stream.type == "data" and (not data or self._is_remade(stream)):
                continue
            elif stream.type == "attachment" and stream.name == SIDE_INFORMATION:
                continue  # it is about the pictures of the source
            elif copy := self._add_copy(stream, told):
                self.copies[stream.index] = copy
        if self.main is None:
            self.video = add_video(out)
        else:
            self._describe_video()
        for name, payload in self.attachments.items():
            out.add_attachment(name, _mime(name), payload)
        out.metadata.update(metadata)
        if self.source is not None and self.source.chapters():
            out.set_chapters(self.source.chapters())
        out.start_encoding()
        return self.video

    def _describe_video(self) -> None:
        """What the source says of its video stream, besides what the encoder knows."""
        self.video.disposition = self.main.disposition
        kept = {k: v for k, v in self.main.metadata.items() if not k.startswith(_STALE) and k != "rotate"}
        self.video.metadata.update(kept)
        matrix = display_matrix(self.source_path) if self.source_path else None
        if matrix:
            self.video.set_display_matrix(matrix)

    def _is_remade(self, stream: Any) -> bool:
        """Whether the muxer writes the stream itself: QuickTime chapters, and the time code of the metadata."""
        return (stream.name == "bin_data" and bool(self.source.chapters())) or "timecode" in stream.metadata

    def _add_copy(self, stream: Any, told: list[str]) -> tuple[Any, Any] | None:
        """(the new stream, how its packets change); None, and a word in ``told``, when the container cannot hold it."""
        codec = stream.codec_context.codec.canonical_name if stream.codec_context else stream.name or stream.type
        change = None
        try:
            if codec in TEXT_FORMATS and codec not in (wanted := ACCEPTED[self.kind]):
                change, new = converter(codec, wanted[0]), self.out.add_stream(wanted[0])
                new.codec_context.subtitle_header = ASS_HEADER
            elif stream.type == "attachment" and self.kind not in _ATTACHED:
                raise ValueError(stream.type)
            elif stream.disposition & self.av.stream.Disposition.attached_pic and self.kind in _ATTACHED:
                self._attach_cover(stream)  # as a stream it would become a second video
                return None
            else:
                new = self.out.add_stream_from_template(stream, opaque=True)
        except (ValueError, LookupError, self.av.error.FFmpegError):
            if stream.type == "audio":
                told_format = f"sound ({codec}) does not go into a {self.path.suffix} file; .mkv takes any"
                raise UnsupportedVideoError(f"{self.path}: {told_format}") from None
            told.append(f"{stream.type} ({codec})")
            return None
        new.disposition = stream.disposition
        new.metadata.update({k: v for k, v in stream.metadata.items() if not k.startswith("DURATION")})
        return new, change

    def _attach_cover(self, stream: Any) -> None:
        """A cover picture as an attachment."""
        with opened(self.source_path) as again:
            payload = bytes(next(again.demux(again.streams[stream.index])))
        codec = stream.codec_context.codec.canonical_name
        name = stream.metadata.get("filename", f"cover.{'jpg' if codec == 'mjpeg' else codec}")
        self.out.add_attachment(name, stream.metadata.get("mimetype") or _mime(name), payload)

    def _packets(self, wanted: list[Any]) -> Iterator[Any]:
        """The packets of the other streams of the source, each belonging to its new stream."""
        for packet in _with_times(packet for packet in self.source.demux(wanted) if packet.size):
            new, change = self.copies[packet.stream_index]
            ready = _changed(packet, change, new) if change else _moved(packet, new)
            if ready is not None:
                yield ready

    def _copy_until(self, time: Fraction | None) -> None:
        while self.ahead is not None and (time is None or _time(self.ahead) <= time):
            self.out.mux_one(self.ahead)
            self.ahead = next(self.waiting, None)


def opened(path: str | Path, **options: str) -> Any:
    """PyAV's container for a file in one of FORMATS. No network and no play lists, which name other files.

    InputError when it cannot be read, UnsupportedVideoError when it is no video that FFmpeg knows.
    """
    av = pyav()
    options |= {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    try:
        return av.open(os.path.abspath(path), options=options, metadata_errors="replace")  # noqa: PTH100
    except (av.error.InvalidDataError, av.error.EOFError, av.error.ArgumentError):
        raise UnsupportedVideoError(f"{path}: not a video in a format that is read here") from None
    except av.error.FFmpegError as fault:
        raise InputError(f"cannot read {path}: {fault.strerror or fault}") from None


def main_stream(container: Any) -> Any:
    """The first video stream that is no cover picture, or None."""
    cover = pyav().stream.Disposition.attached_pic
    return next((s for s in container.streams.video if not s.disposition & cover), None)


def display_matrix(path: str | Path) -> list[int] | None:
    """The nine numbers of the display matrix, which PyAV has only at a decoded picture; None where there is none."""
    kind = pyav().sidedata.sidedata.Type.DISPLAYMATRIX
    with opened(path) as container, suppress(pyav().error.FFmpegError):
        for picture in container.decode(main_stream(container)):
            data = picture.side_data.get(kind)
            return None if data is None else list(np.frombuffer(data, np.int32).tolist())
    return None


@contextmanager
def foreign(path: str | Path, doing: str = "write") -> Iterator[None]:
    """Errors of FFmpeg and of the system while ``doing`` something with ``path``, as InputError."""
    fault: tuple[type[Exception], ...] = (OSError, pyav().error.FFmpegError)
    try:
        yield
    except FovealError:
        raise
    except fault as error:
        raise InputError(f"cannot {doing} {path}: {getattr(error, 'strerror', None) or error}") from None


def beside(path: Path) -> Path:
    """A name for the unfinished file, in the folder of ``path``. InputError when there is no such folder."""
    place = Path(os.path.realpath(path))
    if not place.parent.is_dir():
        raise InputError(f"cannot write {path}: no folder {path.parent}")
    return place.with_name(f".{place.name}.{secrets.token_hex(4)}.part")


def replace(part: Path, path: Path) -> None:
    """Put a finished file in its place, with the permissions of the one that was there."""
    place = Path(os.path.realpath(path))
    with suppress(OSError):
        shutil.copymode(place, part)
    part.replace(place)


def _coded(names: list[str]) -> Iterator[Any]:
    """The packets of the pictures of files, one file after the other."""
    for name in names:
        with opened(name) as part:
            yield from (packet for packet in part.demux(part.streams.video[0]) if packet.size)


def _decoding_times(shown: list[int]) -> list[int]:
    """Times to decode pictures at, in decoding order, that are to be shown at ``shown``: increasing, none after its
    picture is shown. The times of parts, which may start anew behind their ends, are left aside."""
    order = sorted(shown)
    rank = {time: place for place, time in enumerate(order)}
    delay = max(place - rank[time] for place, time in enumerate(shown))
    step = order[1] - order[0] if len(order) > 1 else 1
    return [order[0] - (delay - n) * step for n in range(delay)] + order[: len(order) - delay]


def _template(out: Any, template: Any, matrix: list[int] | None, aspect: Fraction) -> Any:
    stream = out.add_stream_from_template(template, opaque=True)
    stream.codec_context.sample_aspect_ratio = aspect
    if matrix:
        stream.set_display_matrix(matrix)
    return stream


def _is_y4m(path: str | Path) -> bool:
    return str(path) == "-" or Path(path).suffix == ".y4m"


def _with_times(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets with decoding times also where Matroska, which keeps none, leaves them out at the start of a stream."""
    held: dict[int, list[Any]] = {}
    for packet in packets:
        if packet.pts is None and packet.dts is None:
            packet.pts = packet.dts = 0  # a cover picture
        if packet.dts is None:
            held.setdefault(packet.stream_index, []).append(packet)
            continue
        step, early = max(1, packet.duration or 1), held.pop(packet.stream_index, [])
        for place, other in enumerate(early):
            other.dts = packet.dts - (len(early) - place) * step
            yield other
        yield packet
    for rest in held.values():
        for packet, dts in zip(rest, _decoding_times([packet.pts for packet in rest]), strict=True):
            packet.dts = dts
            yield packet


def _moved(packet: Any, stream: Any) -> Any:
    packet.stream = stream
    return packet


def _changed(packet: Any, change: Change, stream: Any) -> Any:
    """A packet of text in another form, None when there is no text in it."""
    payload = change(bytes(packet))
    if payload is None:
        return None
    new = pyav().Packet(payload)
    new.pts, new.dts, new.duration, new.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    new.is_keyframe = True
    return _moved(new, stream)


def _time(packet: Any) -> Fraction:
    """When a packet belongs into the file, in seconds."""
    stamp = packet.dts if packet.dts is not None else packet.pts
    return Fraction(stamp or 0) * Fraction(packet.time_base)


def _mime(name: str) -> str:
    return (
        {SIDE_INFORMATION: "application/x-foveal-side"}.get(name)
        or mimetypes.guess_type(name)[0]
        or "application/octet-stream"
    )


def coded_bytes(path: str | Path) -> int:
    """Bytes of the pictures in a file, without the container and the other streams."""
    with opened(path) as container:
        return sum(packet.size for packet in container.demux(main_stream(container)))
