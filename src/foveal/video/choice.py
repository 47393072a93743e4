"""Which size a video is coded at: probe encodes of a few seconds at full size, 1/1.5 and 1/2, compared at equal bits.

The budget is what full size takes at the CRF (or bitrate) asked for. At each other size the CRF that takes as many bits
is looked for; the size that the receiver then shows with the least squared error of luma wins, and its CRF with it.
With a VMAF as the goal it is the other way round: at each size the CRF that reaches it, and the least bits win.
"""

from __future__ import annotations

import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foveal.errors import InputError, UnsupportedVideoError
from foveal.video.basecodec import EncoderSettings, frame_rate
from foveal.video.copying import coded_bytes
from foveal.video.frames import Reader
from foveal.video.mux import Writer
from foveal.video.resize import resize_planes
from foveal.video.types import SCALES, Frame, Planes, VideoFormat
from foveal.video.vmaf import vmaf

SEGMENTS, SEGMENT_SECONDS = 3, 1.0
MEMORY = 1 << 28  # bytes of pictures that a probe may keep
STRIDE = 3  # of the probes' pictures, the share that is restored and measured; odd, so that all kinds of frames are
AHEAD = 6, 1  # of them, from the second on, the share that is looked at beforehand: none that is measured
LEAD_DB = 0.02  # full size is kept unless another is better by more
CLOSE = 0.02  # of the bits: near enough to the budget
Show = Callable[[Planes, Planes], Planes]  # a decoded small picture, the original -> what the receiver shows


class Coded(NamedTuple):
    """A probe's coded video: its pictures, their bits on average, and some of them, with originals, to look at first."""

    pictures: int
    bits: float
    ahead: Iterable[tuple[Planes, Planes]]


Receiver = Callable[[float, EncoderSettings, Coded], Show]  # of a video: its scale, its settings


@dataclass(frozen=True)
class Choice:
    """``scale`` 1, 1.5 or 2, the settings to code with, and one sentence that says why."""

    scale: float
    settings: EncoderSettings
    why: str


@dataclass(frozen=True)
class Point:
    """One probe encode: its CRF, its bytes, the mean squared error of luma, or the VMAF where that is the goal."""

    scale: float
    crf: float
    bytes: int
    error: float
    vmaf: float = 0.0

    @property
    def psnr_db(self) -> float:
        """Of luma, for errors of 8-bit samples."""
        return 10 * math.log10(255**2 / max(self.error, 1e-9))


class Probe:
    """Pictures of a few segments of a video, coded again and again, each size and CRF once. ``seconds``: of them all.

    ``folder``: for the coded files.
    """

    def __init__(
        self,
        pictures: Sequence[Planes],
        video: VideoFormat,
        settings: EncoderSettings,
        receiver: Receiver,
        folder: Path,
    ) -> None:
        rate = frame_rate(video)
        self.pictures, self.settings, self.receiver, self.folder = pictures, settings, receiver, folder
        self.video = replace(video, time_base=1 / rate, rate=rate, bits=settings.bits or video.bits)
        self.seconds = float(len(pictures) / rate)
        self.small: dict[float, list[Planes]] = {1.0: list(pictures)}
        self.sizes: dict[tuple[float, float], int] = {}
        self.points: dict[tuple[float, float], Point] = {}

    def size(self, scale: float, crf: float) -> int:
        """Bytes of the pictures, coded."""
        if (scale, crf) not in self.sizes:
            self.sizes[scale, crf] = self._code(scale, crf)
        return self.sizes[scale, crf]

    def point(self, scale: float, crf: float, with_vmaf: bool = False) -> Point:
        """Bytes, and how what the receiver shows differs from the pictures: every STRIDE-th, or all with VMAF."""
        if (scale, crf) not in self.points:
            size = self.size(scale, crf)
            error, score = self._measure(scale, crf, with_vmaf)
            self.points[scale, crf] = Point(scale, crf, size, error, score)
        return self.points[scale, crf]

    def _coded(self, scale: float, crf: float) -> tuple[Path, EncoderSettings]:
        return self.folder / f"{scale:g}-{crf:g}.mkv", replace(self.settings, crf=crf, bitrate=None)

    def _code(self, scale: float, crf: float) -> int:
        if scale not in self.small:
            self.small[scale] = [shrink(p, scale, self.video.chroma_location) for p in self.pictures]
        path, settings = self._coded(scale, crf)
        height, width = self.small[scale][0].y.shape
        self._write(path, self.small[scale], settings, replace(self.video, width=width, height=height))
        return coded_bytes(path)

    def _measure(self, scale: float, crf: float, with_vmaf: bool) -> tuple[float, float]:
        """(mean squared error of luma, VMAF or 0)."""
        path, settings = self._coded(scale, crf)
        stride, errors = 1 if with_vmaf else STRIDE, list[float]()
        with Reader(path) as reader:
            ahead = (
                (frame.planes, original)
                for number, (frame, original) in enumerate(zip(reader, self.pictures, strict=True))
                if number % AHEAD[0] == AHEAD[1]
            )
            count = len(self.pictures)
            show = self.receiver(scale, settings, Coded(count, 8 * self.size(scale, crf) / count, ahead))

        def shown(reader: Reader) -> Iterator[Planes]:
            for number, (frame, original) in enumerate(zip(reader, self.pictures, strict=True)):
                if number % stride == 0:
                    planes = show(frame.planes, original)
                    errors.append(squared_error(original, planes))
                    yield planes

        with Reader(path) as reader:
            if with_vmaf:
                original = self._write(self.folder / "original.y4m", self.pictures)
                score = vmaf(original, self._write(self.folder / "shown.y4m", shown(reader)))
            else:
                deque(shown(reader), maxlen=0)
                score = 0.0
        return float(np.mean(errors)), score

    def _write(
        self,
        path: Path,
        pictures: Iterable[Planes],
        settings: EncoderSettings | None = None,
        video: VideoFormat | None = None,
    ) -> Path:
        with Writer(path, video or self.video, settings or self.settings, quiet=True) as writer:
            for number, planes in enumerate(pictures):
                writer.write(Frame(planes, number, 1))
        return path


def choose(
    source: str | Path,
    video: VideoFormat,
    settings: EncoderSettings,
    receiver: Receiver,
    scales: Sequence[float] = SCALES,
    target_vmaf: float | None = None,
) -> Choice:
    """Probe the file ``source`` at ``scales`` and choose. InputError when no CRF reaches ``target_vmaf``, or none is had."""
    sizes = {s: small_size(video.width, video.height, s) for s in scales}
    fitting = [
        s for s, size in sizes.items() if min(size) >= max(16, settings.least) and not settings.too_narrow(*size)
    ]
    if settings.encoder.crf is None and target_vmaf is not None:
        raise InputError(
            f"target-vmaf {target_vmaf:g}: {settings.codec} is lossless; leave it out, or take another codec"
        )
    if settings.encoder.crf is None:
        return Choice(1.0, settings, "full size: the codec is lossless")
    if not fitting[1:] and target_vmaf is None:
        return Choice(1.0, settings, f"full size: {video.width}x{video.height} is too small to be reduced")
    with tempfile.TemporaryDirectory(prefix="foveal-") as folder:
        probe = Probe(sample(source, video), video, settings, receiver, Path(folder))
        if target_vmaf is not None:
            return by_vmaf(probe, fitting or scales, target_vmaf)
        return by_error(probe, fitting)


def by_error(probe: Probe, scales: Sequence[float]) -> Choice:
    """The least error at the bits that full size takes."""
    asked = probe.settings
    if asked.bitrate is None:
        full = probe.point(1.0, asked.used_crf or 0.0)
    else:
        full = at_bytes(probe, 1.0, asked.bitrate * probe.seconds / 8, asked.encoder.crf or 0.0)
    found = [full] + [at_bytes(probe, s, full.bytes, guess(full, s, asked)) for s in scales if s != 1.0]
    best = max(found, key=lambda p: p.psnr_db + (LEAD_DB if p.scale == 1.0 else 0))
    rest = ", ".join(f"{p.psnr_db:.2f} dB at {name(p.scale)} (crf {p.crf:g})" for p in found if p is not best)
    why = (
        f"{name(best.scale)}: {best.psnr_db:.2f} dB luma (crf {best.crf:g}) against {rest} "
        f"at {kbps(full, probe):.0f} kbit/s, in probes of {probe.seconds:.1f} s"
    )
    settings = asked if asked.bitrate is not None or best.scale == 1.0 else replace(asked, crf=best.crf)
    return Choice(best.scale, settings, why)


def guess(full: Point, scale: float, settings: EncoderSettings) -> float:
    """A CRF for the same bits at another size, to start from: six steps of 51 halve the bits, as pixels do less than."""
    return max(0.0, full.crf - 0.7 * math.log2(scale**2) * 6 * settings.encoder.worst / 51)


def at_bytes(probe: Probe, scale: float, budget: float, start: float) -> Point:
    """The point at ``scale`` that takes ``budget`` bytes: a few probes, then a straight line in CRF and log bytes."""
    worst, settings = probe.settings.encoder.worst, probe.settings
    slope = -math.log(2) / 6 * 51 / worst
    crf, sizes = rounded(start, settings), dict[float, int]()
    for _ in range(4):
        sizes[crf] = probe.size(scale, crf)
        miss = math.log(budget / sizes[crf])
        near = sorted(sizes, key=lambda c: abs(math.log(budget / sizes[c])))[:2]
        if len(near) == 2 and sizes[near[0]] != sizes[near[1]]:
            slope = min(-0.02, math.log(sizes[near[0]] / sizes[near[1]]) / (near[0] - near[1]))
        following = rounded(min(max(crf + miss / slope, 0.0), worst), settings)
        if abs(miss) < CLOSE or following in sizes:
            break
        crf = following
    return between(probe.point(scale, near[0]), probe.point(scale, near[-1]), budget, settings)


def between(a: Point, b: Point, budget: float, settings: EncoderSettings) -> Point:
    """The point at ``budget`` bytes on the line through two points, in logarithms; not far beyond the nearer, ``a``."""
    if a.bytes == b.bytes or a.crf == b.crf:
        return a
    share = math.log(budget / a.bytes) / math.log(b.bytes / a.bytes)
    if not -0.5 <= share <= 1.5:
        return a
    crf = rounded(min(max(a.crf + share * (b.crf - a.crf), 0.0), settings.encoder.worst), settings)
    error = math.exp(math.log(max(a.error, 1e-9)) + share * math.log(max(b.error, 1e-9) / max(a.error, 1e-9)))
    return Point(a.scale, crf, round(budget), error)


def by_vmaf(probe: Probe, scales: Sequence[float], goal: float) -> Choice:
    """The least bits that reach the goal."""
    reached = [point for scale in scales if (point := at_vmaf(probe, scale, goal)) is not None]
    if not reached:
        best = max(probe.points.values(), key=lambda p: p.vmaf)
        raise InputError(f"target-vmaf {goal:g}: not reached; the best is {best.vmaf:.1f}, at {name(best.scale)}")
    best = min(reached, key=lambda p: p.bytes * (0.995 if p.scale == 1.0 else 1))
    rest = "".join(f", {kbps(p, probe):.0f} kbit/s at {name(p.scale)}" for p in reached if p is not best)
    why = (
        f"{name(best.scale)}: VMAF {best.vmaf:.1f} (crf {best.crf:g}) with {kbps(best, probe):.0f} kbit/s{rest}, "
        f"in probes of {probe.seconds:.1f} s"
    )
    return Choice(best.scale, replace(probe.settings, crf=best.crf, bitrate=None), why)


def at_vmaf(probe: Probe, scale: float, goal: float) -> Point | None:
    """The highest CRF, to a quarter of a step or half a VMAF, that reaches the goal; None when not even the lowest one does.

    Bisection, on a straight line through the two nearest points where there are two.
    """
    settings = probe.settings
    low, high = 0.0, settings.encoder.worst
    found: Point | None = None
    missed: Point | None = None
    while found is None or found.vmaf - goal > 0.5:
        crf = (low + high) / 2
        if found and missed:
            share = (found.vmaf - goal + 0.25) / (found.vmaf - missed.vmaf)
            crf = low + min(max(share, 0.1), 0.9) * (high - low)
        if not low < rounded(crf, settings) < high:
            crf = (low + high) / 2
        if high - low <= 0.25 or not low < rounded(crf, settings) < high:
            break
        point = probe.point(scale, rounded(crf, settings), True)
        if point.vmaf >= goal:
            low, found = point.crf, point
        else:
            high, missed = point.crf, point
    return found


def sample(source: str | Path, video: VideoFormat) -> list[Planes]:
    """Pictures of SEGMENTS pieces spread over the video, or all of it when it is short; MEMORY bounds them."""
    rate = float(frame_rate(video))
    size = video.width * video.height * (3 if video.bits > 8 else 1.5)
    count = max(4, min(round(SEGMENTS * SEGMENT_SECONDS * rate), int(MEMORY / size)))
    seconds = video.seconds or 0.0
    if seconds * rate <= count * 1.5:
        return take(source, 0.0, count)
    each = max(2, count // SEGMENTS)
    found: list[Planes] = []
    for number in range(SEGMENTS):
        middle = seconds * (2 * number + 1) / (2 * SEGMENTS)
        found += take(source, max(0.0, middle - each / rate / 2), each)
    return found if len(found) >= count // 2 else take(source, 0.0, count)  # the file ends before it says it does


def take(source: str | Path, start: float, count: int) -> list[Planes]:
    """``count`` pictures from ``start`` seconds on, fewer at the end of the video and none behind it."""
    try:
        reader = Reader(source, start=start, quiet=True)
    except UnsupportedVideoError:
        if start <= 0:
            raise
        return []
    with reader:
        return [frame.planes for _, frame in zip(range(count), reader, strict=False)]


def small_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """What ``width`` x ``height`` is coded at: as it is at scale 1, else rounded up to even numbers."""
    if scale == 1:
        return width, height
    ratio = Fraction(scale)
    across, down = (math.ceil(n / ratio) for n in (width, height))
    return across + across % 2, down + down % 2


def shrink(planes: Planes, scale: float, chroma_location: int) -> Planes:
    """One picture at ``small_size``, by antialiased Lanczos; exactly ``scale`` samples become one."""
    if scale == 1:
        return planes
    height, width = planes.y.shape
    across, down = small_size(width, height, scale)
    return resize_planes(planes, across, down, ratio=scale, chroma_location=chroma_location)


def squared_error(a: Planes, b: Planes) -> float:
    """Mean squared error of luma, in units of 8-bit samples."""
    to8 = [255 / (255 if p.bits == 8 else 1023) for p in (a, b)]
    gap = a.y.astype(np.float32) * np.float32(to8[0]) - b.y.astype(np.float32) * np.float32(to8[1])
    return float(np.mean(gap * gap))


def rounded(crf: float, settings: EncoderSettings) -> float:
    """A CRF the encoder has: SVT-AV1 goes in quarters, the others are given one decimal."""
    return round(crf * 4) / 4 if settings.codec == "svtav1" else round(crf, 1)


def name(scale: float) -> str:
    """A scale in words."""
    return {1.0: "full size", 2.0: "half size"}.get(scale, f"1/{scale:g} size")


def kbps(point: Point, probe: Probe) -> float:
    """Kilobits per second of a probe."""
    return point.bytes * 8 / probe.seconds / 1000
