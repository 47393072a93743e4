"""Pillow opens and saves .fov files: lazily, with metadata, and with the codec's own settings."""

import functools
import io
import subprocess
import sys
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

import foveal
import foveal.pillow
from foveal.container import expand, list_chunks, read
from foveal.errors import CorruptError, FormatError, InputError, TruncatedError, UnsupportedImageError
from foveal.short import start_of

XMP = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"


def smooth(mode: str, size: tuple[int, int]) -> Image.Image:
    """A picture of soft waves, so that few bits show it well."""
    y, x = np.mgrid[: size[1], : size[0]]
    planes = [127 + 90 * np.sin(x / 9 + k) * np.cos(y / 7 - k) for k in range(len(Image.new(mode, (1, 1)).getbands()))]
    array = np.dstack(planes).round().astype(np.uint8)
    return Image.fromarray(array[:, :, 0] if len(planes) == 1 else array)


def exif() -> bytes:
    tags = Image.Exif()
    tags[0x010F], tags[0x0112] = "Acme", 6
    return tags.tobytes()


@functools.cache
def icc() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def saved(image: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, "FOVEAL", **options)
    return file.getvalue()


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("size", [(1, 1), (17, 33), (70, 40)])
def test_round_trip(tmp_path, mode, size):
    image = smooth(mode, size)
    image.save(tmp_path / "a.fov", quality=80)
    with Image.open(tmp_path / "a.fov") as back:
        assert (back.format, back.size, back.mode) == ("FOVEAL", size, mode)
        assert back.get_format_mimetype() == "image/x-foveal"
        array = np.asarray(back, float)
    assert np.abs(array - np.asarray(image, float)).mean() < 12
    if mode.endswith("A"):
        np.testing.assert_array_equal(array[..., -1], np.asarray(image)[..., -1])


@pytest.mark.parametrize("path", [True, False])
@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_pillow_shows_the_pixels_of_decompress(tmp_path, mode, path):
    data = saved(smooth(mode, (1, 1)))
    (tmp_path / "a.fov").write_bytes(data)
    with Image.open(tmp_path / "a.fov" if path else io.BytesIO(data)) as image:
        assert image.tobytes() == foveal.decompress(data).tobytes()


def test_rgba_with_exif_icc_and_xmp():
    image = smooth("RGBA", (33, 17))
    back = Image.open(io.BytesIO(saved(image, exif=exif(), icc_profile=icc(), xmp=XMP)))
    assert (back.info["exif"], back.info["icc_profile"], back.info["xmp"]) == (exif(), icc(), XMP)
    assert back.getexif()[0x0112] == 6 and back.size == (33, 17), "orientation kept, not applied"
    back.load()
    assert (back.info["exif"], back.info["icc_profile"], back.info["xmp"]) == (exif(), icc(), XMP)
    again = Image.open(io.BytesIO(saved(back)))
    assert (again.info["exif"], again.info["icc_profile"], again.info["xmp"]) == (exif(), icc(), XMP)


def test_metadata_can_be_replaced_and_dropped():
    image = smooth("RGB", (16, 16))
    image.info.update(exif=exif(), icc_profile=icc(), xmp=XMP)
    tags = Image.Exif()
    tags[0x010F] = "Other"
    back = Image.open(io.BytesIO(saved(image, exif=tags, xmp=b"", icc_profile=b"")))
    assert back.getexif()[0x010F] == "Other"
    assert "xmp" not in back.info and "icc_profile" not in back.info


def test_settings_reach_the_codec():
    image = smooth("RGB", (64, 64))
    coarse, fine = saved(image, quality=10), saved(image, quality=90)
    assert len(coarse) < len(fine)
    assert coarse == foveal.compress(image, quality=10)
    assert read(saved(image, keep=0.25)).header.width == 64
    assert len(read(saved(image, quality=90, mtu=300)).packets) > 1
    assert read(saved(image, layers=3)).header.layers == 3
    with pytest.raises(InputError):
        saved(image, quality=1000)
    assert saved(image, quality=10, optimize=True) == coarse, "other formats' keywords are ignored"


def test_a_failed_save_leaves_no_file(tmp_path):
    with pytest.raises(InputError):
        smooth("RGB", (8, 8)).save(tmp_path / "a.fov", quality="high")
    assert list(tmp_path.iterdir()) == []


def test_an_animation_is_refused():
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), (k, 0, 0)) for k in (0, 200)]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedImageError, match="2 frames"):
        saved(Image.open(file))


def test_opening_needs_neither_torch_nor_the_pixels(tmp_path):
    path = tmp_path / "a.fov"
    smooth("RGB", (40, 20)).save(path, exif=exif())
    code = (
        "import sys, foveal.pillow; from PIL import Image\n"
        f"image = Image.open({str(path)!r})\n"
        "print(image.size, image.mode, image.getexif()[0x0112], 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(40, 20) RGB 6 False"


def test_loading_happens_once_and_closes_the_file(tmp_path, monkeypatch):
    path = tmp_path / "a.fov"
    smooth("RGB", (20, 20)).save(path)
    image = Image.open(path)
    file = image.fp
    first = image.tobytes()
    monkeypatch.setattr(foveal, "decompress", lambda *_: pytest.fail("decoded twice"))
    assert image.tobytes() == first == image.copy().tobytes()
    assert file is not None and file.closed


def test_a_file_object_that_was_given_stays_open():
    file = io.BytesIO(saved(smooth("L", (20, 20))))
    Image.open(file).load()
    assert not file.closed


def test_the_usual_things_work():
    data = saved(smooth("RGB", (64, 48)))
    image = Image.open(io.BytesIO(data))
    image.thumbnail((16, 16))
    assert image.size == (16, 12)
    assert Image.open(io.BytesIO(data)).convert("L").mode == "L"
    parser = ImageFile.Parser()
    for start in range(0, len(data), 100):
        parser.feed(data[start : start + 100])
    assert parser.close().tobytes() == Image.open(io.BytesIO(data)).tobytes()


def test_verify_finds_damage_without_decoding(monkeypatch):
    data = saved(smooth("RGB", (20, 20)))
    monkeypatch.setattr(foveal, "decompress", lambda *_: pytest.fail("decoded"))
    Image.open(io.BytesIO(data)).verify()
    base = next(c for c in list_chunks(data) if c.type == "BASE")
    spoilt = bytearray(data)
    spoilt[base.offset + 8] ^= 1
    with pytest.raises(CorruptError, match="BASE"):
        Image.open(io.BytesIO(spoilt)).verify()


def test_damage_is_a_typed_error():
    data = saved(smooth("RGB", (20, 20)))
    with pytest.raises(TruncatedError):
        Image.open(io.BytesIO(data[:20]))
    with pytest.raises(TruncatedError):
        Image.open(io.BytesIO(data[:-5])).load()
    for file, places in ((data, range(4, start_of(data).size)), (expand(data), range(8, 44))):
        for position in places:
            spoilt = bytearray(file)
            spoilt[position] ^= 0xFF
            with pytest.raises((FormatError, foveal.LimitError)):
                Image.open(io.BytesIO(spoilt))


def test_a_file_that_comes_in_pieces_is_parsed(tmp_path):
    data = saved(smooth("RGB", (40, 30)))
    for size in (1, 16, 64, len(data)):
        parser = ImageFile.Parser()
        for start in range(0, len(data), size):
            parser.feed(data[start : start + size])
        assert parser.close().size == (40, 30)


@pytest.mark.parametrize("action", ["load", "verify"])
def test_a_closed_file_is_a_typed_error(tmp_path, action):
    (tmp_path / "a.fov").write_bytes(saved(smooth("RGB", (20, 20))))
    image = Image.open(tmp_path / "a.fov")
    image.close()
    with pytest.raises(foveal.InputError, match="was closed before its pixels were read; open it again"):
        getattr(image, action)()
    file = io.BytesIO((tmp_path / "a.fov").read_bytes())
    image = Image.open(file)
    file.close()
    with pytest.raises(foveal.InputError, match="open it again"):
        getattr(image, action)()


def test_truncated_files_are_loaded_where_pillow_is_told_to(monkeypatch):
    data = saved(smooth("RGB", (64, 64)), packets=4)
    cut = data[: len(data) - 30]
    with pytest.raises(TruncatedError):
        Image.open(io.BytesIO(cut)).load()
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    shown = np.asarray(Image.open(io.BytesIO(cut)))
    assert np.array_equal(shown, np.asarray(foveal.decompress(cut, on_loss="conceal")))


def test_a_file_beyond_the_limit_is_not_read_whole(monkeypatch):
    class Endless(io.BytesIO):
        asked: ClassVar[list[int]] = []

        def read(self, size=-1):
            self.asked.append(size)
            return super().read(size)

    data = saved(smooth("RGB", (64, 64)))
    image = Image.open(Endless(data))
    Endless.asked.clear()
    image.load()
    assert Endless.asked and min(Endless.asked) > len(data)


def test_registered_under_its_names():
    assert Image.registered_extensions()[".fov"] == "FOVEAL"
    assert Image.MIME["FOVEAL"] == "image/x-foveal"
    foveal.pillow.register()
    assert Image.ID.count("FOVEAL") == 1
