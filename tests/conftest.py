"""What tests of more than one room need."""

import importlib.util
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def program() -> Callable[[str], ModuleType]:
    """Loads a program of this project by its place, such as "examples/udp_link.py"."""

    def load(place: str) -> ModuleType:
        path = Path(__file__).parent.parent / place
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = module  # dataclasses look there
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT as in a terminal: a parent that runs the tests in the background may have had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
