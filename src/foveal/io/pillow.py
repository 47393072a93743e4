"""Pillow reads and writes .fov files once this is imported (as `foveal.pillow`).

    import foveal.pillow
    from PIL import Image

    Image.open("photo.fov").convert("L")
    Image.open("photo.png").save("photo.fov", quality=60)

Opening reads the header and the metadata only; torch and the weights come in when pixels are asked for.
Faults of a .fov file are raised as foveal errors, on opening or on loading. With Pillow's LOAD_TRUNCATED_IMAGES lost
packets are concealed instead.
"""

from __future__ import annotations

from typing import IO, Any, cast

from PIL import Image, ImageFile

from foveal.container import SIGNATURE, read, read_header, read_metadata
from foveal.errors import InputError, TruncatedError
from foveal.header import DEFAULT_LIMITS

__all__ = ["FORMAT", "MIME", "FovealImageFile", "register"]

FORMAT = "FOVEAL"
MIME = "image/x-foveal"
SUFFIX = ".fov"
# Keywords of foveal.compress that Image.save passes on; others are ignored, as Pillow's own formats do.
SETTINGS = (
    "quality", "keep", "threshold", "alpha", "mask", "effort", "target_bpp", "target_bytes", "target_psnr",
    "packets", "mtu", "layers", "model", "tune", "exif", "icc_profile", "xmp",
)  # fmt: skip


class CutHeader(TruncatedError, OSError):
    """The file ends in its header. An OSError too, by which `ImageFile.Parser` knows that more is to come."""


class FovealImageFile(ImageFile.ImageFile):
    """A .fov file as Pillow sees it: size, mode, ICC, EXIF and XMP at once, pixels on first use."""

    format = FORMAT
    format_description = "Foveal learned image"
    _waiting = False  # whether the pixels are still in the file

    def _open(self) -> None:
        file = cast(Any, self.fp)
        try:
            header = read_header(file)
            found = read_metadata(file)
        except TruncatedError as fault:
            raise CutHeader(str(fault)) from fault
        self._size = (header.width, header.height)
        self._mode = header.mode + ("A" if header.alpha else "")
        tags = found.exif and b"Exif\0\0" + found.exif
        values = {"icc_profile": found.icc, "exif": tags, "xmp": found.xmp}
        self.info.update({name: value for name, value in values.items() if value})
        self._waiting = True

    def load(self) -> Any:
        """Decode the pixels if that has not happened. FovealError for a damaged file."""
        if self._waiting:
            import foveal

            on_loss = "conceal" if ImageFile.LOAD_TRUNCATED_IMAGES else "error"
            self.im = foveal.decompress(self._all_bytes(), on_loss=on_loss).im
            self._let_go()
        return super().load()

    def verify(self) -> None:
        """Check every rule and checksum without decoding, as Pillow's verify does. FovealError."""
        if self._waiting:
            read(self._all_bytes())
            self._let_go()

    def _all_bytes(self) -> bytes:
        if self.fp is None or self.fp.closed:
            raise InputError("the picture's file was closed before its pixels were read; open it again")
        self.fp.seek(0)
        return self.fp.read(DEFAULT_LIMITS.max_bytes + 1)

    def _let_go(self) -> None:
        """Close the file if Pillow opened it."""
        self._waiting = False
        if self.fp and self._exclusive_fp:
            self.fp.close()
        self.fp = None


def _save(image: Image.Image, file: IO[bytes], filename: str | bytes) -> None:
    """Image.save's part: compress with the keywords it was given."""
    import foveal

    given: dict[str, Any] = getattr(image, "encoderinfo", {})
    settings = {key: given[key] for key in SETTINGS if key in given}
    if isinstance(settings.get("exif"), Image.Exif):
        settings["exif"] = settings["exif"].tobytes()
    file.write(foveal.compress(image, **settings))


def register() -> None:
    """Make the format known to Pillow; importing this module does it, and doing it again changes nothing."""
    Image.register_open(FORMAT, FovealImageFile, lambda prefix: prefix.startswith(SIGNATURE[:4]))
    Image.register_save(FORMAT, _save)
    Image.register_extension(FORMAT, SUFFIX)
    Image.register_mime(FORMAT, MIME)


register()
