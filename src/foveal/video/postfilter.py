"""The filter that the sender fits to a clip and the receiver applies: what this clip wants beyond what the network learned.

    filtered = sum of tap x (neighbour - own) of coded luma + sum of tap x neighbour of the network's residual
               + sum of tap x clip(the same sample in another frame - own) of what the network alone shows

24 taps look at the 5x5 samples of coded luma around a sample, less its own, 9 at the 3x3 samples of the residual. At scale 2
the four output samples of a coded one share their taps, mirrored so that each looks the same way out of it. 4 taps look at
the two frames before and the two after: where the difference is small it is the coder's noise, of which several frames
have less; where it is large it is motion, which the clip keeps from doing harm. Fitted by least squares as Wiener filters
are (in AV1: loop restoration, in VVC: ALF); here the decoded small picture and the network's opinion of it are filtered
together. With 1 for the residual's own tap and 0 for all others it is the residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from foveal.video.types import AROUND, BLEND_BLOCK, DETAIL, LIMIT, LUMA, MOMENTS, NEAR, REACH

PAIRS = np.triu_indices(LUMA + 1)  # of features and error: places of the sums of products in ``grams``

Floats = NDArray[np.float32]


class Luma(NamedTuple):
    """What the taps look at. ``coded``: (rows, columns) at scale 2, which is ``mirrored``, otherwise plain luma (2 rows,
    2 columns); ``residual`` (2 rows, 2 columns). ``shown``: plain luma and the residual together, (H, W), and ``around``
    the same of the frames at MOMENTS, None for those that are not there; in steps of ``step``, 1 for 8-bit samples."""

    coded: Tensor
    residual: Tensor
    mirrored: bool
    shown: Tensor | None = None
    around: Sequence[Tensor | None] = ()
    step: float = 1.0

    @classmethod
    def of(cls, coded: Floats, residual: Floats, mirrored: bool) -> Luma:
        """From the network's planes (6, rows, columns)."""
        return cls(torch.from_numpy(coded), whole(residual), mirrored)

    def difference(self, moment: int) -> Tensor | None:
        """What the tap of a place in MOMENTS looks at, (H, W); None where there is no such frame."""
        there = self.around[moment] if self.around else None
        if there is None or self.shown is None:
            return None
        return (there - self.shown).clamp_(-LIMIT * self.step, LIMIT * self.step)


def whole(residual: Floats) -> Tensor:
    """The residual of luma (2 rows, 2 columns) from the network's planes (6, rows, columns)."""
    return F.pixel_shuffle(torch.from_numpy(residual[:4])[None], 2)[0, 0]


def _padded(x: Tensor, n: int) -> Tensor:
    return F.pad(x[None, None], (n, n, n, n), mode="replicate")


def _square(taps: Tensor, side: int) -> Tensor:
    """Taps of coded luma with the one in the middle that makes their sum zero."""
    half = side * side // 2
    return torch.cat([taps[:half], -taps.sum()[None], taps[half:]]).reshape(side, side)


def _phases(kernel: Tensor, mirrored: bool, apart: bool) -> Tensor:
    """Kernels (4, 1, n, n) of the four samples of a cell; ``apart``: each a sample further on than the one before, in a
    window of (n + 1) x (n + 1)."""
    out = []
    for i in range(4):
        turned = [d for d, lower in ((0, i // 2), (1, i % 2)) if lower and mirrored]
        one = kernel.flip(turned) if turned else kernel
        out.append(F.pad(one, (i % 2, 1 - i % 2, i // 2, 1 - i // 2)) if apart else one)
    return torch.stack(out)[:, None]


def filtered(luma: Luma, taps: Floats) -> Tensor:
    """The four planes (4, rows, columns) to add to plain luma."""
    told = torch.from_numpy(np.asarray(taps, np.float32))
    own = told[DETAIL:AROUND].reshape(2 * NEAR + 1, 2 * NEAR + 1)
    out = F.conv2d(_padded(luma.residual, NEAR), _phases(own, luma.mirrored, True), stride=2)
    if bool(told[:DETAIL].any()):
        detail = _phases(_square(told[:DETAIL], 2 * REACH + 1), luma.mirrored, not luma.mirrored)
        out += F.conv2d(_padded(luma.coded, REACH), detail, stride=1 if luma.mirrored else 2)
    if (others := _of_others(luma, told[AROUND:LUMA].tolist())) is not None:
        for i in range(4):
            cells = others[i // 2 :: 2, i % 2 :: 2]
            out[0, i, : cells.shape[0], : cells.shape[1]] += cells
    return out[0]


def _of_others(luma: Luma, taps: list[float]) -> Tensor | None:
    """What the taps on other frames add, (H, W); None for nothing."""
    total = None
    for moment, tap in enumerate(taps):
        difference = luma.difference(moment) if tap else None
        if difference is not None:
            total = difference.mul_(tap) if total is None else total.add_(difference, alpha=tap)
    return total


def grams(luma: Luma, error: Floats) -> Floats:
    """Sums of products, over each block of 64x64 samples, of the taps' features and the error of plain luma (H, W):
    (rows of blocks, columns of blocks, len(PAIRS[0]))."""
    height, width = error.shape
    rows, columns = (n // 2 for n in luma.residual.shape)
    missed = torch.from_numpy(np.pad(error, ((0, 2 * rows - height), (0, 2 * columns - width))))
    side = BLEND_BLOCK // 2
    down, across = -(-rows // side), -(-columns // side)
    coded, residual = _padded(luma.coded, REACH)[0, 0], _padded(luma.residual, NEAR)[0, 0]
    others = [_even(luma.difference(moment), missed) for moment in range(len(MOMENTS))]
    out = np.empty((down, across, len(PAIRS[0])), np.float32)
    features = torch.zeros(LUMA + 1, 4, side, across * side)
    for block in range(down):
        first, last = block * side, min((block + 1) * side, rows)
        if last - first < side:
            features.zero_()
        for i in range(4):
            into = features[:, i, : last - first, :columns]
            _features(luma, coded, residual, [*others, missed], i, (first, last), into)
        if 2 * last > height:  # beyond the border there is nothing to be right about
            features[:, 2:, last - first - 1] = 0
        if 2 * columns > width:
            features[:, 1::2, :, columns - 1] = 0
        apart = features.view(LUMA + 1, 4, side, across, side).permute(3, 0, 1, 2, 4).reshape(across, LUMA + 1, -1)
        sums = torch.bmm(apart, apart.transpose(1, 2)).numpy()
        out[block] = sums[:, PAIRS[0], PAIRS[1]]
    return out


def samples(luma: Luma, error: Floats, rows: tuple[int, int]) -> Tensor:
    """What the AROUND taps on this frame look at and the error of plain luma (H, W), in each of the four samples of the
    cells in these rows: (4, AROUND + 1, rows, columns)."""
    coded, residual = _padded(luma.coded, REACH)[0, 0], _padded(luma.residual, NEAR)[0, 0]
    missed = _even(torch.from_numpy(error), residual[2 * NEAR :, 2 * NEAR :])
    out = torch.empty(4, AROUND + 1, rows[1] - rows[0], luma.residual.shape[1] // 2)
    for i in range(4):
        _features(luma, coded, residual, [missed], i, rows, out[i])
    return out


def _features(
    luma: Luma,
    coded: Tensor,
    residual: Tensor,
    own: Sequence[Tensor],
    phase: int,
    rows: tuple[int, int],
    into: Tensor,
) -> None:
    """The AROUND features of one of the four samples of each cell in these rows, and ``own`` (2 rows, 2 columns), of which a
    sample sees its own place alone, ``into`` (AROUND + len(own), rows, columns)."""
    top, left = divmod(phase, 2)
    first, last = rows
    columns = luma.residual.shape[1] // 2
    sides = (-1 if luma.mirrored and top else 1), (-1 if luma.mirrored and left else 1)

    def window(x: Tensor, step: int, reach: int, dy: int, dx: int) -> Tensor:
        y, x0 = (top, left) if step == 2 else (0, 0)
        y, x0 = y + reach + sides[0] * dy, x0 + reach + sides[1] * dx
        return x[step * first + y : step * last + y : step, x0 : x0 + step * columns : step]

    step = 1 if luma.mirrored else 2
    middle = window(coded, step, REACH, 0, 0)
    around = [(dy, dx) for dy in range(-REACH, REACH + 1) for dx in range(-REACH, REACH + 1) if dy or dx]
    near = [(dy, dx) for dy in range(-NEAR, NEAR + 1) for dx in range(-NEAR, NEAR + 1)]
    for k, (dy, dx) in enumerate(around):
        torch.sub(window(coded, step, REACH, dy, dx), middle, out=into[k])
    for k, (dy, dx) in enumerate(near, DETAIL):
        into[k] = window(residual, 2, NEAR, dy, dx)
    for k, plane in enumerate(own, AROUND):
        into[k] = plane[2 * first + top : 2 * last : 2, left::2]


def _even(plane: Tensor | None, like: Tensor) -> Tensor:
    """(H, W) with zeros to the size of ``like``, its height and width rounded up to even; None: all zero."""
    if plane is None:
        return torch.zeros_like(like)
    return F.pad(plane, (0, like.shape[1] - plane.shape[1], 0, like.shape[0] - plane.shape[0]))
