"""Separable, antialiased resampling of planes to any size: one definition for the sender, the receiver and training.

Output sample i of an axis stands at (i + phase) * ratio - phase in input samples. Luma has phase 1/2 and
ratio n_in / n_out; chroma of 4:2:0 has the ratio of its luma and the phase of its siting (1/4 where it is co-sited with
luma, as H.264 and HEVC have it horizontally), so that chroma does not drift against luma. When shrinking, the kernel is
widened by the ratio; beyond the border the outermost sample goes on. All of it is linear, so a picture is two matrix
products; the matrices are banded and are applied band by band.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from foveal.errors import InputError
from foveal.video.types import Planes

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]
BAND = 64  # output samples of one dense product
LEFT = 1  # chroma_location when a stream does not say: left, as H.264 and HEVC define it
PHASES = {1: (0.25, 0.5), 2: (0.5, 0.5), 3: (0.25, 0.25), 4: (0.5, 0.25), 5: (0.25, 0.75), 6: (0.5, 0.75)}


class Band(NamedTuple):
    """``weights`` (stop - start, last - first) float32 take input samples first..last to output samples start..stop."""

    start: int
    stop: int
    first: int
    last: int
    weights: NDArray[np.float32]


def _lanczos(x: Floats) -> Floats:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


def _bicubic(x: Floats) -> Floats:
    """Keys 1981 with a = -1/2."""
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


KERNELS: dict[str, tuple[float, Callable[[Floats], Floats] | None]] = {
    "lanczos": (3.0, _lanczos),
    "bicubic": (2.0, _bicubic),
    "area": (0.5, None),  # the share of each sample that the output sample covers
}


def _taps(
    n_in: int, n_out: int, kernel: str, ratio: float | None, phase: float
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Input indices and weights of every output sample, (n_out, taps) each; weights sum to 1."""
    if kernel not in KERNELS or n_in < 1 or n_out < 1 or (ratio is not None and ratio <= 0):
        raise InputError(
            f"cannot resample {n_in} samples to {n_out} with kernel {kernel!r}, ratio {ratio}: sizes and ratio are "
            f"positive, the kernel is one of {', '.join(KERNELS)}"
        )
    step = n_in / n_out if ratio is None else ratio
    wide = max(step, 1.0)
    support, function = KERNELS[kernel]
    centre = (np.arange(n_out) + phase) * step - phase
    half = math.ceil(support * wide + 0.5)
    index = np.floor(centre).astype(np.int64)[:, None] + np.arange(-half, half + 2)
    if function is None:
        low = np.maximum(index - 0.5, centre[:, None] - wide / 2)
        weights = np.maximum(np.minimum(index + 0.5, centre[:, None] + wide / 2) - low, 0)
    else:
        weights = function((index - centre[:, None]) / wide)
    return index.clip(0, n_in - 1), weights / weights.sum(1, keepdims=True)


@lru_cache(maxsize=64)
def bands(
    n_in: int, n_out: int, kernel: str = "lanczos", *, ratio: float | None = None, phase: float = 0.5
) -> tuple[Band, ...]:
    """The operator of one axis, whose rows sum to 1, cut into dense pieces of BAND output samples."""
    index, weights = _taps(n_in, n_out, kernel, ratio, phase)
    out = []
    for start in range(0, n_out, BAND):
        stop = min(start + BAND, n_out)
        near, weight = index[start:stop], weights[start:stop]
        used = near[weight != 0]
        first, last = int(used.min()), int(used.max()) + 1
        piece = np.zeros((stop - start, last - first))
        rows = np.broadcast_to(np.arange(stop - start)[:, None], near.shape)
        np.add.at(piece, (rows[weight != 0], used - first), weight[weight != 0])
        out.append(Band(start, stop, first, last, piece.astype(np.float32)))
    return tuple(out)


def phases(chroma_location: int) -> tuple[float, float]:
    """(horizontal, vertical) phase of 4:2:0 chroma for a chroma location as FFmpeg numbers them; 0 is taken as left."""
    return PHASES.get(chroma_location, PHASES[LEFT])


def half(n: int) -> int:
    """Chroma samples beside n luma samples."""
    return (n + 1) // 2


def _plans(
    height: int, width: int, to: tuple[int, int], kernel: str, ratio: float | None, chroma_location: int
) -> list[tuple[tuple[Band, ...], tuple[Band, ...]]]:
    """Vertical and horizontal bands of luma, and of chroma."""
    down, across = (ratio or height / to[0]), (ratio or width / to[1])
    horizontal, vertical = phases(chroma_location)
    return [
        (bands(height, to[0], kernel, ratio=down), bands(width, to[1], kernel, ratio=across)),
        (
            bands(half(height), half(to[0]), kernel, ratio=down, phase=vertical),
            bands(half(width), half(to[1]), kernel, ratio=across, phase=horizontal),
        ),
    ]


def resize_array(x: NDArray[Any], vertical: tuple[Band, ...], horizontal: tuple[Band, ...]) -> NDArray[np.float32]:
    """(H, W) of any number type -> (H', W') float32, not rounded."""
    x = x.astype(np.float32)
    tall = np.empty((vertical[-1].stop, x.shape[1]), np.float32)
    for b in vertical:
        np.matmul(b.weights, x[b.first : b.last], out=tall[b.start : b.stop])
    out = np.empty((tall.shape[0], horizontal[-1].stop), np.float32)
    for b in horizontal:
        out[:, b.start : b.stop] = tall[:, b.first : b.last] @ b.weights.T
    return out


def resize_planes(
    planes: Planes,
    width: int,
    height: int,
    kernel: str = "lanczos",
    *,
    ratio: float | None = None,
    chroma_location: int = 0,
) -> Planes:
    """A 4:2:0 picture at ``width`` x ``height`` luma samples, rounded to the nearest value (halves to even), same bits.

    ``ratio``: input samples per output sample on both axes; None: what the sizes say. With a ratio of 2 a 719-line
    picture may be reduced to 360 lines and be brought back with 1/2, exactly aligned; what lies beyond the border is a
    continuation of the outermost samples. ``chroma_location``: as FFmpeg numbers it. Raises InputError for sizes
    below 1 and unknown kernels.
    """
    rows, columns = planes.y.shape
    luma, chroma = _plans(rows, columns, (height, width), kernel, ratio, chroma_location)
    top, kind = (255, np.uint8) if planes.bits == 8 else (1023, np.uint16)

    def one(plane: NDArray[Any], plan: tuple[tuple[Band, ...], tuple[Band, ...]]) -> NDArray[Any]:
        return np.rint(resize_array(plane, *plan)).clip(0, top).astype(kind)

    return Planes(one(planes.y, luma), one(planes.u, chroma), one(planes.v, chroma))


def resize_tensor(x: Tensor, vertical: tuple[Band, ...], horizontal: tuple[Band, ...]) -> Tensor:
    """(..., H, W) float32 -> (..., H', W') float32, the same operator for tensors, differentiable."""
    import torch

    tall = torch.cat([torch.from_numpy(b.weights).to(x) @ x[..., b.first : b.last, :] for b in vertical], -2)
    return torch.cat([tall[..., b.first : b.last] @ torch.from_numpy(b.weights).to(x).T for b in horizontal], -1)


def resize_tensors(
    y: Tensor,
    u: Tensor,
    v: Tensor,
    width: int,
    height: int,
    kernel: str = "lanczos",
    *,
    ratio: float | None = None,
    chroma_location: int = 0,
) -> tuple[Tensor, Tensor, Tensor]:
    """``resize_planes`` without rounding: y (..., H, W) and u, v (..., ceil(H/2), ceil(W/2)) float32, any value range."""
    luma, chroma = _plans(y.shape[-2], y.shape[-1], (height, width), kernel, ratio, chroma_location)
    return resize_tensor(y, *luma), resize_tensor(u, *chroma), resize_tensor(v, *chroma)
