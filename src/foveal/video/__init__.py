"""Video: real codecs on smaller frames, and attention super-resolution at the receiver (CN114125454A).

    foveal.video.encode("in.mp4", "small.mp4", crf=30)
    foveal.video.decode("small.mp4", "restored.mkv")
    foveal.video.restore("any.mp4", "better.mkv")

Loads PyAV and torch when first used, not on import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from foveal.video.codec import decode, encode, models, restore

__all__ = ["decode", "encode", "models", "restore"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'foveal.video' has no attribute {name!r}")
    return getattr(import_module("foveal.video.codec"), name)
