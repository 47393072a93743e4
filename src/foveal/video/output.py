"""The output of a run that may be interrupted: parts of it until it is whole, each of which plays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from foveal.errors import InputError
from foveal.video import copying
from foveal.video.basecodec import EncoderSettings
from foveal.video.encodernote import crf_in
from foveal.video.mux import Writer, concat
from foveal.video.types import VideoFormat

_CODED = {"svtav1": "av1", "x265": "hevc", "x264": "h264", "ffv1": "ffv1"}


class Output:
    """The output, and the parts of it that there are until it is whole. Pipes and y4m have no parts to resume from."""

    def __init__(self, out: str | Path, source: str, resume: bool) -> None:
        self.out, self.source, self.pipe = Path(out), source, str(out) == "-"
        if not str(out) or self.out.is_dir():
            raise InputError(f"{str(out)!r} is not the name of a file to write")
        self.whole = copying.is_y4m(out)
        self.begins: Fraction | None = None  # seconds at which the first picture is shown
        if self.whole and resume:
            raise InputError(f"{out}: y4m cannot be resumed; write .mkv, .mp4 or .mov")
        if not self.pipe and copying.is_input(self.out, source):
            raise InputError(f"{out}: is the input; choose another name")
        self.names: list[Path] = []
        while not self.whole and self._name().exists():
            self.names.append(self._name())
        if self.names and not resume:
            raise InputError(f"{self.names[0]} is left of an interrupted run: go on with --resume, or remove it")

    def _name(self) -> Path:
        return self.out.with_name(f"{self.out.name}.part-{len(self.names):03d}{self.out.suffix}")

    def frames(self) -> int:
        """Frames in all parts that are there."""
        return sum(_counted(name) for name in self.names)

    def check(self, video: VideoFormat, settings: EncoderSettings) -> None:
        """InputError when the parts that are there cannot be joined with what comes: size, codec or CRF are others."""
        for name in self.names:
            with copying.opened(name) as part:
                stream = copying.main_stream(part)
                context = stream.codec_context
                found = context.width, context.height, context.codec.canonical_name
                crf = crf_in(found[2], bytes(context.extradata or b""), bytes(next(part.demux(stream))))
            wanted = video.width, video.height, _CODED[settings.codec]
            if any(abs(a - b) > 1 for a, b in zip(found[:2], wanted[:2], strict=True)) or found[2] != wanted[2]:
                was, new = ("x".join(map(str, x[:2])) + f" {x[2]}" for x in (found, wanted))
                raise InputError(f"{name}: is {was}, the rest would be {new}; resume as it began, or remove it")
            now = settings.used_crf
            if crf is not None and now is not None and abs(crf - now) > 0.06:  # it is noted with one decimal
                was = f"was coded at crf {crf:g}, the rest would be at {now:g}"
                raise InputError(f"{name}: {was}; resume with --crf {crf:g}, or remove it")

    def writer(self, video: VideoFormat, settings: EncoderSettings) -> Writer:
        """For the next part; the first takes everything beside the pictures along."""
        if self.pipe:
            return Writer("-", video, settings)
        name = self._name()
        first = not self.names
        self.names.append(name)
        return Writer(name, video, settings, copy_from=self.source if first and self.source != "-" else None)

    def join(self) -> None:
        """Make the output of the parts."""
        if self.pipe:
            return
        if len(self.names) == 1:
            copying.replace(self.names[0], self.out)
            return
        concat(self.names, self.out, copy_from=None if self.source == "-" else self.source, begins=self.begins)
        for name in self.names:
            name.unlink()


def _counted(path: Path) -> int:
    """Pictures in a file, by its packets."""
    with copying.opened(path) as part:
        stream = copying.main_stream(part)
        return 0 if stream is None else sum(packet.size > 0 for packet in part.demux(stream))
