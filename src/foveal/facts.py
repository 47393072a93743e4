"""What can be said without coding a picture: a file's facts, the installed models, and the self-test."""

from __future__ import annotations

import platform
from importlib import import_module
from typing import Any

from foveal import container, registry
from foveal.errors import CorruptError, FovealError, UnknownModelError
from foveal.header import MAX_LEVEL
from foveal.types import Check, Info, ModelInfo


def inspect(data: bytes, *, verify: bool = False) -> Info:
    """Facts of a .fov file, without decoding its picture (and without torch).

    Every chunk is listed with its bytes and whether its CRC holds; ``verify`` raises the FormatError of the first fault.
    """
    from foveal.image import classmap

    contents = container.read(data, tolerant=not verify)
    head, classes = contents.header, classmap.decompress(contents)
    dropped = int((classes == 0).sum())
    chunks = [{"type": c.type, "bytes": c.length, "crc_ok": c.crc_ok} for c in container.list_chunks(data)]
    try:
        name = registry.name_of(head.model)
    except FovealError:
        name = f"unknown ({head.model})"
    return Info(
        width=head.width,
        height=head.height,
        bytes=len(data),
        bpp=8 * len(data) / (head.width * head.height),
        model=name,
        level=head.level / 16,
        quality=head.level * 100 / MAX_LEVEL,
        mode=head.mode,
        alpha_channel=head.alpha,
        patches=classes.size,
        dropped=dropped,
        alpha=classes.size / (classes.size - dropped) if dropped < classes.size else float("inf"),
        packets=head.packets,
        chunks=chunks,
        layers=head.layers,
    )


def models() -> list[ModelInfo]:
    """The models this installation holds, smallest first."""
    return [_model(name, number) for name, number in sorted(registry.IDS.items(), key=lambda item: item[1])]


def _model(name: str, number: int) -> ModelInfo:
    weights = registry.load(name)
    try:
        encode, decode = (weights.facts[key] for key in ("kmac_encode", "kmac_decode"))
    except KeyError as missing:
        raise UnknownModelError(f"weights of model {name!r} lack the fact {missing}; reinstall foveal") from None
    parameters = sum(t.numel() for t in weights.tensors.values())
    digest, default = weights.digest.hex(), name == registry.DEFAULT
    return ModelInfo(name, number, digest, parameters, encode, decode, weights.file_bytes, default)


def selftest() -> list[Check]:
    """Checks that this machine codes as every other does: weights, integer prior, entropy tables, a round trip."""
    checks = [Check("python", True, f"{platform.python_version()} on {platform.machine()}")]
    for name in ("torch", "numpy", "PIL", "constriction", "safetensors"):
        checks.append(_attempt(name, lambda name=name: getattr(import_module(name), "__version__", "present")))
    for name in registry.IDS:
        checks.append(_attempt(f"weights {name}", lambda name=name: registry.load(name).digest.hex()))
    checks += _files()
    for name in registry.IDS:
        checks.append(_attempt(f"golden stream {name}", lambda name=name: _golden(name)))
    return checks


def _files() -> list[Check]:
    """Whether every weights file, of images and of videos, is to the byte what was installed."""
    try:
        listed = registry.sums()
    except FovealError as e:
        return [Check("list of weights", False, str(e))]
    there = {path.name for path in registry.WEIGHTS.glob("[!.]*.safetensors")}
    return [
        _attempt(f"file {name}", lambda name=name: registry.check_sum(name, listed.get(name))[:16])
        for name in sorted({*listed, *there})
    ]


def _attempt(name: str, action: Any) -> Check:
    """A check that passes unless ``action`` raises: whatever is broken in an installation may raise anything."""
    try:
        return Check(name, True, str(action()))
    except FovealError as fault:
        return Check(name, False, str(fault))
    except Exception as fault:
        return Check(name, False, f"{type(fault).__name__}: {fault}")


def _golden(model: str) -> str:
    """Compress a synthetic picture and compare with the hash stored beside the weights."""
    from foveal.image.codec import golden_digest

    found, expected = golden_digest(model), registry.load(model).facts.get("golden")
    if found != expected:
        raise CorruptError(f"this machine's integers hash to {found}, expected {expected}: report it with this output")
    return f"{found} as on every machine"
