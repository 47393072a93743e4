"""Pictures as Pillow reads them: what is lost is told, what it gets wrong is put right."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal import reading
from foveal.errors import FovealWarning
from foveal.io import images

DEEP = np.random.default_rng(5).integers(0, 65536, (16, 24, 3)).astype(np.uint16)


def with_codec(name: str, values: np.ndarray, **how: object) -> bytes:
    return getattr(pytest.importorskip("imagecodecs"), f"{name}_encode")(values, **how)


def sgi() -> bytes:
    head = struct.pack(">hbbHHHH", 474, 0, 2, 3, 24, 16, 3).ljust(512, b"\0")
    return head + DEEP.astype(">u2").transpose(2, 0, 1)[:, ::-1].tobytes()


def png(rows: bytes, width: int, height: int, depth: int, kind: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body += b"".join(chunk(*each) for each in chunks) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


DEPTHS = {
    "ppm of 16 bits": (16, lambda: b"P6 24 16 65535\n" + DEEP.astype(">u2").tobytes()),
    "ppm of 10 bits": (10, lambda: b"P6 24 16 1023\n" + (DEEP >> 6).astype(">u2").tobytes()),
    "plain ppm": (10, lambda: b"P3 2 1 1023\n1 2 3 4 5 6\n"),
    "jpeg 2000": (16, lambda: with_codec("jpeg2k", DEEP, level=0)),
    "avif of 10 bits": (10, lambda: with_codec("avif", DEEP >> 6, bitspersample=10)),
    "avif of 12 bits": (12, lambda: with_codec("avif", DEEP >> 4, bitspersample=12)),
    "sgi": (16, sgi),
}


@pytest.mark.parametrize("name", DEPTHS)
def test_bits_that_pillow_drops_are_told_once(name, tmp_path):
    bits, made = DEPTHS[name]
    (tmp_path / "a").write_bytes(made())
    with pytest.warns(FovealWarning, match=f"^{bits} bits a sample, read as 8-bit RGB$"):
        image = images.load(str(tmp_path / "a"))
    foveal.samples(image)  # no second time: warnings are errors here
    with pytest.warns(FovealWarning, match=f"^{bits} bits"):
        foveal.samples(Image.open(tmp_path / "a"))


@pytest.mark.parametrize(
    "made",
    [
        lambda values: b"P6 24 16 255\n" + values.tobytes(),
        lambda values: with_codec("jpeg2k", values, level=0),
        lambda values: with_codec("avif", values),
    ],
)
def test_of_8_bits_nothing_is_told(made):
    data = made((DEEP >> 8).astype(np.uint8))
    assert foveal.samples(Image.open(io.BytesIO(data))).shape == (16, 24, 3)


@pytest.mark.parametrize("read", [images.load, lambda path: foveal.compress(Image.open(path))])
def test_where_warnings_are_errors_they_are_raised_as_they_are(read, tmp_path):
    (tmp_path / "a.ppm").write_bytes(DEPTHS["ppm of 16 bits"][1]())
    with pytest.raises(FovealWarning, match="16 bits a sample"):
        read(str(tmp_path / "a.ppm"))


def test_the_caller_is_named_where_bits_are_lost(tmp_path):
    (tmp_path / "a.ppm").write_bytes(DEPTHS["ppm of 16 bits"][1]())
    with pytest.warns(FovealWarning) as told:
        images.load(str(tmp_path / "a.ppm"))
    assert told[0].filename == __file__


@pytest.mark.parametrize(
    ("chunk", "told"),
    [
        ((b"gAMA", struct.pack(">I", 100_000)), "gamma of 1 is left out"),
        ((b"gAMA", struct.pack(">I", 45_455)), None),
        ((b"cICP", bytes([9, 16, 0, 1])), r"primaries 9 and transfer 16 \(H.273\)"),
        ((b"cICP", bytes([1, 13, 0, 1]), b"gAMA", struct.pack(">I", 100_000)), None),  # cICP comes first
        ((b"cICP", bytes([5, 6, 0, 1])), None),
        ((b"cICP", bytes([12, 13, 0, 1]), b"sRGB", b"\0"), "primaries 12 and transfer 13"),
    ],
)
def test_colour_that_is_not_that_of_srgb_is_told(chunk, told):
    data = png(b"\0" + bytes(range(24)), 24, 1, 8, 0, *zip(chunk[::2], chunk[1::2], strict=True))
    if told is None:
        reading.load(Image.open(io.BytesIO(data)))
        return
    with pytest.warns(FovealWarning, match=told):
        reading.load(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_the_clear_grey_of_few_bits_becomes_alpha(depth):
    values = np.random.default_rng(depth).integers(0, 1 << depth, (8, 16)).astype(np.uint8)
    bits = np.unpackbits(values[..., None], axis=-1)[..., 8 - depth :].reshape(8, -1)
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits)
    clear = int(values[3, 5])
    data = png(rows, 16, 8, depth, 0, (b"tRNS", struct.pack(">H", clear)))
    shown = np.asarray(foveal.decompress(foveal.compress(Image.open(io.BytesIO(data)), effort=2)))
    assert np.array_equal(shown[..., -1] == 0, values == clear)


def test_the_clear_colour_of_16_bits_becomes_alpha():
    values = DEEP.copy()
    values[2:5] = values[0, 0]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    data = png(rows, 24, 16, 16, 2, (b"tRNS", struct.pack(">HHH", *map(int, values[0, 0]))))
    with pytest.warns(FovealWarning, match="16 bits"):
        coded = foveal.compress(Image.open(io.BytesIO(data)), effort=2)
    assert np.array_equal(np.asarray(foveal.decompress(coded))[..., 3] == 0, (values == values[0, 0]).all(-1))


def test_a_grey_png_of_16_bits_with_alpha_stays_grey():
    """Pillow reads it in colour, and its profile of grey would be of another kind of picture."""
    profile = bytes(16) + b"GRAY" + bytes(120)
    rows = b"".join(b"\0" + DEEP[y, :, :2].astype(">u2").tobytes() for y in range(16))
    data = png(rows, 24, 16, 16, 4, (b"iCCP", b"grey\0\0" + zlib.compress(profile)))
    with pytest.warns(FovealWarning, match="16 bits"):
        shown = foveal.decompress(foveal.compress(Image.open(io.BytesIO(data)), effort=2))
    assert (shown.mode, shown.info["icc_profile"]) == ("LA", profile)
    colours = Image.fromarray((DEEP >> 8).astype(np.uint8))
    colours.info["icc_profile"] = profile
    assert foveal.decompress(foveal.compress(colours, effort=2)).mode == "RGB"


def tags() -> Image.Exif:
    found = Image.Exif()
    found[0x013B], found[0x010F] = "Müller, ©".encode(), "plain"
    found[0x8769] = {0x9003: "2020:01:02 03:04:05"}
    return found


def with_lens(data: bytes) -> bytes:
    """The same tags with a lens whose name is beyond ASCII, of type ASCII as cameras write it."""
    found = Image.Exif()
    found.load(data)
    found.get_ifd(0x8769)[0xA434] = "Objektiv ae"
    return found.tobytes().replace(b"Objektiv ae\0", "Objektiv ä".encode() + b"\0")


def test_texts_of_a_group_of_tags_stay_texts(tmp_path):
    image = Image.new("RGB", (16, 16))
    image.info["exif"] = with_lens(tags().tobytes())
    images.save(image, str(tmp_path / "a.tif"))
    with Image.open(tmp_path / "a.tif") as back:
        group = back.getexif().get_ifd(0x8769)
    assert group[0xA434].encode("latin-1").decode() == "Objektiv ä" and group[0x9003] == "2020:01:02 03:04:05"


def test_an_avif_keeps_the_thumbnail_of_its_tags(tmp_path):
    thumb, found = io.BytesIO(), tags()
    Image.new("RGB", (8, 8)).save(thumb, "JPEG")
    data = found.tobytes() + thumb.getvalue()
    image = Image.new("RGB", (16, 16))
    image.info["exif"] = data
    images.save(image, str(tmp_path / "a.avif"))
    assert thumb.getvalue() in (tmp_path / "a.avif").read_bytes()


def test_texts_beyond_ascii_in_the_tags_of_a_tiff_are_kept():
    found, file = Image.Exif(), io.BytesIO()
    found.load(tags().tobytes())
    Image.new("RGB", (16, 16)).save(file, "TIFF", exif=reading.with_texts(found))
    stored = foveal.decompress(foveal.compress(Image.open(file), effort=2)).info["exif"]
    assert "Müller, ©".encode() in stored and b"plain\0" in stored


@pytest.mark.parametrize("suffix", ["tif", "avif"])
def test_texts_beyond_ascii_are_written_as_they_are(suffix, tmp_path):
    found = tags()
    found[0x0112] = 6
    image = Image.new("RGB", (16, 16))
    image.info["exif"] = found.tobytes()
    images.save(image, str(tmp_path / f"a.{suffix}"))
    data = (tmp_path / f"a.{suffix}").read_bytes()
    assert "Müller, ©".encode() in data and b"2020:01:02 03:04:05\0" in data


@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_a_profile_of_grey_does_not_go_into_a_file_of_colour(suffix, tmp_path):
    image = Image.new("L", (16, 16), 90)
    image.info["icc_profile"] = bytes(16) + b"GRAY" + bytes(120)
    with pytest.warns(FovealWarning, match="without the picture's profile of grey"):
        images.save(image, str(tmp_path / f"a.{suffix}"))
    assert not images.load(str(tmp_path / f"a.{suffix}")).info.get("icc_profile")
    images.save(image, str(tmp_path / "a.png"))
    assert images.load(str(tmp_path / "a.png")).info["icc_profile"] == image.info["icc_profile"]
