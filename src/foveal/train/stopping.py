"""A run that is told to stop, by Ctrl-C or by a scheduler, keeps what it has learned."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_on_ctrl_c() -> Iterator[None]:
    """In its body SIGTERM, which schedulers send some seconds before they kill, raises KeyboardInterrupt as Ctrl-C does.
    Outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
