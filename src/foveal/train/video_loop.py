"""Training of the restoration network: pairs in, loss, step, moving average, log. Restarts from weights alone."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor, nn

from foveal.errors import InputError
from foveal.train import checkpoint, video_pairs, video_workers
from foveal.train.data import SEED_MAX
from foveal.train.pace import Pace, rate
from foveal.train.parallel import Gradients, Group, device_of
from foveal.train.precision import native_bf16
from foveal.train.record import Average, Log, Meter
from foveal.train.stopping import as_on_ctrl_c
from foveal.train.video_evaluate import gains, table
from foveal.train.video_losses import loss, plain, residual_of, restored, told, worth
from foveal.train.video_unfold import begun, published, unfold
from foveal.video.attention_sr import MODES, SIZES, AttentionSR, SRSize, network_input

WARMUP = 100  # steps, at every start
STRUCTURE_FROM = 2 / 3  # share of a run; from here on MS-SSIM and gradients count too
FREEZE_FROM = 0.75  # share of a run; from here on the statistics of batch normalisation stay
UNKNOWN_SHARE = 0.3  # of samples whose quality the network is not told
LOG_EVERY, SAVE_EVERY = 100, 1000  # steps
ALONE = Group(torch.device("cpu"))  # one process; its device is not used


def averaged(state: dict[str, Tensor], size: SRSize, mode: str) -> AttentionSR:
    """A network with the averaged weights ``state``, for evaluation, on their device."""
    out = AttentionSR(size, mode)
    out.load_state_dict(state)
    return out.eval().requires_grad_(False).to(state["end.weight"].device)


def freeze_norms(network: nn.Module) -> None:
    """Batch normalisation uses its running statistics from now on, and leaves them as they are."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def pairs_of(
    data_dir: Path, clips: Path | None, pool: Path, mode: str, *, hold_out: str, count: int, seed: int, workers: int = 1
) -> dict[str, video_pairs.Pairs]:
    """The pairs in the file ``pool``; made for ``mode`` from photographs and clips, and kept there, if it does not exist."""
    if pool.is_file():
        return video_pairs.load(pool)
    made = video_workers.produce(data_dir, clips, hold_out, count, seed, workers, (mode,))
    video_pairs.save(pool, made)
    return made


def gone_on(path: Path, size: SRSize, mode: str, pairs: video_pairs.Pairs) -> tuple[AttentionSR, dict[str, Any]]:
    """The network of published weights, its norms as on a batch of ``pairs``, and what the file says of its training."""
    side = min(64, pairs.target_u.shape[-1])
    now = next(video_pairs.batches(pairs, 16, side, np.random.default_rng(0)))
    start = plain(now.y, now.u, now.v, mode)
    network = unfold(path, size, mode, network_input(now.y, start[1], start[2], told(now, 0.0), mode))
    return network, published(path).get(mode, {})


def started(
    weights: Path | None, size: SRSize, mode: str, pairs: video_pairs.Pairs
) -> tuple[AttentionSR, dict[str, Any]]:
    """The network that training begins with, of a checkpoint, of published weights or new, and the facts of it so far."""
    facts: dict[str, Any] = {"steps": 0, "pixels": 0, "seconds": 0.0, "size": size.name, "mode": mode}
    if weights is None:
        return AttentionSR(size, mode), facts
    network, known = gone_on(weights, size, mode, pairs) if published(weights) else begun(weights, size, mode)
    return network, facts | known


def chosen_size(size: str | SRSize, mode: str, crop: int, seed: int, **positive: float | None) -> SRSize:
    """The size of this name. InputError for options of ``train`` out of range."""
    chosen = SIZES.get(size) if isinstance(size, str) else size
    fits = all(math.isfinite(x) and x > 0 for x in positive.values() if x is not None) and 0 <= seed <= SEED_MAX
    if chosen is None or mode not in MODES or crop < 16 or crop % 2 or not fits:
        given = ", ".join(f"{name} {value}" for name, value in positive.items())
        raise InputError(
            f"size {size!r}, mode {mode!r}, crop {crop}, {given}, seed {seed}: size is one of {', '.join(SIZES)}, mode of "
            f"{', '.join(MODES)}, crop even and at least 16, seed 0 to {SEED_MAX}, the rest positive"
        )
    return chosen


@as_on_ctrl_c()
def train(
    data_dir: Path,
    out: Path,
    *,
    pool: Path,
    clips: Path | None = None,
    hold_out: str = "",
    pairs: int = 4000,
    workers: int = 1,
    size: str | SRSize = "s",
    mode: str = "x2",
    weights: Path | None = None,
    minutes: float = 20,
    steps: int | None = None,
    batch: int = 8,
    crop: int = 64,
    lr: float = 2e-3,
    device: str = "auto",
    threads: int = 0,
    log: Path | None = None,
    seed: int = 0,
    half_precision: bool | None = None,
    compiled: bool = False,
    structure_from: float = STRUCTURE_FROM,
) -> Path:
    """Train ``size`` in ``mode`` for ``minutes`` (or ``steps``) on the pairs of ``pool`` and write the checkpoint ``out``.

    The pool is made from the photographs of ``data_dir`` and the clips of ``clips`` if it is not there yet: ``pairs`` pairs
    of this mode, by ``workers`` processes; clips whose name contains ``hold_out`` are kept for validation. ``crop``:
    samples of the work grid. ``weights`` continues from a checkpoint (of the other mode too: then its end starts at zero),
    or from the weights of the package. ``device``: auto, cpu, cuda or cuda:N; pairs and their crops are there too.
    ``half_precision``: products in bfloat16; None: where the device multiplies it. ``compiled``: torch.compile, slow to
    start, then faster. ``structure_from``: share of the run from which MS-SSIM and gradients count too; 1 leaves them out.
    Interrupting (Ctrl-C, SIGTERM) keeps what was learned. Raises InputError for options out of range. Returns ``out``.
    """
    chosen = chosen_size(size, mode, crop, seed, batch=batch, workers=workers, steps=steps, minutes=minutes, lr=lr)
    checkpoint.ready(out, pool, added=[log] if log else [])
    where = device_of(device)
    bf16 = native_bf16(where.type) if half_precision is None else half_precision
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.manual_seed(seed)
    random, note = np.random.default_rng(seed), Log(log)
    found = pairs_of(data_dir, clips, pool, mode, hold_out=hold_out, count=pairs, seed=0, workers=workers)
    if f"train.{mode}" not in found:
        raise InputError(f"{pool}: no pairs of mode {mode}; remove it, and it is made again")
    network, facts = started(weights, chosen, mode, found[f"train.{mode}"])
    held = found.get(f"held.{mode}")
    network.to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's types do not know it
    average = Average(network)
    residual = torch.compile(residual_of, dynamic=False) if compiled else residual_of
    optimiser = torch.optim.AdamW(network.parameters(), lr=lr, betas=(0.9, 0.98), weight_decay=1e-4)
    gradients, meter = Gradients(network, 0.5), Meter(("loss", "norm"))
    source = video_pairs.batches(found[f"train.{mode}"].to(where), batch, crop, random)
    pace = Pace(ALONE, steps, minutes)
    note(size=chosen.name, mode=mode, pairs=len(found[f"train.{mode}"]), batch=batch, crop=crop, lr=lr, seed=seed,
         start=facts["steps"], parameters=network.parameters_count, variant=vars(chosen))  # fmt: skip

    def keep(**more: object) -> None:
        new = {"steps": pace.step, "pixels": pace.step * batch * (2 * crop) ** 2, "seconds": pace.seconds}
        checkpoint.save(out, average.state, {**facts, **{k: facts[k] + v for k, v in new.items()}})
        shown = table(gains(averaged(average.state, chosen, mode), held), held) if held else {}
        note(step=pace.step, seconds=round(pace.seconds, 1), gain_db=shown if more else shown.get("all"), **more)

    try:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(f"train {chosen.name} {mode}", total=1.0)
            while pace.goes_on():
                network.train()
                if pace.done >= FREEZE_FROM:
                    freeze_norms(network)
                for group in optimiser.param_groups:
                    group["lr"] = rate(pace.done, pace.step, lr, WARMUP, floor=0.0)
                now = next(source)
                shown = restored(network, now, told(now, UNKNOWN_SHARE), bf16, residual)
                value = loss(shown, now.target, pace.done >= structure_from, worth(now, mode))
                torch.autograd.backward(value)
                norm = gradients.settle(ALONE)
                optimiser.step()
                gradients.clear()
                pace.advance()
                average.update(pace.step)
                meter.add(value.detach(), norm)
                bar.update(task, completed=pace.done)
                if pace.step % LOG_EVERY == 0:
                    means, _ = meter.read(LOG_EVERY)
                    note(step=pace.step, done=round(pace.done, 4), seconds=round(pace.seconds, 1), **means)
                if pace.step % SAVE_EVERY == 0:
                    keep()
    except KeyboardInterrupt:
        note(step=pace.step, interrupted=True)
    keep(final=True)
    return out
