"""Frames per second and peak memory of restoring, from a file of 640x360 to raw frames of 1280x720.

Each way runs in a fresh process, for a clip and for one four times as long: memory must not grow with it. The clip is
the folder's largest, scaled if it has another size, and repeated if it is too short.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from foveal.bench.video_media import Clip, ffmpeg, prepare, read_clip
from foveal.bench.video_plan import Job
from foveal.bench.video_results import Key, Speed, model_of, weights_of
from foveal.bench.video_worker import MEASURED, VideoWorker, reused

__all__ = ["measure_speeds", "speed_keys", "speed_ways"]

SIZE = (1280, 720)
FRAMES = (24, 96)
RIVAL_FRAMES = (2,)  # it takes seconds for each
CODEC, CRF = "x264", 30

Ways = Mapping[str, Sequence[int]]


def speed_ways(models: Sequence[str], rival: bool) -> Ways:
    """Variant -> the numbers of frames it is measured with."""
    names = [name for model in models for name in (model.upper(), f"{model.upper()}+side")]
    return dict.fromkeys(["lanczos", *names], FRAMES) | ({"realesr": RIVAL_FRAMES} if rival else {})


def speed_keys(variant: str, counts: Sequence[int], threads: int) -> list[Key]:
    """Keys of a variant's measurements, as in video_results.Speed."""
    return [(variant, count, threads) for count in counts]


def measure_speeds(
    ways: Ways,
    sources: Sequence[Path],
    scratch: Path,
    threads: int,
    size: tuple[int, int] = SIZE,
) -> Iterator[Speed]:
    """Measure each way. Raises FovealError."""
    if not ways:
        return
    originals = {count: _original(sources, scratch, count, size) for count in FRAMES}
    with VideoWorker(threads) as encoder:
        for variant, counts in ways.items():
            model = model_of(variant)
            job = Job("", CODEC, CRF, "half", model)
            with VideoWorker(threads, bound=True) as worker:
                for count in counts:
                    original = originals.get(count, originals[FRAMES[0]])
                    coded = scratch / f"speed{original.frames}{model}.mkv"
                    if not coded.exists():
                        encoder.call("encode", source=original.path, out=coded, **job.encoding)
                    found = worker.show(variant, job, coded, scratch / "shown.y4m", original, {"scale": 2}, count)
                    seconds, cpu, peak = (float(found[name]) for name in MEASURED)
                    last = (reused(found), weights_of(variant))
                    yield Speed(variant, *size, count, threads, seconds, cpu, peak, *last)


def _original(sources: Sequence[Path], scratch: Path, frames: int, size: tuple[int, int]) -> Clip:
    """The largest clip at this size and with so many frames, as a file of its own."""
    clips = {path: prepare(path, scratch / "speed.y4m", 1) for path in sources}
    largest = max(clips, key=lambda path: clips[path].width * clips[path].height)
    whole, target = prepare(largest, scratch / "speed.y4m", frames), scratch / f"speed{frames}.y4m"
    shown = f"scale={size[0]}:{size[1]}:flags=lanczos,setsar=1"
    ffmpeg("-stream_loop", -1, "-i", whole.path, "-vf", shown, "-frames:v", frames, target)
    return read_clip(target, largest.name)
