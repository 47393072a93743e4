"""What integers cost the prior, and whether estimated bits are real: bench_prior.py CHECKPOINT --data DIR -o out.jsonl

CHECKPOINT is what 'foveal train image' wrote; its float prior is set against the integer prior made from it: that of the
installed weights, with their counted tables, where they have seen as many steps, else a fresh export with the trained
density's tables. For every picture and level, keeping all patches, effort 4, five figures in bits:

    float      the checkpoint's prior and its trained density, in fp32, on the symbols that the encoder chose
    integer    the integer prior on the same symbols, with tables of that density
    tables     the integer prior with the tables that are used: counted ones, in installed weights
    payload    what the range coder wrote with them: base layer and packet
    file       with the container

Percentages go from one figure to the next: integers (integer / float - 1), counted (tables / integer - 1), coder (payload /
tables - 1). One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from foveal import container, registry
from foveal.image.codec import contents_of
from foveal.image.encoder import Encoder
from foveal.image.network import Network
from foveal.image.quantize import rate_weight
from foveal.image.rangecoder import Tables
from foveal.image.transform import BASE, SIZES
from foveal.train import checkpoint, twin
from foveal.train.export import counts_of, export, parametric_tables
from foveal.train.losses import ImageModel

Coded = list[tuple[NDArray[np.int64], NDArray[np.int64]]]  # symbols and scale indices, in coding order
LEVELS = range(0, 80, 5)


def networks(path: Path) -> tuple[ImageModel, Network, bool]:
    """The checkpoint's float model, the integer network made from it, and whether that is the installed one."""
    name = checkpoint.size_of(path)
    model = ImageModel(SIZES[name])
    facts = checkpoint.load(path, model)
    installed = registry.load(name)
    if installed.facts.get("steps") == facts["steps"]:
        return model.float().eval(), Network.load(name), True
    with tempfile.TemporaryDirectory() as folder:
        export(path, Path(folder) / "own.safetensors")
        own = load_file(Path(folder) / "own.safetensors")
    weights = registry.Weights(name, registry.IDS[name], bytes(8), own, facts, path.stat().st_size)
    return model.float().eval(), Network(weights), False


def coded_by(encoder: Encoder, level: int) -> Coded:
    """Symbols and indices of hyper-latent, thumbnail passes and channel slices."""
    base = encoder.base(level, encoder.coefficients)
    classes = np.ones(encoder.grid, np.uint8)
    latents, every = encoder.scaled(level, classes), np.arange(classes.size)
    slices, _ = encoder.slices(level, latents, classes, base, every)
    return [base.hyper, *base.passes, *((s, i) for s, i, _ in slices)]


@torch.no_grad()
def float_bits(model: ImageModel, encoder: Encoder, level: int, coded: Coded) -> float:
    """Bits of the same symbols under the float prior with its own density."""
    h, w = encoder.grid
    symbols: Iterator[Tensor] = iter([torch.from_numpy(s).float()[None] for s, _ in coded])

    def given(*_: object) -> tuple[Tensor, Tensor]:
        symbol = next(symbols)
        return symbol, symbol

    prior, at = model.prior, torch.full((1, 1, 1), level / 16)
    step = encoder.network.steps(level).float()
    v = torch.zeros(1, h * w, model.size.latent)
    ln_step, weight = step.log().expand_as(v), (rate_weight(level) * step.square()).expand_as(v)
    everything = torch.ones(1, h * w, dtype=torch.bool)
    with mock.patch.object(twin, "quantise", given), mock.patch.object(twin, "quantise_rd", given):
        z, z_bits = prior.hyper(torch.zeros(1, *coded[0][0].shape), at, False)
        features = prior.spread_out(z, at, h, w, False).flatten(1, 2)
        thumb, base_bits = prior.base(
            v[..., :BASE], features, ln_step[:, :1, :BASE], weight[:, :1, :BASE], encoder.index, False, False
        )
        token_level = torch.full((1, h * w), level / 16)
        context = prior.context(thumb, features, token_level, encoder.index.ring, False)
        _, bits, _ = prior.slices(v, thumb, context, ln_step, weight, everything, False, False)
    return float(z_bits + base_bits + bits.sum())


def rows(model: ImageModel, network: Network, path: Path) -> Iterator[dict[str, object]]:
    """One measurement a level."""
    rgb = np.array(Image.open(path).convert("RGB"))
    encoder = Encoder(network, rgb, np.ones((-(-rgb.shape[0] // 16), -(-rgb.shape[1] // 16)), np.uint8), 4, 1)
    probabilities, reach = parametric_tables(model.prior)
    trained = Tables(counts_of(probabilities, reach), reach, network.tables.silent)
    for level in LEVELS:
        coded = coded_by(encoder, 16 * level)
        bits = {"float": float_bits(model, encoder, 16 * level, coded)}
        for name, tables in (("integer", trained), ("tables", network.tables)):
            bits[name] = sum(float(tables.cost(s, i).sum()) for s, i in coded)
        stream = encoder.at(16 * level)
        bits["payload"] = 8.0 * (len(stream.base) + sum(map(len, stream.packets)))
        bits["file"] = 8.0 * len(container.shorten(container.write(contents_of(encoder, stream))))
        steps = zip(("integers", "counted", "coder"), pairwise(list(bits.values())[:4]), strict=True)
        yield (
            {"image": path.name, "level": level, "bpp": round(bits["file"] / rgb[..., 0].size, 5)}
            | {name: round(value) for name, value in bits.items()}
            | {f"{name}_percent": round(100 * (after / before - 1), 4) for name, (before, after) in steps}
        )


def main() -> None:
    """Measure the pictures and print the means by level."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder of PNGs")
    parser.add_argument("--limit", type=int, default=4, help="pictures, spread over the folder")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, network, installed = networks(options.checkpoint)
    pictures = sorted(options.data.glob("*.png"))
    chosen = pictures[:: max(1, len(pictures) // options.limit)][: options.limit]
    table = [row | {"installed": installed} for path in chosen for row in rows(model, network, path)]
    if options.output:
        options.output.write_text("".join(json.dumps(row) + "\n" for row in table))
    print("counted tables of the installed weights" if installed else "a fresh export, tables of the trained density")
    names = ("bpp", "integers_percent", "counted_percent", "coder_percent")
    for level in LEVELS:
        own = [row for row in table if row["level"] == level]
        means = {k: round(statistics.mean(float(str(r[k])) for r in own), 3) for k in names}
        print(f"level {level:2} {means}")


if __name__ == "__main__":
    main()
