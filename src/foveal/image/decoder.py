"""The decoder's side of the hall: container to integers, and the walk over channel slices that both sides share."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal import container
from foveal.errors import CorruptError
from foveal.header import Header
from foveal.image import classmap, packets, patches, quantize, rangecoder
from foveal.image.network import Network
from foveal.image.prior import BASE, BaseIndex, reconstruct

GROUP = 16384  # tokens of a packet whose slices are coded together; bounds memory, fixed by the format
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Decoded:
    """values (T, D) in 64ths of a step, level of the picture and of every token (T,) in sixteenths, masked (T,)
    bool: no symbols, lost (T,) bool: those that should have some."""

    values: Tensor
    level: int
    levels: Tensor
    masked: Tensor
    lost: NDArray[np.bool_]
    grid: tuple[int, int]


def salience_of(values: Tensor, index: BaseIndex) -> Ints:
    """(T,) int64 from the decoded thumbnail alone: first AC of luma plus the largest step to a neighbour's mean."""
    near = torch.nn.functional.pad(values[:, :1], (0, 0, 0, 1))[index.ring][..., 0]
    inside = index.ring < len(values)
    steps = ((near - values[:, :1]).abs() * inside).amax(1)
    return np.asarray((values[:, 3:].abs().sum(1) + steps).to(torch.int64).numpy())


def run_slices(
    network: Network,
    base: Tensor,
    features: Tensor,
    index: BaseIndex,
    levels: list[int],
    which: Tensor,
    at: Tensor,
    symbols_of: Callable[[int, int, Tensor, Tensor], Tensor],
) -> Tensor:
    """Walk the channel slices of tokens ``at``; ``symbols_of(a, b, mean, index)`` supplies each slice's symbols, from
    the picture or from the stream. Returns values (n, D), thumbnail included. Shared by both sides, so they agree."""
    prior = network.prior
    values = [base[at]]
    done = [prior.squash(base[at])]
    context = prior.context(base, features, index.ring, levels, which, at)
    spread = prior.spread(levels)[which]
    for number, (a, b) in enumerate(zip(prior.cuts, prior.cuts[1:], strict=False)):
        mean, scale = prior.slice(number, context, done, spread)
        values.append(reconstruct(symbols_of(a, b, mean, scale), mean))
        done.append(prior.squash(values[-1]))
    return torch.cat(values, 1)


class Decoding:
    """A picture being decoded: the base layer at once, then packets in any order; ``so_far`` whenever one likes.

    ``tokens`` are the kept tokens in the order in which packets number them, ``missing`` (T,) bool: no symbols yet,
    ``lost`` (T,) bool those that should have some.
    """

    def __init__(self, network: Network, head: Header, classes: NDArray[np.uint8], payload: bytes) -> None:
        self.network, self.level = network, head.level
        self.grid = patches.grid(head.height, head.width)
        self.index = BaseIndex(*self.grid)
        self.base, self.features = self._base(rangecoder.Puller(payload, network.tables))
        self.levels = quantize.class_levels(head.level)
        self.which = torch.from_numpy(classes.ravel().astype(np.int64))
        self.tokens = packets.order(classes, salience_of(self.base, self.index))
        self.values = torch.zeros(classes.size, network.prior.cuts[-1], dtype=network.prior.dtype)
        self.missing, self._guessed = np.ones(classes.size, bool), np.zeros(classes.size, bool)

    @property
    def lost(self) -> NDArray[np.bool_]:
        return np.asarray(self.missing & (self.which > 0).numpy(), np.bool_)

    def add(self, packet: container.Packet, watch: Callable[[int, int, Ints, Ints], None] | None = None) -> None:
        """Decode the tokens of a packet. ``watch`` gets (place of the first token, slice, symbols, scale indices)."""
        (first, count), stream = packets.unwrap(packet.payload, len(self.tokens))
        run = self.tokens[first : first + count]
        if not self.missing[run].all():
            raise CorruptError(f"packet {packet.number}: its tokens came in another packet too; get the file again")
        coder = rangecoder.Puller(stream, self.network.tables)
        for part in parts(run):
            self._fill(part, coder, watch and partial(watch, first))
            first += len(part)
        self.missing[run] = False

    def so_far(self) -> Decoded:
        """What is known by now; tokens without symbols as the prior expects them."""
        for part in parts(np.nonzero(self.missing & ~self._guessed)[0].astype(np.int64)):
            self._fill(part, None)
            self._guessed[part] = True
        levels, masked = torch.tensor(self.levels)[self.which], torch.from_numpy(self.missing.copy())
        return Decoded(self.values, self.level, levels, masked, self.lost, self.grid)

    def _base(self, puller: rangecoder.Puller) -> tuple[Tensor, Tensor]:
        """The BASE payload -> decoded thumbnail (T, BASE) and features (T, 64)."""
        prior, level, (h, w) = self.network.prior, self.level, self.grid
        z_shape = (-(-h // 4), -(-w // 4), prior.t["z_mean"].shape[1])
        mean, z_index = prior.hyper(level)
        z = puller.pull(np.broadcast_to(z_index.numpy(), z_shape).ravel())
        features = prior.features(reconstruct(to_tensor(z.reshape(z_shape), prior.dtype), mean), level, h, w)
        base = torch.zeros(h * w, BASE, dtype=prior.dtype)
        for number, at in enumerate(self.index.tokens):
            if len(at):
                base_mean, base_index = prior.base(number, base, features, self.index, level)
                symbols = puller.pull(base_index.numpy().ravel()).reshape(-1, BASE)
                base[at] = reconstruct(to_tensor(symbols, prior.dtype), base_mean)
        return base, features

    def _fill(
        self, part: Ints, coder: rangecoder.Puller | None, watch: Callable[[int, Ints, Ints], None] | None = None
    ) -> None:
        """The values of the tokens ``part``, with symbols from ``coder``, or all zero without one."""
        at, number = torch.from_numpy(part), itertools.count()

        def symbols_of(a: int, b: int, mean: Tensor, scale: Tensor) -> Tensor:
            if coder is None:
                return torch.zeros_like(mean)
            symbols = coder.pull(scale.numpy().ravel()).reshape(len(part), b - a)
            if watch:
                watch(next(number), symbols, scale.numpy())
            return to_tensor(symbols, self.network.prior.dtype)

        base = self.base, self.features
        self.values[at] = run_slices(self.network, *base, self.index, self.levels, self.which[at], at, symbols_of)


def begin(network: Network, contents: container.Contents) -> Decoding:
    """The base layer and class map of a file, decoded; no packet yet."""
    return Decoding(network, contents.header, classmap.decompress(contents), contents.base)


def decode(network: Network, contents: container.Contents, on_loss: str) -> Decoded:
    """Container -> integers: the mirror of ``Encoder.at``. Identical on every machine."""
    decoding = begin(network, contents)
    for packet in contents.packets:
        decoding.add(packet)
    check_whole(decoding, on_loss)
    return decoding.so_far()


def check_whole(decoding: Decoding, on_loss: str) -> None:
    """CorruptError when tokens are in no packet and that is not to be concealed."""
    lost = int(decoding.lost.sum())
    if lost and on_loss == "error":
        raise CorruptError(f"{lost} of {len(decoding.tokens)} patches are in no packet; decode with on_loss='conceal'")


def to_tensor(symbols: Ints, dtype: torch.dtype) -> Tensor:
    """Symbols as the prior takes them."""
    return torch.from_numpy(np.ascontiguousarray(symbols)).to(dtype)


def parts(tokens: Ints) -> list[Ints]:
    """A packet's tokens in groups of at most GROUP."""
    return [tokens[i : i + GROUP] for i in range(0, len(tokens), GROUP)]
