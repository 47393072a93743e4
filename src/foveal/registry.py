"""Model names, the ids written into files, and the weights files they stand for. Ids are constants: never reused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.errors import InputError, UnknownModelError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"
IDS = {"s": 1, "m": 2}  # name -> id in HEAD; an id is never given to another stream format
DEFAULT = "s"


@dataclass(frozen=True)
class Weights:
    """One weights file: ``tensors`` as stored, ``facts`` its JSON metadata, ``digest`` first 8 bytes of SHA-256."""

    name: str
    id: int
    digest: bytes
    tensors: dict[str, Tensor]
    facts: dict[str, Any]
    file_bytes: int


def path_of(name: str) -> Path:
    """The weights file of a model; InputError for a name there is no model of."""
    if not isinstance(name, str) or name not in IDS:
        raise InputError(f"model {name!r} is not known; choose one of {', '.join(sorted(IDS))}")
    return WEIGHTS / f"image-{name}.safetensors"


@lru_cache(maxsize=4)
def digest_of(name: str) -> bytes:
    """First 8 bytes of the SHA-256 of the weights file, as written into HEAD."""
    try:
        return hashlib.sha256(path_of(name).read_bytes()).digest()[:8]
    except OSError as e:
        raise UnknownModelError(f"weights of model {name!r} are missing ({e}); reinstall foveal") from e


def name_of(model_id: int, digest: bytes | None = None) -> str:
    """Model name for a file's id; checks the weights hash when given."""
    names = {i: n for n, i in IDS.items()}
    if model_id not in names:
        raise UnknownModelError(
            f"model id {model_id} is not in this installation (has {sorted(names)}); upgrade foveal"
        )
    name = names[model_id]
    if digest is not None and digest_of(name) != digest:
        raise UnknownModelError(
            f"the file needs weights {digest.hex()} of model {name!r}, this installation has "
            f"{digest_of(name).hex()}; install the foveal version that wrote it"
        )
    return name


@lru_cache(maxsize=2)
def load(name: str) -> Weights:
    """Read and hash-check a model's weights. Imports torch."""
    from safetensors.torch import load as parse

    data = path_of(name).read_bytes() if path_of(name).is_file() else b""
    digest = digest_of(name)
    if not data or hashlib.sha256(data).digest()[:8] != digest:
        raise UnknownModelError(f"weights of model {name!r} changed while reading; try again")
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    facts = json.loads(header.get("__metadata__", {}).get("facts", "{}"))
    return Weights(name, IDS[name], digest, parse(data), facts, len(data))
