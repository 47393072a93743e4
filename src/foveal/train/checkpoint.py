"""Training state in one safetensors file: float weights, moving average, nothing else. Restarts need no optimiser."""

import json
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from foveal.errors import InputError


def ready(*paths: Path, added: Iterable[Path] = ()) -> None:
    """Make the folders of files that are to be written after hours of work, and see that they can be: ``paths`` through
    a temporary file beside each, ``added`` in place. InputError where that is not so."""
    for path in (*paths, *added):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise InputError(f"{path}: its folder cannot be made ({e}); name another output") from e
        if path.is_dir():
            raise InputError(f"{path} is a folder; name a file")
        try:
            if path in paths:
                tempfile.TemporaryFile(dir=path.parent).close()
            else:
                _try_adding(path)
        except OSError as e:
            raise InputError(f"{path} cannot be written ({e.strerror or e}); name another output") from e


def _try_adding(path: Path) -> None:
    new = not path.exists()
    with path.open("ab"):
        pass
    if new:
        path.unlink()


def save(path: Path, state: dict[str, Tensor], facts: dict[str, object]) -> None:
    """Write ``state`` as fp32 and ``facts`` (JSON) atomically."""
    tensors = {k: v.detach().to("cpu", torch.float32).contiguous() for k, v in state.items()}
    write(path, tensors, {"facts": json.dumps(facts)})


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file, whole or not at all, for others to read too."""
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata=metadata)
    temporary.chmod(0o644)  # safetensors writes for the owner alone
    temporary.replace(path)


def halve(path: Path, out: Path, **other: Tensor) -> None:
    """Copy a checkpoint with its weights as fp16, enough to go on from in half the bytes, and ``other`` tensors for those of
    their names."""
    with safe_open(path, "pt") as f:
        metadata, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
    write(out, {k: v.half() for k, v in (tensors | other).items()}, metadata)


def size_of(path: Path) -> str:
    """Name of the model size that ``path`` holds."""
    try:
        with safe_open(path, "pt") as f:
            return str(facts_in(f).get("size", "s"))
    except (OSError, SafetensorError, ValueError) as e:
        raise InputError(f"{path}: not a training checkpoint ({e}); 'foveal train image' writes one") from e


def load(path: Path, model: nn.Module) -> dict[str, object]:
    """Fill ``model`` from ``path``; returns the facts saved with it."""
    try:
        with safe_open(path, "pt") as f:
            facts = facts_in(f)
            model.load_state_dict({k: f.get_tensor(k) for k in f.keys()})
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as e:
        raise InputError(
            f"{path}: not a training checkpoint of this size ({e}); give --weights a file "
            "written by 'foveal train image'"
        ) from e
    return facts


def facts_in(file: Any) -> dict[str, object]:
    """What is noted in an open checkpoint; ValueError when it is no JSON object."""
    try:
        return dict(json.loads((file.metadata() or {}).get("facts", "{}")))
    except (TypeError, RecursionError) as e:
        raise ValueError(f"its facts are no JSON object: {e}") from e
