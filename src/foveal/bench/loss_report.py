"""The report of a loss benchmark: a table, a plot over the loss rate, and a strip of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foveal.bench.links import CHANNELS, GREY, Sent, receive
from foveal.bench.metrics import psnr_db
from foveal.bench.plots import figure_and_axes, png

if TYPE_CHECKING:
    from foveal.bench.loss import Trial

__all__ = ["Cell", "summary", "table", "write"]

BROKEN_DB = 10.0  # below the picture without loss
STRIP_RATES = (0.0, 0.1, 0.3, 0.5)
COLOURS = {
    "foveal": "#c8102e",
    "jpeg-prog": "#8c8c8c",
    "jpeg-rst": "#4d4d4d",
    "webp": "#e69f00",
    "avif": "#0072b2",
    "avif-rs": "#56b4e9",
}
LINE = 20  # height of a caption, pixels
GAP = 6


@dataclass(frozen=True)
class Cell:
    """All trials of one sender at one loss rate of one kind of link. `broken`: the share that is not decoded, or more
    than BROKEN_DB below the same picture without loss. The 5th percentiles are over all trials."""

    sender: str
    channel: str
    rate: float
    trials: int
    psnr_db: float
    psnr_db_p5: float
    ms_ssim: float
    ms_ssim_p5: float
    undecoded: float
    broken: float


def summary(trials: Sequence[Trial]) -> list[Cell]:
    """Cells by sender, channel and rate; trials without loss stand in both channels."""
    groups: dict[tuple[str, str, float], list[Trial]] = {}
    for trial in trials:
        for channel in CHANNELS if trial.channel == "none" else (trial.channel,):
            groups.setdefault((trial.sender, channel, trial.rate), []).append(trial)
    whole = {(t.sender, t.image): t.psnr_db for t in trials if t.channel == "none"}
    return [_cell(key, groups[key], whole) for key in sorted(groups, key=lambda k: (_rank(k[0]), k[1], k[2]))]


def _cell(key: tuple[str, str, float], group: list[Trial], whole: dict[tuple[str, str], float]) -> Cell:
    psnr, similar = (np.array([getattr(t, name) for t in group]) for name in ("psnr_db", "ms_ssim"))
    broken = [not t.decoded or t.psnr_db < whole.get((t.sender, t.image), 0.0) - BROKEN_DB for t in group]
    return Cell(
        *key,
        len(group),
        float(psnr.mean()),
        float(np.percentile(psnr, 5)),
        float(similar.mean()),
        float(np.percentile(similar, 5)),
        float(np.mean([not t.decoded for t in group])),
        float(np.mean(broken)),
    )


def table(trials: Sequence[Trial]) -> str:
    """One line per cell."""
    lines = [
        f"{'sender':10} {'link':16} {'loss':>5} {'n':>5} {'PSNR':>6} {'p5':>6} {'MS-SSIM':>8} {'p5':>7} "
        f"{'undecoded':>10} {'broken':>7}"
    ]
    for c in summary(trials):
        lines.append(
            f"{c.sender:10} {c.channel:16} {c.rate:5.0%} {c.trials:5} {c.psnr_db:6.2f} {c.psnr_db_p5:6.2f} "
            f"{c.ms_ssim:8.4f} {c.ms_ssim_p5:7.4f} {c.undecoded:10.1%} {c.broken:7.1%}"
        )
    return "\n".join(lines)


def write(folder: Path, trials: Sequence[Trial], picture: NDArray[np.uint8], sent: Sequence[Sent]) -> None:
    """loss.png, loss-strip.png and loss.txt in `folder`; the strip is of `picture`, (H, W, 3) uint8."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loss.txt").write_text(table(trials) + "\n", encoding="utf-8")
    (folder / "loss.png").write_bytes(plot(summary(trials)))
    strip(picture, sent).save(folder / "loss-strip.png")


def plot(cells: Sequence[Cell]) -> bytes:
    """A row per kind of link: PSNR, MS-SSIM (lines: mean, dotted: 5th percentile) and share of broken pictures."""
    figure, grid = figure_and_axes(14, 8, 2, 3)
    for row, channel in zip(grid, CHANNELS, strict=True):
        own = [c for c in cells if c.channel == channel]
        _lines(row[0], own, "psnr_db", "RGB PSNR, dB")
        _lines(row[1], own, "ms_ssim", "MS-SSIM")
        _lines(row[2], own, "broken", "share of broken pictures")
        row[0].set_title(f"{channel} losses; dotted: 5th percentile", loc="left", fontsize=10)
    grid[0, 2].legend(frameon=False, fontsize=9)
    return png(figure)


def _lines(axes: Any, cells: Sequence[Cell], name: str, label: str) -> None:
    for sender in sorted({c.sender for c in cells}, key=_rank):
        own = [c for c in cells if c.sender == sender]
        places = range(len(own))
        style = {"color": COLOURS.get(sender, "#666666"), "lw": 2.4 if sender == "foveal" else 1.4}
        axes.plot(places, [getattr(c, name) for c in own], marker="o", ms=4, label=sender, **style)
        if hasattr(own[0], name + "_p5"):
            axes.plot(places, [getattr(c, name + "_p5") for c in own], ls=":", **style)
        axes.set_xticks(places, [f"{c.rate:.0%}" for c in own])
    axes.set_xlabel("datagrams lost")
    axes.set_ylabel(label)
    axes.grid(color="#e6e6e6", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def strip(picture: NDArray[np.uint8], sent: Sequence[Sent], width: int = 360) -> Image.Image:
    """A row per sender, a column per share of STRIP_RATES of datagrams drawn to be lost; undecoded ones are grey.

    The first datagram always arrives, for without it most codecs show nothing.
    """
    size = (width, round(width * picture.shape[0] / picture.shape[1]))
    cell = (size[0] + GAP, size[1] + LINE + GAP)
    sheet = Image.new("RGB", (cell[0] * len(STRIP_RATES), cell[1] * len(sent)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for y, one in enumerate(sent):
        for x, rate in enumerate(STRIP_RATES):
            count = len(one.datagrams)
            lost = np.append(False, np.random.default_rng(x).permutation(count - 1) < round(rate * count))
            pixels = receive(one, lost)
            words = f"{one.sender}, {lost.sum()} of {count} lost: "
            words += "nothing" if pixels is None else f"{psnr_db(picture, pixels):.1f} dB"
            shown = Image.fromarray(np.full_like(picture, GREY) if pixels is None else pixels)
            sheet.paste(shown.resize(size, Image.Resampling.LANCZOS), (x * cell[0], y * cell[1] + LINE))
            pen.text((x * cell[0], y * cell[1] + 2), words, "black", font)
    return sheet


def _rank(sender: str) -> int:
    names = list(COLOURS)
    return names.index(sender) if sender in names else len(names)
