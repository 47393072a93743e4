"""What a run keeps and tells: averaged weights, sums on the device, JSON lines."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from foveal.train.evaluate import evaluate
from foveal.train.losses import ImageModel


class Average:
    """Exponential moving average of a model's state."""

    def __init__(self, model: nn.Module, longest: float = 0.998) -> None:
        self.longest, live = longest, model.state_dict()
        self.state = {k: v.detach().clone() for k, v in live.items()}
        keys = [k for k, v in live.items() if v.is_floating_point()]
        self._from, self._to = [live[k] for k in keys], [self.state[k] for k in keys]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model; young averages move faster."""
        torch._foreach_lerp_(self._to, self._from, 1 - min(self.longest, step / (step + 10)))

    def points(self, model: ImageModel, held: list[Tensor], fake: bool) -> list[list[float]]:
        """Rate and distortion of the averaged weights on held-out pictures; the model is left as it was."""
        own = {k: v.detach().clone() for k, v in model.state_dict().items()}
        model.load_state_dict(self.state)
        points = evaluate(model, held, fake)
        model.load_state_dict(own)
        return [[round(b, 4), round(p, 3)] for b, p in points]


@dataclass
class Log:
    """One JSON line per interval, to a file and, when there is none or on a terminal, to stderr; none but the first
    process's."""

    path: Path | None
    first: bool = True

    def __call__(self, **row: object) -> None:
        line = json.dumps(row)
        if self.path and self.first:
            with self.path.open("a") as f:
                f.write(line + "\n")
        if self.first and (not self.path or sys.stderr.isatty()):
            print(line, file=sys.stderr, flush=True)


@dataclass
class Meter:
    """Sums over the steps of an interval, kept on the device; reading them is the one time a step waits for it."""

    names: tuple[str, ...] = ("loss", "bpp", "base_bpp", "norm")
    sums: list[Tensor] = field(default_factory=list)
    skipped: int = 0
    since: float = field(default_factory=time.monotonic)

    @torch.no_grad()
    def add(self, *values: Tensor) -> None:
        """A step's values in the order of ``names``; it does not count where the last one, the norm, is not finite."""
        row = torch.stack([v.mean().float() for v in values])
        good = row[-1:].isfinite()
        now = torch.cat([row.nan_to_num(0, 0, 0) * good, good])
        self.sums = [self.sums[0] + now] if self.sums else [now]

    def read(self, steps: int) -> tuple[dict[str, float], float]:
        """Means over the last ``steps`` steps with the number skipped so far, and seconds per step."""
        *sums, good = self.sums[0].tolist()
        self.skipped += steps - round(good)
        seconds, self.since = (time.monotonic() - self.since) / steps, time.monotonic()
        self.sums = []
        means = {k: float(f"{s / max(good, 1):.5g}") for k, s in zip(self.names, sums, strict=True)}
        return {"skipped": self.skipped, **means}, seconds
