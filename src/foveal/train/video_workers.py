"""Pairs made by several processes, each of them with its share of the photographs and a seed of its own."""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from foveal.errors import InputError
from foveal.train import data, video_pairs
from foveal.train.video_pairs import Pairs
from foveal.video.attention_sr import MODES

SMALLEST = 240  # side of the smallest photograph used, samples
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # read when NumPy and torch start


@dataclass(frozen=True)
class Order:
    """What one process makes: ``count`` pairs of each of ``modes``, of the photographs whose place is ``share[0]`` modulo
    ``share[1]``, into the file ``out``."""

    data_dir: Path
    clips: Path | None
    hold_out: str
    count: int
    seed: int
    share: tuple[int, int]
    modes: tuple[str, ...]
    out: Path


def _make(order: Order) -> dict[str, Pairs]:
    photographs = data.load(order.data_dir, SMALLEST, torch.device("cpu"), order.share, "add larger pictures")
    return video_pairs.produce(photographs, order.clips, order.hold_out, order.count, order.seed, order.modes)


def _work(order: Order) -> Path:
    torch.set_num_threads(1)
    video_pairs.save(order.out, _make(order))
    return order.out


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start now compute with one thread: as many as there are cores would stand in each other's way."""
    before = {k: os.environ.get(k) for k in ONE_THREAD}
    os.environ.update(dict.fromkeys(ONE_THREAD, "1"))
    try:
        yield
    finally:
        for k, v in before.items():
            os.environ.pop(k) if v is None else os.environ.update({k: v})


def produce(
    data_dir: Path,
    clips: Path | None,
    hold_out: str,
    count: int,
    seed: int,
    workers: int = 1,
    modes: tuple[str, ...] = tuple(MODES),
) -> dict[str, Pairs]:
    """``video_pairs.produce`` of the pictures of a folder, ``count`` pairs of each of ``modes`` by ``workers`` processes.

    With other numbers of workers other pairs are made. Raises InputError as ``data.load`` and ``read_clips`` do, and when a
    process was killed.
    """
    workers = min(workers, count)
    if workers == 1:
        return _make(Order(data_dir, clips, hold_out, count, seed, (0, 1), modes, Path()))
    with tempfile.TemporaryDirectory(prefix="foveal-pairs-") as folder, _one_thread_each():
        orders = [
            Order(
                data_dir, clips, hold_out, len(range(k, count, workers)), seed * workers + k, (k, workers),
                modes, Path(folder) / f"{k}.safetensors",
            )
            for k in range(workers)
        ]  # fmt: skip
        try:
            with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool:
                parts = [video_pairs.load(path) for path in pool.map(_work, orders)]
        except BrokenProcessPool:
            raise InputError(
                "a process that makes pairs was ended from outside (out of memory?); use fewer with --workers"
            ) from None
    names = dict.fromkeys(name for part in parts for name in part)
    return {name: _joined([part[name] for part in parts if name in part]) for name in names}


def _joined(parts: list[Pairs]) -> Pairs:
    """The pairs of all parts, one part after the other."""
    columns = {k: torch.cat([p.tensors()[k] for p in parts]) for k in parts[0].tensors()}
    return Pairs(parts[0].mode, **columns)
