"""How the commands print models, comparisons and the state of the installation."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import foveal

__all__ = ["installation_lines", "json_line", "model_lines"]

# The extra of each optional package, by the name it is imported under.
_EXTRAS = {
    "av": "video",
    "fastapi": "serve",
    "ray": "batch",
    "matplotlib": "bench",
    "imagecodecs": "bench",
    "imageio_ffmpeg": "bench",
    "onnxruntime": "bench",
    "reedsolo": "bench",
}


def json_line(facts: dict[str, Any]) -> str:
    """The facts as one JSON object on one line; infinity and NaN, which JSON lacks, become null."""
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in facts.items()
    }
    return json.dumps(finite, allow_nan=False)


def model_lines(models: Iterable[Any]) -> Iterator[str]:
    """A heading, then one line for each model; the default one is starred."""
    yield f"  {'name':6}{'id':>4}  {'weights':18}{'parameters':>11}{'kMAC/px enc':>13}{'dec':>7}{'file':>12}"
    for model in models:
        yield (
            f"{'*' if model.default else ' '} {model.name:6}{model.id:>4}  {model.weights_hash:18}"
            f"{model.parameters:>11,}{model.kmac_encode:>13.2f}{model.kmac_decode:>7.2f}{model.file_bytes:>12,}"
        )


def installation_lines() -> Iterator[str]:
    """Foveal's version, and which extras are present, with the line that would install an absent one."""
    yield f"foveal {foveal.__version__} on {platform.system()}"
    for package, extra in _EXTRAS.items():
        if importlib.util.find_spec(package):
            yield f"  present  {package} ({extra})"
        else:
            yield f"  absent   {package}: pip install 'foveal[{extra}]'"
