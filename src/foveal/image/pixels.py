"""The first room: any picture to 8-bit pixels the codec can take, and back. Alpha and metadata pass by it.

The codec always sees R'G'B' as it is stored, uint8 in [0, 255]; a grey picture is three equal planes and
remembers that it was grey. Alpha travels beside it, lossless. Orientation is never applied: it stays in EXIF.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, PngImagePlugin

from foveal import reading
from foveal.errors import (
    CorruptError,
    FovealError,
    FovealWarning,
    InputError,
    LimitError,
    UnsupportedImageError,
)
from foveal.header import DEFAULT_LIMITS, MAX_SIDE, Metadata

# Files in which further pictures are previews, gain maps or layers, and the first is the photograph.
_TIFF_BITS = 0x0102  # tag BitsPerSample
_PRIMARY_FIRST = ("MPO", "PSD")
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# ImageDescription, Make, Model, Orientation, Software, DateTime, Artist, Copyright
_DESCRIPTIVE = (0x010E, 0x010F, 0x0110, 0x0112, 0x0131, 0x0132, 0x013B, 0x8298)

U8 = NDArray[np.uint8]


@dataclass(frozen=True)
class Pixels:
    """An 8-bit picture.

    rgb: uint8 (H, W, 3). alpha: uint8 (H, W), 255 = opaque, not premultiplied, or None. mode: "L" when the
    three planes of rgb are equal by construction. Raises InputError for another shape or dtype.
    """

    rgb: U8
    alpha: U8 | None
    mode: Literal["L", "RGB"]

    def __post_init__(self) -> None:
        if self.rgb.dtype != np.uint8 or self.rgb.ndim != 3 or self.rgb.shape[2] != 3:
            raise InputError(f"rgb is {self.rgb.dtype} {self.rgb.shape}, expected uint8 (H, W, 3)")
        height, width = self.rgb.shape[:2]
        _check_size(width, height)
        if self.alpha is not None and (self.alpha.dtype != np.uint8 or self.alpha.shape != (height, width)):
            raise InputError(f"alpha is {self.alpha.dtype} {self.alpha.shape}, expected uint8 {height, width}")


# --- pixels ---


def from_pillow(image: Image.Image) -> Pixels:
    """Pixels of a picture of any Pillow mode; FovealWarning where that loses something (16 bits, CMYK, ...).

    Sizes and frames are checked before the picture is loaded. UnsupportedImageError for several frames,
    LimitError for too many pixels, InputError when its file cannot be read.
    """
    _check_size(*image.size)
    _check_single(image)
    _load(image)
    mode = image.mode
    if mode in ("I", "F") or mode.startswith("I;16"):
        grey, clear = _to_8_bits(image), image.info.get("transparency")
        if not isinstance(clear, int):
            return from_array(grey)
        return from_array(np.dstack([grey, np.where(np.asarray(image) == clear, 0, 255).astype(np.uint8)]))
    if mode == "CMYK":
        image = _from_cmyk(image)
    elif mode in ("YCbCr", "HSV", "LAB"):
        _warn(f"{mode} converted to RGB")
        image = image.convert("RGB")
    try:
        plain = _plain_mode(image)
        image = image if image.mode == plain else image.convert(plain)
    except MemoryError:
        raise
    except Exception as fault:  # what a file says of its clear colour may be of any type
        raise InputError(f"mode {image.mode} cannot be converted ({fault}); convert the picture first") from fault
    return from_array(np.asarray(image))


def from_array(array: NDArray[Any]) -> Pixels:
    """Pixels of a uint8 array (H, W), (H, W, 2), (H, W, 3) or (H, W, 4): grey, grey+alpha, RGB, RGBA.

    InputError for another shape, dtype or kind of thing, LimitError for too many pixels.
    """
    if not isinstance(array, np.ndarray):
        raise InputError(f"picture is {type(array).__name__}; give a Pillow image (Image.open) or a uint8 NumPy array")
    if array.dtype != np.uint8:
        raise InputError(f"array is {array.dtype}; scale it to 0..255 and use .astype(numpy.uint8)")
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise InputError(f"array has shape {array.shape}; expected (H, W), (H, W, 2), (H, W, 3) or (H, W, 4)")
    height, width, planes = array.shape
    _check_size(width, height)
    colour = array[:, :, : 3 if planes > 2 else 1]
    return Pixels(
        rgb=np.array(np.broadcast_to(colour, (height, width, 3)), order="C"),
        alpha=None if planes % 2 else np.array(array[:, :, -1], order="C"),
        mode="RGB" if planes > 2 else "L",
    )


def to_pillow(pixels: Pixels) -> Image.Image:
    """A Pillow picture of mode L, LA, RGB or RGBA. For grey, the first plane of rgb."""
    colour = pixels.rgb[:, :, :1] if pixels.mode == "L" else pixels.rgb
    planes = colour if pixels.alpha is None else np.dstack([colour, pixels.alpha])
    return Image.fromarray(planes[:, :, 0] if planes.shape[2] == 1 else np.ascontiguousarray(planes))


def _plain_mode(image: Image.Image) -> str:
    """The mode of L, LA, RGB, RGBA that holds everything of this picture."""
    grey = image.mode in ("1", "L", "LA", "La") or _is_grey(image)
    return ("L" if grey else "RGB") + ("A" if image.has_transparency_data else "")


def _is_grey(image: Image.Image) -> bool:
    """Whether a picture that Pillow reads in colour has a profile of grey, and equal planes: a PNG of 16 bits with alpha."""
    profile = image.info.get("icc_profile")
    if image.mode not in ("RGB", "RGBA") or not isinstance(profile, bytes) or profile[16:20] != b"GRAY":
        return False
    red, green, blue = (np.asarray(image.getchannel(i)) for i in range(3))
    return bool((red == green).all() and (green == blue).all())


def _to_8_bits(image: Image.Image) -> U8:
    """(H, W) uint8. Modes I;16* and I are read as 0..65535 and scaled as avifenc does, TIFF of 12 bits as 0..4095, F as
    0..255."""
    values = np.asarray(image)
    twelve = getattr(image, "tag_v2", {}).get(_TIFF_BITS) == (12,)
    top = 255 if image.mode == "F" else 4095 if twelve else 65_535
    if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= top):
        found = f"{values.min()}..{values.max()}"
        raise UnsupportedImageError(f"mode {image.mode} with values {found}; scale it to 0..{top} first")
    _warn(f"mode {image.mode}, read as 0..{top}, converted to 8 bits")
    if image.mode == "F":
        return np.asarray(np.rint(values), np.uint8)
    scaled = (values.astype(np.uint32) * 255 + top // 2) // top
    return np.asarray(scaled, np.uint8)


def _from_cmyk(image: Image.Image) -> Image.Image:
    """RGB from CMYK: through its ICC profile to sRGB if it has a usable one, by plain formula otherwise."""
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
        except (ImageCms.PyCMSError, OSError, ValueError):
            converted = None
        if converted is not None:
            _warn("CMYK converted to sRGB through its ICC profile")
            return converted
    _warn("CMYK converted to RGB without a profile; colours are approximate")
    return image.convert("RGB")


# --- alpha ---


def compress_alpha(alpha: U8) -> bytes:
    """An alpha plane, uint8 (H, W), as an ALPH payload: a grey PNG, 1 x 1 if one value holds everywhere."""
    if alpha.dtype != np.uint8 or alpha.ndim != 2 or not alpha.size:
        raise InputError(f"alpha is {alpha.dtype} {alpha.shape}, expected uint8 (H, W)")
    if (alpha == alpha[0, 0]).all():
        alpha = alpha[:1, :1]
    file = BytesIO()
    Image.fromarray(np.ascontiguousarray(alpha)).save(file, "PNG", optimize=True)
    return file.getvalue()


def decompress_alpha(data: bytes, width: int, height: int) -> U8:
    """The alpha plane of an ALPH payload, uint8 (height, width).

    CorruptError unless it is a grey 8-bit PNG of this size (or 1 x 1) with nothing but pixels in it, all CRCs
    right and every row there; its size is checked before the plane is allocated.
    """
    if len(data) > 2 * height * (width + 1) + 1024:
        raise CorruptError(f"alpha plane (ALPH) is {len(data)} bytes for {width}x{height} pixels")
    try:
        plane = _read_png(data, {(width, height), (1, 1)})
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, zlib.error) as fault:
        raise CorruptError(f"alpha plane (ALPH): {fault}") from fault
    return plane if plane.shape == (height, width) else np.full((height, width), plane[0, 0], np.uint8)


def _read_png(data: bytes, sizes: set[tuple[int, int]]) -> U8:
    """A grey 8-bit PNG of one of these (width, height). ValueError and Pillow's errors if it is not.

    Pillow decodes it, but takes wrong CRCs of IDAT and missing rows for granted, and, where it is to load truncated files,
    unknown filters, so these are checked here.
    """
    (first, fields), *middle, last = _png_chunks(data)
    if first != b"IHDR" or last != (b"IEND", b"") or {kind for kind, _ in middle} != {b"IDAT"}:
        raise ValueError("not a PNG of IHDR, IDAT and IEND alone")
    if len(fields) != 13:
        raise ValueError(f"IHDR is {len(fields)} bytes")
    width, height = struct.unpack_from(">II", fields)
    if (width, height) not in sizes or fields[8:] != b"\x08\0\0\0\0":  # 8 bits, grey, not interlaced
        raise ValueError(f"{width}x{height}, depth and type {fields[8:].hex()}; expected {sizes}, 0800000000")
    inflate = zlib.decompressobj()
    rows = inflate.decompress(b"".join(payload for _, payload in middle), height * (width + 1) + 1)
    if len(rows) != height * (width + 1) or not inflate.eof or inflate.unused_data:
        raise ValueError(f"{len(rows)} bytes of rows, expected {height * (width + 1)}")
    if max(rows[:: width + 1]) > 4:
        raise ValueError(f"a row with filter {max(rows[:: width + 1])}, of 0 to 4")
    image = PngImagePlugin.PngImageFile(BytesIO(data))
    return np.array(image, np.uint8)


def _png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, payload) of each chunk of a PNG that ends with its last chunk; ValueError for a fault."""
    chunks: list[tuple[bytes, bytes]] = []
    offset = 8
    while offset < len(data):
        length, kind = int.from_bytes(data[offset : offset + 4], "big"), data[offset + 4 : offset + 8]
        payload = data[offset + 8 : offset + 8 + length]
        if data[offset + 8 + length : offset + 12 + length] != zlib.crc32(kind + payload).to_bytes(4, "big"):
            raise ValueError(f"PNG chunk at byte {offset} is damaged or cut off")
        chunks.append((kind, payload))
        offset += 12 + length
    if data[:8] != _PNG_SIGNATURE or len(chunks) < 3:
        raise ValueError(f"not a whole PNG: it begins {data[:8]!r}")
    return chunks


# --- metadata ---


def metadata(
    image: Image.Image | None,
    *,
    exif: bytes | Image.Exif | None = None,
    icc_profile: bytes | None = None,
    xmp: bytes | str | None = None,
) -> Metadata:
    """What to store beside the pixels of `image` (None for an array); EXIF as the bare TIFF structure.

    An argument outweighs what the picture has, and b"" drops it. An ICC profile for a colour space that the
    pixels are converted from (CMYK, Lab) is left out. InputError for arguments of another type.
    """
    info: dict[str, Any] = {} if image is None else _info(image)
    tags = _plain_exif(info.get("exif") if exif is None else exif)
    profile = _plain_bytes("icc_profile", _profile(info) if icc_profile is None else icc_profile)
    packet = info.get("xmp") if xmp is None else xmp
    try:
        packet = packet.encode() if isinstance(packet, str) else packet
    except UnicodeEncodeError as fault:
        raise InputError(f"xmp is no text: {fault}; give bytes") from fault
    return Metadata(icc=profile, exif=tags, xmp=_plain_bytes("xmp", packet))


def attach(image: Image.Image, exif: bytes | None, icc: bytes | None, xmp: bytes | None) -> None:
    """Put stored metadata into `image.info` under the names and in the form Pillow's readers use."""
    values = {"exif": exif and b"Exif\0\0" + exif, "icc_profile": icc, "xmp": xmp}
    image.info.update({name: value for name, value in values.items() if value})


def _info(image: Image.Image) -> dict[str, Any]:
    """image.info, with what a file only tells once it is loaded, and the descriptive tags of a TIFF."""
    _load(image)
    info: dict[str, Any] = {str(name): value for name, value in image.info.items()}
    for name, kinds in (("exif", (bytes, Image.Exif)), ("icc_profile", bytes), ("xmp", (bytes, str))):
        if isinstance(info.get(name), bytearray | memoryview):
            info[name] = bytes(info[name])
        elif info.get(name) and not isinstance(info[name], kinds):  # a text of this name, a tag of another type
            _warn(f"{name} is {type(info.pop(name)).__name__} in this file, and is left out")
    if not info.get("exif") and image.format in ("TIFF", "PNG"):
        try:
            info["exif"] = _descriptive_exif(image)
        except Exception as fault:  # tags of any type and size; none of them is worth the picture
            _warn(f"EXIF could not be kept: {fault}")
    return info


def _descriptive_exif(image: Image.Image) -> bytes | None:
    """EXIF from the tags of a picture that has no EXIF block, less those on how its pixels were stored."""
    found, tags = image.getexif(), Image.Exif()
    tags.update({tag: found[tag] for tag in _DESCRIPTIVE if tag in found})
    tags.update({ifd: dict(entries) for ifd in reading.SUB_IFDS if (entries := found.get_ifd(ifd))})
    return reading.with_texts(tags).tobytes() if len(tags) else None


def _profile(info: dict[str, Any]) -> bytes | None:
    profile = info.get("icc_profile")
    return None if profile and profile[16:20] in (b"CMYK", b"Lab ") else profile


def _plain_exif(exif: bytes | Image.Exif | None) -> bytes | None:
    data = exif.tobytes() if isinstance(exif, Image.Exif) else exif
    data = _plain_bytes("exif", data)
    return (data.removeprefix(b"Exif\0\0") or None) if data else None


def _plain_bytes(name: str, value: object) -> bytes | None:
    if value is not None and not isinstance(value, bytes):
        raise InputError(f"{name} is {type(value).__name__}, expected bytes")
    return value or None


# --- checks ---


def _check_size(width: int, height: int) -> None:
    if not width or not height:
        raise InputError(f"picture is {width}x{height}; it needs at least one pixel")
    if max(width, height) > MAX_SIDE or width * height > DEFAULT_LIMITS.max_pixels:
        most = f"{MAX_SIDE} pixels a side and {DEFAULT_LIMITS.max_pixels} in all"
        raise LimitError(f"picture is {width}x{height}, at most {most}: scale it down")


def _check_single(image: Image.Image) -> None:
    try:
        frames = getattr(image, "n_frames", 1)
    except ValueError as fault:  # Pillow counts a GIF's by reading on
        raise InputError(
            f"the picture's file is closed ({fault}), and its frames are not counted: pass image.copy()"
        ) from fault
    except MemoryError:
        raise
    except Exception as fault:  # and of a damaged file raises whatever it meets
        raise InputError(f"the picture's frames cannot be counted, its file is damaged: {fault}") from fault
    if frames == 1:
        return
    if image.format in _PRIMARY_FIRST:
        _warn(f"{image.format} with {frames} pictures: only the first is stored")
        return
    raise UnsupportedImageError(
        f"{frames} frames, and a .fov holds one picture: export the frame you want"
        " (in Python: image.seek(n), then pass image.copy())"
    )


def _load(image: Image.Image) -> None:
    """Read the pixels if that has not happened; the file's faults become InputError."""
    try:
        reading.load(image)
    except (FovealError, FovealWarning, MemoryError):  # where warnings are errors, that one is not the file's fault
        raise
    except Exception as fault:  # Pillow's decoders, one for each format, raise whatever they meet
        raise InputError(f"the picture cannot be read: {fault}") from fault


def _warn(message: str) -> None:
    warnings.warn(message, FovealWarning, stacklevel=4)
