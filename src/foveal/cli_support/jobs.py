"""One piece of work over many files: in turn or in several processes, with one line for each that fails.

A file that cannot be used does not stop the others; the command ends with status 2 when any failed.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context

import typer

import foveal

__all__ = ["Outcome", "Pair", "on_terminal", "print_line", "run_each"]

Pair = tuple[str, str]  # (input, output), "-" for the standard streams
Work = Callable[[str, str], str]  # does one pair and returns a line about it


@dataclass(frozen=True)
class Outcome:
    """What came of one input: a line about it, or the error; and the warnings on the way."""

    source: str
    line: str = ""
    error: str = ""
    warnings: tuple[str, ...] = ()


def run_each(pairs: Sequence[Pair], work: Work, jobs: int = 1, say: Callable[[str], None] | None = None) -> None:
    """Do `work` on every pair, `jobs` at a time; `say` gets each line, by default shown to a person only.

    Raises:
        typer.Exit: with code 2, after the last file, when one or more failed.
    """
    say = say or _tell_person
    failed = False
    for outcome in _with_progress(_outcomes(pairs, work, min(jobs, len(pairs))), len(pairs)):
        for text in outcome.warnings:
            typer.echo(f"foveal: warning: {_about(outcome.source, text)}", err=True)
        if outcome.error:
            failed = True
            typer.echo(f"foveal: {_about(outcome.source, outcome.error)}", err=True)
        elif outcome.line:
            say(outcome.line)
    if failed:
        raise typer.Exit(2)


def on_terminal() -> bool:
    """Whether a person watches standard error, so that progress may be drawn there."""
    return sys.stderr.isatty()


def print_line(line: str) -> None:
    """A line on standard output."""
    typer.echo(line)


def _tell_person(line: str) -> None:
    if on_terminal():
        typer.echo(line, err=True)


def _about(source: str, text: str) -> str:
    """`text` with the file it is about in front, unless it names the file already."""
    name = "standard input" if source == "-" else source
    return text if name in text else f"{name}: {text}"


def _outcomes(pairs: Sequence[Pair], work: Work, jobs: int) -> Iterator[Outcome]:
    if jobs <= 1:
        yield from (_attempt(work, pair) for pair in pairs)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    # Processes are spawned, never forked: a fork of a process that has run torch's threads may hang.
    with ProcessPoolExecutor(jobs, get_context("spawn"), _share_cores, (threads,)) as pool:
        waiting = {pool.submit(_attempt, work, pair): pair for pair in pairs}
        for done in as_completed(waiting):
            try:
                yield done.result()
            except BrokenProcessPool:
                lost = "its process was ended from outside (out of memory?); use fewer jobs with -j"
                yield Outcome(waiting[done][0], error=lost)


def _share_cores(threads: int) -> None:
    """Run first in each process, before torch is loaded: leave the other processes their cores."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))


def _attempt(work: Work, pair: Pair) -> Outcome:
    source, target = pair
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", foveal.FovealWarning)
        try:
            line, error = work(source, target), ""
        except foveal.FovealError as problem:
            line, error = "", " ".join(str(problem).split())
    told = tuple(str(w.message) for w in caught if issubclass(w.category, foveal.FovealWarning))
    for other in caught:
        if not issubclass(other.category, foveal.FovealWarning):
            warnings.showwarning(other.message, other.category, other.filename, other.lineno)
    return Outcome(source, line, error, told)


def _with_progress(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """The same outcomes, with a bar on standard error when a person watches several files go by."""
    if total < 2 or not on_terminal():
        yield from outcomes
        return
    from rich.console import Console
    from rich.progress import track

    yield from track(outcomes, "foveal", total, console=Console(stderr=True), transient=True)
