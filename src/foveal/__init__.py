"""Foveal: an image codec that spends its bits where the information is.

    data = foveal.compress(image, quality=60)
    image = foveal.decompress(data)
    info = foveal.inspect(data)

This is the only public door. It loads torch when a picture is first coded, not on import.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from foveal.errors import (
    CorruptError,
    FormatError,
    FovealError,
    FovealWarning,
    InputError,
    LimitError,
    MissingExtraError,
    NotFovealError,
    TruncatedError,
    UnknownModelError,
    UnsupportedImageError,
    UnsupportedVideoError,
    VersionError,
)

if TYPE_CHECKING:
    from foveal.delivery import pack, truncate, unpack
    from foveal.facts import inspect, models, selftest
    from foveal.image.codec import compress, decode_report, decompress, importance, repack, samples
    from foveal.image.incremental import Decoder
    from foveal.types import Check, DecodeReport, ImportanceMap, Info, ModelInfo

__version__ = "0.1.0"

__all__ = [
    "Check",
    "CorruptError",
    "DecodeReport",
    "Decoder",
    "FormatError",
    "FovealError",
    "FovealWarning",
    "ImportanceMap",
    "Info",
    "InputError",
    "LimitError",
    "MissingExtraError",
    "ModelInfo",
    "NotFovealError",
    "TruncatedError",
    "UnknownModelError",
    "UnsupportedImageError",
    "UnsupportedVideoError",
    "VersionError",
    "compress",
    "decode_report",
    "decompress",
    "importance",
    "inspect",
    "models",
    "pack",
    "repack",
    "samples",
    "selftest",
    "truncate",
    "unpack",
]

_LAZY = {
    "compress": "foveal.image.codec",
    "decode_report": "foveal.image.codec",
    "decompress": "foveal.image.codec",
    "importance": "foveal.image.codec",
    "inspect": "foveal.facts",
    "models": "foveal.facts",
    "pack": "foveal.delivery",
    "repack": "foveal.image.codec",
    "samples": "foveal.image.codec",
    "selftest": "foveal.facts",
    "truncate": "foveal.delivery",
    "unpack": "foveal.delivery",
    "Check": "foveal.types",
    "DecodeReport": "foveal.types",
    "Decoder": "foveal.image.incremental",
    "ImportanceMap": "foveal.types",
    "Info": "foveal.types",
    "ModelInfo": "foveal.types",
}


def __getattr__(name: str) -> Any:
    if name == "video":  # the other door
        return import_module("foveal.video")
    if name not in _LAZY:
        raise AttributeError(f"module 'foveal' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
