"""What the program around Foveal has set of torch does not reach the files: the same bytes, the same pixels."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

import foveal
from foveal import numerics, registry
from foveal.errors import FovealError
from foveal.image.network import Network

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


@contextlib.contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextlib.contextmanager
def matmul_in_bf16():
    torch.set_float32_matmul_precision("medium")
    try:
        yield
        assert torch.get_float32_matmul_precision() == "medium"  # as it was found
    finally:
        torch.set_float32_matmul_precision("highest")


SETTINGS = {
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "another device": lambda: torch.device("meta"),
    "another dtype": default_dtype,
    "lower precision": matmul_in_bf16,
}


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=SETTINGS.keys())
def test_what_is_set_around_it_changes_nothing(setting) -> None:
    wanted = foveal.compress(PICTURE, effort=6, packets=2)
    shown = np.asarray(foveal.decompress(wanted))
    with setting():
        found = foveal.compress(PICTURE, effort=6, packets=2)
        assert found == wanted
        assert np.array_equal(np.asarray(foveal.decompress(found)), shown)
        decoder = foveal.Decoder()
        decoder.feed(found[:-20])
        decoder.feed(found[-20:])
        assert np.array_equal(np.asarray(decoder.flush()), shown)
        assert foveal.importance(PICTURE).classes.shape == (3, 4)


def test_weights_that_were_loaded_in_inference_mode_take_gradients_later() -> None:
    for cache in (registry.load, Network.load):
        cache.cache_clear()
    with torch.inference_mode():
        foveal.compress(PICTURE)
    assert foveal.compress(PICTURE, effort=6)


def test_the_setting_comes_back_after_an_error() -> None:
    with torch.autocast("cpu", dtype=torch.bfloat16), default_dtype():
        with pytest.raises(FovealError):
            foveal.decompress(b"no file at all, but long enough to be looked at")
        assert torch.is_autocast_enabled("cpu") and torch.get_default_dtype() == torch.float64


def precisions() -> list[str]:
    return [torch.backends.mkldnn.matmul.fp32_precision, torch.backends.mkldnn.conv.fp32_precision]


def test_precision_is_full_inside_and_comes_back() -> None:
    before = precisions()
    with matmul_in_bf16():
        assert precisions()[0] == "bf16"
        with numerics.exact():
            assert set(precisions()) <= {"none", "ieee"}
        assert precisions()[0] == "bf16"
    torch.backends.mkldnn.matmul.fp32_precision = "none"
    try:
        torch.backends.fp32_precision = "bf16"  # which the others inherit
        with numerics.exact():
            assert set(precisions()) == {"ieee"}
        assert precisions() == ["bf16", "bf16"]
    finally:
        torch.backends.fp32_precision = "ieee"
        assert precisions() == ["ieee", "ieee"]  # still inherited
        torch.backends.fp32_precision = "none"
        torch.backends.mkldnn.matmul.fp32_precision = before[0]


def test_the_last_thread_puts_back_what_is_set_for_all() -> None:
    entered, leave, seen = threading.Event(), threading.Event(), []

    def second() -> None:
        with numerics.exact():
            entered.set()
            leave.wait(10)
            seen.append((torch.get_default_dtype(), precisions()[0]))

    thread = threading.Thread(target=second)
    with default_dtype(), matmul_in_bf16():
        with numerics.exact():
            thread.start()
            assert entered.wait(10)
        assert torch.get_default_dtype() == torch.float32  # the other is still inside
        leave.set()
        thread.join()
        assert seen == [(torch.float32, "ieee")]
        assert torch.get_default_dtype() == torch.float64


def test_rounded_products_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    numerics._is_exact.cache_clear()
    monkeypatch.setattr(torch, "eye", lambda *size, **more: torch.full(size, 1.001, **more))
    try:
        with pytest.raises(FovealError, match="ONEDNN_DEFAULT_FPMATH_MODE"):
            foveal.compress(PICTURE)
    finally:
        numerics._is_exact.cache_clear()


@pytest.mark.parametrize("mode", ["BF16", "ANY"])
def test_an_environment_that_asks_for_less_gives_the_same_file_or_an_error(mode: str) -> None:
    code = (
        "import sys, numpy, foveal\n"
        "picture = numpy.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(numpy.uint8)\n"
        "try: sys.stdout.write(foveal.compress(picture).hex())\n"
        "except foveal.FovealError as error: sys.stdout.write(str(error))\n"
    )
    environment = {**os.environ, "ONEDNN_DEFAULT_FPMATH_MODE": mode, "OMP_NUM_THREADS": "1"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    ).stdout
    assert told == foveal.compress(PICTURE).hex() or "ONEDNN_DEFAULT_FPMATH_MODE" in told
