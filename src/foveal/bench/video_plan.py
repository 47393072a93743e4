"""What the video benchmark measures: the CRFs of each encoder, and the jobs, each one coded file and ways to show it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from foveal.bench.video_results import Key
from foveal.errors import InputError

__all__ = ["CODECS", "PARTS", "RATES", "Job", "Rates", "jobs", "parse_rates"]

# CRFs at full and at half size, five each, where both take about the same bits: the low end of what each encoder reaches
RATES: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "x264": ((37, 40, 43, 46, 49), (28, 31, 34, 37, 40)),
    "x265": ((36, 39, 42, 45, 48), (29, 32, 35, 38, 41)),
    "svtav1": ((47, 51, 55, 59, 63), (31, 37, 43, 49, 55)),
}
CODECS = tuple(RATES)
PARTS = ("rates", "side", "auto", "x1", "rival", "speed")

Rates = Mapping[str, tuple[Sequence[float], Sequence[float]]]


def parse_rates(words: Sequence[str]) -> Rates:
    """RATES, changed by words such as "x264=37,40,43/28,31,34": CRFs at full size, and after the slash at half size.

    Raises InputError for anything else.
    """
    found = {codec: (tuple(full), tuple(half)) for codec, (full, half) in RATES.items()}
    for word in words:
        codec, _, lists = word.partition("=")
        try:
            full, half = (tuple(float(crf) for crf in part.split(",")) for part in lists.split("/"))
        except ValueError:
            raise InputError(
                f"--rates {word!r}: write them like x264=37,40,43/28,31,34 (full size/half size)"
            ) from None
        found[codec] = (full, half)
    return found


@dataclass(frozen=True)
class Job:
    """One file to code, and what is measured of it.

    `way`: full, half, side (half, with side information alone), x1 (full size, restored), auto (scale decided by the
    encoder), rival (half, few frames).
    `model`: whose side information is made and who restores; "" for plain Lanczos. `start`: the first few frames are
    measured on their own too.
    """

    clip: str
    codec: str
    crf: float
    way: str
    model: str = ""
    start: bool = False

    @property
    def variants(self) -> tuple[str, ...]:
        """As in video_results.Point."""
        name = self.model.upper()
        if self.way == "half" and name:
            return (name, f"{name}+side")
        plain = {"full": ("full",), "half": ("lanczos",), "rival": ("realesr",), "side": (f"{name}+side",)}
        return plain.get(self.way) or {"x1": (f"x1-{name}", f"x1-{name}+side"), "auto": (f"auto-{name}",)}[self.way]

    @property
    def keys(self) -> Iterator[Key]:
        parts = ["start"] if self.way == "rival" else ["clip", "start"] if self.start else ["clip"]
        return ((self.clip, self.codec, variant, self.crf, part) for variant in self.variants for part in parts)

    @property
    def encoding(self) -> dict[str, Any]:
        """Arguments of foveal.video.encode besides source and target."""
        scale = {"full": 1, "x1": 1, "auto": "auto"}.get(self.way, 2)
        found = {"codec": self.codec, "crf": self.crf, "scale": scale, "side_information": bool(self.model)}
        return {**found, "model": self.model} if self.model else found


def jobs(
    clips: Sequence[str], codecs: Sequence[str], models: Sequence[str], rates: Rates, parts: Sequence[str]
) -> list[Job]:
    """All jobs, clip by clip. Raises InputError for a codec that has no rates."""
    unknown = [codec for codec in codecs if codec not in rates]
    if unknown:
        raise InputError(f"no rates for codec {unknown[0]!r}; choose from {', '.join(rates)}, or give it --rates")
    return [job for clip in clips for codec in codecs for job in _jobs(clip, codec, models, rates[codec], parts)]


def _jobs(
    clip: str, codec: str, models: Sequence[str], rates: tuple[Sequence[float], Sequence[float]], parts: Sequence[str]
) -> Iterator[Job]:
    full, half = rates
    middle = half[len(half) // 2]
    if "rates" in parts:
        yield from (Job(clip, codec, crf, "full") for crf in full)
        for model in ("", *models):
            yield from (Job(clip, codec, crf, "half", model, "rival" in parts and crf == middle) for crf in half)
    if "side" in parts and "rates" not in parts:
        yield from (Job(clip, codec, crf, "side", model) for model in models for crf in half)
    for way in ("auto", "x1"):
        if way in parts:
            yield from (Job(clip, codec, crf, way, model) for model in models for crf in full)
    if "rival" in parts:
        yield Job(clip, codec, middle, "rival")
