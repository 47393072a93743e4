"""The last steps from a checkpoint to shipped weights: integers, counted tables, cost figures, golden hash."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from foveal import registry
from foveal.image.codec import golden_digest
from foveal.image.encoder import Encoder
from foveal.image.network import Network
from foveal.train import checkpoint, data
from foveal.train.export import REACH_MAX, export
from foveal.train.gain import crops, fitted_gain

SIDE = 512


def histogram(network: Network, images: list[Tensor], levels: list[int]) -> NDArray[np.float64]:
    """How often each symbol (-256..256, clipped) was coded with each scale index, over centre crops at ``levels``. Pictures
    count by one over their bits, as rate savings are judged in per cent; else the finest levels would fill the tables."""
    counts, total = np.zeros((64, 2 * REACH_MAX + 3)), 0.0
    for number, image in enumerate(images):
        own, bits = np.zeros_like(counts), [1.0]

        def count(
            symbols: NDArray[np.int64],
            index: NDArray[np.int64],
            own: NDArray[np.float64] = own,
            bits: list[float] = bits,
        ) -> None:
            index = np.broadcast_to(index, symbols.shape)
            at = np.clip(symbols, -REACH_MAX - 1, REACH_MAX + 1) + REACH_MAX + 1
            np.add.at(own, (index.ravel(), at.ravel()), 1)
            bits[0] += float(network.tables.cost(symbols, index).sum())

        rgb = np.ascontiguousarray(image[:, :SIDE, :SIDE].permute(1, 2, 0).cpu().numpy())
        Encoder(network, rgb, None, 4, 1).at(levels[number % len(levels)], watch=count, finish=False)
        counts += own / bits[0]
        total += own.sum()
    out: NDArray[np.float64] = counts * (total / max(counts.sum(), 1e-12))
    return out


def kmac_per_pixel(network: Network) -> tuple[float, float]:
    """Thousand multiply-accumulates per pixel to (encode, decode) a 768x512 picture keeping every patch: both shortcuts,
    transformers with their attention products, convolutions and the integer prior; entropy coding and the picture's
    filter left out, whose fit takes a decoding besides."""
    rgb = np.random.default_rng(0).integers(0, 256, (512, 768, 3), np.uint8)
    with FlopCounterMode(display=False) as both:
        encoder = Encoder(network, rgb, np.ones((32, 48), np.uint8), 4, 1)
        encoder.at(600, finish=False)
    analysis = both.get_total_flops()
    values = torch.zeros(32 * 48, network.size.latent)
    with FlopCounterMode(display=False) as synthesis:
        network.synthesise(values, 600, torch.full((32 * 48,), 600), torch.zeros(32 * 48, dtype=torch.bool), (32, 48))
    with FlopCounterMode(display=False) as requantise:
        encoder.at(600, finish=False)  # latents are kept: prior and hyper-analysis only
    scale = 2e3 * rgb.shape[0] * rgb.shape[1]
    return round(analysis / scale, 2), round((requantise.get_total_flops() + synthesis.get_total_flops()) / scale, 2)


def publish(weights: Path, data_dir: Path, keep: Path | None = None) -> Path:
    """Export the checkpoint ``weights`` as the package's model of its size, tables counted on about 80 pictures of
    ``data_dir``; ``keep`` takes the checkpoint in half precision with the gains, to go on training from. Returns the file
    written."""
    name = checkpoint.size_of(weights)
    checkpoint.ready(registry.path_of(name), *([keep] if keep else []))
    pictures = data.load(data_dir, SIDE * 3 // 4, torch.device("cpu"), remedy="add larger pictures")[0]
    out = finish(weights, name, pictures[:: max(1, len(pictures) // 80)])
    if keep:
        checkpoint.halve(weights, keep, gain=_gain(out))
    return out


def finish(weights: Path, name: str, images: list[Tensor], more: dict[str, object] | None = None) -> Path:
    """Export ``weights`` as the package's model ``name``; tables are counted on each of ``images`` (training pictures), and
    gains fitted to two crops of each, unless the checkpoint was trained with some. What is installed stays until all of
    that is done."""
    target = registry.path_of(name)
    with _elsewhere(name) as out:
        _complete(weights, name, images, more or {}, out)
        part = target.with_name(target.name + ".part")
        shutil.copyfile(out, part)
        part.chmod(0o644)  # for others to read, whatever the umask
        part.replace(target)
    registry.note_sum(target)
    return target


@contextmanager
def _elsewhere(name: str) -> Iterator[Path]:
    """The model's weights file in a folder of its own, from which it is loaded in the body; then the installed one again."""
    installed = registry.WEIGHTS
    with tempfile.TemporaryDirectory(prefix="foveal-export-") as folder:
        registry.WEIGHTS = Path(folder)
        try:
            yield registry.path_of(name)
        finally:
            registry.WEIGHTS = installed
            _forget()


def _complete(weights: Path, name: str, images: list[Tensor], more: dict[str, object], out: Path) -> None:
    """Make ``out``, which is the file that ``name`` is loaded from."""
    export(weights, out)
    gain = _gain(out)
    if (gain == 1).all():
        gain = fitted_gain(_fresh(name), crops(images, 2 * len(images)))
        export(weights, out, gain=gain)
    levels = [int(x) for x in np.linspace(30, 1250, 14)]
    counted = histogram(_fresh(name), images, levels)
    export(weights, out, counted, gain=gain)
    network = _fresh(name)
    encode, decode = kmac_per_pixel(network)
    facts = {"kmac_encode": encode, "kmac_decode": decode, "golden": golden_digest(name), **more}
    with safe_open(out, "pt") as f:
        tensors, old = {k: f.get_tensor(k) for k in f.keys()}, checkpoint.facts_in(f)
    checkpoint.write(out, tensors, {"facts": json.dumps(old | facts)})


def _gain(weights: Path) -> Tensor:
    """The encoder's gains in exported ``weights``, (NODES, D)."""
    with safe_open(weights, "pt") as f:
        gain: Tensor = f.get_tensor("gain")
    return gain


def _fresh(name: str) -> Network:
    _forget()
    return Network.load(name)


def _forget() -> None:
    for cache in (registry.load, registry.digest_of, Network.load):
        cache.cache_clear()
