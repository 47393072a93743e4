"""Pictures of every kind as the bench sees them: as Foveal codes them, told apart by their bytes, written whole."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from foveal.bench.pictures import check_sources, fingerprint, open_picture, save_png
from foveal.bench.worker import load
from foveal.errors import FovealWarning, InputError, UnsupportedImageError
from foveal.image.pixels import from_pillow

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
DEEP = np.linspace(0, 65_535, 48 * 64).astype(np.uint16).reshape(48, 64)
TIFF_12 = struct.pack("<2sHIH", b"II", 42, 8, 9) + b"".join(
    struct.pack("<HHII", tag, 3, 1, value)
    for tag, value in [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 122), (277, 1), (278, 1), (279, 3)]
)


def clear(image: Image.Image) -> Image.Image:
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


# name of the file, what makes it of an RGB picture, options of its writer
KINDS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "rgb": ("x.png", lambda rgb: rgb, {}),
    "rgb with profile": ("x.png", lambda rgb: rgb, {"icc_profile": SRGB}),
    "rgb with one clear colour": ("x.png", lambda rgb: rgb, {"transparency": (255, 0, 0)}),
    "alpha": ("x.png", clear, {}),
    "grey": ("x.png", lambda rgb: rgb.convert("L"), {}),
    "grey with alpha": ("x.png", lambda rgb: clear(rgb.convert("L")), {}),
    "black and white": ("x.png", lambda rgb: rgb.convert("1"), {}),
    "palette": ("x.png", lambda rgb: rgb.quantize(16), {}),
    "palette with a clear colour": ("x.png", lambda rgb: rgb.quantize(16), {"transparency": 3}),
    "jpeg": ("x.jpg", lambda rgb: rgb, {}),
    "16 bits": ("x.png", lambda rgb: Image.fromarray(DEEP), {}),
    "16 bits, tiff": ("x.tif", lambda rgb: Image.fromarray(DEEP), {}),
    "32 bits": ("x.tif", lambda rgb: Image.fromarray(DEEP.astype(np.int32)), {}),
    "float": ("x.tif", lambda rgb: Image.fromarray((DEEP / 257).astype(np.float32)), {}),
    "cmyk": ("x.jpg", lambda rgb: rgb.convert("CMYK"), {}),
    "cmyk with a profile of no use": ("x.tif", lambda rgb: rgb.convert("CMYK"), {"icc_profile": b"none"}),
    "lab": ("x.tif", lambda rgb: ImageCms.profileToProfile(rgb, ImageCms.createProfile("sRGB"),
            ImageCms.createProfile("LAB"), outputMode="LAB"), {}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_that_foveal_codes(kind: str, picture, tmp_path: Path) -> None:
    name, made, options = KINDS[kind]
    file = tmp_path / name
    made(Image.fromarray(picture(48, 64))).save(file, **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = open_picture(file)
    with warnings.catch_warnings(record=True) as expected:
        warnings.simplefilter("always")
        coded = from_pillow(Image.open(file)).rgb
    assert found.mode == "RGB" and not found.has_transparency_data
    assert np.array_equal(np.asarray(found), coded)
    assert [w.category for w in told] == [w.category for w in expected]
    assert all(str(file) in str(w.message) for w in told)
    assert ("icc_profile" in found.info) == (kind == "rgb with profile" or "profile of no use" in kind)


def test_12_bits_of_a_tiff_are_0_to_4095(tmp_path: Path) -> None:
    (tmp_path / "x.tif").write_bytes(TIFF_12 + bytes(4) + b"\x7f\xff\xff")
    with pytest.warns(FovealWarning, match="0..4095"):
        assert np.asarray(open_picture(tmp_path / "x.tif"))[0, :, 0].tolist() == [127, 255]


def test_the_benchmark_reads_16_bits_so_too(tmp_path: Path) -> None:
    Image.fromarray(DEEP).save(tmp_path / "deep.png")
    with pytest.warns(FovealWarning, match="converted to 8 bits"):
        values = np.asarray(load(str(tmp_path / "deep.png")))
    assert np.array_equal(values[..., 0], np.rint(DEEP / 257)) and values.std() > 60  # not all white


def test_what_is_no_single_picture_is_refused(tmp_path: Path, picture) -> None:
    frames = [Image.fromarray(picture(16, 16, seed)) for seed in range(2)]
    frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(UnsupportedImageError, match=r"moving\.webp: 2 frames"):
        open_picture(tmp_path / "moving.webp")
    frames[0].save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    with pytest.raises(InputError, match=r"cut\.png: .*cannot be read"):
        open_picture(tmp_path / "cut.png")
    Image.fromarray(np.full((4, 4), 300.0, np.float32)).save(tmp_path / "bright.tif")
    with pytest.raises(UnsupportedImageError, match=r"bright\.tif: mode F with values 300"):
        open_picture(tmp_path / "bright.tif")
    with pytest.raises(InputError, match="cannot read"):
        open_picture(tmp_path)


def test_a_fingerprint_is_of_the_bytes_alone(tmp_path: Path) -> None:
    for name, text in (("a.png", "one"), ("b.png", "one"), ("c.png", "two")):
        (tmp_path / name).write_text(text)
    a, b, c = (fingerprint(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert a == b == "7692c3ad3540bb80" and c != a
    with pytest.raises(InputError, match="cannot read"):
        fingerprint(tmp_path / "none.png")


def test_known_fingerprints_must_be_equal(tmp_path: Path) -> None:
    output = tmp_path / "r.jsonl"
    check_sources(output, [("a.png", "1"), ("b.png", ""), ("gone.png", "3")], {"a.png": "1", "b.png": "2"}, "stop")
    with pytest.raises(InputError, match=r"r\.jsonl was measured with another a\.png .*1, this is 2.*; stop"):
        check_sources(output, [("a.png", "1")], {"a.png": "2"}, "stop")


def test_a_png_is_written_whole_or_not_at_all(tmp_path: Path, picture, monkeypatch: pytest.MonkeyPatch) -> None:
    image, file = Image.fromarray(picture(16, 16)), tmp_path / "sheet.png"
    save_png(image, file)
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(image))
    file.write_text("old")
    file.chmod(0o640)
    (tmp_path / "link.png").symlink_to(file)
    save_png(image, tmp_path / "link.png")
    assert (tmp_path / "link.png").is_symlink() and file.stat().st_mode & 0o777 == 0o640
    assert Image.open(io.BytesIO(file.read_bytes())).size == (16, 16)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    before = file.read_bytes()
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(InputError, match=r"cannot write .*sheet\.png: No space left"):
        save_png(image, file)
    assert file.read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"sheet.png", "link.png"}


@pytest.mark.parametrize("name", ["none/sheet.png", "."])
def test_where_no_png_can_be_written_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"cannot write .*name a file"):
        save_png(Image.new("RGB", (4, 4)), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
