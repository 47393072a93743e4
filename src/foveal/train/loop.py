"""One readable loop: crops in, loss, mean gradient, step, moving average, log, checkpoint. On a CPU or on CUDA, in one
process or several; goes on from a weights file alone. docs/training.md has the commands."""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from foveal.errors import InputError
from foveal.image.prior import BaseIndex
from foveal.image.transform import PATCH, SIZES
from foveal.train import checkpoint, data
from foveal.train.batch import make_batch
from foveal.train.calibrate import calibrate
from foveal.train.evaluate import SIDE as EVALUATED
from foveal.train.evaluate import large, preview_picture
from foveal.train.grow import grown
from foveal.train.losses import Batch, ImageModel, loss
from foveal.train.pace import Pace, rate
from foveal.train.parallel import Gradients, Group, joined
from foveal.train.record import Average, Log, Meter
from foveal.train.rounds import Rounds, Turn
from foveal.train.speed import Speed
from foveal.train.stopping import as_on_ctrl_c

WARMUP, REWARM = 150, 50  # steps: at the start of a schedule, at the start of a later slice of it
HARD_FROM = 0.6  # share of a schedule; then hard symbols, fake-quantised prior, frozen encoder
LOG_EVERY, SAVE_EVERY = 50, 1000  # steps


@dataclass(frozen=True)
class Options:
    """What ``train`` may be told.

    size           name of the model size
    weights        checkpoint to begin a new schedule from, with a full warm-up; None begins with a calibrated model
    resume         go on with the schedule of ``out``, if that file is there; if its schedule is over, do nothing
    minutes        length of the schedule; ``steps`` counts steps instead
    slice_minutes  stop before so many minutes from now are over, loading and saving included, and keep the place
    batch          crops a step and process; None: 8 on a CPU, 32 on CUDA
    crop           side of a crop in pixels
    lr             highest learning rate
    finish_lr      that of the convolutions at full resolution; None: ``lr``
    device         auto, cpu, cuda or cuda:N
    threads        CPU threads, 0 leaves it to torch
    log, preview   JSON lines of the progress; PNG of a held-out picture beside its reconstructions
    seed           of crops, levels, noise and initial weights
    hard_from      share of the schedule from which symbols are hard and the encoder's transforms stay as they are
    finish_alone   train nothing but the synthesis' convolutions at full resolution, on hard symbols of the rest as it is
    compiled       torch.compile: on CUDA the forward and backward pass, on a CPU the part of it that gains, about 20 s
    """

    size: str = "s"
    weights: Path | None = None
    resume: bool = False
    minutes: float = 10
    steps: int | None = None
    slice_minutes: float | None = None
    batch: int | None = None
    crop: int = 256
    lr: float = 1.3e-3
    finish_lr: float | None = None
    device: str = "auto"
    threads: int = 0
    log: Path | None = None
    preview: Path | None = None
    seed: int = 0
    hard_from: float = HARD_FROM
    finish_alone: bool = False
    compiled: bool = False

    def __post_init__(self) -> None:
        lengths = (self.minutes, 1 if self.slice_minutes is None else self.slice_minutes)
        counts = (1 if n is None else n for n in (self.batch, self.steps))
        rates = (self.lr, self.lr if self.finish_lr is None else self.finish_lr)
        positive = all(math.isfinite(x) and x > 0 for x in (*lengths, *rates)) and min(counts) >= 1
        if self.size not in SIZES or self.crop % (8 * PATCH) or not positive or not 0 <= self.seed <= data.SEED_MAX:
            raise InputError(
                f"size {self.size!r}, crop {self.crop}, batch {self.batch}, steps {self.steps}, minutes {self.minutes}, "
                f"slice_minutes {self.slice_minutes}, lr {self.lr}, finish_lr {self.finish_lr}, seed {self.seed}: size is "
                f"one of {', '.join(SIZES)}, crop a multiple of {8 * PATCH}, seed 0 to {data.SEED_MAX}, the rest positive"
            )
        if self.preview is not None:
            kind = Image.registered_extensions().get(self.preview.suffix.lower(), "none")
            try:
                Image.new("RGB", (1, 1)).save(BytesIO(), kind)
            except (OSError, KeyError, ValueError) as e:
                raise InputError(f"preview {self.preview} is of no kind that is written; name a .png") from e
        if (self.finish_alone or self.finish_lr is not None) and not SIZES[self.size].finish:
            raise InputError(f"size {self.size!r} has no convolutions at full resolution to train; try --size m")


def optimisers(model: ImageModel, lr: float, finish_lr: float | None = None) -> list[torch.optim.Optimizer]:
    """Muon (orthogonalised momentum, Jordan 2024) for the matrices inside the transformer blocks, AdamW for the rest. In
    equal steps this was 2 % of loss ahead of AdamW alone; docs/LOG.md has the run. A group's ``times`` is its share of
    ``lr``."""
    inside = [p for n, p in model.named_parameters() if ".blocks." in n and p.ndim == 2 and "position" not in n]
    finish = [p for n, p in model.named_parameters() if ".finish." in n]
    chosen = {id(p) for p in (*inside, *finish)}
    rest = [p for p in model.parameters() if id(p) not in chosen]
    times = 1.0 if finish_lr is None else finish_lr / lr
    groups: list[dict[str, Any]] = [{"params": rest}, {"params": finish, "times": times}]
    return [
        torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
        torch.optim.Muon(inside, lr=lr, weight_decay=0.05, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
    ]


def set_rate(optimisers: list[torch.optim.Optimizer], lr: float) -> None:
    """Give every group its share of the learning rate ``lr``."""
    for group in (g for o in optimisers for g in o.param_groups):
        group["lr"] = lr * group.get("times", 1.0)


@dataclass
class Run:
    """A slice of a schedule in this process: what its steps need, and what they leave."""

    options: Options
    out: Path
    group: Group
    pace: Pace
    model: ImageModel
    facts: dict[str, Any]
    pictures: data.Pictures
    held: list[Tensor]
    note: Log
    hard: bool = False
    average: Average = field(init=False)
    gradients: Gradients = field(init=False)

    def __post_init__(self) -> None:
        self.batch = self.options.batch or (32 if self.group.device.type == "cuda" else 8)
        self.draw = data.draw(self._seed(), self.group.device, self.group.rank, self.group.world)
        torch.manual_seed(self._seed() + self.group.rank)  # noise
        self.group.start_equal(self.model)
        self.average, self.gradients = Average(self.model), Gradients(self.model)
        self.optimisers = optimisers(self.model, self.options.lr, self.options.finish_lr)
        side = self.options.crop // PATCH
        self.index = BaseIndex(side, side, self.group.device)
        self.forward: Any = self.model
        self.speed = Speed(self.model, self.drawn(), self.index)
        if self.options.compiled:
            self._compile()
        self.warm_up = REWARM if self.pace.done > 0 else WARMUP
        self.rounds = Rounds(self.first_turn)

    def _compile(self) -> None:
        """After ``speed`` was counted: torch.compile leaves alone what first ran under a counter."""
        if self.group.device.type == "cpu":
            self.model.prior.fuse()
        else:
            self.forward = torch.compile(self.model, dynamic=False)

    def _seed(self) -> int:
        return self.options.seed * 1_000_003 + int(self.facts["steps"])

    def drawn(self) -> Batch:
        return make_batch(self.pictures.crops(self.batch, self.options.crop, self.draw), self.draw)

    def first_turn(self) -> Turn:
        """A new batch for rounds. Its latents are given where steps are compiled: with and without would be two graphs."""
        batch = self.drawn()
        return Turn(batch, None if self.forward is self.model else self.model.latents(batch, self.index))

    def step(self, meter: Meter) -> None:
        """One step. Nothing in it waits for the device."""
        alone = self.options.finish_alone
        if not self.hard and (alone or self.pace.done >= self.options.hard_from):
            self.hard = True
            (self.model.freeze_all_but_finish if alone else self.model.freeze_encoder)()
            self.gradients = Gradients(self.model)
        lr = rate(self.pace.done, self.pace.step, self.options.lr, self.warm_up)
        set_rate(self.optimisers, lr)
        in_rounds = self.hard and not alone
        turn = self.rounds.take() if in_rounds else Turn(self.drawn())
        nudge = None
        if in_rounds:
            shape = (*turn.batch.coded.shape, self.model.size.latent)
            nudge = torch.zeros(shape, device=self.group.device, requires_grad=True)
        result = self.forward(turn.batch, self.index, not self.hard, self.hard, wanted=turn.wanted, nudge=nudge)
        value = loss(result, turn.batch)
        torch.autograd.backward(value)
        if nudge is not None and nudge.grad is not None:
            self.rounds.give_back(turn, result, nudge.grad)
        norm = self.gradients.settle(self.group)
        for optimiser in self.optimisers:
            optimiser.step()
        self.gradients.clear()
        self.pace.advance()
        self.average.update(self.pace.step)
        meter.add(value.detach(), result["bpp"].detach(), result["base_bpp"].detach(), norm)

    def save(self) -> None:
        """Averaged weights, with what it takes to go on from them: how far the schedule is."""
        if self.group.rank:
            return
        seen = self.pace.step * self.batch * self.group.world * self.options.crop**2
        gained = {"steps": self.pace.step, "pixels": seen, "seconds": self.pace.seconds}
        total = {k: self.facts[k] + v for k, v in gained.items()}
        checkpoint.save(self.out, self.average.state, {**self.facts, **total, "progress": min(self.pace.done, 1.0)})
        if self.options.preview:
            preview_picture(self.model, large(self.held)[0], self.options.preview)

    def place(self) -> dict[str, float]:
        return {"step": self.pace.step, "done": round(self.pace.done, 4), "seconds": round(self.pace.seconds, 1)}

    def points(self, fake: bool) -> list[list[float]]:
        return [] if self.group.rank else self.average.points(self.model, self.held, fake)

    @as_on_ctrl_c()
    def go(self) -> None:
        """Steps until the schedule or the slice is over; Ctrl-C and SIGTERM keep what was learned."""
        pace, meter = self.pace, Meter()
        try:
            hidden = self.group.rank > 0 or not sys.stderr.isatty()
            with Progress(console=Console(stderr=True), disable=hidden) as bar:
                task = bar.add_task(f"train {self.options.size}", total=1.0)
                while pace.goes_on():
                    self.step(meter)
                    bar.update(task, completed=pace.done)
                    if pace.step % LOG_EVERY == 0:
                        means, seconds = meter.read(LOG_EVERY)
                        how = self.speed.row(self.batch * self.options.crop**2, seconds, self.group.world)
                        self.note(**self.place(), **means, **how)
                    if pace.step % SAVE_EVERY == 0:
                        self.group.check_equal(self.model)
                        self.save()
                        self.note(step=pace.step, points=self.points(self.hard))
            self.group.check_equal(self.model)
        except KeyboardInterrupt:
            self.note(step=pace.step, interrupted=True)
        self.save()
        over = {"final": True, "points": self.points(True)} if pace.done >= 1 - 1e-9 else {"paused": True}
        self.note(**self.place(), **over)


def train(data_dir: Path, out: Path, **options: Any) -> Path:
    """Train a model on the pictures of ``data_dir`` and write the checkpoint ``out``, which is returned; ``options`` are
    the fields of ``Options``. Processes that torchrun started share the work."""
    began, wanted = time.monotonic(), Options(**options)
    with joined(wanted.device) as group:
        run = prepare(data_dir, out, wanted, group, began)
        if run.pace.done < 1:
            run.go()
        else:
            run.note(finished=str(out))
    return out


def _filled(model: ImageModel, source: Path) -> dict[str, Any]:
    """Fill ``model`` from a checkpoint of its size, or of a smaller one that it grows from; the facts to go on from."""
    found = checkpoint.size_of(source)
    if found not in SIZES or SIZES[found] == model.size:
        return checkpoint.load(source, model)
    smaller = ImageModel(SIZES[found])
    facts = checkpoint.load(source, smaller)
    model.load_state_dict(grown(smaller, model.size).state_dict())
    return {"grown_from": {k: facts.get(k) for k in ("size", "steps", "pixels", "seconds")}}


def prepare(data_dir: Path, out: Path, options: Options, group: Group, began: float) -> Run:
    """Pictures loaded, model built and filled or calibrated."""
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    if not group.rank:  # the only one that writes
        checkpoint.ready(out, added=[path for path in (options.log, options.preview) if path])
    if options.resume and out.is_file() and (found := checkpoint.size_of(out)) != options.size:
        raise InputError(
            f"{out} holds a model of size {found!r}, not {options.size!r}; give --size {found}, or another -o"
        )
    images, held = data.load(data_dir, options.crop, group.device)
    if options.preview and not large(held):
        raise InputError(
            f"preview {options.preview}: no held-out picture of at least {EVALUATED}x{EVALUATED} in {data_dir}; leave it out"
        )
    pictures = data.Pictures(images)
    images.clear()  # the pictures are there once
    model = ImageModel(SIZES[options.size]).to(group.device)
    facts: dict[str, Any] = {"steps": 0, "pixels": 0, "seconds": 0.0, "size": options.size}
    resumed = options.resume and out.is_file()
    source = out if resumed else options.weights
    if source is not None:
        facts |= _filled(model, source)
    else:
        start = data.draw(options.seed, group.device)
        calibrate(model, lambda n: pictures.crops(n, options.crop, start))
    done = group.first_says(float(facts.get("progress", 1.0)) if resumed else 0.0)
    pace = Pace(group, options.steps, options.minutes, done, options.slice_minutes, began)
    return Run(options, out, group, pace, model, facts, pictures, held, Log(options.log, group.rank == 0))
