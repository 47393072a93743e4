"""Video files and y4m pipes in, pictures out: one at a time, in the order they are shown, as 4:2:0 planes.

``Reader`` decodes with PyAV (or reads y4m itself) and hands on 8- and 10-bit 4:2:0 as it is. What is sampled otherwise is
converted, with a warning that says so. What cannot be handed on rightly is refused: no video, no pictures, interlaced
pictures, a change of size on the way, a file that ends too early, sizes beyond ``Limits``.
"""

from __future__ import annotations

import re
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from foveal.errors import (
    CorruptError,
    FovealWarning,
    InputError,
    LimitError,
    TruncatedError,
    UnsupportedVideoError,
)
from foveal.video.basecodec import pyav
from foveal.video.copying import clock_start, is_y4m, main_stream, opened
from foveal.video.encodernote import crf_in
from foveal.video.sampling import lost, planar, to_420
from foveal.video.types import Frame, Mastering, Planes, VideoFormat
from foveal.video.wholeness import missing_end
from foveal.video.y4m import Y4mInput

FULL, BT709 = 2, 1  # colour range and matrix as FFmpeg and H.273 number them
_SEMI = {"nv12": "yuv420p", "nv21": "yuv420p", "nv16": "yuv422p", "nv24": "yuv444p", "p010le": "yuv420p10le"}
CONCEAL = "get it again, or restore what there is: foveal restore --on-loss conceal"
_SITING = {"left": 1, "center": 2, "topleft": 3, "top": 4, "bottomleft": 5, "bottom": 6}


@dataclass(frozen=True)
class Limits:
    """What a file may ask for. ``pixels`` of one picture, ``side`` in pixels."""

    pixels: int = 1 << 26
    side: int = 16384

    def check(self, name: str, width: int, height: int) -> None:
        """LimitError above the limits, UnsupportedVideoError for no size at all."""
        if width < 1 or height < 1:
            raise UnsupportedVideoError(f"{name}: its pictures have no size ({width}x{height})")
        if width * height > self.pixels or max(width, height) > self.side:
            raise LimitError(f"{name}: pictures of {width}x{height}, over the limit of {self.pixels} pixels")


class Reader:
    """The pictures of one video, in constant memory. Use as a context manager and iterate once.

    ``path``: a file that PyAV opens, a .y4m file, or "-" for y4m on standard input. ``format`` is known at once, since
    the first picture is decoded when the Reader is made. Damage is found as far as decoders find it: a flipped bit that
    still decodes to something is not. ``tolerant``: a damaged or truncated file yields what can be
    decoded, with a warning, instead of CorruptError or TruncatedError. ``start``: seconds, pictures before it are left out.
    ``quiet``: no warning of conversions, for a file that is read again.

    Raises InputError for a file that cannot be read, UnsupportedVideoError, LimitError, TruncatedError, CorruptError.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        limits: Limits | None = None,
        tolerant: bool = False,
        start: float = 0,
        quiet: bool = False,
    ) -> None:
        kind = _Y4m if is_y4m(path) else _Container
        self.tolerant = tolerant
        self._source = kind(str(path), limits or Limits(), tolerant, start, quiet)
        self.format = self._source.format
        self._frames = self._source.frames()

    def __iter__(self) -> Iterator[Frame]:
        return self._frames

    @property
    def damaged(self) -> bool:
        """Whether damage was met so far."""
        return self._source.damaged > 0

    def close(self) -> None:
        """Close the file; the Reader yields nothing more."""
        self._frames = iter(())
        self._source.close()

    def __enter__(self) -> Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Container:
    """The first video stream, cover pictures aside, of a file that PyAV opens."""

    def __init__(self, path: str, limits: Limits, tolerant: bool, start: float, quiet: bool) -> None:
        self.name, self.limits, self.tolerant, self.quiet = path, limits, tolerant, quiet
        self.damaged = 0  # places
        cut = missing_end(path)
        if cut and not tolerant:
            raise TruncatedError(f"{path}: {cut}; {CONCEAL}")
        if cut:
            warnings.warn(f"{path}: {cut}; what there is, is used", FovealWarning, stacklevel=4)
        self.av = pyav()
        self.container = opened(path, max_pixels=str(self.limits.pixels))
        self.crf: float | None = None
        try:
            self.stream = self._choose()
            self.siting = self._siting()
            self.pictures = self._decoded()
            self.first = self._first(start)
            if self.first is None:
                raise UnsupportedVideoError(f"{path}: not one picture can be decoded from its video stream")
            self.format = self._describe(self.first)
        except BaseException:
            self.container.close()
            raise
        self.shape = (self.first.width, self.first.height, self.first.format.name)

    def close(self) -> None:
        self.container.close()

    def frames(self) -> Iterator[Frame]:
        last: int | None = None
        behind = round(clock_start(self.container) / self.stream.time_base)
        for number, picture in enumerate(self._all()):
            shape = (picture.width, picture.height, picture.format.name)
            if shape != self.shape:
                raise UnsupportedVideoError(
                    f"{self.name}: picture {number} is {_shape(shape)}, those before it are {_shape(self.shape)}; "
                    "cut the file there and code the pieces apart"
                )
            pts = picture.pts if picture.pts is not None else picture.dts
            pts = None if pts is None else pts - behind
            if pts is None or (last is not None and pts <= last):
                pts = 0 if last is None else last + self._step(picture)
            last = pts
            planes = planes_of(picture, self.format.bits)
            yield Frame(planes, pts, max(picture.duration or 0, 0), bool(picture.key_frame))

    def _first(self, start: float) -> Any:
        """The first picture at or after ``start`` seconds from the stream's own start; None when there is none."""
        if start <= 0:
            return next(self.pictures, None)
        place = (self.stream.start_time or 0) + round(start / self.stream.time_base)
        with suppress(self.av.error.FFmpegError):
            self.container.seek(place, stream=self.stream)
        return next((p for p in self.pictures if p.pts is None or p.pts >= place), None)

    def _all(self) -> Iterator[Any]:
        first, self.first = self.first, None
        if first is not None:
            yield first
            del first
        yield from self.pictures

    def _step(self, picture: Any) -> int:
        """Units of time from a picture to the next where the file does not say: a frame at the stream's rate."""
        if picture.pts is not None or picture.dts is not None:
            return 1  # a time that goes back or stands still: the least that goes forward
        rate, base = self.format.rate or Fraction(25), self.format.time_base
        return max(1, round(1 / (rate * base)))

    def _choose(self) -> Any:
        stream = main_stream(self.container)
        if stream is None or stream.codec_context is None:
            found = ", ".join(sorted({s.type for s in self.container.streams})) or "no streams"
            raise UnsupportedVideoError(f"{self.name}: no video in it that can be decoded, only {found}")
        context = stream.codec_context
        self.limits.check(self.name, context.width, context.height)
        context.options = {"max_pixels": str(self.limits.pixels)}
        stream.thread_type = "AUTO"
        return stream

    def _decoded(self) -> Iterator[Any]:
        """Every picture as PyAV has it; errors of FFmpeg become Foveal's."""
        seen = 0
        packets = self.container.demux(self.stream)
        fault: type[Exception] = self.av.error.FFmpegError
        while True:
            try:
                packet = next(packets)
                if not seen and self.crf is None:
                    self.crf = crf_in(self.stream.codec_context.codec.canonical_name, bytes(packet))
                pictures = packet.decode()
            except StopIteration:
                break
            except fault as error:
                if not self.tolerant and seen:
                    raise CorruptError(f"{self.name}: damaged after picture {seen}: {error}; {CONCEAL}") from None
                self.damaged += 1
                if self.damaged > 1000:
                    break
                continue
            for picture in pictures:
                seen += 1
                self.damaged += bool(picture.is_corrupt)
                self.limits.check(self.name, picture.width, picture.height)
                if picture.interlaced_frame:
                    raise UnsupportedVideoError(
                        f"{self.name}: interlaced; deinterlace it first, for example with ffmpeg -vf bwdif"
                    )
                yield picture
        if self.damaged and seen:
            warnings.warn(
                f"{self.name}: {self.damaged} damaged places, concealed by the decoder", FovealWarning, stacklevel=4
            )

    def _describe(self, picture: Any) -> VideoFormat:
        stream, context, kind = self.stream, self.stream.codec_context, picture.format
        bits = 8 if max(c.bits for c in kind.components) <= 8 else 10
        colour = {
            "full_range": picture.color_range == FULL or kind.name.startswith("yuvj"),
            "matrix": int(picture.colorspace),
            "primaries": int(picture.color_primaries),
            "transfer": int(picture.color_trc),
            "chroma_location": self.siting,
        }
        lost_now = " and ".join(filter(None, (_changes(kind), _beside(picture))))
        if lost_now and not self.quiet:
            warnings.warn(f"{self.name}: {lost_now}", FovealWarning, stacklevel=5)
        if kind.is_rgb or kind.has_palette:
            colour |= {"full_range": False, "matrix": BT709}
        if "420" not in _SEMI.get(kind.name, kind.name):
            colour["chroma_location"] = 1  # where to_420 puts it
        seconds = _seconds(stream, self.container)
        return VideoFormat(
            width=picture.width, height=picture.height, bits=bits, time_base=stream.time_base,
            rate=stream.average_rate or stream.guessed_rate or None,
            aspect=_aspect(stream.sample_aspect_ratio), rotation=int(picture.rotation),
            codec=context.codec.canonical_name, frames=stream.frames or None, seconds=seconds,
            mastering=_mastering(picture),
            crf=self.crf or crf_in(context.codec.canonical_name, bytes(context.extradata or b"")), **colour,
        )  # fmt: skip

    def _siting(self) -> int:
        """FFmpeg's number for the place of chroma (0: not said). PyAV has it only in what it prints of a file."""
        logging = self.av.logging
        before = logging.get_level()
        logging.set_level(logging.VERBOSE)
        logging.set_libav_level(logging.VERBOSE)
        try:
            text = self.container.dumps_format()
        finally:
            logging.set_libav_level(logging.INFO)
            logging.set_level(before)
        names = "|".join(_SITING)
        found = re.search(rf"Stream #\d+:{self.stream.index}\b[^\n]*? yuv\w+\([^)]*\b({names})\)", text)
        return _SITING[found[1]] if found else 0


class _Y4m:
    """The pictures of a y4m file or of standard input."""

    def __init__(self, path: str, limits: Limits, tolerant: bool, start: float, quiet: bool) -> None:
        name, self.tolerant, self.damaged = "standard input" if path == "-" else path, tolerant, 0
        self.owned = path != "-"
        if not self.owned and sys.stdin is None:
            raise InputError("standard input is closed; name a file, or pipe y4m in")
        try:
            self.file: IO[bytes] = Path(path).open("rb") if self.owned else sys.stdin.buffer  # noqa: SIM115
        except OSError as fault:
            raise InputError(f"cannot read {path}: {fault.strerror or fault}") from None
        try:
            self.input = Y4mInput(self.file, name)
            self.format = self.input.format
            limits.check(name, self.format.width, self.format.height)
            if (changes := lost(self.input.sampling, self.input.depth)) and not quiet:
                warnings.warn(f"{name}: {changes}", FovealWarning, stacklevel=3)
            for _ in range(round(start * (self.format.rate or 0)) + 1):
                self.first = self._read()
                if self.first is None:
                    raise UnsupportedVideoError(f"{name}: y4m without a picture from second {start:g} on")
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self.owned:
            self.file.close()

    def frames(self) -> Iterator[Frame]:
        planes, number = self.first, 0
        self.first = None
        while planes is not None:
            yield Frame(planes, number, 1, True)
            planes, number = self._read(), number + 1

    def _read(self) -> Planes | None:
        try:
            planes = self.input.read()
        except (TruncatedError, CorruptError) as fault:
            if not self.tolerant:
                raise
            warnings.warn(f"{fault}; the pictures before it are used", FovealWarning, stacklevel=3)
            self.damaged += 1
            return None
        return None if planes is None else to_420(planes, self.input.depth)


def _beside(picture: Any) -> str:
    """Which data beside the pictures are not carried on; "" where there are none."""
    kinds = {d.type.name for d in picture.side_data}
    names = {"DYNAMIC_HDR_PLUS": "HDR10+ data", "DOVI_METADATA": "Dolby Vision data", "DOVI_RPU_BUFFER": "Dolby Vision data",
             "A53_CC": "closed captions (EIA-608)", "SPHERICAL": "the description of a 360-degree view"}  # fmt: skip
    found = sorted({names[k] for k in kinds & names.keys()})
    return f"{' and '.join(found)} are left out" if found else ""


def _mastering(picture: Any) -> Mastering | None:
    """FFmpeg's AVMasteringDisplayMetadata (ten rationals, two flags) and AVContentLightMetadata beside a picture."""
    found = {d.type.name: bytes(d) for d in picture.side_data}
    display, light = found.get("MASTERING_DISPLAY_METADATA"), found.get("CONTENT_LIGHT_LEVEL")
    values: tuple[Fraction, ...] | None = None
    if display is not None and len(display) >= 88:
        *numbers, primaries, luminance = struct.unpack("=22i", display[:88])
        if primaries and luminance and all(numbers[1::2]):
            values = tuple(Fraction(*numbers[i : i + 2]) for i in range(0, 20, 2))
    levels = struct.unpack("=2I", light[:8]) if light is not None and len(light) >= 8 else None
    return Mastering(values, levels) if values or levels else None


def _changes(kind: Any) -> str:
    """What is lost when pictures of PyAV's format ``kind`` become 4:2:0 with 8 or 10 bits; "" for nothing."""
    found = planar(_SEMI.get(kind.name, kind.name))
    changes = [lost(*found) if found else f"pictures of format {kind.name} become 4:2:0"]
    changes += ["transparency is left out"] if any(c.is_alpha for c in kind.components) else []
    return " and ".join(filter(None, changes))


def planes_of(picture: Any, bits: int) -> Planes:
    """The planes of one of PyAV's pictures, copied; what is not planar Y'CbCr or grey goes through swscale first."""
    found = planar(picture.format.name)
    if found is None:
        dense = "yuv444p10le" if bits == 10 else "yuv444p"
        if picture.format.is_rgb or picture.format.has_palette:
            picture = picture.reformat(format=dense, dst_colorspace="ITU709", dst_color_range="MPEG")
        else:
            picture = picture.reformat(format=_SEMI.get(picture.format.name, dense))
        found = planar(picture.format.name)
    sampling, depth = found or ("444", 8)
    return to_420([_plane(plane, depth) for plane in picture.planes[: 1 if sampling == "mono" else 3]], depth)


def _plane(plane: Any, depth: int) -> NDArray[Any]:
    """(height, width) of one plane, without the padding at the end of its lines."""
    kind = np.dtype(np.uint8 if depth == 8 else "<u2")
    lines = np.frombuffer(plane, kind).reshape(-1, plane.line_size // kind.itemsize)
    return lines[: plane.height, : plane.width]


def _seconds(stream: Any, container: Any) -> float | None:
    """How long the pictures last. Matroska says, of a track and of the file with its sound, when they end, from zero on."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    told = container.duration / 1e6 if container.duration else None
    if "matroska" not in container.format.name:
        return told
    start = float((stream.start_time or 0) * stream.time_base)
    tag = next((text for key, text in stream.metadata.items() if key.split("-")[0] == "DURATION"), "")
    found = re.fullmatch(r"(\d{1,5}):(\d\d):(\d\d(?:\.\d+)?)", tag)
    ends = [3600 * int(found[1]) + 60 * int(found[2]) + float(found[3]) if found else 0.0, told or 0.0]
    return next((end - start for end in ends if end > start), told)


def _aspect(value: Fraction | None) -> Fraction:
    return value if value and value > 0 else Fraction(1)


def _shape(shape: tuple[int, int, str]) -> str:
    return f"{shape[0]}x{shape[1]} {shape[2]}"
