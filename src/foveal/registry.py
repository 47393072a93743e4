"""Model names, the ids written into files, and the weights files they stand for. Ids are constants: never reused."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foveal.errors import InputError, UnknownModelError

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = Path(__file__).parent / "weights"
SUMS = "SHA256SUMS"  # beside them, as sha256sum writes it
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
    return hashlib.sha256(_bytes_of(name)).digest()[:8]


def _bytes_of(name: str) -> bytes:
    try:
        return path_of(name).read_bytes()
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
    """Read and parse a model's weights. Imports torch. UnknownModelError when they are missing, damaged, or replaced since
    their hash was taken."""
    from safetensors import SafetensorError
    from safetensors.torch import load as parse

    data, digest = _bytes_of(name), digest_of(name)
    if hashlib.sha256(data).digest()[:8] != digest:
        raise UnknownModelError(f"weights of model {name!r} changed while reading; try again")
    try:
        tensors = parse(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        facts = dict(json.loads(header.get("__metadata__", {}).get("facts", "{}")))
    except (SafetensorError, ValueError, TypeError, RecursionError) as e:
        raise UnknownModelError(f"weights of model {name!r} are damaged ({e}); reinstall foveal") from e
    return Weights(name, IDS[name], digest, tensors, facts, len(data))


def sums() -> dict[str, str]:
    """File name -> SHA-256 in hexadecimal of every weights file, image and video, as it was when it was made.
    UnknownModelError when there is no such list."""
    try:
        return _listed(WEIGHTS / SUMS)
    except (OSError, UnicodeDecodeError) as e:
        raise UnknownModelError(f"the list of the weights' hashes cannot be read ({e}); reinstall foveal") from e


def _listed(path: Path) -> dict[str, str]:
    found = (line.split(maxsplit=1) for line in path.read_text(encoding="ascii").splitlines() if line.strip())
    return {words[-1].removeprefix("*"): words[0] for words in found}  # an asterisk: of sha256sum --binary


def check_sum(file: str, expected: str | None) -> str:
    """SHA-256 of a weights file, in hexadecimal. UnknownModelError when it is missing or not the expected one."""
    try:
        found = hashlib.sha256((WEIGHTS / file).read_bytes()).hexdigest()
    except OSError as e:
        raise UnknownModelError(f"weights {file} are missing ({e}); reinstall foveal") from e
    if found != expected:
        told = f"not to {expected[:16]}" if expected else f"which {SUMS} does not list"
        raise UnknownModelError(f"weights {file} hash to {found[:16]}, {told}; reinstall foveal")
    return found


def note_sum(file: Path) -> None:
    """Write a new weights file down in the list beside it."""
    listed = file.with_name(SUMS)
    known = _listed(listed) if listed.is_file() else {}
    known[file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    part = listed.with_name(f"{SUMS}.{os.getpid()}.part")
    lines = "".join(f"{digest}  {name}\n" for name, digest in sorted(known.items()))
    part.write_text(lines, encoding="ascii", newline="\n")
    part.chmod(0o644)
    part.replace(listed)
