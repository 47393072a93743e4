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
    VersionError,
)

if TYPE_CHECKING:
    from foveal.facts import inspect, models, selftest
    from foveal.image.codec import compress, decompress, importance
    from foveal.types import Check, ImportanceMap, Info, ModelInfo

__version__ = "0.1.0"

__all__ = [
    "Check",
    "CorruptError",
    "FormatError",
    "FovealError",
    "FovealWarning",
    "ImportanceMap",
    "InputError",
    "Info",
    "LimitError",
    "MissingExtraError",
    "ModelInfo",
    "NotFovealError",
    "TruncatedError",
    "UnknownModelError",
    "UnsupportedImageError",
    "VersionError",
    "compress",
    "decompress",
    "importance",
    "inspect",
    "models",
    "selftest",
]

_LAZY = {
    "compress": "foveal.image.codec",
    "decompress": "foveal.image.codec",
    "importance": "foveal.image.codec",
    "inspect": "foveal.facts",
    "models": "foveal.facts",
    "selftest": "foveal.facts",
    "Check": "foveal.types",
    "ImportanceMap": "foveal.types",
    "Info": "foveal.types",
    "ModelInfo": "foveal.types",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'foveal' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
