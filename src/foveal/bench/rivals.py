"""The codecs of the benchmark, each as a pair of mirror functions: picture -> bytes, bytes -> pixels.

| name   | what runs                                                                              | setting  |
|--------|----------------------------------------------------------------------------------------|----------|
| foveal | `foveal.compress` and `foveal.decompress`                                              | quality  |
| foveal1 .. foveal10 | the same at that effort, to stand beside others of them                   | quality  |
| foveal-m, foveal-m9 | the same with that model, and at that effort                              | quality  |
| foveal-msssim, foveal-m9-msssim .. | any of these with tune="msssim"                            | quality  |
| jpeg   | Pillow, optimised Huffman tables, 4:2:0                                                | quality  |
| webp   | Pillow, method 6                                                                       | quality  |
| avif   | Pillow's libaom at speed 4, 4:2:0: what a user gets who waits for a better file        | quality  |
| avif6  | the same at speed 6, Pillow's default: the rival for speed                             | quality  |
| jxl    | imagecodecs' libjxl, effort 7                                                          | distance |
| vvc    | libvvenc in imageio-ffmpeg, preset slow, qpa 0 (best PSNR); it knows 4:2:0 only        | qp       |

The grids span about 0.1 to 2.5 bits per pixel on photographs, where the codec reaches that far down.
Every codec gets the same number of threads; JPEG and WebP have no threads to set and use one.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, features

import foveal
from foveal.bench import vvc
from foveal.errors import InputError, MissingExtraError

__all__ = ["RIVALS", "Codec", "Spec", "build", "extra"]

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Spec:
    """All that a worker process needs to build its codec. `model`, `effort`, `keep` and `tune` are Foveal's own."""

    name: str
    threads: int = 1
    model: str = "s"
    effort: int = 4
    keep: float | str = "auto"
    tune: str = "psnr"


@dataclass(frozen=True)
class Codec:
    """One codec, ready to use."""

    name: str
    suffix: str  # of its files
    options: str  # in words, all that shapes the bytes besides the setting
    setting_name: str
    settings: tuple[float, ...]  # the default grid, by rising rate
    version: str
    compress: Callable[[Image.Image, float], bytes]  # RGB picture, setting -> file
    decompress: Callable[[bytes], Pixels]  # file -> uint8 (H, W, 3)


def build(spec: Spec) -> Codec:
    """The codec of that name.

    Raises InputError for an unknown name, MissingExtraError for an absent package.
    """
    if spec.name not in BUILDERS:
        raise InputError(f"unknown codec {spec.name!r}; choose from {', '.join(BUILDERS)}")
    return BUILDERS[spec.name](spec)


def extra(module: str, package: str) -> Any:
    """Import an optional module, or raise MissingExtraError with the pip line."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError.of(package, "bench") from error


def _foveal(spec: Spec) -> Codec:
    options: dict[str, Any] = {"model": spec.model, "keep": spec.keep, "effort": spec.effort}
    options |= {} if spec.tune == "psnr" else {"tune": spec.tune}

    def compress(image: Image.Image, setting: float) -> bytes:
        return bytes(foveal.compress(image, quality=setting, **options))

    def decompress(data: bytes) -> Pixels:
        return np.asarray(foveal.decompress(data).convert("RGB"))

    in_words = ", ".join(f"{name} {value}" for name, value in options.items())
    grid: tuple[float, ...] = (0, 12, 25, 37, 50, 62, 75, 87, 100)
    if spec.effort == SLOWEST:
        grid = grid[::2]  # takes long, and BD-rate moves by no more than 0.2 %
    return Codec(spec.name, ".fov", in_words, "quality", grid, _foveal_version(spec.model), compress, decompress)


def _foveal_at(model: str | None, effort: int | None, tune: str, spec: Spec) -> Codec:
    """Foveal with a model, effort and tuning of its own; None leaves the run's."""
    return _foveal(replace(spec, model=model or spec.model, effort=effort or spec.effort, tune=tune))


def _foveal_version(model: str) -> str:
    """Package version and the hash of the weights: numbers from other weights are other numbers."""
    hashes = {info.name: info.weights_hash for info in foveal.models()}
    if model not in hashes:
        raise InputError(f"unknown model {model!r}; choose from {', '.join(hashes)}")
    return f"{foveal.__version__} weights {hashes[model][:16]}"


def _jpeg(spec: Spec) -> Codec:
    grid = (
        10,
        15,
        22,
        32,
        45,
        60,
        75,
        85,
        92,
    )  # below 10 it falls apart, and a BD-rate would flatter the others
    return _pillow("jpeg", ".jpg", grid, "optimize, 4:2:0", "jpg", {"optimize": True})


def _webp(spec: Spec) -> Codec:
    return _pillow("webp", ".webp", (0, 5, 12, 25, 45, 65, 80, 88, 92), "method 6", "webp", {"method": 6})


def _avif(spec: Spec, speed: int = 4) -> Codec:
    if hasattr(AvifImagePlugin, "DEFAULT_MAX_THREADS"):
        AvifImagePlugin.DEFAULT_MAX_THREADS = spec.threads  # the decoder's threads; Pillow has no other way
    grid = (5, 12, 20, 30, 40, 50, 60, 70, 80, 88)
    save = {"speed": speed, "codec": "aom", "max_threads": spec.threads}
    return _pillow("avif", ".avif", grid, f"libaom speed {speed}, 4:2:0", "avif", save)


def _avif6(spec: Spec) -> Codec:
    return replace(_avif(spec, speed=6), name="avif6")


def _pillow(
    name: str, suffix: str, grid: tuple[float, ...], options: str, feature: str, save: Mapping[str, Any]
) -> Codec:
    """A codec that Pillow carries."""
    if not features.check(feature):
        raise MissingExtraError(
            f"this Pillow is built without {name}; get one that has it, in Foveal's source folder: pip install -U '.[bench]'"
        )

    def compress(image: Image.Image, setting: float) -> bytes:
        file = io.BytesIO()
        image.save(file, name, quality=int(setting), **save)
        return file.getvalue()

    def decompress(data: bytes) -> Pixels:
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    version = f"Pillow {importlib.import_module('PIL').__version__} {name} {features.version(feature)}"
    return Codec(name, suffix, options, "quality", grid, version, compress, decompress)


def _jxl(spec: Spec) -> Codec:
    codecs = extra("imagecodecs", "imagecodecs")

    def compress(image: Image.Image, setting: float) -> bytes:
        pixels = np.asarray(image)
        return bytes(codecs.jpegxl_encode(pixels, effort=7, distance=setting, numthreads=spec.threads))

    def decompress(data: bytes) -> Pixels:
        return np.asarray(codecs.jpegxl_decode(data, numthreads=spec.threads))

    version = f"imagecodecs {codecs.__version__} {codecs.jpegxl_version()}"
    grid = (15, 10, 7, 5, 3.5, 2.4, 1.6, 1.1, 0.8)
    return Codec("jxl", ".jxl", "effort 7", "distance", grid, version, compress, decompress)


def _vvc(spec: Spec) -> Codec:
    program = extra("imageio_ffmpeg", "imageio-ffmpeg").get_ffmpeg_exe()

    def compress(image: Image.Image, setting: float) -> bytes:
        return vvc.compress(program, np.asarray(image), int(setting), spec.threads)

    def decompress(data: bytes) -> Pixels:
        return vvc.decompress(program, data, spec.threads)

    grid = (47, 42, 37, 33, 29, 25, 22)
    return Codec("vvc", ".266", vvc.OPTIONS, "qp", grid, vvc.version(program), compress, decompress)


SLOWEST = 10  # effort
MODELS = ("s", "m")  # those of ``foveal.models()``, which would load them all


def _foveals() -> dict[str, Callable[[Spec], Codec]]:
    """Every model, effort and tuning by its name; what a name does not say is as the run has it."""
    return {
        f"foveal{f'-{model}' if model else ''}{effort or ''}{tuned}": partial(_foveal_at, model, effort, tune)
        for model in (None, *MODELS)
        for effort in (None, *range(1, SLOWEST + 1))
        for tune, tuned in (("psnr", ""), ("msssim", "-msssim"))
    }


BUILDERS: dict[str, Callable[[Spec], Codec]] = {
    "foveal": _foveal,
    "jpeg": _jpeg,
    "webp": _webp,
    "avif": _avif,
    "avif6": _avif6,
    "jxl": _jxl,
    "vvc": _vvc,
    **_foveals(),
}
RIVALS = tuple(name for name in BUILDERS if not name.startswith("foveal"))
