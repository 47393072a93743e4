"""The learned parts of one model, built from its weights file: transforms, integer prior, tables."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from foveal import registry
from foveal.errors import UnknownModelError
from foveal.image import postfilter
from foveal.image.importance import patch_sums
from foveal.image.prior import VALUE_UNIT, IntegerPrior
from foveal.image.quantize import steps
from foveal.image.rangecoder import Tables
from foveal.image.transform import (
    NODES,
    PATCH,
    SIZES,
    WINDOW,
    Analysis,
    GridWindows,
    HyperAnalysis,
    PackedWindows,
    Shortcut,
    Synthesis,
    interpolate,
)

Module = TypeVar("Module", bound=nn.Module)
BAND = 65536  # tokens of a band that is transformed at once
PIECE = 8192  # tokens that are transformed at once where each is on its own: bounds memory
GRADIENT_BAND = 16384  # and of one whose gradient is wanted, for which all that was computed is kept


class Band(NamedTuple):
    """``pixels`` (3, rows, columns) fp32 of the picture's rows ``start`` .. ``end``, with ``edges`` rows above and below."""

    start: int
    end: int
    edges: tuple[int, int]
    pixels: Tensor


class Network:
    """``weights`` as loaded, ``prior`` and ``tables`` exact; analysis in fp64, synthesis in fp32, on the CPU."""

    def __init__(self, weights: registry.Weights) -> None:
        t, size = weights.tensors, SIZES[weights.name]
        self.weights, self.size = weights, size
        self.prior = IntegerPrior({k[6:]: v for k, v in t.items() if k.startswith("prior.")}, size.cuts)
        self.tables = Tables(t["tables.counts"].numpy(), t["tables.reach"].numpy(), int(t["tables.silent"][0]))
        self._ln_step = t["ln_step"].double().numpy()
        self._gain = t["gain"].double() if "gain" in t else torch.ones(NODES, size.latent, dtype=torch.float64)
        self._coarse, self._fine = (
            _filled(Shortcut(size), "shortcut", t).double(),
            _filled(Shortcut(size), "shortcut", t),
        )
        self._analysis = _filled(Analysis(size), "analysis", t).double()
        self._hyper = _filled(HyperAnalysis(size), "hyper", t).double()
        self._synthesis = _filled(Synthesis(size), "synthesis", t)
        self._halo = halo(
            size.decoder_blocks, -(-(self._synthesis.reach + PATCH) // PATCH)
        )  # a patch of margin, at most

    @staticmethod
    @lru_cache(maxsize=2)
    def load(name: str) -> Network:
        """The model of this name, built once per process. UnknownModelError when its weights do not make one."""
        weights = registry.load(name)
        try:
            return Network(weights)
        except (KeyError, RuntimeError, ValueError) as fault:
            raise UnknownModelError(f"weights of model {name!r} do not fit ({fault}); reinstall foveal") from fault

    def steps(self, level: int) -> Tensor:
        """Quantiser step of every channel (D,) fp64 at ``level`` (sixteenths)."""
        return torch.from_numpy(steps(self._ln_step, level))

    def gain(self, level: int) -> Tensor:
        """What the encoder multiplies latents by before rounding, (D,) fp64, ``level`` in sixteenths: ``train/gain.py``."""
        return interpolate(self._gain, torch.tensor(level / 16, dtype=torch.float64))

    def steps_of(self, level: int, levels: Tensor) -> Tensor:
        """Quantiser steps of tokens of ``levels`` (T,), whose thumbnails are of the picture's ``level``: (T, D) fp64."""
        table, which = self._steps_table(level, levels)
        return table[which]

    def _steps_table(self, level: int, levels: Tensor) -> tuple[Tensor, Tensor]:
        """The different rows of ``steps_of`` (k, D) fp64, and which of them each token has (T,)."""
        keys, which = torch.unique(levels, return_inverse=True)
        table = torch.stack([self.steps(int(k)) for k in keys])
        table[:, : self.prior.cuts[0]] = self.steps(level)[: self.prior.cuts[0]]
        return table, which

    def spread_of(self, index: NDArray[np.uint8], level: int) -> NDArray[np.float64]:
        """Scale indices (n, c) of the channels behind the thumbnail -> how far their coefficients spread, (n, c)"""
        steps = self.steps(level)[self.prior.cuts[0] : self.prior.cuts[0] + index.shape[1]].numpy()
        scales = self.prior.scales.double().numpy()[index] / 256
        return np.asarray(scales * steps, np.float64)

    def basis(self, count: int) -> NDArray[np.float64]:
        """Pixels (count, 768) of a unit of each of the first channels behind the thumbnail."""
        units = torch.eye(self.size.latent, dtype=torch.float64)[self.prior.cuts[0] :][:count]
        return np.asarray((self._coarse.inverse(units) - self._coarse.inverse(torch.zeros_like(units))).numpy())

    @torch.no_grad()
    def coefficients(self, patches: NDArray[np.uint8], grid: tuple[int, int]) -> Tensor:
        """(T, 768) uint8 -> linear coefficients, mean removed, (T, D) fp64"""
        out = torch.empty(len(patches), self.size.latent, dtype=torch.float64)
        for here, part in zip(*(torch.split(x, PIECE) for x in (out, torch.from_numpy(patches))), strict=True):
            here.copy_(self._coarse(part.double()))
        return out

    @torch.no_grad()
    def hyper_latent(self, steps: Tensor, grid: tuple[int, int]) -> Tensor:
        """Coefficients in steps (T, D) fp64 -> (H, W, hyper) fp64"""
        h, w = grid
        rows = max(4, PIECE // w // 4 * 4)
        whole = steps.view(1, h, w, -1)
        return torch.cat([self._hyper(whole[:, y : y + rows])[0] for y in range(0, h, rows)])

    @torch.no_grad()
    def analyse(self, coefficients: Tensor, visible: NDArray[np.bool_], grid: tuple[int, int]) -> Tensor:
        """Coefficients (T, D) -> latents (T, D) fp64; tokens that are not visible keep their coefficients."""
        out = coefficients.clone()
        h, w = grid
        tokens = torch.from_numpy(np.nonzero(visible)[0])
        for first, last, start, end in _bands(h, w, halo(len(self._analysis.blocks)), BAND):
            inside = tokens[(tokens >= first * w) & (tokens < last * w)]
            if len(inside):
                windows = PackedWindows(inside // w - first, inside % w)
                y = self._analysis(coefficients[inside], self._coarse.std, windows)
                own = (inside >= start * w) & (inside < end * w)
                out[inside[own]] = y[own]
        return out

    @torch.no_grad()
    def rendered(
        self, values: Tensor, level: int, levels: Tensor, masked: Tensor, grid: tuple[int, int], margin: int = 0
    ) -> Iterator[Band]:
        """values (T, D) in 64ths of a step (of the picture's ``level`` for the thumbnail, of the token's among ``levels``
        (T,) for the rest; both in sixteenths of a level), masked (T,) bool -> pixels in bands, clamped to 0..255, each with
        up to ``margin`` rows, at most a patch, of those beside it."""
        h, w = grid
        for band in _bands(h, w, self._halo, BAND):
            first, last, start, end = band
            edges, rows = _edges(band, margin), slice(first * w, last * w)
            latents = self._dequantise(values[rows], level, levels[rows])
            pixels = self._render(latents, levels[rows], masked[rows], w, band, edges).clamp_(0, 255)
            yield Band(PATCH * start, PATCH * end, edges, pixels)

    def synthesise(
        self, values: Tensor, level: int, levels: Tensor, masked: Tensor, grid: tuple[int, int]
    ) -> NDArray[np.uint8]:
        """``rendered``, whole: (16h, 16w, 3) uint8"""
        bands = self.rendered(values, level, levels, masked, grid)
        return np.concatenate([to_bytes(band.pixels) for band in bands])

    def targets(
        self,
        values: Tensor,
        level: int,
        levels: Tensor,
        masked: Tensor,
        grid: tuple[int, int],
        rgb: NDArray[np.uint8],
        taps: NDArray[np.int64] | None,
        worth: NDArray[np.float64],
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Where the latents decoded from ``values`` should rather be for the pixels, filtered by ``taps``, to come nearer to
        ``rgb`` (H, W, 3): one Newton step on the squared error, whose curvature is that of the orthonormal shortcut.
        (T, D) fp64, and the errors (T,) of the patches (summed over pixels, mean over colours) as the latents are."""
        h, w = grid
        latents = self._dequantise(values, level, levels)
        change, found = torch.zeros_like(latents), np.zeros((h, w))
        for band in _bands(h, w, self._halo, GRADIENT_BAND):
            first, last, start, end = band
            edges, rows = _edges(band, postfilter.REACH), slice(first * w, last * w)
            picture = torch.from_numpy(rgb[PATCH * start : PATCH * end]).permute(2, 0, 1).float()
            with torch.enable_grad():
                free = latents[rows].clone().requires_grad_(True)
                pixels = self._render(free, levels[rows], masked[rows], w, band, edges)
                weights = postfilter.spread_out(worth, PATCH * start, picture.shape[1:])
                errors, slope = postfilter.error_behind(pixels, taps, edges, picture, weights)
                change[rows] -= torch.autograd.grad(pixels, free, slope)[0]
            found[start:end] = patch_sums(errors.numpy())
        return latents.double() + change.double() / 2 / torch.from_numpy(worth).reshape(-1, 1), found.ravel()

    def _dequantise(self, values: Tensor, level: int, levels: Tensor) -> Tensor:
        """Values (T, D) -> latents (T, D) fp32"""
        table, which = self._steps_table(level, levels)
        return (values.float() / VALUE_UNIT).mul_(table.float()[which])

    def _render(
        self,
        latents: Tensor,
        levels: Tensor,
        masked: Tensor,
        w: int,
        band: tuple[int, int, int, int],
        edges: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Latents of one band's tokens (n, D), halo included -> (3, rows, 16w) float pixels, the halo cut off but for
        ``edges`` rows above and below"""
        first, last, start, end = band
        shape = (1, last - first, w)
        pixels: Tensor = self._synthesis(
            latents.view(*shape, -1),
            levels.float().view(shape) / 16,
            masked.view(shape),
            self._fine,
            GridWindows(torch.ones(shape, dtype=torch.bool)),
        )[0]
        return pixels[:, PATCH * (start - first) - edges[0] : PATCH * (end - first) + edges[1]]


def to_bytes(pixels: Tensor) -> NDArray[np.uint8]:
    """(3, H, W) float -> (H, W, 3) uint8"""
    return pixels.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _filled(module: Module, name: str, tensors: dict[str, Tensor]) -> Module:
    """``module`` with its weights from the tensors called ``name``.*, in fp32, ready for inference."""
    own = {k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name + ".")}
    module.load_state_dict(own)
    return module.requires_grad_(False).eval()


def _edges(band: tuple[int, int, int, int], margin: int) -> tuple[int, int]:
    """Rows of pixels beside a band's own, above and below, up to ``margin``, that its halo has"""
    first, last, start, end = band
    return min(margin, PATCH * (start - first)), min(margin, PATCH * (last - end))


def halo(blocks: int, reach: int = 0) -> int:
    """Rows of tokens, whole windows, on which a band of whole windows depends to each side, through ``blocks`` and what
    comes behind them, which looks ``reach`` rows away.

    A row that is needed behind a block needs all of its window before it, and in odd blocks windows lie half a window
    further on.
    """
    for block in reversed(range(blocks)):
        shift = block % 2 * WINDOW // 2
        reach = -(-(reach - shift) // WINDOW) * WINDOW + shift
    return -(-reach // WINDOW) * WINDOW


def _bands(h: int, w: int, halo: int, most: int) -> list[tuple[int, int, int, int]]:
    """Rows of tokens in bands of at most about ``most`` tokens: (first, last) with ``halo``, (start, end) without."""
    rows = max(WINDOW, most // w // WINDOW * WINDOW)
    return [(max(0, y - halo), min(h, y + rows + halo), y, min(h, y + rows)) for y in range(0, h, rows)]
