"""The decoder's side of the hall: container to integers, and the walk over channel slices that both sides share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal import container
from foveal.errors import CorruptError
from foveal.image import classmap, packets, patches, quantize, rangecoder
from foveal.image.network import Network
from foveal.image.prior import BASE, BaseIndex, reconstruct

GROUP = 16384  # tokens of a packet whose slices are coded together; bounds memory, fixed by the format
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Decoded:
    """values (T, D) in sixteenths of a step, level of every token (T,) in sixteenths, masked (T,) bool: no symbols."""

    values: Tensor
    levels: Tensor
    masked: Tensor
    grid: tuple[int, int]


def salience_of(values: Tensor, index: BaseIndex) -> Ints:
    """(T,) int64 from the decoded thumbnail alone: first AC of luma plus the largest step to a neighbour's mean."""
    near = torch.nn.functional.pad(values[:, :1], (0, 0, 0, 1))[index.ring][..., 0]
    inside = index.ring < len(values)
    steps = ((near - values[:, :1]).abs() * inside).amax(1)
    return np.asarray((values[:, 3:].abs().sum(1) + steps).to(torch.int64).numpy())


def run_slices(network: Network, base: Tensor, features: Tensor, index: BaseIndex, levels: list[int], which: Tensor,
               at: Tensor, symbols_of: Callable[[int, int, Tensor, Tensor], Tensor]) -> Tensor:
    """Walk the channel slices of tokens ``at``; ``symbols_of(a, b, mean, index)`` supplies each slice's symbols, from
    the picture or from the stream. Returns values (n, D), thumbnail included. Shared by both sides, so they agree."""
    prior = network.prior
    values = [base[at]]
    done = [prior.squash(base[at])]
    context = prior.context(base, features, index.ring, levels, which, at)
    spread = prior.spread(levels)[which]
    for number, (a, b) in enumerate(zip(prior.cuts, prior.cuts[1:])):
        mean, scale = prior.slice(number, context, done, spread)
        values.append(reconstruct(symbols_of(a, b, mean, scale), mean))
        done.append(prior.squash(values[-1]))
    return torch.cat(values, 1)


def decode(network: Network, contents: container.Contents, on_loss: str) -> Decoded:
    """Container -> integers: the mirror of ``Encoder.at``. Identical on every machine."""
    head, prior = contents.header, network.prior
    h, w = patches.grid(head.height, head.width)
    index, level = BaseIndex(h, w), head.level
    classes = classmap.decompress(contents)
    puller = rangecoder.Puller(contents.base, network.tables)
    z_shape = (-(-h // 4), -(-w // 4), prior.t["z_mean"].shape[1])
    mean, z_index = prior.hyper(level)
    z = puller.pull(np.broadcast_to(z_index.numpy(), z_shape).ravel())
    features = prior.features(reconstruct(to_tensor(z.reshape(z_shape), prior.dtype), mean), level, h, w)
    base = torch.zeros(h * w, BASE, dtype=prior.dtype)
    for number, at in enumerate(index.tokens):
        if len(at):
            base_mean, base_index = prior.base(number, base, features, index, level)
            symbols = puller.pull(base_index.numpy().ravel()).reshape(-1, BASE)
            base[at] = reconstruct(to_tensor(symbols, prior.dtype), base_mean)
    levels = quantize.class_levels(level)
    which = torch.from_numpy(classes.ravel().astype(np.int64))
    values, missing = torch.zeros(h * w, prior.cuts[-1], dtype=prior.dtype), np.ones(h * w, bool)
    tokens = packets.order(classes, salience_of(base, index))

    def fill(part: Ints, coder: rangecoder.Puller | None) -> None:
        at = torch.from_numpy(part)

        def symbols_of(a: int, b: int, mean: Tensor, scale: Tensor) -> Tensor:
            if coder is None:
                return torch.zeros_like(mean)
            return to_tensor(coder.pull(scale.numpy().ravel()).reshape(len(part), b - a), prior.dtype)

        values[at] = run_slices(network, base, features, index, levels, which[at], at, symbols_of)

    for packet in contents.packets:
        (first, count), stream = packets.unwrap(packet.payload, len(tokens))
        run = tokens[first : first + count]
        if not missing[run].all():
            raise CorruptError(f"packet {packet.number}: its tokens came in another packet too; get the file again")
        coder = rangecoder.Puller(stream, network.tables)
        for part in parts(run):
            fill(part, coder)
        missing[run] = False
    lost = int(missing[tokens].sum())
    if lost and on_loss == "error":
        raise CorruptError(f"{lost} of {len(tokens)} patches are in no packet; decode with on_loss='conceal'")
    for part in parts(np.nonzero(missing)[0].astype(np.int64)):
        fill(part, None)
    return Decoded(values, torch.tensor(levels)[which], torch.from_numpy(missing), (h, w))


def to_tensor(symbols: Ints, dtype: torch.dtype) -> Tensor:
    """Symbols as the prior takes them."""
    return torch.from_numpy(np.ascontiguousarray(symbols)).to(dtype)


def parts(tokens: Ints) -> list[Ints]:
    """A packet's tokens in groups of at most GROUP."""
    return [tokens[i : i + GROUP] for i in range(0, len(tokens), GROUP)]
