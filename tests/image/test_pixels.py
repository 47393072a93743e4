"""Pictures of every kind to 8-bit pixels and back, the alpha plane, and metadata."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image, ImageCms, ImageFile

from foveal.errors import CorruptError, FovealWarning, InputError, LimitError, UnsupportedImageError
from foveal.header import Metadata
from foveal.image.pixels import (
    MAX_SIDE,
    Pixels,
    attach,
    compress_alpha,
    decompress_alpha,
    from_array,
    from_pillow,
    metadata,
    to_pillow,
)


def test_want_of_memory_is_not_a_picture_that_cannot_be_read(monkeypatch):
    image = Image.new("RGB", (8, 8))

    def refuse():
        raise MemoryError

    monkeypatch.setattr(image, "load", refuse)
    with pytest.raises(MemoryError):
        from_pillow(image)


RNG = np.random.default_rng(7)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def reopened(image: Image.Image, kind: str, **options: object) -> Image.Image:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return Image.open(io.BytesIO(file.getvalue()))


# --- pictures ---


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (33, 17)])
def test_plain_modes_come_back_the_same(mode, size):
    planes = len(Image.new(mode, (1, 1)).getbands())
    array = noise(size[1], size[0], planes)
    image = Image.fromarray(array[:, :, 0] if planes == 1 else array)
    pixels = from_pillow(image)
    assert pixels.mode == mode.removesuffix("A")
    assert (pixels.alpha is None) == (not mode.endswith("A"))
    assert pixels.rgb.shape == (size[1], size[0], 3) and pixels.rgb.flags.c_contiguous
    back = to_pillow(pixels)
    assert back.mode == mode and back.size == size
    np.testing.assert_array_equal(np.asarray(back), np.asarray(image))


def test_one_bit_is_grey():
    image = Image.fromarray(noise(5, 9) > 127)
    pixels = from_pillow(image)
    assert pixels.mode == "L" and set(np.unique(pixels.rgb)) == {0, 255}
    np.testing.assert_array_equal(pixels.rgb[:, :, 0] > 0, np.asarray(image))


def test_palettes_with_and_without_transparency():
    image = Image.fromarray(noise(16, 16, 3)).quantize(8)
    plain = from_pillow(image)
    assert plain.mode == "RGB" and plain.alpha is None
    np.testing.assert_array_equal(plain.rgb, np.asarray(image.convert("RGB")))
    image.info["transparency"] = 3
    alpha = from_pillow(image).alpha
    assert alpha is not None
    np.testing.assert_array_equal(alpha == 0, np.asarray(image) == 3)


@pytest.mark.parametrize(("mode", "colour", "seen"), [("L", 5, "LA"), ("RGB", (1, 2, 3), "RGBA")])
def test_a_transparent_colour_becomes_alpha(mode, colour, seen):
    image = Image.new(mode, (3, 2), colour)
    image.info["transparency"] = colour
    back = to_pillow(from_pillow(image))
    assert back.mode == seen and back.getchannel("A").getextrema() == (0, 0)


@pytest.mark.parametrize("mode", ["RGBa", "La", "PA", "RGBX"])
def test_rare_modes(mode):
    source = Image.fromarray(noise(4, 6, 4))
    image = source.convert("LA").convert(mode) if mode in ("La", "PA") else source.convert(mode)
    plain = {"RGBa": "RGBA", "La": "LA", "PA": "RGBA", "RGBX": "RGB"}[mode]
    assert to_pillow(from_pillow(image)).tobytes() == image.convert(plain).tobytes()


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "LAB"])
def test_other_colour_spaces_are_converted_with_a_warning(mode):
    image = Image.new(mode, (4, 4), (90, 120, 130, 0)[: len(Image.new(mode, (1, 1)).getbands())])
    with pytest.warns(FovealWarning, match=mode):
        pixels = from_pillow(image)
    assert pixels.mode == "RGB" and pixels.alpha is None


def test_cmyk_without_a_usable_profile_follows_pillow():
    image = Image.new("CMYK", (4, 4), (10, 200, 30, 40))
    image.info["icc_profile"] = b"no profile at all"
    with pytest.warns(FovealWarning, match="approximate"):
        pixels = from_pillow(image)
    np.testing.assert_array_equal(pixels.rgb, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_16_bits_are_scaled_with_a_warning(mode):
    values = np.array([[0, 128, 129, 257, 32_896, 65_535]])
    dtype = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (6, 1), values.astype(dtype).tobytes())
    with pytest.warns(FovealWarning, match="65535"):
        pixels = from_pillow(image)
    assert pixels.mode == "L"
    assert pixels.rgb[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255]


def test_a_transparent_grey_of_16_bits_becomes_alpha():
    values = np.array([[0, 257, 40_000, 65_535]], np.uint16)
    with pytest.warns(FovealWarning, match="8 bits"):
        pixels = from_pillow(reopened(Image.fromarray(values), "PNG", transparency=257))
    assert pixels.alpha is not None
    assert pixels.alpha.tolist() == [[255, 0, 255, 255]]
    assert pixels.rgb[0, :, 0].tolist() == [0, 1, 156, 255]


def test_12_bits_of_a_tiff_are_0_to_4095():
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in tags)
    file = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4)  # 122 bytes
    with pytest.warns(FovealWarning, match="0..4095"):
        pixels = from_pillow(Image.open(io.BytesIO(file + b"\x7f\xff\xff")))  # 0x7ff, 0xfff
    assert pixels.rgb[0, :, 0].tolist() == [127, 255]


def test_float_pictures_are_0_to_255():
    with pytest.warns(FovealWarning, match="mode F"):
        pixels = from_pillow(Image.fromarray(np.array([[0.0, 0.6, 254.6]], np.float32)))
    assert pixels.rgb[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("values", [[-1.0, 5.0], [0.0, 256.0], [np.nan, 1.0], [np.inf, 0.0]])
def test_float_pictures_of_another_range_are_refused(values):
    with pytest.raises(UnsupportedImageError, match="scale it"):
        from_pillow(Image.fromarray(np.array([values], np.float32)))


def test_16_bit_colour_that_pillow_reads_with_8_is_told():
    with pytest.warns(FovealWarning, match="16 bits"):
        pixels = from_pillow(Image.open(io.BytesIO(png(2, 2, depth=16, kind=2, row=bytes(12)))))
    assert pixels.mode == "RGB"


@pytest.mark.parametrize("kind", ["BMP", "JPEG", "GIF", "TIFF", "WEBP", "PNG"])
def test_8_bit_files_bring_no_warning(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_pillow(reopened(Image.new("RGB", (16, 16), (9, 9, 9)), kind)).rgb.shape == (16, 16, 3)


# --- refused ---


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animations_are_refused_with_the_remedy(kind):
    frames = [Image.fromarray(noise(8, 8, 3)) for _ in range(3)]
    image = reopened(frames[0], kind, save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedImageError, match=r"3 frames.*image\.copy\(\)"):
        from_pillow(image)
    image.seek(1)
    assert from_pillow(image.copy()).rgb.shape == (8, 8, 3)


def test_the_first_picture_of_a_phone_photograph_is_taken():
    first, gain = Image.new("RGB", (16, 16), (200, 0, 0)), Image.new("RGB", (8, 8))
    image = reopened(first, "MPO", save_all=True, append_images=[gain])
    with pytest.warns(FovealWarning, match="only the first"):
        pixels = from_pillow(image)
    assert pixels.rgb.shape == (16, 16, 3) and pixels.rgb[0, 0, 0] > 150


def test_size_limits_come_before_the_pixels():
    class Huge:
        size = (60_000, 60_000)

    class Wide:
        size = (MAX_SIDE + 1, 1)

    class Empty:
        size = (0, 5)

    for image, error in ((Huge, LimitError), (Wide, LimitError), (Empty, InputError)):
        with pytest.raises(error, match=f"{image.size[0]}x{image.size[1]}"):
            from_pillow(image())  # type: ignore[arg-type]


@pytest.mark.parametrize("tolerant", [False, True])
def test_an_alpha_plane_with_an_unknown_filter_is_damaged_whatever_pillow_may_load(tolerant, monkeypatch):
    rows = b"".join(bytes([9 if y == 2 else 0, *range(4)]) for y in range(4))
    data = png(4, 4, compressed=zlib.compress(rows))
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    with pytest.raises(CorruptError, match="filter 9"):
        decompress_alpha(data, 4, 4)


def test_a_file_that_breaks_off_is_an_input_error():
    file = io.BytesIO()
    Image.fromarray(noise(64, 64, 3)).save(file, "PNG")
    with pytest.raises(InputError, match="cannot be read"):
        from_pillow(Image.open(io.BytesIO(file.getvalue()[:2000])))


def test_frames_of_a_closed_gif_cannot_be_counted():
    image = reopened(Image.fromarray(noise(4, 4)), "GIF")
    image.load()
    image.close()
    with pytest.raises(InputError, match=r"image\.copy"):
        from_pillow(image)


@pytest.mark.parametrize("thing", ["photo.png", None, [[1]]])
def test_things_that_are_no_pictures_are_refused(thing):
    with pytest.raises(InputError, match=r"Image\.open"):
        from_array(thing)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 2), (4, 5, 3), (4, 5, 4)])
def test_arrays(shape):
    array = noise(*shape)
    pixels = from_array(array)
    planes = shape[2] if len(shape) == 3 else 1
    assert pixels.mode == ("L" if planes < 3 else "RGB")
    assert (pixels.alpha is None) == (planes in (1, 3))
    array[:] = 0
    assert pixels.rgb.any(), "a copy, not a view"


@pytest.mark.parametrize(
    ("array", "match"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32"),
        (np.zeros((4, 4), np.uint16), "uint16"),
        (np.zeros((4, 4), bool), "bool"),
        (np.zeros((4, 4, 5), np.uint8), r"\(4, 4, 5\)"),
        (np.zeros((4,), np.uint8), r"\(4,\)"),
        (np.zeros((0, 4, 3), np.uint8), "4x0"),
    ],
)
def test_arrays_that_are_refused(array, match):
    with pytest.raises(InputError, match=match):
        from_array(array)
    with pytest.raises(LimitError):
        from_array(np.broadcast_to(np.uint8(0), (1, MAX_SIDE + 1)))


def test_pixels_check_their_shapes():
    with pytest.raises(InputError, match="rgb"):
        Pixels(np.zeros((2, 2), np.uint8), None, "L")
    with pytest.raises(InputError, match="alpha"):
        Pixels(np.zeros((2, 2, 3), np.uint8), np.zeros((2, 3), np.uint8), "RGB")


# --- alpha ---


@given(arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))))
def test_alpha_is_lossless(alpha):
    back = decompress_alpha(compress_alpha(alpha), alpha.shape[1], alpha.shape[0])
    np.testing.assert_array_equal(back, alpha)
    assert back.dtype == np.uint8 and back.flags.writeable


def test_an_even_alpha_plane_is_67_bytes():
    data = compress_alpha(np.full((3000, 4000), 255, np.uint8))
    assert len(data) == 67
    assert decompress_alpha(data, 3, 2).tolist() == [[255] * 3] * 2


def png_chunk(kind: bytes, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png(width, height, *, depth=8, kind=0, interlace=0, row=None, extra=b"", compressed=None) -> bytes:
    fields = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, interlace)
    rows = zlib.compress((b"\0" + (bytes(width) if row is None else row)) * height) if height < 999 else b""
    body = png_chunk(b"IHDR", fields) + extra + png_chunk(b"IDAT", rows if compressed is None else compressed)
    return b"\x89PNG\r\n\x1a\n" + body + png_chunk(b"IEND", b"")


BAD_ALPHA = {
    "empty": b"",
    "not PNG": b"GIF89a" + bytes(80),
    "other size": png(5, 3),
    "huge": png(60_000, 60_000),
    "depth": png(4, 3, depth=16, row=bytes(8)),
    "colour": png(4, 3, kind=2, row=bytes(12)),
    "interlaced": png(4, 3, interlace=1),
    "text chunk": png(4, 3, extra=png_chunk(b"tEXt", b"a\0b")),
    "profile chunk": png(4, 3, extra=png_chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 16)))),
    "few rows": png(4, 3, compressed=zlib.compress(bytes(5))),
    "not deflate": png(4, 3, compressed=b"not deflate"),
    "filter": png(4, 3, compressed=zlib.compress((b"\x09" + bytes(4)) * 3)),
    "many rows": png(4, 3, compressed=zlib.compress(bytes(16))),
    "deflate tail": png(4, 3, compressed=zlib.compress(bytes(15)) + b"x"),
    "IHDR length": png(4, 3)[:8] + png_chunk(b"IHDR", b"") + png(4, 3)[33:],
    "long": png(4, 3, extra=png_chunk(b"IDAT", bytes(2000))),
    "tail": png(4, 3) + b"x",
    "no IEND": png(4, 3)[:-12],
    "CRC": png(4, 3).replace(b"IEND\xae", b"IEND\xaf"),
    "IDAT CRC": png(4, 3)[:-13] + b"\0" + png(4, 3)[-12:],
}


@pytest.mark.parametrize("name", BAD_ALPHA)
def test_alpha_must_reject(name):
    with pytest.raises(CorruptError, match="ALPH"):
        decompress_alpha(BAD_ALPHA[name], 4, 3)


def test_alpha_cut_or_flipped_anywhere():
    alpha = noise(6, 7)
    data = compress_alpha(alpha)
    for length in range(len(data)):
        with pytest.raises(CorruptError):
            decompress_alpha(data[:length], 7, 6)
    for position in range(len(data)):
        spoilt = bytearray(data)
        spoilt[position] ^= 0xFF
        with pytest.raises(CorruptError):
            decompress_alpha(bytes(spoilt), 7, 6)


# --- metadata ---


def exif(orientation: int = 6) -> Image.Exif:
    tags = Image.Exif()
    tags[0x010F], tags[0x0112] = "Acme", orientation
    tags[0x8769] = {0x829A: 0.01}
    return tags


def test_metadata_of_files_is_kept_and_orientation_not_applied():
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = reopened(Image.new("RGB", (6, 4)), "JPEG", exif=exif(), icc_profile=icc, xmp=b"<x/>")
    found = metadata(image)
    assert found == Metadata(icc, exif().tobytes().removeprefix(b"Exif\0\0"), b"<x/>")
    assert from_pillow(image).rgb.shape == (4, 6, 3)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "AVIF", "JPEG"])
def test_attach_gives_pillow_what_it_understands(kind):
    found = metadata(reopened(Image.new("RGB", (6, 4)), kind, exif=exif()))
    image = Image.new("RGB", (6, 4))
    attach(image, found.exif, found.icc, found.xmp)
    assert image.info["exif"].startswith(b"Exif\0\0")
    assert "icc_profile" not in image.info and "xmp" not in image.info
    assert (image.getexif()[0x010F], image.getexif()[0x0112]) == ("Acme", 6)
    assert metadata(image) == found


def test_tiff_tags_become_exif_and_its_turn_is_applied_once():
    found = metadata(reopened(Image.new("RGB", (6, 4)), "TIFF", exif=exif().tobytes()))
    tags = Image.Exif()
    assert found.exif is not None
    tags.load(found.exif)
    assert tags[0x010F] == "Acme" and tags.get_ifd(0x8769)[0x829A] == pytest.approx(0.01)
    assert 0x0112 not in tags  # Pillow has turned the pixels of a TIFF
    assert 0x0100 not in tags  # how its pixels were stored


def test_arguments_outweigh_the_picture():
    image = Image.new("RGB", (1, 1))
    attach(image, b"II*\0old", b"old profile", b"old")
    assert metadata(image, exif=b"Exif\0\0new", icc_profile=b"new", xmp="<é/>") == (
        b"new",
        b"new",
        "<é/>".encode(),
    )
    assert metadata(image, exif=exif()).exif == exif().tobytes()[6:]
    assert metadata(image, exif=b"", icc_profile=b"", xmp=b"") == (None, None, None)
    assert metadata(None) == (None, None, None)
    with pytest.raises(InputError, match="icc_profile is str"):
        metadata(image, icc_profile="sRGB")  # type: ignore[arg-type]


def test_a_cmyk_profile_is_not_kept_for_rgb():
    image = Image.new("CMYK", (1, 1))
    image.info["icc_profile"] = bytes(16) + b"CMYK" + bytes(108)
    assert metadata(image).icc is None


@pytest.mark.parametrize("kind", ["GIF", "TIFF"])
def test_frames_of_a_damaged_file_are_a_typed_error(kind):
    frames = [Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 48), np.uint8)) for n in range(3)]
    file = io.BytesIO()
    frames[0].save(file, kind, save_all=True, append_images=frames[1:])
    whole, met = file.getvalue(), set()
    for length in range(200, len(whole), 97):
        try:
            image = Image.open(io.BytesIO(whole[:length]))
        except (OSError, SyntaxError):
            continue
        with pytest.raises((InputError, UnsupportedImageError)) as caught, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from_pillow(image)
        met.add(str(caught.value).split(",")[0])
    assert "the picture's frames cannot be counted" in met


@pytest.mark.parametrize(("name", "value"), [("icc_profile", "text"), ("icc_profile", 7), ("exif", "text"), ("xmp", 3)])
def test_metadata_of_another_type_in_a_file_is_left_out(name, value):
    image = Image.new("RGB", (8, 8))
    image.info[name] = value
    with pytest.warns(FovealWarning, match=f"{name} is {type(value).__name__} in this file, and is left out"):
        assert metadata(image) == (None, None, None)


def test_a_clear_colour_of_another_type_is_a_typed_error():
    image = Image.new("RGB", (8, 8))
    image.info["transparency"] = "a comment of that name"
    with pytest.raises(InputError, match=r"cannot be converted .*; convert the picture first"):
        from_pillow(image)


def test_xmp_that_is_no_text():
    with pytest.raises(InputError, match="xmp is no text"):
        metadata(None, xmp="\ud800")


def test_metadata_that_a_program_has_set_is_kept():
    image, tags = Image.new("RGB", (8, 8)), Image.Exif()
    tags[0x0112] = 6
    image.info.update(exif=tags, icc_profile=bytearray(40), xmp=memoryview(b"<x/>"))
    found = metadata(image)
    assert found.icc == bytes(40) and found.xmp == b"<x/>"
    assert found.exif == tags.tobytes().removeprefix(b"Exif\0\0")


def test_short_memory_is_no_fault_of_the_picture(monkeypatch):
    image = Image.new("P", (8, 8))

    def convert(mode):
        raise MemoryError

    monkeypatch.setattr(image, "convert", convert)
    with pytest.raises(MemoryError):
        from_pillow(image)
