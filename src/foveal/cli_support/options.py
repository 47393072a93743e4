"""The options of the command line, each described once, and the choices they make up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import typer

import foveal
from foveal.io import images

__all__ = [
    "Alpha",
    "AsJson",
    "Choice",
    "Effort",
    "Inputs",
    "Jobs",
    "Keep",
    "Layers",
    "LossMask",
    "Mask",
    "Model",
    "Mtu",
    "OnLoss",
    "Output",
    "Packets",
    "Parity",
    "Quality",
    "TargetBpp",
    "TargetBytes",
    "TargetPsnr",
    "Threads",
    "Threshold",
    "Tune",
    "refuse_both",
    "share_or_word",
]

_CHOOSING = "Patches to keep"
_TARGET = "Instead of a quality"

Inputs = Annotated[list[str], typer.Argument(metavar="IN", help="Files; - reads standard input.")]
Output = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", metavar="OUT|DIR", help="File to write, - for standard output, a folder for "
        "several files. Left out, the result lies beside its input. An existing file is replaced.",
    ),
]  # fmt: skip
Jobs = Annotated[int, typer.Option("-j", "--jobs", min=1, help="Files worked on at the same time.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]

Quality = Annotated[float, typer.Option("-q", "--quality", min=0, max=100, help="0 smallest, 100 best.")]
Effort = Annotated[
    int,
    typer.Option(
        "--effort", min=1, max=10, help="1 fastest, 10 smallest files. 1-3 round plainly; 4-5 weigh bits against errors; "
        "6 to 9 refine that in 2, 3, 5 and 8 rounds; 10 adds trials, patch by patch.",
    ),
]  # fmt: skip
Tune = Annotated[str, typer.Option("--tune", metavar="psnr|msssim", help="What errors are judged by.")]
Packets = Annotated[int, typer.Option("--packets", min=1, help="Packets, most important first.")]
Mtu = Annotated[
    int | None, typer.Option("--mtu", help="Instead of --packets: as many as fit datagrams of so many bytes.")
]
Layers = Annotated[
    int, typer.Option("--layers", min=1, help="Of quality: a file's beginning shows all of the picture coarsely.")
]
Parity = Annotated[float, typer.Option("--parity", min=0, help="Datagrams that replace lost packets, per packet.")]
Model = Annotated[str, typer.Option("--model", help="Model to code with; `foveal models` lists them.")]

Keep = Annotated[
    str,
    typer.Option(
        "--keep", metavar="auto|all|SHARE", rich_help_panel=_CHOOSING,
        help="auto drops a patch only where that pays; 0.4 keeps the 40 % with the steepest gradients.",
    ),
]  # fmt: skip
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Drop patches of a lower mean gradient.", rich_help_panel=_CHOOSING),
]
Alpha = Annotated[
    float | None,
    typer.Option("--alpha", help="Patches in all / patches kept, 1 or more.", rich_help_panel=_CHOOSING),
]
Mask = Annotated[
    str | None,
    typer.Option(
        "--mask",
        metavar="FILE",
        help="Picture that is not black where it matters.",
        rich_help_panel=_CHOOSING,
    ),
]

TargetBpp = Annotated[
    float | None,
    typer.Option("--target-bpp", help="Bits per pixel to come near to.", rich_help_panel=_TARGET),
]
TargetBytes = Annotated[
    int | None, typer.Option("--target-bytes", help="File size to stay under.", rich_help_panel=_TARGET)
]
TargetPsnr = Annotated[
    float | None, typer.Option("--target-psnr", help="PSNR in dB to reach.", rich_help_panel=_TARGET)
]

OnLoss = Annotated[
    Literal["auto", "conceal", "error"],
    typer.Option(
        "--on-loss", help="auto fills in what missing packets held and refuses a damaged file; conceal fills in what "
        "damaged packets held too; error refuses both.",
    ),
]  # fmt: skip
LossMask = Annotated[
    str | None,
    typer.Option("--loss-mask", metavar="FILE", help="Picture to write: white where patches are filled in."),
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="For every codec; 0 = one per core.")]


@dataclass(frozen=True)
class Choice:
    """Which patches are kept. The public door refuses more than one of the four ways."""

    keep: str = "auto"
    threshold: float | None = None
    alpha: float | None = None
    mask: str | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments for `foveal.compress` and `foveal.importance`; reads the mask's file."""
        mask = None if self.mask is None else images.load(self.mask)
        return {
            "keep": share_or_word(self.keep),
            "threshold": self.threshold,
            "alpha": self.alpha,
            "mask": mask,
        }


def refuse_both(ctx: typer.Context, name: str, others: Mapping[str, Any]) -> None:
    """InputError when an option that has a default is given by hand together with another that takes its place."""
    given = [other for other, value in others.items() if value is not None]
    source = ctx.get_parameter_source(name)
    if given and source is not None and source.name != "DEFAULT":
        raise foveal.InputError(f"{name} and {' and '.join(given)} are given together; choose one of them")


def share_or_word(text: str) -> str | float:
    """The words as they are, a share as a number; whether it is in range is the public door's to say."""
    if text in ("auto", "all"):
        return text
    try:
        return float(text)
    except ValueError:
        raise foveal.InputError(f"--keep {text!r}: give auto, all, or a share such as 0.4") from None
