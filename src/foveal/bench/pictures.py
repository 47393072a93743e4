"""Picture files as the benchmark sees them: their pixels, a mark that tells one file from another, and PNGs to write."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

import foveal
from foveal.errors import FovealError, InputError, LimitError

__all__ = ["check_sources", "fingerprint", "open_picture", "save_png"]

SIGNATURE = b"\x89FOV"
METADATA = ("exif", "icc_profile", "xmp")


def open_picture(path: Path) -> Image.Image:
    """A picture file as the RGB that `foveal.compress` codes of it, with its EXIF, ICC profile and XMP; transparency is left
    out. A .fov is known by its first bytes, not by its name.

    InputError and its kind when it cannot be read or has several frames, FormatError for a broken .fov, LimitError when it
    is too large. FovealWarning where bits or colours are lost.
    """
    data = _bytes(path)
    if data.startswith(SIGNATURE):
        return foveal.decompress(data).convert("RGB")
    try:
        image = _opened(data)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = Image.fromarray(foveal.samples(image))
    except FovealError as error:
        raise type(error)(f"{path}: {error}") from error
    except Image.DecompressionBombError as error:
        raise LimitError(f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Image.open raises
        raise InputError(f"{path} is not a picture that can be read; give a .fov, PNG, JPEG, WebP or AVIF") from error
    for each in told:
        warnings.warn(f"{path}: {each.message}", each.category, stacklevel=2)
    info = {name: image.info[name] for name in METADATA if image.info.get(name)}
    if info.get("icc_profile", b"")[16:20] in (b"CMYK", b"Lab "):
        del info["icc_profile"]
    found.info.update(info)
    return found


def fingerprint(path: Path) -> str:
    """First 16 hexadecimal digits of the SHA-256 of a picture's or a clip's bytes. InputError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise _unreadable(path, error) from error


def check_sources(output: Path, measured: Iterable[tuple[str, str]], sources: Mapping[str, str], remedy: str) -> None:
    """Refuse to go on with pictures or clips of the same name that are others: InputError.

    `measured`: (name, fingerprint) of what `output` holds, "" where it was not written down; `sources`: of the pictures
    at hand.
    """
    for image, source in measured:
        now = sources.get(image, source)
        if source and now != source:
            raise InputError(f"{output} was measured with another {image} (SHA-256 {source}, this is {now}); {remedy}")


def save_png(image: Image.Image, path: Path) -> None:
    """Write a PNG whole or not at all, through a temporary file beside it. InputError when it cannot be written."""
    file = BytesIO()
    image.save(file, "PNG")
    try:
        if path.exists() and not path.is_file():  # a device, a pipe; a folder is refused
            path.write_bytes(file.getvalue())
        else:
            _replace(Path(os.path.realpath(path)), file.getvalue())
    except OSError as error:
        raise InputError(
            f"cannot write {path}: {error.strerror or error}; name a file in a folder that is there"
        ) from error


def _replace(target: Path, data: bytes) -> None:
    """Write `data` beside `target`, then give it that name in one step; permissions of an old file stay."""
    part = target.with_name(f".{target.name[:64]}.{os.getpid()}.part")
    with part.open("xb") as file:
        try:
            file.write(data)
            file.close()
            if target.exists():
                part.chmod(stat.S_IMODE(target.stat().st_mode))
            part.replace(target)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> InputError:
    return InputError(f"cannot read {path}: {error.strerror or error}; give a file that can be read")


def _opened(data: bytes) -> Image.Image:
    """Image.open without its warning at half its limit."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(BytesIO(data))
