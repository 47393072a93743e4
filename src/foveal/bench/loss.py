"""What is left of pictures after a link that loses datagrams: Foveal and other codecs at equal bytes.

Every codec's datagrams take the same bytes in all, parity and repeats included (see links). Each picture is sent over
two kinds of link at several loss rates, `seeds` times each, and what arrives is compared with the original. A picture
that cannot be decoded counts as a uniform grey one. One JSON line per measurement; a run that is broken off goes on.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

import foveal
from foveal.bench import loss_report, results
from foveal.bench.links import CHANNELS, GREY, SENDERS, Cut, Sent, losses, receive, send
from foveal.bench.metrics import ms_ssim, psnr_db
from foveal.bench.pictures import check_sources, fingerprint
from foveal.bench.rivals import extra
from foveal.bench.run import find_pictures
from foveal.bench.worker import load
from foveal.errors import InputError

__all__ = ["RATES", "Trial", "bench_loss", "read"]

RATES = (0.0, 0.01, 0.05, 0.1, 0.3, 0.5)

Key = tuple[str, str, str, float, int]


@dataclass(frozen=True)
class Trial:
    """One picture sent once. `rate` is the link's loss rate, `arrived` what came of `datagrams`. Without loss there is
    one trial, of channel "none"."""

    image: str
    sender: str
    channel: str
    rate: float
    seed: int
    setting: float
    bytes: int
    bpp: float
    datagrams: int
    arrived: int
    decoded: bool
    psnr_db: float
    ms_ssim: float
    source: str = ""  # the picture's fingerprint (see pictures); files of old have none

    @property
    def key(self) -> Key:
        return (self.image, self.sender, self.channel, self.rate, self.seed)


def bench_loss(
    folder: str | os.PathLike[str],
    *,
    output: str | os.PathLike[str],
    report: str | os.PathLike[str] | None = None,
    bpp: float = 0.5,
    seeds: int = 20,
    mtu: int = 1200,
    copies: float = 2.25,
    parity: float = 0.3,
    limit: int | None = None,
    senders: Sequence[str] = tuple(SENDERS),
    rates: Sequence[float] = RATES,
    progress: bool | None = None,
) -> str:
    """Send the pictures of a folder (its first `limit`, by name) over lossy links; a table of what came of it.

    `bpp` bounds the bits per pixel of all datagrams of a picture. `output` gets one line per Trial and keeps those it
    has, if they were made with the same options. `report` is a folder for a plot, a strip of pictures and the table.
    Raises InputError (no pictures, options, an output of another run or of other pictures of the same names, one that is
    something else or cannot be written), MissingExtraError.
    """
    pictures, output = find_pictures(Path(folder), limit), Path(output)
    extra("reedsolo", "reedsolo")
    if report is not None:
        extra("matplotlib", "matplotlib")
    options = {"bpp": bpp, "mtu": mtu, "copies": copies, "parity": parity}
    load.cache_clear()  # a picture may have been edited since an earlier call
    done = {trial.key for trial in _open(output, options, {path.name: fingerprint(path) for path in pictures})}
    cells = [(c, rate, seed) for c in CHANNELS for rate in rates if rate for seed in range(seeds)]
    cells = [("none", 0.0, 0)] * (0.0 in rates) + cells
    todo = [(p, s) for p in pictures for s in senders if any((p.name, s, *cell) not in done for cell in cells)]
    for picture, sender in _watched(todo, progress):
        missing = [cell for cell in cells if (picture.name, sender, *cell) not in done]
        for trial in _trials(picture, sender, missing, options):
            _append(output, {"kind": "trial", **asdict(trial)})
    wanted = {(p.name, s, *cell) for p in pictures for s in senders for cell in cells}
    trials = [trial for trial in read(output)[1] if trial.key in wanted]
    if report is not None:
        shown = sent_by_all(pictures[0], senders, options)
        loss_report.write(Path(report), trials, np.asarray(load(str(pictures[0]))), shown)
    return loss_report.table(trials)


def sent_by_all(picture: Path, senders: Sequence[str], options: dict[str, Any]) -> list[Sent]:
    """A picture as each sender sends it."""
    image = load(str(picture))
    budget = int(options["bpp"] * image.width * image.height / 8)
    cut = Cut(options["mtu"], options["copies"], options["parity"])
    return [send(name, image, budget, cut) for name in senders]


def _trials(
    path: Path, sender: str, cells: Sequence[tuple[str, float, int]], options: dict[str, Any]
) -> Iterator[Trial]:
    (sent,), picture = sent_by_all(path, [sender], options), np.asarray(load(str(path)))
    source = fingerprint(path)
    known: dict[bytes, tuple[float, float]] = {}
    for channel, rate, seed in cells:
        rng = np.random.default_rng([seed, round(1000 * rate), len(channel), zlib.crc32(path.name.encode())])
        lost = losses(channel, rate, len(sent.datagrams), rng)
        pixels, arrived = receive(sent, lost), int((~lost).sum())
        shown = np.full_like(picture, GREY) if pixels is None else pixels
        mark = hashlib.sha256(shown.tobytes()).digest()
        if mark not in known:
            known[mark] = round(min(psnr_db(picture, shown), 99.0), 4), round(ms_ssim(picture, shown, single=True), 6)
        yield Trial(
            path.name,
            sender,
            channel,
            rate,
            seed,
            sent.setting,
            sent.bytes,
            round(8 * sent.bytes / picture[..., 0].size, 6),
            len(sent.datagrams),
            arrived,
            pixels is not None,
            *known[mark],
            source,
        )


def read(path: Path) -> tuple[dict[str, Any], list[Trial]]:
    """(options of the run, trials) of a results file; a last line without its end is left out.

    InputError when it is not there or holds something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        records = [json.loads(line) for line in lines]
        kinds = [(record.pop("kind"), record) for record in records]
        run: dict[str, Any] = next((record["options"] for kind, record in kinds if kind == "loss run"))
        trials = {trial.key: trial for trial in (Trial(**record) for kind, record in kinds if kind == "trial")}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, StopIteration, RecursionError) as error:
        raise InputError(f"{path} holds no results of bench-loss ({error}); name another file") from error
    return run, list(trials.values())


def _open(output: Path, options: dict[str, Any], sources: Mapping[str, str]) -> list[Trial]:
    """The trials that the output has already; it gets a line about this run if it has none. A file that is refused stays
    as it is."""
    fresh = not results.holds_records(output, ("loss run", "trial"))
    weights = {info.name: info.weights_hash for info in foveal.models()}
    options = {**options, "weights": weights}
    if fresh:
        packages = {name: version(name) for name in ("pillow", "numpy", "torch", "reedsolo")}
        results.begin(output)
        date = datetime.now(UTC).isoformat(timespec="seconds")
        _append(output, {"kind": "loss run", "date": date, "options": options, "packages": packages})
        return []
    old, trials = read(output)
    if old != options:
        raise InputError(f"{output} was made with {old}, this is {options}; name another file")
    check_sources(output, ((trial.image, trial.source) for trial in trials), sources, "name another output file")
    results.cut_unfinished_line(output)
    return trials


def _append(output: Path, record: dict[str, Any]) -> None:
    results.add_line(output, json.dumps(record, allow_nan=False))


def _watched(todo: Sequence[tuple[Path, str]], progress: bool | None) -> Iterator[tuple[Path, str]]:
    shown = sys.stderr.isatty() if progress is None else progress
    yield from track(todo, "bench-loss", len(todo), console=Console(stderr=True), disable=not shown)
