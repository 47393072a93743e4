"""A little at a time, where nothing but memory depends on it. A part of ``transform.py``."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def in_pieces(f: Callable[..., Tensor], most: int, *inputs: Tensor) -> Tensor:
    """``f`` of inputs whose rows (their first dimension) it takes one by one; of at most so many at once where no gradient
    is wanted, which would keep all that was computed."""
    count = len(inputs[0])
    if torch.is_grad_enabled() or count <= most:
        return f(*inputs)
    first = f(*(x[:most] for x in inputs))
    out = first.new_empty(count, *first.shape[1:])
    out[:most] = first
    for start in range(most, count, most):
        out[start : start + most] = f(*(x[start : start + most] for x in inputs))
    return out
