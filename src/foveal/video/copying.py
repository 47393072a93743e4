"""One output file: coded pictures and everything that goes with them in another file, interleaved by time.

Sound, subtitles, data, cover pictures, chapters, attachments, metadata, dispositions and the display matrix are copied
packet by packet, in step with the pictures, so that memory stays constant. The file is written beside its place and
moved there at the end.
"""

from __future__ import annotations

import mimetypes
import os
import secrets
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from foveal.errors import FovealError, FovealWarning, InputError, UnsupportedVideoError
from foveal.video import sidecar
from foveal.video.basecodec import pyav
from foveal.video.matroska import ROOM, write_aspect
from foveal.video.packets import changed, delayed, from_start, moved, shown_at, time_of, with_times
from foveal.video.subtitles import ACCEPTED, ASS_HEADER, TEXT_FORMATS, converter

SUFFIXES = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
FORMATS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,vvc,obu,ivf,m4v,mxf,nut,dv,gif,rm,wtv,mjpeg"
_OWN = {"encoder", "major_brand", "minor_version", "compatible_brands"}  # a muxer writes its own
_STALE = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_", "ENCODER", "encoder", "vendor_id")  # of coded pictures
_PLAIN = {
    "title", "artist", "album_artist", "album", "author", "comment", "composer", "copyright", "creation_time", "date",
    "description", "disc", "episode_id", "genre", "grouping", "location", "lyrics", "make", "media_type", "model",
    "network", "rating", "season_number", "show", "sort_name", "synopsis", "timecode", "track", "year",
}  # fmt: skip
_ATTACHED = {"matroska"}  # formats with attachments
_CLOCKED = {"mpegts", "mpeg"}  # formats whose times begin anywhere
_EARLY = Fraction(1)  # seconds of hidden sound that are kept: decoders need some before what they play


class Muxer:
    """One output file: a stream of coded pictures and the copies that go with it, interleaved by time."""

    def __init__(self, path: str | Path, copy_from: str | Path | None, quiet: bool = False) -> None:
        self.av, self.path, self.quiet = pyav(), Path(path), quiet
        self.kind = SUFFIXES.get(self.path.suffix.lower(), "")
        if not self.kind:
            raise UnsupportedVideoError(f"{path}: files are {', '.join(SUFFIXES)}, .y4m or - for a pipe")
        self.source_path: Any = None if copy_from is None or is_y4m(copy_from) else copy_from
        self.part = beside(self.path)
        self.source: Any = None if self.source_path is None else opened(self.source_path)
        self.main: Any = main_stream(self.source) if self.source else None
        self.cut = self.kind in ("matroska", "webm") and self.source is not None and "mov" in self.source.format.name
        self.hidden = self._hidden() if self.cut else {}
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
        self._copy_until(time_of(packet))
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
        carried = self.video.codec_context.codec.canonical_name in ("h264", "hevc")  # in their own headers
        if not write_aspect(self.part, width, height, self.aspect, self.kind == "webm") and not (self.quiet or carried):
            told = f"no room for the sample aspect {self.aspect}; .mp4 keeps it"
            warnings.warn(f"{self.path}: {told}", FovealWarning, stacklevel=5)

    def _close_source(self) -> None:
        if self.source is not None:
            self.source.close()

    def _build(self, add_video: Callable[[Any], Any], data: bool, told: list[str]) -> Any:
        options = {"fflags": "+bitexact"}
        metadata = {k: v for k, v in (self.source.metadata if self.source else {}).items() if k.lower() not in _OWN}
        if self.kind in ("mp4", "mov"):
            custom = [k for k in metadata if k.lower().split("-")[0] not in _PLAIN]
            if custom and any(self._is_cover(s) for s in self.source.streams):  # FFmpeg writes one or the other
                told.append(f"metadata beside a cover picture ({', '.join(custom)})")
                metadata = {k: v for k, v in metadata.items() if k not in custom}
                custom = []
            options["movflags"] = "+faststart" + ("+use_metadata_tags" if custom else "")
            clock = self.time_base.denominator  # that of edit lists, which say when a stream begins
            options["movie_timescale"] = str(clock * -(-1000 // clock))
        self.out = out = self.av.open(str(self.part), "w", format=self.kind, container_options=options)
        self.copies = {}
        for stream in self.source.streams if self.source else ():
            if self.main is not None and stream.index == self.main.index:
                self.video = add_video(out)
            elif stream.type == "data" and (not data or self._is_remade(stream)):
                continue
            elif stream.type == "attachment" and stream.name == sidecar.NAME:
                continue  # it is about the pictures of the source
            elif copy := self._add_copy(stream, told):
                self.copies[stream.index] = copy
        if self.main is None:
            self.video = add_video(out)
        else:
            self._describe_video()
        if self.kind in ("matroska", "webm") and self.aspect not in (0, 1):
            self.video.metadata["title"] = self.video.metadata.get("title", "") + ROOM
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

    def _is_cover(self, stream: Any) -> bool:
        return bool(stream.disposition & self.av.stream.Disposition.attached_pic)

    def _is_remade(self, stream: Any) -> bool:
        """Whether the muxer writes the stream itself: QuickTime chapters, and the time code of the metadata."""
        return (stream.name == "bin_data" and bool(self.source.chapters())) or "timecode" in stream.metadata

    def _add_copy(self, stream: Any, told: list[str]) -> tuple[Any, Any] | None:
        """(the new stream, how its packets change); None, and a word in ``told``, when the container cannot hold it."""
        codec = _codec_of(stream)
        change = None
        try:
            if codec in TEXT_FORMATS and codec not in (wanted := ACCEPTED[self.kind]):
                change, new = converter(codec, wanted[0]), self.out.add_stream(wanted[0])
                new.codec_context.subtitle_header = ASS_HEADER
            elif stream.type == "attachment" and self.kind not in _ATTACHED:
                raise ValueError(stream.type)
            elif self._is_cover(stream) and self.kind in _ATTACHED:
                self._attach_cover(stream)  # as a stream it would become a second video
                return None
            elif (delay := self.hidden.get(stream.index)) and not (stream.codec_context and stream.codec_context.delay):
                new = delayed(self.out, stream, delay)
            else:
                new = self.out.add_stream_from_template(stream, opaque=True)
        except (ValueError, LookupError, self.av.error.FFmpegError):
            if stream.type == "audio" and stream.codec_context:
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
        whole: set[int] = set()
        told: set[int] = set()
        found = (packet for packet in self.source.demux(wanted) if packet.size)
        for packet in with_times(from_start(found, clock_start(self.source))):
            if packet.pts is not None and packet.pts >= 0 and packet.is_keyframe:
                whole.add(packet.stream_index)  # what follows can be decoded without what is hidden
            if self.cut and not self._is_kept(packet, whole):
                if packet.pts >= 0 and packet.stream_index not in told:
                    told.add(packet.stream_index)
                    late = (
                        f"{self.path}: stream {packet.stream_index} begins at its first key picture that is not hidden"
                    )
                    warnings.warn(f"{late}, for {self.path.suffix} has no edit lists", FovealWarning, stacklevel=4)
                continue
            new, change = self.copies[packet.stream_index]
            ready = changed(packet, change, new) if change else moved(packet, new)
            if ready is not None:
                yield ready

    def _hidden(self) -> dict[int, Fraction]:
        """Seconds before 0 from which sound of an MP4 is kept although its edit list hides it. Matroska has no edit
        lists: what is before 0 would be heard, and everything moved behind it."""
        found: dict[int, Fraction] = {}
        with opened(self.source_path) as again, foreign(self.source_path, "read"):
            sound = again.streams.audio
            for packet in again.demux(sound) if sound else ():
                context = packet.stream.codec_context  # None where FFmpeg does not know the codec
                delay = context.delay if context else 0
                most = Fraction(delay, context.sample_rate or 48000) if delay else _EARLY
                if packet.size and packet.stream_index not in found and shown_at(packet) >= -most:
                    found[packet.stream_index] = max(-shown_at(packet), Fraction(0))
                if len(found) == len(sound):
                    break
        return found

    def _is_kept(self, packet: Any, whole: set[int]) -> bool:
        """Whether a packet of an MP4 goes into a Matroska file."""
        early = self.hidden.get(packet.stream_index, 0)
        return shown_at(packet) >= -early and (packet.stream.type != "video" or packet.stream_index in whole)

    def _copy_until(self, time: Fraction | None) -> None:
        while self.ahead is not None and (time is None or time_of(self.ahead) <= time):
            self.out.mux_one(self.ahead)
            self.ahead = next(self.waiting, None)


def refuse_pipe(source: str) -> None:
    """InputError for a named pipe or a device, which cannot be read twice as a video is."""
    path = Path(source)
    if source != "-" and path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{source} is no regular file, and is read more than once; pipe y4m in with -, or store it first"
        )


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
    """The first video stream that is no cover picture, of those that can be decoded if there are any; or None."""
    cover = pyav().stream.Disposition.attached_pic
    found = [s for s in container.streams.video if not s.disposition & cover]
    return next((s for s in found if s.codec_context), next(iter(found), None))


def clock_start(container: Any) -> Fraction:
    """Seconds at which the clock of a file starts that may start anywhere, as in MPEG's streams; 0 for other formats."""
    return Fraction(container.start_time or 0, 1_000_000) if container.format.name in _CLOCKED else Fraction(0)


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


def _codec_of(stream: Any) -> str:
    """Name of a stream's codec; of its type where FFmpeg does not know the codec."""
    context = stream.codec_context
    return str(context.codec.canonical_name if context else getattr(stream, "name", None) or f"unknown {stream.type}")


def is_y4m(path: str | Path) -> bool:
    """Whether uncompressed y4m is meant: a pipe, or a name that ends so."""
    return str(path) == "-" or str(path).lower().endswith(".y4m")


def is_input(out: Path, source: str) -> bool:
    """Whether ``out`` would take the place of ``source``."""
    with suppress(OSError):  # one of them is not there
        return source != "-" and out.samefile(source)
    return False


def _mime(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"


def coded_bytes(path: str | Path) -> int:
    """Bytes of the pictures in a file, without the container and the other streams."""
    with opened(path) as container:
        return sum(packet.size for packet in container.demux(main_stream(container)))
