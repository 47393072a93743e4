"""The encoder's side of the hall: a picture's coefficients and latents, quantised and coded at any level."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from foveal.image import classmap, patches, postfilter, quantize, refine, thrift
from foveal.image.decoder import Ints, parts, run_slices, salience_of, to_tensor
from foveal.image.importance import worth
from foveal.image.network import Network
from foveal.image.partition import Layout, TokenSymbols, bare, base_payloads, layers_of
from foveal.image.prior import BASE, VALUE_UNIT, BaseIndex, reconstruct

FILTERED = 4  # from this effort on a filter is fitted to the picture
BROAD = 2.5  # times as much an error of the thumbnail counts for MS-SSIM, which sees it at its coarser scales
PIECE = 2048  # tokens whose slices are worked on together: bounds memory
FRAME_BITS = {True: 40.0, False: 96.0}  # of the filter besides its payload, in the short form and as a chunk
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Stream:
    """Everything of a file that depends on the level (sixteenths)."""

    level: int
    classes: NDArray[np.uint8]
    class_map: bytes | None
    base: bytes
    packets: list[bytes]
    more: tuple[bytes, ...]  # further parts of the base layer
    layout: Layout
    filter: bytes | None = None

    @property
    def class_count(self) -> int:
        """Classes in use, as HEAD states it."""
        return classmap.class_count(self.classes)


class Base(NamedTuple):
    """The base layer, coded: symbols and scale indices of the hyper-latent and of each pass over the thumbnail, the
    decoded ``values`` (T, BASE), ``features`` (T, 64) and ``salience`` (T,) that follow from them."""

    hyper: tuple[Ints, Ints]
    passes: list[tuple[Ints, Ints]]
    values: Tensor
    features: Tensor
    salience: Ints


class Encoder:
    """A picture's coefficients and latents, to be quantised at any level. What rounding plainly depends on is fp64, so that
    it decides alike on every machine; the filter's fit and the refinement of efforts 6 and up are fp32."""

    def __init__(
        self,
        network: Network,
        rgb: NDArray[np.uint8],
        classes: NDArray[np.uint8] | None,
        effort: int,
        packet_count: int,
        mtu: int | None = None,
        layers: int = 1,
        tune: str = "psnr",
    ) -> None:
        self.network, self.effort, self.rgb = network, effort, rgb
        self.layout = Layout.of(packet_count, mtu, layers, layers > 1)
        self.grid = patches.grid(*rgb.shape[:2])
        self.index = BaseIndex(*self.grid)
        self.coefficients = network.coefficients(patches.split(rgb), self.grid)
        self.forced, self.care = classes, 1.0 if effort in refine.ROUNDS else quantize.CARE  # rounds count what follows
        self.tune, self.worth = tune, worth(rgb, tune)
        self._latents: tuple[bytes, Tensor] | None = None

    def latents(self, classes: NDArray[np.uint8]) -> Tensor:
        """(T, D) fp64; the vision transformer sees the tokens of class > 0 only. Independent of the level, which ``scaled``
        puts in."""
        visible = (classes > 0).ravel()
        if self._latents is None or self._latents[0] != visible.tobytes():
            self._latents = visible.tobytes(), self.network.analyse(self.coefficients, visible, self.grid)
        return self._latents[1]

    def scaled(self, level: int, classes: NDArray[np.uint8]) -> Tensor:
        """``latents`` times each channel's gain at its token's level: what is rounded, (T, D) fp64."""
        which = torch.from_numpy(classes.ravel().astype(np.int64))
        gains = torch.stack([self.network.gain(x) for x in quantize.class_levels(level)])
        out = self.latents(classes).clone()
        for rows, of in zip(*(torch.split(x, PIECE) for x in (out, which)), strict=True):
            rows *= gains[of]
        return out

    def classes_at(self, level: int, base: Base) -> NDArray[np.uint8]:
        """Classes (h, w) of the patches: as they were given, else by rate-distortion at ``level``."""
        return self.forced if self.forced is not None else self._auto(level, base)

    def at(self, level: int, watch: Callable[[Ints, Ints], None] | None = None, finish: bool = True) -> Stream:
        """Quantise and entropy-code at ``level`` (sixteenths). ``watch`` sees all symbols with their scale indices. With
        ``finish``, and from effort 4 on, a filter is fitted to what that decodes to."""
        base = self.base(level, self.coefficients)
        classes = self.classes_at(level, base)
        latents = self.scaled(level, classes)
        if self.effort in refine.ROUNDS:
            latents, base = refine.refined(self, level, latents, classes, base)
        tables, sent = self.network.tables, TokenSymbols(classes.size, self.network.prior.cuts)
        values = torch.zeros(classes.size, self.network.prior.cuts[-1], dtype=self.network.prior.dtype)
        dropped = (classes == 0).ravel() & (not self.layout.complete)
        for part in parts(np.nonzero(~dropped)[0].astype(np.int64), PIECE):
            coded, values[part] = self.slices(level, latents, classes, base, part, self.layout.complete)
            for number, (symbols, index, _) in enumerate(coded):
                sent.put(part, number, symbols, index)
                if watch:
                    watch(symbols, index)
        batches = [base.hyper, *base.passes]
        if watch:
            for symbols, index in batches:
                watch(symbols, index)
        layers = layers_of(self.layout, classes, base.salience, self.grid[1], len(self.network.prior.cuts) - 1)
        first, *more = base_payloads(tables, batches, self.layout.version)
        payloads = sent.payloads(tables, layers, self.layout)
        filter_ = None
        if finish and self.effort >= FILTERED:
            for part in parts(np.nonzero(dropped)[0].astype(np.int64), PIECE):
                values[part] = self.slices(level, latents, classes, base, part)[1]
            taps = self.fit(level, classes, values, dropped)
            filter_ = None if taps is None else postfilter.compress(taps)
        return Stream(level, classes, classmap.compress(classes), first, payloads, tuple(more), self.layout, filter_)

    def fit(self, level: int, classes: NDArray[np.uint8], values: Tensor, dropped: NDArray[np.bool_]) -> Ints | None:
        """Taps of the filter that is best for the picture as it will be decoded; None if none pays."""
        levels = torch.tensor(quantize.class_levels(level))[torch.from_numpy(classes.ravel().astype(np.int64))]
        masked, fit = torch.from_numpy(dropped), postfilter.Fit(self.rgb.shape[0] * self.rgb.shape[1])
        bands = self.network.rendered(values, level, levels, masked, self.grid, margin=postfilter.REACH)
        for band in bands:
            own = torch.from_numpy(self.rgb[band.start : band.end]).permute(2, 0, 1).float()
            worth = postfilter.spread_out(self.worth, band.start, own.shape[1:]) if self.tune != "psnr" else None
            fit.add(band.pixels, band.edges, own, worth)
        taps, saved = fit.taps(quantize.rate_weight(level))
        return taps if saved >= FRAME_BITS[bare(self.layout)] else None

    def base(self, level: int, wanted: Tensor) -> Base:
        """Hyper-latent, and the thumbnail as the coefficients ``wanted`` (T, D) have it."""
        prior, (h, w) = self.network.prior, self.grid
        step = self.network.steps(level)
        v, thumbnail = self.coefficients / step, wanted[:, :BASE] / step[:BASE]
        price = self._thumbnail_price(level) * self.worth.reshape(-1, 1)
        z = self.network.hyper_latent(v, self.grid)
        mean, index = prior.hyper(level)
        z_symbols = quantize.plain((z - mean / VALUE_UNIT).numpy())
        z_index = np.broadcast_to(index.numpy(), z_symbols.shape)
        features = prior.features(reconstruct(to_tensor(z_symbols, prior.dtype), mean), level, h, w)
        values, coded = torch.zeros(h * w, BASE, dtype=prior.dtype), []
        for number, at in enumerate(self.index.tokens):
            if len(at):
                base_mean, base_index = prior.base(number, values, features, self.index, level)
                symbols = self._round(thumbnail[at] - base_mean.double() / VALUE_UNIT, base_index, price[at.numpy()])
                values[at] = reconstruct(to_tensor(symbols, prior.dtype), base_mean)
                coded.append((symbols, base_index.numpy()))
            else:
                coded.append((np.zeros((0, BASE), np.int64), np.zeros((0, BASE), np.int64)))
        return Base((z_symbols, z_index), coded, values, features, salience_of(values, self.index))

    def prices(self, level: int, which: Tensor, at: Tensor) -> Floats:
        """Bits that a squared error of a step is worth when rounding, of the tokens ``at`` (n,), which are of the classes
        ``which`` (n,): (n, D)."""
        grades = quantize.class_levels(level)
        of_class = self.care * np.stack([quantize.rate_weight(x) * self.network.steps(x).numpy() ** 2 for x in grades])
        of_class[:, :BASE] = self._thumbnail_price(level)
        return np.asarray(of_class[which.numpy()] * self.worth.ravel()[at.numpy(), None])

    def _thumbnail_price(self, level: int) -> Floats:
        """``prices`` of the thumbnail (BASE,), which is of the picture's level everywhere, in a patch like any other."""
        broad = BROAD if self.tune == "msssim" else 1.0
        step = self.network.steps(level)[:BASE].numpy()
        return np.asarray(self.care * broad * quantize.rate_weight(level) * step**2)

    def _round(self, residual: Tensor, index: Tensor, price: Floats) -> Ints:
        r, i = residual.numpy(), index.numpy()
        if self.effort < 4:
            return np.where(i < self.network.tables.silent, 0, quantize.plain(r))
        symbols = quantize.optimised(r, i, np.broadcast_to(price, r.shape), self.network.tables.cost)
        return np.where(i < self.network.tables.silent, 0, symbols)

    def slices(
        self,
        level: int,
        latents: Tensor,
        classes: NDArray[np.uint8],
        base: Base,
        part: Ints,
        complete: bool = False,
    ) -> tuple[list[tuple[Ints, Ints, Floats]], Tensor]:
        """Symbols, scale indices and residuals (n, b - a) of every channel slice of the tokens ``part``, and the values
        (n, D) that a decoder will have. A token of class 0 has zero symbols unless ``complete``."""
        network, levels = self.network, quantize.class_levels(level)
        which = torch.from_numpy(classes.ravel()[part].astype(np.int64))
        table = torch.stack([network.steps(x) for x in levels])
        step = table[which]  # (n, D)
        at = torch.from_numpy(part)
        v = latents[at] / step
        price = self.prices(level, which, at)
        kept, out = (which > 0).numpy()[:, None] | complete, []

        def symbols_of(a: int, b: int, mean: Tensor, index: Tensor) -> Tensor:
            residual = v[:, a:b] - mean.double() / VALUE_UNIT
            symbols = self._round(residual, index, price[:, a:b]) * kept
            out.append((symbols, index.numpy(), residual.numpy()))
            return to_tensor(symbols, network.prior.dtype)

        values = run_slices(network, base.values, base.features, self.index, levels, which, at, symbols_of)
        return out, values

    def _auto(self, level: int, base: Base) -> NDArray[np.uint8]:
        """Class 0 where dropping lowers D + R/lambda, the class map's bits included, judged on the linear coefficients (so
        that the vision transformer runs once, over what is kept), class 1 elsewhere."""
        everything = np.ones(self.grid, np.uint8)
        step = self.network.steps(level).numpy()
        weight, gain = quantize.rate_weight(level) * step**2, []
        worth = np.maximum(self.worth, 1.0).reshape(-1, 1)  # what is left out of a busy patch would show
        for part in parts(np.arange(everything.size), PIECE):
            total = np.zeros(len(part))
            start = BASE
            for symbols, index, residual in self.slices(level, self.coefficients, everything, base, part)[0]:
                w = worth[part] * weight[start : start + symbols.shape[1]]
                total += (w * (residual**2 - (residual - symbols) ** 2) - self.network.tables.cost(symbols, index)).sum(
                    1
                )
                start += symbols.shape[1]
            gain.append(total)
        return thrift.settle(np.concatenate(gain).reshape(self.grid) + thrift.MASKED)
