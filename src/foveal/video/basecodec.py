"""The real encoders below the super-resolution: SVT-AV1, x265, x264 and lossless FFV1, through PyAV.

One table says what each encoder is called, its usual and highest CRF and its presets; ``EncoderSettings`` is a choice
from it, checked, and knows the options that PyAV takes. The number of threads is part of the settings and does not
follow the machine, so that two runs give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from numbers import Real
from typing import Any

import numpy as np

from foveal.errors import InputError, MissingExtraError, UnsupportedVideoError
from foveal.video.types import VideoFormat

THREADS = 4
_MP4 = (".mp4", ".m4v", ".mov")
_X_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip


@dataclass(frozen=True)
class Encoder:
    """What is fixed about one encoder.

    ``name``: FFmpeg's. ``crf``: the usual one, None for lossless coding; 0 is the best, ``worst`` the worst. ``even``:
    widths and heights must be even. ``least``: of both, in pixels. ``suffixes``: of the files it may go into.
    ``least_rated``: as ``least``, at a bitrate. ``fastest``: the highest bitrate, where the encoder has one. ``narrow``:
    a side of so many pixels at most hangs the encoder if the other has more than the second number. ``sitings``: where
    chroma may lie for a file (by suffix, "" for others) to say so, as FFmpeg counts; None: everywhere.
    """

    name: str
    crf: float | None
    worst: float
    presets: tuple[str, ...]
    preset: str
    even: bool
    least: int
    suffixes: tuple[str, ...]
    least_rated: int = 0
    fastest: int | None = None
    narrow: tuple[int, int] = (0, 0)
    sitings: Mapping[str, tuple[int, ...]] | None = None


ENCODERS = {
    "svtav1": Encoder(
        "libsvtav1",
        35,
        63,
        tuple(map(str, range(14))),
        "6",
        False,
        4,
        (".mp4", ".m4v", ".mkv", ".webm"),
        64,
        10**8,
        narrow=(24, 64),
        sitings={".mkv": (0, 1, 2, 3, 4), ".webm": (0, 1, 2, 3, 4), "": (0, 1, 3)},
    ),
    "x265": Encoder("libx265", 28, 51, _X_PRESETS, "medium", True, 16, (*_MP4, ".mkv")),
    "x264": Encoder("libx264", 23, 51, _X_PRESETS, "medium", True, 2, (*_MP4, ".mkv")),
    "ffv1": Encoder("ffv1", None, 0, (), "", False, 1, (".mkv",)),
}


def available() -> list[str]:
    """The codecs of ENCODERS that the installed PyAV can write. MissingExtraError without PyAV."""
    av = pyav()
    return [codec for codec, encoder in ENCODERS.items() if _has(av, encoder.name)]


@dataclass(frozen=True)
class EncoderSettings:
    """One choice of encoder. Neither ``crf`` nor ``bitrate`` (bits per second): the codec's usual CRF.

    ``preset``: a name for x264 and x265, 0 (slow) to 13 for svtav1; None: the table's. ``bits``: 8 or 10, None: as the
    frames are. ``gop``: frames from one key frame to the next at most, None: the encoder's choice.
    Raises InputError for values outside their range, for an unknown codec, when both crf and bitrate are given, and for
    either or a preset with a lossless codec.
    """

    codec: str = "svtav1"
    crf: float | None = None
    bitrate: int | None = None
    preset: str | int | None = None
    bits: int | None = None
    gop: int | None = None
    threads: int = THREADS

    def __post_init__(self) -> None:
        if not isinstance(self.codec, str) or self.codec not in ENCODERS:
            raise InputError(f"codec {self.codec!r}: one of {', '.join(ENCODERS)}")
        if self.crf is not None and self.bitrate is not None:
            raise InputError(f"crf {self.crf:g} and bitrate {self.bitrate}: give one of the two")
        encoder = self.encoder
        for name in ("crf", "bitrate"):
            if not isinstance(value := getattr(self, name), Real | None):
                raise InputError(f"{name} {value!r} is not a number")
        for name in ("crf", "bitrate", "preset") if encoder.crf is None else ():
            if (value := getattr(self, name)) is not None:
                raise InputError(f"{name} {value}: {self.codec} is lossless; leave it out, or take another codec")
        if self.crf is not None and not 0 <= self.crf <= encoder.worst:
            raise InputError(f"crf {self.crf:g}: {self.codec} takes 0 (best) to {encoder.worst:g}")
        if self.bitrate is not None and self.bitrate < 1000:
            raise InputError(f"bitrate {self.bitrate}: bits per second, at least 1000, such as 800000 or 800k")
        if self.bitrate is not None and encoder.fastest is not None and self.bitrate > encoder.fastest:
            raise InputError(
                f"bitrate {self.bitrate}: {self.codec} takes {encoder.fastest} at most; give that, or a crf"
            )
        if self.preset is not None and str(self.preset) not in encoder.presets:
            raise InputError(f"preset {self.preset!r}: {self.codec} has {', '.join(encoder.presets)}")
        if self.bits not in (None, 8, 10):
            raise InputError(f"bits {self.bits}: 8 or 10")
        if self.threads < 1 or (self.gop is not None and self.gop < 1):
            raise InputError(f"threads {self.threads}, gop {self.gop}: at least 1")

    @property
    def encoder(self) -> Encoder:
        """The encoder's row of the table."""
        return ENCODERS[self.codec]

    @property
    def least(self) -> int:
        """The least width and height, in pixels, that the encoder codes at this crf or bitrate."""
        return self.encoder.least if self.bitrate is None else max(self.encoder.least, self.encoder.least_rated)

    @property
    def used_crf(self) -> float | None:
        """The CRF that is coded with; None for a bitrate and for lossless coding."""
        if self.bitrate is not None or self.encoder.crf is None:
            return None
        return self.encoder.crf if self.crf is None else self.crf

    @property
    def quality(self) -> float | None:
        """CRF as a share of its range in [0, 1], as the restoring network takes it; None where there is no CRF."""
        return None if self.used_crf is None else self.used_crf / self.encoder.worst

    def check(self, width: int, height: int, suffix: str) -> None:
        """UnsupportedVideoError when the encoder is absent, or cannot code this size or go into a file called so."""
        if self.codec not in (present := available()):
            raise UnsupportedVideoError(
                f"this PyAV has no encoder {self.encoder.name}, which {self.codec} needs; it has: "
                f"{', '.join(present) or 'none'}"
            )
        if min(width, height) < self.encoder.least:
            raise UnsupportedVideoError(
                f"{width}x{height}: {self.codec} codes pictures of at least {self.encoder.least}x{self.encoder.least}"
            )
        if min(width, height) < self.least:
            raise UnsupportedVideoError(
                f"{width}x{height}: {self.codec} keeps to a bitrate from pictures of {self.least}x{self.least} on; "
                "give --crf instead of --bitrate"
            )
        if self.too_narrow(width, height):
            raise UnsupportedVideoError(
                f"{width}x{height}: {self.codec} hangs where one side has {self.encoder.narrow[0]} pixels or less and the "
                f"other more than {self.encoder.narrow[1]}; take another codec, or --scale 1"
            )
        if suffix not in self.encoder.suffixes:
            raise UnsupportedVideoError(
                f"{self.codec} does not go into a {suffix or 'nameless'} file; use {', '.join(self.encoder.suffixes)}"
            )

    def too_narrow(self, width: int, height: int) -> bool:
        """Whether the encoder hangs at this size."""
        short, long = self.encoder.narrow
        return min(width, height) <= short and max(width, height) > long

    def keeps_siting(self, location: int, suffix: str) -> bool:
        """Whether a file called so says that chroma lies at FFmpeg's ``location``."""
        known = self.encoder.sitings
        return known is None or location in known.get(suffix, known.get("", ()))

    def pixel_format(self, bits: int) -> str:
        """FFmpeg's name of the pixel format for frames of ``bits`` bits (overruled by the settings' own)."""
        return "yuv420p" if (self.bits or bits) == 8 else "yuv420p10le"

    def options(self, video: VideoFormat) -> dict[str, str]:
        """What the encoder is opened with, for frames of ``video``'s colour and chroma siting."""
        found = {"threads": str(self.threads)}
        if self.gop is not None:
            found["g"] = str(self.gop)
        if video.chroma_location:
            found["chroma_sample_location"] = str(video.chroma_location)
        if self.bitrate is not None:
            found["b"] = str(self.bitrate)
        own: dict[str, str] = getattr(self, f"_{self.codec}")()
        if video.mastering and self.codec in MASTERING:
            display, light, units = MASTERING[self.codec]
            told = [own.get(f"{self.codec}-params", ""), f"{display}={video.mastering.written(units)}"]
            told += [f"{light}={video.mastering.light[0]},{video.mastering.light[1]}"] if video.mastering.light else []
            own[f"{self.codec}-params"] = ":".join(t for t in told if t and not t.endswith("="))
        return found | own

    def _preset(self) -> str:
        return self.encoder.preset if self.preset is None else str(self.preset)

    def _crf(self) -> dict[str, str]:
        return {} if self.used_crf is None else {"crf": f"{self.used_crf:g}"}

    def _x264(self) -> dict[str, str]:
        found = {"preset": self._preset(), **self._crf()}
        # On AVX-512 CPUs x264's macroblock tree reads memory it has not set, so that runs differ (at 160x96, say).
        return found | ({"x264-params": "asm=avx2"} if has_avx512() else {})

    def _x265(self) -> dict[str, str]:
        params = f"log-level=none:pools={self.threads}:frame-threads={min(self.threads, 2)}"
        return {"preset": self._preset(), **self._crf(), "x265-params": params}

    def _svtav1(self) -> dict[str, str]:
        os.environ.setdefault("SVT_LOG", "-1")  # SVT-AV1 writes its settings to standard error unless told not to
        params, crf = f"lp={min(self.threads, 6)}", self.used_crf
        if crf is None:
            return {"preset": self._preset(), "svtav1-params": params}
        # FFmpeg's own option holds whole numbers, and 0 there means "not given".
        return {"preset": self._preset(), "svtav1-params": f"{params}:crf={round(crf * 4) / 4:g}"}

    def _ffv1(self) -> dict[str, str]:
        return {"level": "3", "slicecrc": "1"}


# Parameters that carry what an HDR video was mastered for, and the units of the first; FFV1 has none
MASTERING: dict[str, tuple[str, str, tuple[int, int] | None]] = {
    "x264": ("mastering-display", "cll", (50000, 10000)),
    "x265": ("master-display", "max-cll", (50000, 10000)),
    "svtav1": ("mastering-display", "content-light", None),
}


def frame_rate(video: VideoFormat) -> Fraction:
    """The rate an encoder plans with: the stream's average, or 25 where it is unknown or absurd."""
    rate = video.rate
    return rate if rate and Fraction(1, 60) <= rate <= 1000 else Fraction(25)


def frame_count(video: VideoFormat) -> int | None:
    """Frames that a file promises, by itself or by how long it lasts; None where it does neither."""
    return video.frames or (round(video.seconds * frame_rate(video)) if video.seconds else None)


def has_avx512() -> bool:
    """Whether this CPU has AVX-512, with which x264's output is not the same from run to run at some sizes."""
    found = np.show_config(mode="dicts").get("SIMD Extensions", {}).get("found", ())  # what is empty, NumPy leaves out
    return any(name.startswith(("AVX512", "X86_V4")) for name in found)


def _has(av: Any, name: str) -> bool:
    try:
        return bool(av.codec.Codec(name, "w").name)
    except av.codec.codec.UnknownCodecError:
        return False


def pyav() -> Any:
    """The module ``av``. MissingExtraError when PyAV is not installed."""
    try:
        import av
    except ImportError:
        raise MissingExtraError.of("PyAV", "video") from None
    return av
