"""What the video rooms hand one another: pictures as planes, frames with their time, and how a video is described."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.uint8] | NDArray[np.uint16]

SCALES = (1.0, 1.5, 2.0)  # by which a video's width and height may be reduced
BLEND_BLOCK = 64  # samples of luma to a side that share a blend weight
GROUP = 64  # frames that have their taps together, and of which nothing is left in the next ones
REACH, NEAR = 2, 1  # of the filter's taps of coded luma, of the network's residual: samples to each side
DETAIL = (2 * REACH + 1) ** 2 - 1  # taps of coded luma come first, row by row
OWN = DETAIL + (2 * NEAR + 1) ** 2 // 2  # the tap of the residual itself
MOMENTS = (-1, 1, -2, 2)  # frames from the filtered one at which it looks too, in the order of their taps
LIMIT = 8  # what it takes at most of a difference between frames, in steps of 8-bit samples
AROUND = DETAIL + (2 * NEAR + 1) ** 2  # the first of their taps
LUMA = AROUND + len(MOMENTS)  # taps that make luma
TAPS = LUMA + 2  # and a factor each of the residuals of U and V
IDENTITY = np.zeros(TAPS, np.float32)  # leaves the residual as it is
IDENTITY[[OWN, LUMA, LUMA + 1]] = 1


@dataclass(frozen=True)
class Planes:
    """One 4:2:0 picture: y (H, W), u and v (ceil(H/2), ceil(W/2)); uint8, or uint16 holding 10 bits (0..1023)."""

    y: Plane
    u: Plane
    v: Plane

    @property
    def bits(self) -> int:
        """8 or 10."""
        return 8 if self.y.dtype == np.uint8 else 10


Progress = Callable[[int, int | None], None]  # frames done, of those to do, None where that is not known


@dataclass
class Steps:
    """Frames done, of those to do in all passes, told to whoever asked."""

    tell: Progress | None
    total: int | None
    done: int = 0

    def step(self) -> None:
        """One more frame of one pass."""
        self.done += 1
        if self.tell:
            self.tell(self.done, None if self.total is None else max(self.total, self.done))


@dataclass(frozen=True)
class Frame:
    """One picture and its time, in units of its video's ``time_base``. ``key``: decodable without others."""

    planes: Planes
    pts: int
    duration: int = 0
    key: bool = False


@dataclass(frozen=True)
class Mastering:
    """What an HDR video was mastered for (SMPTE ST 2086, CTA-861.3).

    ``display``: CIE x and y of red, green, blue and white, then the least and the greatest luminance in cd/m2; ``light``:
    greatest light level of any pixel and of any picture's mean, in cd/m2. None: not said.
    """

    display: tuple[Fraction, ...] | None = None
    light: tuple[int, int] | None = None

    def written(self, units: tuple[int, int] | None) -> str:
        """``display`` as encoders take it, G(x,y)B(x,y)R(x,y)WP(x,y)L(max,min): in whole ``units`` of chromaticity and of
        luminance, or as decimal fractions; "" for none."""
        if self.display is None:
            return ""
        scales = [units[0]] * 8 + [units[1]] * 2 if units else [1] * 10
        said = [f"{round(v * k)}" if units else f"{float(v):.5g}" for v, k in zip(self.display, scales, strict=True)]
        red, green, blue, white, (least, most) = (said[i : i + 2] for i in range(0, 10, 2))
        places = {"G": green, "B": blue, "R": red, "WP": white, "L": [most, least]}
        return "".join(f"{name}({','.join(pair)})" for name, pair in places.items())


@dataclass(frozen=True)
class VideoFormat:
    """What a video stream says of itself. Colour values are the code points of ITU-T H.273 (2 = unspecified).

    ``rotation``: degrees counter-clockwise as the display matrix says; it is carried along, never applied.
    ``aspect``: sample aspect ratio. ``rate``: average frames per second, None if unknown. ``frames``, ``seconds``: None if
    unknown. ``mastering``: None for a video that does not say.
    ``crf``: what its encoder, x264 or x265, says it was coded at; None if it does not.
    """

    width: int
    height: int
    bits: int
    time_base: Fraction
    rate: Fraction | None = None
    full_range: bool = False
    matrix: int = 2
    primaries: int = 2
    transfer: int = 2
    chroma_location: int = 0
    aspect: Fraction = Fraction(1)
    rotation: int = 0
    codec: str = ""
    frames: int | None = None
    seconds: float | None = None
    mastering: Mastering | None = None
    crf: float | None = None
