"""The benchmark: every picture through every codec at every setting, from real files.

For each codec one fresh process encodes and another, which has seen nothing but the files, decodes (see
worker). The codecs take turns picture by picture, so that a machine that slows down for a while does so for
all of them. Each measurement is one line in the results file, written at once: a run that is broken off
goes on where it stopped.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

import foveal
from foveal.bench import machine, results
from foveal.bench import report as reports
from foveal.bench.metrics import ms_ssim, psnr_db
from foveal.bench.pictures import check_sources, fingerprint
from foveal.bench.results import Point
from foveal.bench.rivals import Codec, Spec, build, extra
from foveal.bench.worker import Worker, load
from foveal.errors import FovealError, InputError

__all__ = ["Summary", "bench"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".avif"}
PACKAGES = ("torch", "numpy", "pillow", "constriction", "imagecodecs", "imageio-ffmpeg")

Qualities = Sequence[float] | Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Summary:
    """What a benchmark leaves behind."""

    results: Path
    points: tuple[Point, ...]
    page: Path | None  # the report's HTML page

    def __str__(self) -> str:
        return reports.text(self.points)


def bench(
    folder: str | os.PathLike[str],
    *,
    rivals: Sequence[str] = ("jpeg", "webp", "avif", "jxl"),
    output: str | os.PathLike[str],
    report: str | os.PathLike[str] | None = None,
    qualities: Qualities | None = None,
    model: str = "s",
    effort: int = 4,
    keep: float | str = "auto",
    threads: int = 1,
    limit: int | None = None,
    resume: bool = True,
    progress: bool | None = None,
    repeats: int = 3,
    with_foveal: bool = True,
) -> Summary:
    """Measure Foveal and its rivals on the pictures of a folder (its first `limit`, by name).

    `output` gets one JSON line per (picture, codec, setting), see results.Point; with `resume`, lines
    already there are kept and not measured again, otherwise the file begins anew. `report` is a folder for
    plots and a page. `qualities` replaces Foveal's grid of qualities, or, as a mapping from codec to
    settings, any codec's. `model`, `effort` and `keep` are Foveal's. `threads` holds for every codec that
    can use threads; 0 = one per core. Times are medians of `repeats` runs, fewer for a codec that takes
    seconds. `progress` None = a bar on stderr if that is a terminal. Pictures are measured as RGB:
    greyscale is spread to three channels and transparency is left out.

    Raises InputError (no pictures, unknown codec, an output file that holds other measurements, those of other
    pictures of the same names or something else altogether, or that cannot be written),
    MissingExtraError (a rival's package is absent; before anything runs), FovealError (a codec failed).
    """
    threads = threads or machine.cores()
    pictures = find_pictures(Path(folder), limit)
    if report is not None:
        extra("matplotlib", "matplotlib")
    names = (["foveal"] if with_foveal else []) + [name for name in dict.fromkeys(rivals) if name != "foveal"]
    plans = [Plan.of(Spec(name, threads, model, effort, keep), qualities) for name in names]
    output, sources = Path(output), {path.name: fingerprint(path) for path in pictures}
    done = _open_output(output, plans, threads, resume, sources)
    jobs = [(p, plan, s) for p in pictures for plan in plans for s in plan.settings if plan.key(p, s) not in done]
    if jobs:
        results.append(output, _metadata(Path(folder), output, plans, threads, repeats, limit, len(pictures)))
        _measure(jobs, output, repeats, progress)
    points = _wanted(results.read(output).points, pictures, plans)
    page = None if report is None else reports.report(output, report, points)
    return Summary(output, points, page)


@dataclass(frozen=True)
class Plan:
    """A codec and the settings it will be measured at."""

    spec: Spec
    codec: Codec
    settings: tuple[float, ...]

    @classmethod
    def of(cls, spec: Spec, qualities: Qualities | None) -> Plan:
        codec = build(spec)
        asked = qualities if isinstance(qualities, Mapping) else {"foveal": qualities or ()}
        return cls(spec, codec, tuple(asked.get(spec.name, ())) or codec.settings)

    def key(self, picture: Path, setting: float) -> results.Key:
        return (picture.name, self.codec.name, self.codec.options, setting)


Task = tuple[Path, Plan, float]


def find_pictures(folder: Path, limit: int | None) -> list[Path]:
    """The picture files of a folder by name. Raises InputError when there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds pictures")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)[:limit]
    if not found:
        raise InputError(f"no pictures in {folder}; looked for {' '.join(sorted(SUFFIXES))}")
    return found


def _open_output(
    output: Path, plans: Sequence[Plan], threads: int, resume: bool, sources: Mapping[str, str]
) -> set[results.Key]:
    """Make the output file ready to be added to; the keys of the points it already holds.

    Numbers of other pictures, versions, weights or thread counts must not be mixed into one file unnoticed: InputError.
    A file that is refused stays as it is.
    """
    if not (results.holds_records(output) and resume):
        results.begin(output)
        return set()
    old = results.read(output)
    if old.run.get("threads", threads) != threads:
        raise InputError(f"{output} was measured with {old.run['threads']} threads, not {threads}; {REMEDY}")
    versions = {(plan.codec.name, plan.codec.options): plan.codec.version for plan in plans}
    for point in old.points:
        now = versions.get((point.codec, point.options), point.version)
        if now != point.version:
            raise InputError(f"{output} was measured with {point.codec} {point.version}, this is {now}; {REMEDY}")
    check_sources(output, ((point.image, point.source) for point in old.points), sources, REMEDY)
    results.cut_unfinished_line(output)
    return {point.key for point in old.points}


REMEDY = "name another output file, or start it anew without resuming"


def _wanted(points: Sequence[Point], pictures: Sequence[Path], plans: Sequence[Plan]) -> tuple[Point, ...]:
    """The points of this call, in its order, out of a file that may hold more."""
    by_key = {point.key: point for point in points}
    keys = (plan.key(picture, s) for picture in pictures for plan in plans for s in plan.settings)
    return tuple(by_key[key] for key in dict.fromkeys(keys))


def _measure(jobs: Sequence[Task], output: Path, repeats: int, progress: bool | None) -> None:
    """Do the jobs and append each point as it comes."""
    load.cache_clear()  # a picture may have been edited since an earlier call
    with ExitStack() as stack, tempfile.TemporaryDirectory(prefix="foveal-bench-") as scratch:
        benches: dict[str, tuple[Worker, Worker]] = {}
        for picture, plan, setting in _watched(jobs, progress):
            name = plan.codec.name
            if name not in benches:
                benches[name] = tuple(stack.enter_context(Worker(plan.spec)) for _ in range(2))  # type: ignore[assignment]
            results.append(output, _point(picture, plan.codec, setting, benches[name], Path(scratch), repeats))


def _point(
    picture: Path, codec: Codec, setting: float, workers: tuple[Worker, Worker], scratch: Path, repeats: int
) -> Point:
    """One measurement: encode to a file in one process, decode it in the other, compare here."""
    encoder, decoder = workers
    file, pixels = scratch / f"coded{codec.suffix}", scratch / "decoded.npy"
    job = {"repeats": repeats, "setting": setting}
    encode_s = encoder.ask({**job, "do": "encode", "source": str(picture), "target": str(file)})["seconds"]
    decode_s = decoder.ask({**job, "do": "decode", "source": str(file), "target": str(pixels)})["seconds"]
    original, decoded = np.asarray(load(str(picture))), np.load(pixels)
    if decoded.shape != original.shape:
        raise FovealError(f"{codec.name} decoded {picture.name} to {decoded.shape}, expected {original.shape}")
    height, width = original.shape[:2]
    megapixels, size = height * width / 1e6, file.stat().st_size
    return Point(
        image=picture.name,
        codec=codec.name,
        options=codec.options,
        setting_name=codec.setting_name,
        setting=setting,
        width=width,
        height=height,
        bytes=size,
        bpp=round(8 * size / (height * width), 6),
        psnr_db=round(psnr_db(original, decoded), 4),
        ms_ssim=round(ms_ssim(original, decoded), 6),
        encode_s_per_mpx=round(statistics.median(encode_s) / megapixels, 5),
        decode_s_per_mpx=round(statistics.median(decode_s) / megapixels, 5),
        encode_repeats=len(encode_s),
        decode_repeats=len(decode_s),
        version=codec.version,
        source=fingerprint(picture),
    )


def _watched(jobs: Sequence[Task], progress: bool | None) -> Iterator[Task]:
    """The jobs, with a bar on stderr."""
    shown = sys.stderr.isatty() if progress is None else progress
    columns = (TextColumn("{task.description:32}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not shown) as bar:
        row = bar.add_task("bench", total=len(jobs))
        for picture, plan, setting in jobs:
            bar.update(row, description=f"{picture.name} {plan.codec.name} {setting:g}")
            yield picture, plan, setting
            bar.advance(row)


def _metadata(
    folder: Path, output: Path, plans: Sequence[Plan], threads: int, repeats: int, limit: int | None, pictures: int
) -> dict[str, Any]:
    """Where and how a run is made, for its first line. No paths: results are made to be shared."""
    return {
        **machine.about(_command(folder, output, plans, threads, repeats, limit), PACKAGES),
        "folder": folder.resolve().name,
        "pictures": pictures,
        "threads": threads,
        "repeats": repeats,
        "codecs": {plan.codec.name: f"{plan.codec.version}, {plan.codec.options}" for plan in plans},
        "models": _models() if any(plan.codec.name == "foveal" for plan in plans) else [],
    }


def _command(
    folder: Path, output: Path, plans: Sequence[Plan], threads: int, repeats: int, limit: int | None
) -> list[str]:
    rivals = [plan.codec.name for plan in plans if plan.codec.name != "foveal"]
    words = ["foveal", "bench", folder.resolve().name, "--rivals", ",".join(rivals), "-o", output.name]
    for spec in (plan.spec for plan in plans if plan.codec.name == "foveal"):
        words += ["--model", spec.model, "--keep", str(spec.keep), "--effort", str(spec.effort)]
    if len(rivals) == len(plans):
        words.append("--no-foveal")
    words += ["--limit", str(limit)] if limit else []
    return [*words, "--threads", str(threads), "--repeats", str(repeats)]


def _models() -> list[dict[str, Any]]:
    """Cost of each transform of each model, for the report."""
    names = ("name", "weights_hash", "parameters", "kmac_encode", "kmac_decode", "file_bytes")
    return [{name: getattr(model, name) for name in names} for model in foveal.models()]
