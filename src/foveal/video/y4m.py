"""YUV4MPEG2, uncompressed video for pipes: a line of text, then for each picture the line FRAME and its planes.

``Y4mInput`` and ``Y4mOutput`` mirror each other. The format holds size, rate, sample aspect, sampling, depth and range;
times are those of a constant rate, and the colour matrix, rotation and sound are not in it.
"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from foveal.errors import CorruptError, TruncatedError, UnsupportedVideoError
from foveal.video.types import Planes, VideoFormat

_COLOUR = re.compile(r"(420|422|444|mono)(?:p?(9|10|12|14|16)|jpeg|mpeg2|paldv)?$")
_SITING = {"420jpeg": 2, "420mpeg2": 1, "420paldv": 3}  # to FFmpeg's numbers of chroma locations
_LARGEST = (1 << 31) - 1  # number of a ratio
_LINE = 4096  # bytes of a header at most


class Y4mInput:
    """Pictures out of a binary stream. ``name`` is for messages.

    ``format``: of the pictures as 4:2:0, one unit of time a frame. ``sampling`` ("420", "422", "444", "mono") and ``depth``
    (bits) are those of the stream. Raises UnsupportedVideoError for what is not progressive y4m.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self.file, self.name = file, name
        magic, *fields = self._line().split(" ")
        if magic != "YUV4MPEG2":
            raise UnsupportedVideoError(f"{name}: not y4m, which begins with YUV4MPEG2")
        said = {field[0]: field[1:] for field in fields if field and field[0] != "X"}
        colour = said.get("C", "420jpeg")
        kind = _COLOUR.match(colour)
        if kind is None or said.get("I", "p") not in ("p", "?"):
            raise UnsupportedVideoError(f"{name}: y4m of C{colour} I{said.get('I', 'p')}; progressive 4:2:0 is coded")
        try:
            width, height = int(said["W"]), int(said["H"])
            rate, aspect = _ratio(said.get("F", "25:1")), _ratio(said.get("A", "1:1"))
        except (KeyError, ValueError):
            raise UnsupportedVideoError(f"{name}: a y4m header without a width, a height or a rate") from None
        self.sampling, self.depth = kind[1], int(kind[2] or 8)
        self.format = VideoFormat(
            width, height, 8 if self.depth == 8 else 10, 1 / (rate or Fraction(25)), rate or Fraction(25),
            full_range="XCOLORRANGE=FULL" in fields, aspect=aspect or Fraction(1), codec="rawvideo",
            chroma_location=_SITING.get(colour, 0) if kind[1] == "420" else 1,
        )  # fmt: skip

    def read(self) -> list[NDArray[Any]] | None:
        """Y, or Y, U and V of the next picture in the stream's own sampling; None after the last.

        Raises TruncatedError when the stream ends inside a picture, CorruptError when it goes on with something else.
        """
        line = self._line()
        if not line:
            return None
        if line.split(" ")[0] != "FRAME":
            raise CorruptError(f"{self.name}: y4m with {line[:20]!r} where FRAME should be")
        width, height = self.format.width, self.format.height
        chroma = (
            (height + 1) // 2 if self.sampling == "420" else height,
            width if self.sampling == "444" else (width + 1) // 2,
        )
        return [
            self._plane(shape) for shape in [(height, width), chroma, chroma][: 1 if self.sampling == "mono" else 3]
        ]

    def _plane(self, shape: tuple[int, int]) -> NDArray[Any]:
        kind = np.dtype(np.uint8 if self.depth == 8 else "<u2")
        size = shape[0] * shape[1] * kind.itemsize
        data = self.file.read(size)
        if len(data) < size:
            raise TruncatedError(f"{self.name}: ends inside a picture")
        return np.frombuffer(data, kind).reshape(shape)

    def _line(self) -> str:
        line = self.file.readline(_LINE)
        if line and not line.endswith(b"\n"):
            raise UnsupportedVideoError(f"{self.name}: not y4m: a line that does not end")
        return line[:-1].decode("latin-1")


class Y4mOutput:
    """4:2:0 pictures of ``bits`` 8 or 10 into a binary stream."""

    def __init__(self, file: IO[bytes], video: VideoFormat, bits: int) -> None:
        self.file, self.bits = file, bits
        names = {number: name for name, number in _SITING.items()}
        colour = "420p10 XYSCSS=420P10" if bits == 10 else names.get(video.chroma_location, "420mpeg2")
        rate = video.rate or Fraction(25)
        fields = [
            f"YUV4MPEG2 W{video.width} H{video.height} F{rate.numerator}:{rate.denominator} Ip",
            f"A{video.aspect.numerator}:{video.aspect.denominator} C{colour}",
            f"XCOLORRANGE={'FULL' if video.full_range else 'LIMITED'}",
        ]
        file.write(" ".join(fields).encode("ascii") + b"\n")

    def write(self, planes: Planes) -> None:
        """The next picture."""
        kind = np.dtype(np.uint8 if self.bits == 8 else "<u2")
        self.file.write(b"FRAME\n")
        for plane in (planes.y, planes.u, planes.v):
            self.file.write(np.ascontiguousarray(plane, kind).data)


def _ratio(text: str) -> Fraction | None:
    """ "30:1" as a fraction; None for the "0:0" of unknown, ValueError for what is none or has numbers beyond FFmpeg's."""
    top, _, bottom = text.partition(":")
    value = Fraction(int(top), int(bottom)) if int(bottom) else None
    if value and max(value.numerator, value.denominator) > _LARGEST:
        raise ValueError(text)
    return value if value is None or value > 0 else None
