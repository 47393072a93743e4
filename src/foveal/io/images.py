"""Pictures and bytes in and out of files and pipes. "-" is standard input or output.

Files are written whole or not at all. Every fault of a file or a path is a FovealError that names it.
"""

from __future__ import annotations

import os
import re
import stat
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin, UnidentifiedImageError

from foveal.errors import FovealError, FovealWarning, InputError, LimitError

__all__ = ["load", "make_directory", "outputs", "read_bytes", "save", "write_bytes"]

PIPE = "-"
MAX_BYTES = 1 << 30
_FOVEAL = b"\x89FOV"
_DEEP = re.compile(r";16[BLN]")  # in Pillow's name for samples of 16 bits, e.g. "RGB;16B"
# A decoded picture is to stay what it is: lossless where the format can, nearly so elsewhere.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}


def load(path: str) -> Image.Image:
    """The picture in a file or on standard input, its pixels read; .fov files too.

    InputError when there is none, FormatError for a damaged .fov, LimitError when it is too large.
    FovealWarning when Pillow reads it with fewer bits than it has.
    """
    data = read_bytes(path)
    if data.startswith(_FOVEAL):
        import foveal

        image: Image.Image = foveal.decompress(data)
        return image
    try:
        image = _open(data)
        _warn_depth(image)
        image.load()
    except UnidentifiedImageError as fault:
        raise InputError(f"{_name(path)} is not a picture in a format Pillow reads") from fault
    except Image.DecompressionBombError as fault:
        raise LimitError(f"{_name(path)}: {fault}") from fault
    except FovealError:
        raise
    except Exception as fault:  # Pillow's decoders, one for each format, raise whatever they meet
        raise InputError(f"{_name(path)} cannot be read: {fault}") from fault
    return image


def save(image: Image.Image, path: str, format: str | None = None) -> None:
    """Write a picture with its EXIF, ICC profile and XMP; the format follows the suffix, PNG for a pipe.

    InputError when the suffix is unknown or the format cannot hold the picture.
    """
    kind = format or _format_of(path)
    info = image.info
    options = dict(_OPTIONS.get(kind, {}))
    options |= {key: info[key] for key in ("exif", "icc_profile", "xmp") if info.get(key)}
    if kind == "PNG" and info.get("xmp"):
        options["pnginfo"] = _xmp_text(info["xmp"])
    file = BytesIO()
    try:
        image.save(file, kind, **options)
    except (OSError, ValueError, KeyError, TypeError) as fault:
        raise InputError(f"{_name(path)}: {fault}; a .png holds every picture") from fault
    write_bytes(path, file.getvalue())


def read_bytes(path: str) -> bytes:
    """All bytes of a file or of standard input. InputError when unreadable, LimitError when over 1 GiB."""
    try:
        if path == PIPE:
            data = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(path).open("rb") as file:
                _check_size(path, os.fstat(file.fileno()).st_size)
                data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as fault:
        raise InputError(f"cannot read {_name(path)}: {_reason(fault)}") from fault
    _check_size(path, len(data))
    return data


def write_bytes(path: str, data: bytes) -> None:
    """Write a file whole or not at all, through a temporary file beside it; to standard output for "-".

    Keeps an existing file's permissions, follows links, and writes into devices and named pipes. InputError
    when it cannot be written.
    """
    try:
        if path == PIPE:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        elif Path(path).exists() and not Path(path).is_file():
            with Path(path).open("wb") as file:
                file.write(data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as fault:
        raise InputError(f"cannot write {_name(path)}: {_reason(fault)}") from fault


def outputs(inputs: Sequence[str], output: str | None, suffix: str) -> list[tuple[str, str]]:
    """(input, output) for each input; an output without a given name is the input's stem and `suffix`.

    One input: `output` is a file, a directory (there already, or ending in "/"), "-", or None for beside the
    input. Several: `output` is a directory, or None for beside each. A directory is made if it is missing.
    InputError when two inputs would meet in one output or an output is one of the inputs.
    """
    several = len(inputs) > 1
    if several and (PIPE in inputs or output == PIPE):
        raise InputError('"-" stands for one picture; give one input, or files and -o DIR')
    if output is not None and not several and not _is_directory(output):
        pairs = [(inputs[0], output)]
    else:
        pairs = [(source, _beside(source, output, suffix)) for source in inputs]
    _check_distinct(pairs)
    if output is not None and pairs and pairs[0][1] != output:
        make_directory(output)
    return pairs


def _beside(source: str, directory: str | None, suffix: str) -> str:
    if source == PIPE:
        if directory is not None:
            raise InputError(f"standard input has no name to use in {directory}; name the output file with -o")
        return PIPE
    target = Path(source).with_name(Path(source).stem + suffix) if Path(source).stem else None
    if target is None:
        raise InputError(f"{source!r} is not a file name")
    return str(target if directory is None else Path(directory) / target.name)


def _is_directory(path: str) -> bool:
    return path.endswith(("/", os.sep)) or Path(path).is_dir()


def make_directory(path: str) -> None:
    """A directory, with those above it; it may exist. InputError when it cannot be made."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise InputError(f"cannot make the directory {path}: {_reason(fault)}") from fault


def _check_distinct(pairs: list[tuple[str, str]]) -> None:
    sources = {os.path.realpath(source): source for source, _ in pairs if source != PIPE}
    taken: dict[str, str] = {}
    for source, target in pairs:
        if target == PIPE:
            continue
        place = os.path.realpath(target)
        if place in sources:
            raise InputError(f"{source} would overwrite the input {sources[place]}; choose another name with -o")
        if place in taken:
            raise InputError(f"{taken[place]} and {source} would both become {target}; encode them apart")
        taken[place] = source


def _replace(path: Path, data: bytes) -> None:
    """Write `data` beside `path`, then give it that name in one step."""
    mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o666 & ~_umask()
    handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(mode)
        Path(temporary).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def _open(data: bytes) -> Image.Image:
    """Image.open without its warning at half its limit; the limits of a .fov are checked by the codec."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        return Image.open(BytesIO(data))


def _warn_depth(image: Image.Image) -> None:
    tiles = getattr(image, "tile", ())
    if not image.mode.startswith("I") and any(_DEEP.search(str(tile[-1])) for tile in tiles):
        warnings.warn(f"16 bits a sample, read as 8-bit {image.mode}", FovealWarning, stacklevel=3)


def _format_of(path: str) -> str:
    """Pillow's name for the format that the suffix of `path` asks for."""
    suffix = Path(path).suffix.lower()
    if path == PIPE:
        return "PNG"
    if suffix == ".fov":
        raise InputError(f"{path}: this writes decoded pictures; foveal encode writes .fov files")
    kind = Image.registered_extensions().get(suffix)
    if kind is None or kind not in Image.SAVE:
        raise InputError(f"{path}: no format writes {suffix or 'a name without suffix'}; use .png, .jpg or .webp")
    return kind


def _xmp_text(xmp: bytes | str) -> PngImagePlugin.PngInfo:
    text = xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace")
    chunk = PngImagePlugin.PngInfo()
    chunk.add_itxt("XML:com.adobe.xmp", text)
    return chunk


def _check_size(path: str, size: int) -> None:
    if size > MAX_BYTES:
        raise LimitError(f"{_name(path)} is larger than {MAX_BYTES} bytes")


def _name(path: str) -> str:
    return "standard input or output" if path == PIPE else str(path)


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or str(fault)
