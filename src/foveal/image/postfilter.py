"""A filter that the encoder fits to the finished picture, and the fILT payload that carries it. Part of the hall.

    decoded + inverse colour transform of (sum of taps x features), for luma and the two chroma planes

A feature is the sum of the differences of two opposite pixels of the 5x5 around a pixel from the one in the middle, as it
is (linear) or with each difference clipped (so that edges do not leak): the adaptive loop filter of VVC (H.266, 8.8.5), here
after the synthesis, and chroma sees luma's features too (VVC's cross-component filter). Least squares against the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveal import taps as taps_of
from foveal.errors import CorruptError
from foveal.image.rangecoder import Puller, Pusher
from foveal.image.transform import PATCH, colour_matrices

REACH = 2  # pixels to each side
PAIRS = tuple((y, x) for y in range(-REACH, 1) for x in range(-REACH, REACH + 1) if y < 0 or x < 0)
CLIPS_LUMA, CLIP_CHROMA = (4.0, 14.0), 5.0
N = len(PAIRS)
LUMA, CHROMA = 3 * N, 3 * N  # taps of luma: linear, twice clipped; of a chroma plane: linear, luma's linear, clipped
COUNT = LUMA + 2 * CHROMA
KINDS = (0,) * N + (1,) * 2 * N + ((2,) * N + (3,) * N + (4,) * N) * 2
STEP = 1 / 128
AT_ONCE = 1 << 17  # pixels that are filtered at once, about: what fits a cache
RUN, SAMPLE = 16, 200_000  # a fit looks at runs of so many rows, at all of them or at so many pixels, about

Taps = NDArray[np.int64]
Floats = NDArray[np.float64]


@cache
def _colours() -> tuple[Tensor, Tensor]:
    """R'G'B' -> luma and chroma, in which an error costs the same in each plane, and back; (3, 3) fp32"""
    there, back = colour_matrices()
    return there.float(), back.float()


def _differences(plane: Tensor, clips: Sequence[float]) -> list[Tensor]:
    """(rows + 4, columns + 4) -> linear features (N, rows, columns), and those of each clip"""
    rows, columns = plane.shape[0] - 2 * REACH, plane.shape[1] - 2 * REACH
    middle = plane[REACH : REACH + rows, REACH : REACH + columns]
    out = [plane.new_empty(N, rows, columns) for _ in (None, *clips)]
    for k, (y, x) in enumerate(PAIRS):
        one, other = (
            plane[REACH + s * y : REACH + s * y + rows, REACH + s * x : REACH + s * x + columns] - middle
            for s in (1, -1)
        )
        torch.add(one, other, out=out[0][k])
        for clip, features in zip(clips, out[1:], strict=True):
            torch.add(one.clamp(-clip, clip), other.clamp(-clip, clip), out=features[k])
    return out


def _features(pixels: Tensor) -> list[Tensor]:
    """(3, rows + 4, columns + 4) pixels -> features (n, rows, columns) of luma, Cb, Cr"""
    planes = torch.einsum("ij,jyx->iyx", _colours()[0], pixels)
    luma = _differences(planes[0], CLIPS_LUMA)
    chroma = [_differences(plane, (CLIP_CHROMA,)) for plane in planes[1:]]
    return [torch.cat(luma), *(torch.cat([linear, luma[0], clipped]) for linear, clipped in chroma)]


def _padded(pixels: Tensor, edges: tuple[int, int]) -> tuple[Tensor, int]:
    """``pixels`` (3, H, W), of them ``edges`` rows above and below only to look at, with REACH pixels to each side: the
    nearest where there are none; and the first row to start from."""
    above, below = edges
    margins = (REACH, REACH, REACH - min(above, REACH), REACH - min(below, REACH))
    return F.pad(pixels[None], margins, mode="replicate")[0], max(above - REACH, 0)


def _parts(pixels: Tensor, edges: tuple[int, int], step: int) -> Iterable[tuple[int, int, Tensor]]:
    """``pixels``, ``edges`` as for ``_padded``, in runs of ``step`` rows with REACH pixels around each: (first row, last
    row, part)."""
    padded, start = _padded(pixels, edges)
    height = pixels.shape[1] - sum(edges)
    for first in range(0, height, step):
        last = min(first + step, height)
        yield first, last, padded[:, start + first : start + last + 2 * REACH]


def spread_out(worth: Floats, start: int, shape: Sequence[int]) -> Tensor:
    """Weights of patches (h, w) -> those of pixels, ``shape`` (rows, columns), from the row ``start`` on, fp32"""
    rows = (start + np.arange(shape[0])) // PATCH
    return torch.from_numpy(worth[rows][:, np.arange(shape[1]) // PATCH]).float()


def _kernel(taps: Tensor) -> Tensor:
    """Taps (N,) of linear features -> 5x5"""
    return torch.cat([taps, -2 * taps.sum()[None], taps.flip(0)]).view(2 * REACH + 1, 2 * REACH + 1)


def _clipped(plane: Tensor, taps: Tensor, clip: float) -> Tensor:
    """The sum of taps (N,) times clipped features of a plane (rows + 4, columns + 4)"""
    rows, columns = plane.shape[0] - 2 * REACH, plane.shape[1] - 2 * REACH
    middle, out = plane[REACH : REACH + rows, REACH : REACH + columns], plane.new_zeros(rows, columns)
    for (y, x), tap in zip(PAIRS, taps.tolist(), strict=True):
        for s in (1, -1) if tap else ():
            near = plane[REACH + s * y : REACH + s * y + rows, REACH + s * x : REACH + s * x + columns]
            out.add_((near - middle).clamp_(-clip, clip), alpha=tap)
    return out


class _Filter:
    """Taps ready to be applied to parts of a picture."""

    def __init__(self, taps: Taps) -> None:
        luma, *chroma = torch.split(torch.from_numpy(taps * STEP).float(), [LUMA, CHROMA, CHROMA])
        self.kernels = torch.zeros(3, 3, 2 * REACH + 1, 2 * REACH + 1)  # plane that gains, plane looked at
        self.kernels[0, 0] = _kernel(luma[:N])
        for i, own in enumerate(chroma, 1):
            self.kernels[i, i], self.kernels[i, 0] = _kernel(own[:N]), _kernel(own[N : 2 * N])
        self.clipped = [(0, own, clip) for own, clip in zip(torch.split(luma[N:], N), CLIPS_LUMA, strict=True)]
        self.clipped += [(i, own[2 * N :], CLIP_CHROMA) for i, own in enumerate(chroma, 1)]

    def change(self, part: Tensor) -> Tensor:
        """What is to be added to the middle of a part (3, rows + 4, columns + 4): (3, rows, columns)"""
        there, back = _colours()
        planes = torch.einsum("ij,jyx->iyx", there, part)
        change = F.conv2d(planes[None], self.kernels)[0]
        for i, own, clip in self.clipped:
            change[i] += _clipped(planes[i], own, clip)
        return torch.einsum("ij,jyx->iyx", back, change)


def filtered(pixels: Tensor, taps: Taps, edges: tuple[int, int] = (0, 0)) -> Tensor:
    """``pixels`` (3, H, W) float, 0..255, of them ``edges`` rows only to look at -> (3, H - edges, W), not clamped."""
    above, below = edges
    out, what = pixels[:, above : pixels.shape[1] - below].clone(), _Filter(taps)
    for first, last, part in _parts(pixels, edges, max(1, AT_ONCE // pixels.shape[2])):
        out[:, first:last] += what.change(part)
    return out


def error_behind(
    pixels: Tensor, taps: Taps | None, edges: tuple[int, int], original: Tensor, worth: Tensor
) -> tuple[Tensor, Tensor]:
    """Squared errors (h, w) of ``pixels``, clamped and filtered, against ``original`` (3, h, w), those that are in the
    picture, times the weights ``worth`` (h, w), mean over colours; and the gradient of their sum by ``pixels`` (3, H, W).
    Part by part, so that no graph of a whole picture is kept."""
    what, (_, h, w) = _Filter(np.zeros(COUNT, np.int64) if taps is None else taps), original.shape
    with torch.enable_grad():
        leaf = pixels.detach().requires_grad_(True)
        padded, start = _padded(leaf.clamp(0, 255) if taps is not None else leaf, edges)
        into, errors = torch.zeros_like(padded), torch.zeros(h, w)
        step = max(1, AT_ONCE // pixels.shape[2])
        for first in range(0, h, step):
            last = min(first + step, h)
            rows = slice(start + first, start + last + 2 * REACH)
            part = padded[:, rows].detach().requires_grad_(True)
            middle = part[:, REACH:-REACH, REACH:-REACH]
            shown = middle if taps is None else middle + what.change(part)
            missed = ((shown[..., :w] - original[:, first:last]).square() * worth[first:last]).mean(0)
            into[:, rows] += torch.autograd.grad(missed.sum(), part)[0]
            errors[first:last] = missed.detach()
        return errors, torch.autograd.grad(padded, leaf, into)[0]


class Fit:
    """Sums for least squares of the taps of a picture of so many ``pixels``, over parts of it, of large ones over a sample:
    every second, third .. run of RUN rows."""

    def __init__(self, pixels: int) -> None:
        self._sums = [np.zeros((n + 1, n + 1)) for n in (LUMA, CHROMA, CHROMA)]
        self._every, self._runs = max(1, round(pixels / SAMPLE)), 0
        self._rows, self._used = 0, 0

    def add(self, pixels: Tensor, edges: tuple[int, int], original: Tensor, worth: Tensor | None = None) -> None:
        """``pixels`` as for ``filtered``, ``original`` (3, h, w) float: of them, those that are in the picture; ``worth``
        (h, w): what their squared errors count, 1 if not given."""
        _, h, w = original.shape
        there, reach = _colours()[0], edges[0] + h + REACH
        inside = pixels[:, :reach]  # what is below the picture teaches nothing
        for first, last, part in _parts(inside, (edges[0], inside.shape[1] - edges[0] - h), RUN):
            self._rows += last - first
            self._runs += 1
            if (self._runs - 1) % self._every:
                continue
            self._used += last - first
            error = torch.einsum(
                "ij,jyx->iyx", there, original[:, first:last] - part[:, REACH:-REACH, REACH : REACH + w]
            )
            for sums, features, missed in zip(self._sums, _features(part), error, strict=True):
                both = torch.cat([features[..., :w].flatten(1), missed.flatten()[None]])
                if worth is not None:
                    both *= worth[first:last].sqrt().flatten()
                sums += (both @ both.T).double().numpy()

    def taps(self, weight: float) -> tuple[Taps | None, float]:
        """The taps of least bits + ``weight`` x squared error (bits per unit of it), None where none are worth theirs,
        and what they save, in bits."""
        found, saved = [], 0.0
        for sample in self._sums:
            sums = sample * (self._rows / max(self._used, 1))
            n = len(sums) - 1
            zero = np.zeros(n, np.int64)
            cost, own = taps_of.fitted(sums[:n, :n], sums[:n, n], zero, STEP, 1 / weight)
            none = float(taps_of.BITS[0]) * n / weight
            found.append(own if cost < none else zero)
            saved += max(none - cost, 0.0) * weight
        taps = np.concatenate(found)
        return (taps, saved) if taps.any() else (None, 0.0)


# --- the payload ---


class _Put:
    """Decisions in contexts, as ``taps.push`` makes them, into a stream of the range coder."""

    def __init__(self) -> None:
        self.coder, self.counts = Pusher(), taps_of.Counts(taps_of.contexts(KINDS))

    def put(self, context: int, bit: bool) -> None:
        self.coder.flags(bit, self.counts.yes(context) / 65536)
        self.counts.update(context, bit)

    def put_bits(self, value: int, bits: int) -> None:
        self.coder.uniform(value, 1 << bits)


class _Get:
    """The inverse."""

    def __init__(self, data: bytes) -> None:
        self.coder, self.counts = Puller(data), taps_of.Counts(taps_of.contexts(KINDS))

    def get(self, context: int) -> bool:
        bit = self.coder.flag(self.counts.yes(context) / 65536)
        self.counts.update(context, bit)
        return bit

    def get_bits(self, bits: int) -> int:
        return self.coder.uniform(1 << bits)


def compress(taps: Taps) -> bytes:
    """(COUNT,) taps in STEPs -> payload"""
    coder = _Put()
    taps_of.push(taps.tolist(), [0] * COUNT, KINDS, coder)
    return coder.coder.finish()


def decompress(payload: bytes) -> Taps:
    """The inverse of ``compress``. CorruptError for a payload that it never writes."""
    try:
        return np.array(taps_of.pull([0] * COUNT, KINDS, _Get(payload)), np.int64)
    except AssertionError as e:
        raise CorruptError(f"the picture's filter (fILT) is invalid ({e}); get the file again") from e
