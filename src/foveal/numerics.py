"""torch as the codecs need it, whatever the program around it has set: exact fp32 products on the CPU."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any

import torch

from foveal.errors import FovealError

SIDE = 128  # of the product that is checked: large enough for every library that torch hands products to
_lock = threading.Lock()
_inside = 0  # threads in the body of ``exact``
_undo: list[Callable[[], None]] = []


@contextmanager
def exact() -> Iterator[None]:
    """In its body (or in a function that it decorates) there is no autocast, no inference mode, no other device or dtype
    by default, and no lower precision for fp32 products than fp32. What was set comes back at the end; what torch holds
    for all threads, dtype and precision, when the last of them leaves.

    The prior's integers live in fp32 products that are exact: rounded to bf16 they would be others than every other
    machine's, and files would be made that nobody reads. FovealError where this process rounds them nevertheless, as an
    environment variable of oneDNN asks it to.
    """
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))  # weights that are loaded here may be needed for gradients
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.get_default_device().type != "cpu":
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_for_all_threads())
        if not _is_exact():
            raise FovealError(
                "products of fp32 are rounded in this process, and pictures would be coded as no other machine reads "
                "them; unset ONEDNN_DEFAULT_FPMATH_MODE and DNNL_DEFAULT_FPMATH_MODE"
            )
        yield


@contextmanager
def _for_all_threads() -> Iterator[None]:
    """What the process has once: set by the first that comes, restored by the last that goes."""
    global _inside
    with _lock:
        if not _inside:
            _set()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            while not _inside and _undo:
                _undo.pop()()


def _set() -> None:
    if torch.get_default_dtype() != torch.float32:
        _undo.append(partial(torch.set_default_dtype, torch.get_default_dtype()))
        torch.set_default_dtype(torch.float32)
    library: Any = torch.backends.mkldnn  # its attributes are made at run time
    for products in (library.matmul, library.conv):
        before = products.fp32_precision
        if before not in ("none", "ieee"):
            products.fp32_precision = "none"
            inherited = products.fp32_precision == before  # what "none" inherits is what is read
            _undo.append(partial(setattr, products, "fp32_precision", "none" if inherited else before))
            products.fp32_precision = "ieee"


@lru_cache(maxsize=1)
def _is_exact() -> bool:
    """Whether products of whole numbers that fp32 holds, and fp16, bf16 and TF32 do not, are right."""
    numbers = torch.arange(SIDE * SIDE, dtype=torch.float32).view(SIDE, SIDE) * 1021 % 32749
    return bool((numbers @ torch.eye(SIDE) == numbers).all())
