"""One readable loop: crops in, loss, step, moving average, log, checkpoint. CPU or CUDA, restarts from a weights file."""

from __future__ import annotations

import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from foveal.errors import InputError
from foveal.image.prior import BaseIndex
from foveal.image.transform import PATCH, SIZES
from foveal.train import checkpoint, data
from foveal.train.batch import make_batch
from foveal.train.calibrate import calibrate
from foveal.train.evaluate import evaluate, large, preview_picture
from foveal.train.losses import ImageModel, loss

WARMUP = 150  # steps, at every start
HARD_FROM = 0.6  # share of a run; then hard symbols, fake-quantised prior, frozen encoder
LOG_EVERY, SAVE_EVERY = 50, 1000  # steps


@dataclass
class Average:
    """Exponential moving average of a model's state."""

    state: dict[str, Tensor]
    longest: float = 0.998

    @torch.no_grad()
    def update(self, model: ImageModel, step: int) -> None:
        """Move towards the model; young averages move faster."""
        now = model.state_dict()
        keys = [k for k, v in self.state.items() if v.is_floating_point()]
        decay = min(self.longest, step / (step + 10))
        torch._foreach_lerp_([self.state[k] for k in keys], [now[k] for k in keys], 1 - decay)

    def points(self, model: ImageModel, held: list[Tensor], fake: bool) -> list[list[float]]:
        """Rate and distortion of the averaged weights on held-out pictures; the model is left as it was."""
        own = {k: v.detach().clone() for k, v in model.state_dict().items()}
        model.load_state_dict(self.state)
        points = evaluate(model, held, fake)
        model.load_state_dict(own)
        return [[round(b, 4), round(p, 3)] for b, p in points]


@dataclass
class Log:
    """One JSON line per interval, to a file and, when there is none or on a terminal, to stderr."""

    path: Path | None

    def __call__(self, **row: object) -> None:
        line = json.dumps(row)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as f:
                f.write(line + "\n")
        if not self.path or sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)


def optimisers(model: ImageModel, lr: float) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalised momentum, Jordan 2024) for the matrices inside the transformer blocks, AdamW for the rest. In
    equal steps this was 2 % of loss ahead of AdamW alone; docs/LOG.md has the run."""
    inside = [p for n, p in model.named_parameters() if ".blocks." in n and p.ndim == 2 and "position" not in n]
    chosen = {id(p) for p in inside}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    return [
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        torch.optim.Muon(inside, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    ]


def rate(done: float, step: int, peak: float) -> float:
    """Learning rate: warm-up over WARMUP steps, then a cosine down to a hundredth."""
    return peak * min(1.0, (step + 1) / WARMUP) * (0.505 + 0.495 * math.cos(math.pi * min(done, 1.0)))


def train(
    data_dir: Path,
    out: Path,
    *,
    size: str = "s",
    weights: Path | None = None,
    minutes: float = 10,
    steps: int | None = None,
    batch: int = 8,
    crop: int = 256,
    lr: float = 1.3e-3,
    device: str = "auto",
    threads: int = 0,
    log: Path | None = None,
    preview: Path | None = None,
    seed: int = 0,
    hard_from: float = HARD_FROM,
    compiled: bool = False,
) -> Path:
    """Train ``size`` on the pictures of ``data_dir`` for ``minutes`` (or ``steps``) and write the checkpoint ``out``.

    ``weights`` continues from a checkpoint with a fresh warm-up. ``log`` takes JSON lines, ``preview`` a PNG of a held-out
    picture beside its reconstruction. From the share ``hard_from`` of the run on, symbols are hard
    and the encoder's transforms stay as they are. Interrupting (Ctrl-C) keeps what was learned. Returns ``out``.
    """
    if size not in SIZES or crop % (8 * PATCH) or batch < 1 or (steps or 1) < 1 or minutes <= 0:
        raise InputError(
            f"size {size!r}, crop {crop}, batch {batch}, steps {steps}, minutes {minutes}: size is one of "
            f"{', '.join(SIZES)}, crop a multiple of {8 * PATCH}, the rest positive"
        )
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.manual_seed(seed)
    random, note = np.random.default_rng(seed), Log(log)
    images, held = data.load(data_dir, crop, where)
    model = ImageModel(SIZES[size]).to(where)
    facts: dict[str, Any] = {"steps": 0, "pixels": 0, "seconds": 0.0, "size": size}
    if weights is not None:
        facts |= checkpoint.load(weights, model)
    else:
        calibrate(model, lambda n: data.crops(images, n, crop, random))
    average = Average({k: v.detach().clone() for k, v in model.state_dict().items()})
    chosen, index = optimisers(model, lr), BaseIndex(crop // PATCH, crop // PATCH, where)
    forward: Any = torch.compile(model, dynamic=False) if compiled else model
    begin, step, skipped, sums = time.monotonic(), 0, 0, np.zeros(4)

    def done() -> float:
        return step / steps if steps else (time.monotonic() - begin) / 60 / minutes

    def keep() -> None:
        seconds = facts["seconds"] + time.monotonic() - begin
        total = {
            "steps": facts["steps"] + step,
            "pixels": facts["pixels"] + step * batch * crop * crop,
            "seconds": seconds,
        }
        checkpoint.save(out, average.state, {**facts, **total})
        if preview and large(held):
            preview_picture(model, large(held)[0], preview)

    try:
        with Progress(console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
            task = bar.add_task(f"train {size}", total=1.0)
            while done() < 1:
                hard = done() >= hard_from
                if hard:
                    model.freeze_encoder()
                for group in (g for o in chosen for g in o.param_groups):
                    group["lr"] = rate(done(), step, lr)
                now = make_batch(data.crops(images, batch, crop, random), random)
                result = forward(now, index, not hard, hard)
                value = loss(result, now)
                torch.autograd.backward(value)
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                if torch.isfinite(norm):
                    for optimiser in chosen:
                        optimiser.step()
                else:
                    skipped += 1
                model.zero_grad(set_to_none=True)
                step += 1
                average.update(model, step)
                sums += [x.detach().mean().item() for x in (value, result["bpp"], result["base_bpp"], norm)]
                bar.update(task, completed=done())
                if step % LOG_EVERY == 0:
                    names = ("loss", "bpp", "base_bpp", "norm")
                    note(
                        step=step,
                        done=round(done(), 4),
                        skipped=skipped,
                        seconds=round(time.monotonic() - begin, 1),
                        **dict(zip(names, (sums / LOG_EVERY).round(4).tolist(), strict=True)),
                    )
                    sums[:] = 0
                if step % SAVE_EVERY == 0:
                    keep()
                    note(step=step, points=average.points(model, held, hard))
    except KeyboardInterrupt:
        note(step=step, interrupted=True)
    keep()
    note(
        step=step,
        final=True,
        points=average.points(model, held, True),
        seconds=round(time.monotonic() - begin, 1),
    )
    return out
