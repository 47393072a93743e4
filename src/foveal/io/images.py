"""Pictures and bytes in and out of files and pipes. "-" is standard input or output.

Files are written whole or not at all. Every fault of a file or a path is a FovealError that names it.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from PIL import ExifTags, Image, PngImagePlugin, UnidentifiedImageError

from foveal import reading
from foveal.errors import FovealError, FovealWarning, InputError, LimitError

__all__ = ["load", "make_directory", "outputs", "read_bytes", "save", "write_bytes"]

PIPE = "-"
MAX_BYTES = 1 << 30
_PIECE = 1 << 20  # bytes read at a time where a file does not say how many it has
_FOVEAL = b"\x89FOV"
# A decoded picture is to stay what it is: lossless where the format can, nearly so elsewhere.
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95, "subsampling": "4:4:4"},
}
_ICONS = ("ICNS", "ICO")  # which Pillow writes in the sizes that icons have
_OPAQUE = ("BMP", "DIB", "GIF", "PPM")  # in which Pillow leaves out an alpha channel, or all of it but one bit
_CARRIED = {"exif": "EXIF", "icc_profile": "ICC profile", "xmp": "XMP"}
_CARRIERS = ("AVIF", "JPEG", "MPO", "PNG", "TIFF", "WEBP")  # formats that hold these
_COLOURED = ("AVIF", "WEBP")  # formats without grey
_PARSING = ("AVIF", "TIFF")  # formats for which Pillow reads the EXIF that it writes
_XMP_TAG = 700  # of TIFF
# Tags that say how a TIFF's pixels are stored; in EXIF they are of the file that it was taken from
_STRUCTURE = (254, 255, *range(256, 260), 262, 263, 264, 265, 266, 273, *range(277, 282), 284, 288, 289, 290, 291, 292, 293,
              301, 317, 318, 319, *range(320, 326), 330, 332, 333, 334, 336, 337, 338, 339, 340, 341, 342, 347,
              *range(512, 522), *range(529, 533), _XMP_TAG, 34675)  # fmt: skip
_UNREAD = {".heic", ".heif", ".jxl", ".svg"}  # suffixes of pictures that Pillow alone neither reads nor writes


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
        reading.load(image, stacklevel=3)
    except UnidentifiedImageError as fault:
        raise InputError(f"{_name(path)} is not a picture in a format Pillow reads") from fault
    except Image.DecompressionBombError as fault:
        raise LimitError(f"{_name(path)}: {fault}") from fault
    except (FovealError, FovealWarning, MemoryError):
        raise
    except Exception as fault:  # Pillow's decoders, one for each format, raise whatever they meet
        raise InputError(f"{_name(path)} cannot be read: {fault}") from fault
    return image


def save(image: Image.Image, path: str, format: str | None = None) -> None:
    """Write a picture with its EXIF, ICC profile and XMP; the format follows the suffix, PNG for a pipe.

    InputError when the suffix is unknown or the format cannot hold the picture. FovealWarning when it holds less of what
    the picture carries, or of its colours.
    """
    kind = format or _format_of(path)
    if kind in _OPAQUE and image.mode in ("LA", "PA", "RGBA"):
        raise InputError(f"{_name(path)}: {kind} does not hold the alpha channel of mode {image.mode}; a .png does")
    carried = {key: image.info[key] for key in _CARRIED if image.info.get(key)}
    if carried and kind not in _CARRIERS:
        _warn(f"{kind} does not hold the picture's {_listed([_CARRIED[key] for key in carried])}; a .png does")
        carried = {}
    if kind in _COLOURED and carried.get("icc_profile", b"")[16:20] == b"GRAY":
        _warn(f"{kind} is in colour and is written without the picture's profile of grey; a .png keeps it")
        carried["icc_profile"] = None  # Pillow takes it from the picture where nothing is given
    if kind == "GIF" and image.mode == "RGB":
        _warn("GIF holds 256 colours; a .png holds all")
    if kind in _PARSING and "exif" in carried and not _is_readable(carried["exif"]):
        _warn(f"{kind} is written without the picture's EXIF, which is damaged; a .png keeps it as it is")
        del carried["exif"]
    try:
        data = _encoded(image, kind, carried)
    except MemoryError:
        raise
    except Exception as fault:  # Pillow's encoders, too, raise whatever they meet
        raise InputError(f"{_name(path)}: {fault}; a .png holds every picture") from fault
    write_bytes(path, data)


def read_bytes(path: str) -> bytes:
    """All bytes of a file or of standard input. InputError when unreadable, LimitError when over 1 GiB."""
    try:
        if path == PIPE:
            data = _all_of(_open_stream(sys.stdin, "input"), _PIECE)
        else:
            with Path(path).open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                _check_size(path, size)
                data = _all_of(file, size or _PIECE)
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
            stream = _open_stream(sys.stdout, "output")
            stream.write(data)
            stream.flush()
        elif Path(path).exists() and not Path(path).is_file():
            with Path(path).open("wb") as file:
                file.write(data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    except (OSError, ValueError) as fault:
        raise InputError(f"cannot write {_name(path)}: {_reason(fault)}") from fault


def outputs(inputs: Sequence[str], output: str | None, suffix: str, also: str | None = None) -> list[tuple[str, str]]:
    """(input, output) for each input; an output without a given name is the input's stem and `suffix`.

    One input: `output` is a file, a directory (there already, or ending in "/"), "-", or None for beside the
    input. Several: `output` is a directory, or None for beside each. A directory is made if it is missing.
    `also` is a picture that is written beside the output of one input.
    InputError when two inputs would meet in one output, an output is one of the inputs, what ends in .fov by default is
    given a picture's suffix, or `also` cannot be written or is one of the others.
    """
    several = len(inputs) > 1
    if output == "":
        raise InputError("the name of the output is empty; give -o a file or a folder")
    if several and (PIPE in inputs or output == PIPE):
        raise InputError('"-" stands for one picture; give one input, or files and -o DIR')
    if several and output is not None and not _is_directory(output) and _is_picture(output):
        raise InputError(f"{output} is the name of one file, for {len(inputs)} inputs; name a folder: {output}/")
    if output is not None and not several and not _is_directory(output):
        pairs = [(inputs[0], output)]
    else:
        pairs = [(source, _beside(source, output, suffix)) for source in inputs]
    _check_distinct(pairs)
    if suffix.endswith(".fov"):
        _check_coded(pairs)
    if also is not None:
        _check_also(also, pairs)
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


def _is_picture(name: str) -> bool:
    """Whether a file of this name would be a picture."""
    suffix = Path(name).suffix.lower()
    return suffix == ".fov" or suffix in _UNREAD or suffix in Image.registered_extensions()


def _check_coded(pairs: list[tuple[str, str]]) -> None:
    """InputError when a .fov file would have the name of another kind of picture."""
    for _, target in pairs:
        suffix = Path(target).suffix.lower()
        if suffix != ".fov" and _is_picture(target):
            raise InputError(f"{target}: a .fov file is written, not a {suffix}; end its name in .fov")


def _check_also(also: str, pairs: list[tuple[str, str]]) -> None:
    """InputError when a second picture cannot be written, or would take the place of an input or of the first."""
    _format_of(also)
    for source, target in pairs:
        if also == target == PIPE:
            raise InputError('"-" stands for one picture; name a file for one of the two')
        if also == PIPE:
            continue
        place = os.path.realpath(also)
        if source != PIPE and place == os.path.realpath(source):
            raise InputError(f"{also} would overwrite the input {source}; choose another name")
        if target != PIPE and place == os.path.realpath(target):
            raise InputError(f"two pictures would both become {also}; choose another name for one of them")
        if Path(also).is_dir():
            raise InputError(f"{also} is a folder; name a file")
        folder = os.path.realpath(Path(also).parent)
        if not Path(folder).is_dir() and (target == PIPE or folder != os.path.realpath(Path(target).parent)):
            raise InputError(f"cannot write {also}: there is no folder {Path(also).parent}; make it first")


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


def _warn(text: str) -> None:
    warnings.warn(text, FovealWarning, stacklevel=3)


def _is_readable(exif: bytes) -> bool:
    """Whether Pillow can read EXIF and write it again."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tags = Image.Exif()
            tags.load(exif)
            tags.tobytes()
    except Exception:  # SyntaxError when it is no TIFF structure, others for what is in it
        return False
    return True


def _encoded(image: Image.Image, kind: str, carried: dict[str, Any]) -> bytes:
    """The picture as a file of a format, with what it carries of EXIF, ICC profile and XMP."""
    options, file, xmp = _OPTIONS.get(kind, {}) | carried, BytesIO(), carried.get("xmp")
    if kind == "PNG" and xmp:
        options["pnginfo"] = _xmp_text(xmp)
    if kind in _PARSING and (xmp or "exif" in carried):
        tags = Image.Exif()
        tags.load(carried.get("exif", b""))
        for tag in _STRUCTURE if kind == "TIFF" else ():
            tags.pop(tag, None)
        if kind == "TIFF" and xmp:
            tags[_XMP_TAG] = xmp.encode() if isinstance(xmp, str) else xmp
        if (
            kind == "TIFF" or ExifTags.Base.Orientation in tags
        ):  # else Pillow writes an AVIF's as it is, thumbnail and all
            options["exif"] = reading.with_texts(tags)
    image.save(file, kind, **options)
    return file.getvalue()


def _listed(words: list[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1))


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
    if kind in _ICONS:
        raise InputError(f"{path}: {suffix} files hold icons of set sizes, not this picture; use .png, .jpg or .webp")
    return kind


def _xmp_text(xmp: bytes | str) -> PngImagePlugin.PngInfo:
    text = xmp if isinstance(xmp, str) else xmp.decode("utf-8", "replace")
    chunk = PngImagePlugin.PngInfo()
    chunk.add_itxt("XML:com.adobe.xmp", text)
    return chunk


def _open_stream(stream: Any, name: str) -> IO[bytes]:
    """The bytes of a standard stream; InputError when the process was started with it closed."""
    if stream is None:
        raise InputError(f"standard {name} is closed; name a file in place of -, or redirect it")
    buffer: IO[bytes] = stream.buffer
    return buffer


def _all_of(file: IO[bytes], size: int) -> bytes:
    """What is left in a file that is thought to have `size` bytes, MAX_BYTES + 1 at most; no more memory than that takes."""
    pieces = [file.read(size + 1)]
    total = len(pieces[0])
    while size < total <= MAX_BYTES and (piece := file.read(min(_PIECE, MAX_BYTES + 1 - total))):
        pieces.append(piece)
        total += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _check_size(path: str, size: int) -> None:
    if size > MAX_BYTES:
        raise LimitError(f"{_name(path)} is larger than {MAX_BYTES} bytes")


def _name(path: str) -> str:
    return "standard input or output" if path == PIPE else str(path)


def _reason(fault: Exception) -> str:
    return getattr(fault, "strerror", None) or str(fault)
