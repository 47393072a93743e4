"""One piece of work over many files: in turn or in several processes, with one line for each that fails.

A file that cannot be used does not stop the others; the command ends with status 2 when any failed. Ctrl-C stops them
all, what is half done is cleared away, and the command ends with status 130.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

import typer

import foveal

__all__ = ["Outcome", "Pair", "on_terminal", "print_line", "refuse_terminal", "run_each", "warnings_in_lines"]

Pair = tuple[str, str]  # (input, output), "-" for the standard streams
Work = Callable[[str, str], str]  # does one pair and returns a line about it
INTERRUPTED = 130  # status after Ctrl-C, as shells have it
PATIENCE = 10.0  # seconds in which a process that was told to stop clears its files away, before it is killed
_NO_MEMORY = ("can't allocate memory", "out of memory")  # what torch says in a RuntimeError
_busy = False  # in a worker process: whether it is at work on a file


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
        typer.Exit: with code 2, after the last file, when one or more failed; with 130, at once, after Ctrl-C.
    """
    say = say or _tell_person
    failed = False
    try:
        with closing(_outcomes(pairs, work, min(jobs, len(pairs)))) as outcomes:
            for outcome in _with_progress(outcomes, len(pairs)):
                failed |= bool(outcome.error)
                _tell(outcome, say)
    except KeyboardInterrupt as stop:
        typer.echo(": ".join(filter(None, ("foveal: interrupted", str(stop)))), err=True)
        raise typer.Exit(INTERRUPTED) from None
    if failed:
        raise typer.Exit(2)


def on_terminal() -> bool:
    """Whether a person watches standard error, so that progress may be drawn there."""
    return sys.stderr is not None and sys.stderr.isatty()


def refuse_terminal(target: str) -> None:
    """InputError when bytes would go to a terminal, where they do nothing but harm, or to no standard output at all."""
    if target == "-" and sys.stdout is None:
        raise foveal.InputError("standard output is closed; name a file with -o, or redirect it")
    if target == "-" and sys.stdout.isatty():
        raise foveal.InputError("standard output is a terminal; name a file with -o, or redirect it")


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """In its body a FovealWarning is printed as one line on standard error, without the place in Foveal that told it."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def told(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, foveal.FovealWarning):
                typer.echo(f"foveal: warning: {' '.join(str(message).split())}", err=True)
            else:
                show(message, category, *place, **more)

        warnings.showwarning = told
        yield


def print_line(line: str) -> None:
    """A line on standard output."""
    typer.echo(line)


def _tell(outcome: Outcome, say: Callable[[str], None]) -> None:
    for text in outcome.warnings:
        typer.echo(f"foveal: warning: {_about(outcome.source, text)}", err=True)
    if outcome.error:
        typer.echo(f"foveal: {_about(outcome.source, outcome.error)}", err=True)
    elif outcome.line:
        say(outcome.line)


def _tell_person(line: str) -> None:
    if on_terminal():
        typer.echo(line, err=True)


def _about(source: str, text: str) -> str:
    """`text` with the file it is about in front, unless it names the file already."""
    name = _name(source)
    return text if name in text else f"{name}: {text}"


def _name(source: str) -> str:
    return "standard input" if source == "-" else source


def _outcomes(pairs: Sequence[Pair], work: Work, jobs: int) -> Generator[Outcome, None, None]:
    if jobs <= 1:
        yield from (_attempt(work, pair) for pair in pairs)
        return
    threads = max(1, (os.cpu_count() or 1) // jobs)
    others = set(active_children())
    # Processes are spawned, never forked: a fork of a process that has run torch's threads may hang.
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), _begin, (threads,))
    try:
        with _ctrl_c_held():  # the processes, started here, never see it: this one tells them to stop
            waiting = {pool.submit(_serve, work, pair): pair for pair in pairs}
        for done in as_completed(waiting):
            try:
                yield done.result()
            except BrokenProcessPool:
                lost = "its process was ended from outside (out of memory?); use fewer jobs with -j"
                yield Outcome(waiting[done][0], error=lost)
        pool.shutdown()
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        _end([process for process in active_children() if process not in others])
        raise


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Ctrl-C waits meanwhile, and for ever in processes started here; it does nothing of this on Windows."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(processes: Sequence[BaseProcess]) -> None:
    """Tell worker processes to stop, wait until what they had half done is cleared away, and kill those that take long."""
    limit = time.monotonic() + PATIENCE
    try:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(max(0.0, limit - time.monotonic()))
    finally:  # also when Ctrl-C is pressed again
        for process in processes:
            process.kill()


def _begin(threads: int) -> None:
    """Run first in each process, before torch is loaded: leave the other processes their cores, stop when told to."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    if not hasattr(signal, "pthread_sigmask"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)


def _stop(number: int, frame: FrameType | None) -> None:
    """What a worker process does when told to stop: as on Ctrl-C if it is at work, so that it removes what it began."""
    own = signal.getsignal(signal.SIGINT)
    if not _busy:
        os._exit(INTERRUPTED)
    elif callable(own):  # of Python, or of work that has its own way to stop
        own(number, frame)
    else:
        raise KeyboardInterrupt


def _serve(work: Work, pair: Pair) -> Outcome:
    """`_attempt` in a worker process, which ends when it is interrupted: it would take the next file otherwise."""
    global _busy
    try:
        _busy = True
        return _attempt(work, pair)
    except KeyboardInterrupt:
        os._exit(INTERRUPTED)
    finally:
        _busy = False


def _attempt(work: Work, pair: Pair) -> Outcome:
    source, target = pair
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", foveal.FovealWarning)
        try:
            line, error = work(source, target), ""
        except foveal.FovealError as problem:
            line, error = "", " ".join(str(problem).split())
        except (MemoryError, RuntimeError) as problem:
            if not isinstance(problem, MemoryError) and not any(words in str(problem) for words in _NO_MEMORY):
                raise
            line, error = "", f"not enough memory for {_name(source)}; scale it down, or use fewer jobs with -j"
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
