"""The decoder's side of the hall: container to integers, and the walk over channel slices that both sides share."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal import container
from foveal.errors import CorruptError
from foveal.header import Header
from foveal.image import classmap, packets, patches, quantize, rangecoder
from foveal.image.network import Network
from foveal.image.partition import BASE_PARTS, GROUP, bare, layers_of
from foveal.image.prior import BASE, BaseIndex, reconstruct

CONCEALED = 2  # slices whose scales say what a lost patch may hold
Ints = NDArray[np.int64]
Watch = Callable[[Ints, int, Ints, Ints], None]  # tokens, slice, symbols, scale indices


@dataclass(frozen=True)
class Decoded:
    """values (T, D) in 64ths of a step, level of the picture and of every token (T,) in sixteenths, masked (T,)
    bool: no symbols, lost (T,) bool: those that should have some, or more. useless: numbers of packets that refine what
    is lost. gone (T,) bool: kept tokens without symbols, scales (T, n) uint8: scale indices of their first channels
    behind the thumbnail."""

    values: Tensor
    level: int
    levels: Tensor
    masked: Tensor
    lost: NDArray[np.bool_]
    grid: tuple[int, int]
    gone: NDArray[np.bool_]
    scales: NDArray[np.uint8]
    useless: tuple[int, ...] = ()


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
    known: Tensor | None = None,
    end: int | None = None,
) -> Tensor:
    """Walk the channel slices of tokens ``at``; ``symbols_of(a, b, mean, index)`` supplies each slice's symbols, from
    the picture or from the stream. Values that are ``known`` (n, d), thumbnail included, are walked past, and slice
    ``end`` and those behind it left out. Returns values (n, D), thumbnail included. Shared by both sides, so they agree."""
    prior = network.prior
    values = [base[at] if known is None else known]
    done = [prior.squash(values[0])]
    context = prior.context(base, features, index.ring, levels, which, at)
    spread = prior.spread(levels)[which]
    for number, (a, b) in list(enumerate(itertools.pairwise(prior.cuts)))[:end]:
        if a >= values[0].shape[1]:
            mean, scale = prior.slice(number, context, done, spread)
            values.append(reconstruct(symbols_of(a, b, mean, scale), mean))
            done.append(prior.squash(values[-1]))
    return torch.cat(values, 1)


class Decoding:
    """A picture being decoded: the base layer at once, then packets; ``so_far`` whenever one likes.

    ``batches`` are the base layer's symbols and scale indices, hyper-latent first. ``layers`` say which tokens have which
    slices, ``have`` (T,) int64 how many slices of each token are decoded, ``lost`` (T,) bool which should have more. The
    packets of a layer may come in any order, after those of the layers before it; one that comes too early, or whose
    forerunner is lost, is of no use.
    """

    def __init__(self, network: Network, head: Header, classes: NDArray[np.uint8], base: Sequence[bytes]) -> None:
        self.network, self.level = network, head.level
        self.grid = patches.grid(head.height, head.width)
        self.index = BaseIndex(*self.grid)
        self.base, self.features = self._base([rangecoder.Puller(part, network.tables) for part in base], head)
        self.levels = quantize.class_levels(head.level)
        self.which = torch.from_numpy(classes.ravel().astype(np.int64))
        slices, salience = len(network.prior.cuts) - 1, salience_of(self.base, self.index)
        self.layers = layers_of(head, classes, salience, self.grid[1], slices)
        self.whole_base = len(base) == head.base_parts
        self._bare = bare(head)
        self.values = torch.zeros(classes.size, network.prior.cuts[-1], dtype=network.prior.dtype)
        self.have, self._guessed = np.zeros(classes.size, np.int64), np.full(classes.size, -1)
        self._wanted = np.zeros(classes.size, np.int64)
        self._scales = np.zeros((classes.size, network.prior.cuts[CONCEALED] - BASE), np.uint8)
        for layer in self.layers:
            self._wanted[layer.tokens] = layer.b

    @property
    def lost(self) -> NDArray[np.bool_]:
        return np.asarray(self.have < self._wanted, np.bool_)

    @property
    def sent(self) -> int:
        """Tokens that are in packets."""
        return int((self._wanted > 0).sum())

    def add(self, packet: container.Packet, watch: Watch | None = None) -> bool:
        """Decode the slices of a packet's tokens; False when it refines tokens whose coarser slices are not there, or
        the base layer is not. ``watch`` gets (tokens, slice, symbols, scale indices)."""
        if not self.whole_base:
            return False
        units = sum(len(layer.tokens) for layer in self.layers)
        (first, count), stream = packets.unwrap(packet.payload, units, self._bare)
        layer = next(one for one in reversed(self.layers) if first >= one.start)
        run = layer.tokens[first - layer.start : first - layer.start + count]
        if len(run) < count:
            raise CorruptError(f"packet {packet.number}: its run meets another layer's; get the file again")
        if (self.have[run] > layer.a).any():
            raise CorruptError(f"packet {packet.number}: its tokens came in another packet too; get the file again")
        if (self.have[run] < layer.a).any():
            return False
        coder = rangecoder.Puller(stream, self.network.tables)
        for part in parts(run):
            self._fill(part, layer.a, layer.b, coder, watch)
        self.have[run] = layer.b
        return True

    def so_far(self) -> Decoded:
        """What is known by now; slices without symbols as the prior expects them."""
        slices = len(self.network.prior.cuts) - 1
        for known in range(slices):
            todo = np.nonzero((self.have == known) & (self._guessed != known))[0].astype(np.int64)
            for part in parts(todo):
                self._fill(part, known, slices, None)
            self._guessed[todo] = known
        levels, masked = torch.tensor(self.levels)[self.which], torch.from_numpy(self.have == 0)
        gone = (self.have == 0) & (self.which > 0).numpy()
        return Decoded(self.values, self.level, levels, masked, self.lost, self.grid, gone, self._scales)

    def _base(self, pullers: Sequence[rangecoder.Puller], head: Header) -> tuple[Tensor, Tensor]:
        """The payloads of BASE, BAS2 .. -> decoded thumbnail (T, BASE) and features (T, 64). Tokens in parts that are
        missing are as predicted."""
        prior, level, (h, w) = self.network.prior, self.level, self.grid
        z_shape = (-(-h // 4), -(-w // 4), prior.t["z_mean"].shape[1])
        mean, z_index = prior.hyper(level)
        z = pullers[0].pull(np.broadcast_to(z_index.numpy(), z_shape).ravel())
        features = prior.features(reconstruct(to_tensor(z.reshape(z_shape), prior.dtype), mean), level, h, w)
        base = torch.zeros(h * w, BASE, dtype=prior.dtype)
        self.batches = [(z, np.broadcast_to(z_index.numpy(), z_shape).ravel())]
        for number, at in enumerate(self.index.tokens):
            if len(at):
                base_mean, base_index = prior.base(number, base, features, self.index, level)
                part = 0 if head.base_parts == 1 else bisect.bisect_right(BASE_PARTS, number) - 1
                symbols, flat = np.zeros(base_index.numel(), np.int64), base_index.numpy().ravel()
                if part < len(pullers):
                    symbols = pullers[part].pull(flat)
                self.batches.append((symbols, flat))
                base[at] = reconstruct(to_tensor(symbols.reshape(-1, BASE), prior.dtype), base_mean)
            else:
                self.batches.append((np.zeros(0, np.int64), np.zeros(0, np.int64)))
        return base, features

    def _fill(
        self, part: Ints, start: int, end: int, coder: rangecoder.Puller | None, watch: Watch | None = None
    ) -> None:
        """The values of slices start .. end - 1 of the tokens ``part``, with symbols from ``coder``, or all zero."""
        at, number, cuts = torch.from_numpy(part), itertools.count(start), self.network.prior.cuts

        def symbols_of(a: int, b: int, mean: Tensor, scale: Tensor) -> Tensor:
            if coder is None:
                if b <= cuts[CONCEALED]:
                    self._scales[part, a - BASE : b - BASE] = scale.numpy()
                return torch.zeros_like(mean)
            symbols = coder.pull(scale.numpy().ravel()).reshape(len(part), b - a)
            if watch:
                watch(part, next(number), symbols, scale.numpy())
            return to_tensor(symbols, self.network.prior.dtype)

        known = self.values[at, : cuts[start]] if start else self.base[at]
        rest = self.base, self.features, self.index, self.levels, self.which[at], at
        self.values[at, : cuts[end]] = run_slices(self.network, *rest, symbols_of, known, end)


def begin(network: Network, contents: container.Contents) -> Decoding:
    """The base layer and class map of a file, decoded; no packet yet."""
    return Decoding(network, contents.header, classmap.decompress(contents), (contents.base, *contents.more))


def decode(network: Network, contents: container.Contents, on_loss: str) -> Decoded:
    """Container -> integers: the mirror of ``Encoder.at``. Identical on every machine."""
    decoding = begin(network, contents)
    useless = tuple(packet.number for packet in contents.packets if not decoding.add(packet))
    check_whole(decoding, on_loss)
    return replace(decoding.so_far(), useless=useless)


def check_whole(decoding: Decoding, on_loss: str) -> None:
    """CorruptError when tokens are in no packet and that is not to be concealed."""
    lost = int(decoding.lost.sum())
    if lost and on_loss == "error":
        raise CorruptError(f"{lost} of {decoding.sent} patches are in no packet; decode with on_loss='conceal'")


def to_tensor(symbols: Ints, dtype: torch.dtype) -> Tensor:
    """Symbols as the prior takes them."""
    return torch.from_numpy(np.ascontiguousarray(symbols)).to(dtype)


def parts(tokens: Ints, most: int = GROUP) -> list[Ints]:
    """Tokens in groups of at most ``most``, a packet's as the format has them if not given."""
    return [tokens[i : i + most] for i in range(0, len(tokens), most)]
