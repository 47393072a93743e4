"""Batches that come round again: each time their latents have moved towards where the decoded pictures want them, as the
encoder's higher efforts move them (``image/refine.py``).

Prior and synthesis then learn from what those efforts send, not only from what the analysis makes. A step's own backward
pass says where latents should go, so that refining costs nothing: a batch serves ROUNDS + 1 steps, each a round later, and
between two of them come as many steps of other batches.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from foveal.image.refine import STRIDE
from foveal.train.losses import Batch, rate_weight, sample_weight

ROUNDS = 5  # after the first


@dataclass
class Turn:
    """A batch, the ``wanted`` latents (B, h, w, D) of its next round (None: the analysis' own), and how many it has had."""

    batch: Batch
    wanted: Tensor | None = None
    had: int = 0


class Rounds:
    """The batches in hand. ``drawn`` makes a new one in its first turn."""

    def __init__(self, drawn: Callable[[], Turn]) -> None:
        self.drawn, self.waiting = drawn, deque[Turn]()

    def take(self) -> Turn:
        """The batch whose turn it is; until there are enough in hand, a new one."""
        return self.waiting.popleft() if len(self.waiting) > ROUNDS else self.drawn()

    @torch.no_grad()
    def give_back(self, turn: Turn, result: dict[str, Tensor], slope: Tensor) -> None:
        """Move the latents of ``turn`` by ``result`` of its forward pass and by the gradient ``slope`` (B, h, w, D) of the
        loss by the decoded latents. After its last round a new batch takes its place."""
        if turn.had == ROUNDS:
            self.waiting.append(self.drawn())
            return
        batch, sent = turn.batch, result["sent"]
        count = sent.numel()
        worth = sample_weight(batch.level)[:, None, None] * rate_weight(batch.level[:, None, None] + batch.finer)
        target = result["latents"] - slope * (128 * count / worth)[..., None]  # one Newton step, as in Network.targets
        wanted = result["wanted"].float()
        wanted = torch.where(sent[..., None], wanted + STRIDE * (target - wanted), wanted)
        self.waiting.append(Turn(batch, wanted, turn.had + 1))
