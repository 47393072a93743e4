"""Train S with one thing changed, from scratch, on few pixels; a line of rate and distortion on held-out pictures.

    python scripts/ablate_image.py one-scale --data photos -o benchmarks/results/ablation-one-scale.jsonl

Equal pixels for all: 300 steps of 524 288 pixels, hard symbols in the last fifth. Two seeds of the same differ by 2 % here.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import foveal.image.prior as prior
import foveal.image.transform as transform

WIDTHS = {"base-3": 3, "base-10": 10}
CUTS = {
    "slices-1": (6, 384),
    "slices-3": (6, 40, 144, 384),
    "slices-8": (6, 16, 32, 64, 96, 144, 208, 288, 384),
    "base-3": (3, 24, 64, 128, 224, 384),
    "base-10": (10, 24, 64, 128, 224, 384),
}
CROPS = {"crop-128": (128, 32), "crop-512": (512, 2)}
NETWORKS = ("baseline", "no-shortcut", "one-scale", "linear-synthesis")
STEPS = 300
PIXELS = STEPS * 8 * 256**2


def widen_base(channels: int) -> None:
    """Before anything else is imported: so many channels in the thumbnail, means first, then slopes."""
    whole = transform.coding_order

    def coding_order(size: transform.Size) -> torch.Tensor:
        transform.BASE = 6
        usual = whole(size)
        transform.BASE = channels
        first = [0, 256, 512, 1, 16, 17, 257, 272, 513, 528][:channels]  # plane * 256 + horizontal * 16 + vertical
        rest = usual[~torch.isin(usual, torch.tensor(first))]
        return torch.cat([torch.tensor(first), rest])

    transform.BASE = prior.BASE = channels
    transform.coding_order = coding_order


def without_shortcut(model: Any) -> None:
    """No linear path around the networks; only the thumbnail keeps it."""
    base = transform.BASE
    for end in (model.analysis.out, model.synthesis.out):
        torch.nn.init.normal_(end.weight, std=0.05)

    def analysis(coefficients: Any, std: Any, windows: Any) -> Any:
        own = model.analysis
        x = own.embed(transform.squash(coefficients / std))
        for block in own.blocks:
            x = block(x, windows)
        return torch.cat([coefficients[..., :base], own.out(x).to(coefficients.dtype) * std[base:]], -1)

    model.analysis.forward = analysis
    inverse = model.shortcut.inverse
    seen: dict[str, Any] = {}
    model.synthesis.register_forward_pre_hook(lambda _, args: seen.update(latents=args[0]))

    def only_predicted(coefficients: Any) -> Any:
        latents = seen["latents"]
        return inverse(torch.cat([coefficients[..., :base], (coefficients - latents)[..., base:] / 0.3], -1))

    model.shortcut.inverse = only_predicted


def frozen(parts: Callable[[Any], list[Any]]) -> Callable[[Any], None]:
    def freeze(model: Any) -> None:
        for part in parts(model):
            part.requires_grad_(False)

    return freeze


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variant", choices=sorted({*NETWORKS, *CUTS, *CROPS}))
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    told = parser.parse_args()
    if told.variant in WIDTHS:
        widen_base(WIDTHS[told.variant])
    from foveal.train import loop

    change: dict[str, Callable[[Any], None]] = {
        "no-shortcut": without_shortcut,
        "one-scale": frozen(lambda m: [m.synthesis.detail, m.synthesis.convs, m.synthesis.lapped]),
        "linear-synthesis": frozen(lambda m: [m.synthesis]),
    }
    if told.variant in CUTS:
        transform.SIZES["s"] = replace(transform.SIZES["s"], cuts=CUTS[told.variant])
    crop, batch = CROPS.get(told.variant, (256, 8))
    loop.WARMUP = 30
    built = loop.calibrate

    def calibrated(model: Any, crops: Any) -> None:
        built(model, crops)
        change.get(told.variant, lambda _: None)(model)

    loop.calibrate = calibrated
    loaded = loop.data.load

    def same_held(folder: Path, side: int, device: torch.device) -> Any:
        """Whatever the crop, validation is on the pictures of at least 256x256."""
        return loaded(folder, side, device)[0], loaded(folder, 256, device)[1]

    loop.data.load = same_held if crop > 256 else loaded
    with tempfile.TemporaryDirectory() as scratch:
        checkpoint, log = Path(scratch, "a.safetensors"), Path(scratch, "log.jsonl")
        loop.train(
            told.data, checkpoint, steps=STEPS, crop=crop, batch=batch, seed=told.seed, hard_from=0.8, log=log,
            threads=told.threads, compiled=True,
        )  # fmt: skip
        lines = log.read_text(encoding="utf-8")
    last = json.loads(lines.splitlines()[-1])
    line = {"name": told.variant, "seed": told.seed, "pixels": PIXELS, "points": last["points"]}
    told.output.write_text(f"{lines}{json.dumps(line)}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
