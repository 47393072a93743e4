"""A run that is told to stop, by Ctrl-C or by a scheduler, keeps what it has learned."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def as_on_ctrl_c() -> Iterator[None]:
    """In its body SIGTERM, which schedulers send some seconds before they kill, raises KeyboardInterrupt as Ctrl-C does:
    once, for what follows is the saving. Outside the main thread nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)  # None: not one of Python's
