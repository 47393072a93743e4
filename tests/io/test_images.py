"""Files and pipes: pictures read and written, atomic writes, and where outputs of several inputs go."""

import io
import os
import stat
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveal.errors import FormatError, FovealWarning, InputError, LimitError
from foveal.io import images


def picture(mode: str = "RGB", size: tuple[int, int] = (9, 5)) -> Image.Image:
    planes = len(Image.new(mode, (1, 1)).getbands())
    array = np.random.default_rng(3).integers(0, 256, (size[1], size[0], planes), dtype=np.uint8)
    return Image.fromarray(array[:, :, 0] if planes == 1 else array)


class Pipe:
    """A standard stream with bytes behind it."""

    def __init__(self, data: bytes = b"") -> None:
        self.buffer = io.BytesIO(data)


# --- pictures ---


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_png_keeps_everything(tmp_path, mode):
    image = picture(mode)
    image.info.update(exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x/>")
    images.save(image, str(tmp_path / "a.png"))
    back = images.load(str(tmp_path / "a.png"))
    assert back.mode == mode and back.tobytes() == image.tobytes()
    assert back.info["exif"] == image.info["exif"] and back.info["xmp"] == b"<x/>"


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("webp", "WEBP"), ("avif", "AVIF"), ("TIF", "TIFF")])
def test_format_follows_the_suffix(tmp_path, suffix, kind):
    image = Image.new("RGB", (32, 16), (10, 90, 200))
    image.info.update(xmp=b"<x/>", icc_profile=b"")
    images.save(image, str(tmp_path / f"a.{suffix}"))
    back = images.load(str(tmp_path / f"a.{suffix}"))
    assert back.format == kind
    assert np.abs(np.asarray(back, int) - np.asarray(image, int)).max() <= 4
    assert back.info["xmp"] == b"<x/>"


def test_webp_is_lossless(tmp_path):
    images.save(picture(), str(tmp_path / "a.webp"))
    assert images.load(str(tmp_path / "a.webp")).tobytes() == picture().tobytes()


def test_pipes(monkeypatch):
    out = Pipe()
    monkeypatch.setattr(sys, "stdout", out)
    images.save(picture(), "-")
    monkeypatch.setattr(sys, "stdin", Pipe(out.buffer.getvalue()))
    back = images.load("-")
    assert back.format == "PNG" and back.tobytes() == picture().tobytes()


@pytest.mark.parametrize("name", ["a.fov", "a", "a.nosuch", "a.psd"])
def test_save_refuses_suffixes_nobody_writes(tmp_path, name):
    with pytest.raises(InputError, match=name):
        images.save(picture(), str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def test_save_refuses_what_the_format_cannot_hold(tmp_path):
    with pytest.raises(InputError, match=r"RGBA.*\.png"):
        images.save(picture("RGBA"), str(tmp_path / "a.jpg"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a.ico", "a.icns", "a.ICO"])
def test_save_refuses_icons_which_are_pictures_of_another_size(tmp_path, name):
    with pytest.raises(InputError, match=rf"{name}.*\.png"):
        images.save(picture(size=(48, 33)), str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("name", ["a.ppm", "a.bmp", "a.dib", "a.gif"])
def test_save_refuses_formats_that_drop_the_alpha_channel(tmp_path, name, mode):
    with pytest.raises(InputError, match=rf"{name}.*{mode}.*\.png"):
        images.save(picture(mode), str(tmp_path / name))
    assert list(tmp_path.iterdir()) == []


def exif(text: str = "someone") -> bytes:
    tags = Image.Exif()
    tags[0x013B] = text
    tags.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"
    return tags.tobytes()


def test_tiff_keeps_exif_beside_xmp(tmp_path):
    image = picture()
    image.info.update(exif=exif(), xmp="<é/>", icc_profile=b"a profile")
    images.save(image, str(tmp_path / "a.tif"))
    back = images.load(str(tmp_path / "a.tif"))
    tags = back.getexif()
    assert back.tobytes() == image.tobytes()
    assert (tags[0x013B], tags.get_ifd(0x8769)[0x9003]) == ("someone", "2020:01:02 03:04:05")
    assert (back.info["xmp"], back.info["icc_profile"]) == ("<é/>".encode(), b"a profile")


@pytest.mark.parametrize("xmp", [None, "<x/>"])
@pytest.mark.parametrize(
    ("tag", "value"), [(256, 3), (257, 900), (262, 6), (266, 2), (273, 9), (284, 2), (338, (1,)), (339, (3, 3, 3))]
)
def test_exif_does_not_tell_a_tiff_how_its_pixels_are_stored(tmp_path, tag, value, xmp):
    image, tags = picture(), Image.Exif()
    tags[tag], tags[0x013B] = value, "someone"
    image.info.update(exif=tags.tobytes(), **({"xmp": xmp} if xmp else {}))
    images.save(image, str(tmp_path / "a.tif"))
    back = images.load(str(tmp_path / "a.tif"))
    assert (back.mode, back.tobytes(), back.getexif()[0x013B]) == (image.mode, image.tobytes(), "someone")


@pytest.mark.parametrize(("suffix", "kind"), [("bmp", "BMP"), ("ppm", "PPM"), ("jp2", "JPEG2000"), ("tga", "TGA")])
def test_what_a_format_does_not_hold_is_told(tmp_path, suffix, kind):
    path = str(tmp_path / f"a.{suffix}")
    images.save(picture(), path)  # nothing to lose, nothing to tell
    image = picture()
    image.info.update(exif=exif(), xmp=b"<x/>", icc_profile=b"a profile")
    with pytest.warns(FovealWarning, match=f"{kind} does not hold the picture's EXIF, ICC profile and XMP"):
        images.save(image, path)
    image.info = {"xmp": b"<x/>"}
    with pytest.warns(FovealWarning, match=f"{kind} does not hold the picture's XMP; a .png does"):
        images.save(image, path)
    assert images.load(path).tobytes() == image.tobytes()


def test_colours_that_gif_cannot_hold_are_told(tmp_path):
    images.save(picture("L"), str(tmp_path / "a.gif"))
    with pytest.warns(FovealWarning, match="256 colours"):
        images.save(picture(), str(tmp_path / "b.gif"))


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_damaged_exif_is_kept_where_it_is_but_bytes(tmp_path, suffix):
    image = picture()
    image.info["exif"] = b"Exif\0\0garbage-not-tiff"
    images.save(image, str(tmp_path / f"a.{suffix}"))
    assert images.load(str(tmp_path / f"a.{suffix}")).info["exif"].endswith(b"garbage-not-tiff")


@pytest.mark.parametrize("suffix", ["avif", "tif"])
def test_damaged_exif_is_left_out_with_a_warning_where_it_is_read(tmp_path, suffix):
    image = picture()
    image.info.update(exif=b"Exif\0\0garbage-not-tiff", xmp=b"<x/>")
    with pytest.warns(FovealWarning, match="without the picture's EXIF"):
        images.save(image, str(tmp_path / f"a.{suffix}"))
    back = images.load(str(tmp_path / f"a.{suffix}"))
    assert back.size == image.size and back.info["xmp"] == b"<x/>" and not back.info.get("exif")


def test_whatever_an_encoder_raises_is_an_input_error(tmp_path, monkeypatch):
    def fail(self, *_, **__):
        raise SyntaxError("never heard of it")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(InputError, match="never heard of it"):
        images.save(picture(), str(tmp_path / "a.png"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(7), b"BM" + bytes(60)])
def test_load_refuses_what_is_no_picture(tmp_path, data):
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(InputError, match=r"a\.png"):
        images.load(str(tmp_path / "a.png"))


def test_load_refuses_a_cut_picture(tmp_path):
    images.save(picture(size=(64, 64)), str(tmp_path / "a.png"))
    data = (tmp_path / "a.png").read_bytes()
    for length in range(0, len(data) - 40, 997):
        (tmp_path / "cut.png").write_bytes(data[:length])
        with pytest.raises(InputError):
            images.load(str(tmp_path / "cut.png"))


def test_load_refuses_a_bomb_before_reading_it(tmp_path):
    def chunk(kind: bytes, payload: bytes) -> bytes:
        body = kind + payload
        return struct.pack(">I", len(payload)) + body + struct.pack(">I", zlib.crc32(body))

    fields = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    (tmp_path / "bomb.png").write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    )
    with pytest.raises(LimitError, match=r"bomb\.png"):
        images.load(str(tmp_path / "bomb.png"))


def test_load_tells_of_bits_that_pillow_drops(tmp_path):
    (tmp_path / "deep.ppm").write_bytes(b"P5 1 1 255\n\x05")
    assert images.load(str(tmp_path / "deep.ppm")).getpixel((0, 0)) == 5
    body = b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    rows = b"IDAT" + zlib.compress(bytes(7))
    parts = [struct.pack(">I", len(p) - 4) + p + struct.pack(">I", zlib.crc32(p)) for p in (body, rows, b"IEND")]
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    with pytest.warns(FovealWarning, match="16 bits"):
        images.load(str(tmp_path / "deep.png"))


def test_load_takes_a_fov_file_for_what_it_is(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89FOV\r\n\x1a\nbroken")
    with pytest.raises(FormatError):
        images.load(str(tmp_path / "a.png"))


# --- bytes ---


def test_bytes_there_and_back(tmp_path):
    path = str(tmp_path / "a.bin")
    images.write_bytes(path, b"one")
    images.write_bytes(path, b"two")
    assert images.read_bytes(path) == b"two"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


def test_faults_name_the_path(tmp_path):
    for path in (tmp_path / "none.png", tmp_path):
        with pytest.raises(InputError, match=path.name):
            images.read_bytes(str(path))
    with pytest.raises(InputError, match=r"missing/a\.png"):
        images.write_bytes(str(tmp_path / "missing" / "a.png"), b"")
    with pytest.raises(InputError):
        images.read_bytes("a\0b")


def test_sizes_are_checked_before_reading(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(bytes(11))
    monkeypatch.setattr(images, "MAX_BYTES", 10)
    monkeypatch.setattr(sys, "stdin", Pipe(bytes(11)))
    for path in (str(tmp_path / "a.bin"), "-"):
        with pytest.raises(LimitError, match="10 bytes"):
            images.read_bytes(path)


def test_a_file_is_read_with_no_more_memory_than_it_takes(tmp_path, monkeypatch):
    asked = []

    class Counting(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            asked.append(size)
            return super().read(size)

    (tmp_path / "a.bin").write_bytes(bytes(70_000))
    monkeypatch.setattr(Path, "open", lambda self, mode: NamedBytes(self, asked))
    assert images.read_bytes(str(tmp_path / "a.bin")) == bytes(70_000)
    monkeypatch.setattr(sys, "stdin", Pipe())
    sys.stdin.buffer = Counting(bytes(3 << 20))
    assert images.read_bytes("-") == bytes(3 << 20)
    assert asked[0] == 70_001 and max(asked) <= (1 << 20) + 1


class NamedBytes(io.FileIO):
    """A file that notes how much is asked of it."""

    def __init__(self, path: Path, asked: list[int]) -> None:
        super().__init__(path)
        self.asked = asked

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked.append(size or 0)
        return super().read(size) or b""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="files that do not say how long they are")
def test_files_without_a_size_are_read_whole():
    assert b"VmPeak" in images.read_bytes("/proc/self/status")


def test_closed_standard_streams_are_named(monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(InputError, match="standard input is closed"):
        images.read_bytes("-")
    with pytest.raises(InputError, match="standard output is closed"):
        images.write_bytes("-", b"x")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")

    def fail(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(InputError, match="No space left"):
        images.write_bytes(str(path), b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.bin"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_permissions_are_those_of_a_plain_write(tmp_path):
    plain, ours = tmp_path / "plain", tmp_path / "ours"
    plain.write_bytes(b"")
    images.write_bytes(str(ours), b"")
    assert ours.stat().st_mode == plain.stat().st_mode
    ours.chmod(0o640)
    images.write_bytes(str(ours), b"again")
    assert stat.S_IMODE(ours.stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="symbolic links and devices")
def test_links_are_followed_and_devices_written(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to("real")
    images.write_bytes(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_bytes() == b"new"
    images.write_bytes(os.devnull, b"anything")
    assert Path(os.devnull).is_char_device()


# --- outputs ---


def test_one_input():
    assert images.outputs(["in/a.png"], None, ".fov") == [("in/a.png", str(Path("in/a.fov")))]
    assert images.outputs(["a.png"], "b.x", ".fov") == [("a.png", "b.x")]
    assert images.outputs(["a.png"], "-", ".fov") == [("a.png", "-")]
    assert images.outputs(["-"], None, ".fov") == [("-", "-")]
    assert images.outputs(["-"], "b.fov", ".fov") == [("-", "b.fov")]
    assert images.outputs(["a.b.png"], None, "-map.png") == [("a.b.png", "a.b-map.png")]


def test_directories(tmp_path):
    there, new = str(tmp_path), str(tmp_path / "new" / "deep")
    assert images.outputs(["x/a.png"], there, ".fov") == [("x/a.png", str(tmp_path / "a.fov"))]
    pairs = images.outputs(["x/a.png", "y/b.jpg"], new, ".fov")
    assert [Path(target) for _, target in pairs] == [Path(new, "a.fov"), Path(new, "b.fov")]
    assert Path(new).is_dir()
    assert images.outputs(["a.png"], str(tmp_path / "other") + "/", ".fov")[0][1] == str(tmp_path / "other" / "a.fov")
    assert (tmp_path / "other").is_dir()
    assert images.outputs(["x/a.png", "y/a.png"], None, ".fov")[1] == ("y/a.png", str(Path("y/a.fov")))


@pytest.mark.parametrize(
    ("inputs", "output", "match"),
    [
        (["a/x.png", "b/x.jpg"], "out", "x.png and b/x.jpg would both"),
        (["x.png", "x.jpg"], None, "both become"),
        (["x.png", "x.png"], None, "both become"),
        (["x.png"], "x.png", "overwrite"),
        (["x.png", "y.png"], "-", "one picture"),
        (["x.png", "-"], "out", "one picture"),
        (["-"], "out/", "no name"),
        ([""], None, "not a file name"),
    ],
)
def test_outputs_that_are_refused(tmp_path, monkeypatch, inputs, output, match):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=match):
        images.outputs(inputs, output, ".fov")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("output", ["a.avif", "out/a.JPG", "a.jxl", "a.png"])
def test_a_fov_file_gets_no_other_pictures_suffix(tmp_path, monkeypatch, output):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"{output}.*{Path(output).suffix.lower()}.*\.fov"):
        images.outputs(["b.png"], output, ".fov")
    assert images.outputs(["b.fov"], output, ".png") == [("b.fov", output)]


@pytest.mark.parametrize(
    ("output", "also", "match"),
    [
        ("a.png", "a.png", "both become a.png"),
        ("a.png", "./link.png", "both become"),
        ("a.png", "in.png", "overwrite the input"),
        ("a.png", "m.nosuch", "nosuch"),
        ("a.png", "m.fov", r"m\.fov"),
        ("a.png", "none/m.png", "no folder none"),
        ("a.png", "folder.png", "is a folder"),
        ("new/", "in.png", "overwrite the input"),
        ("-", "-", "one picture"),
    ],
)
def test_a_second_picture_is_checked_before_anything_is_made(tmp_path, monkeypatch, output, also, match):
    monkeypatch.chdir(tmp_path)
    Path("in.png").write_bytes(b"")
    Path("link.png").symlink_to("a.png")
    Path("folder.png").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=match):
        images.outputs(["in.png"], output, ".png", also=also)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("output", "also"), [("a.png", "m.png"), ("new/", "new/m.png"), ("-", "m.png"), ("a.png", "-")]
)
def test_a_second_picture_beside_the_first(tmp_path, monkeypatch, output, also):
    monkeypatch.chdir(tmp_path)
    assert len(images.outputs(["in.fov"], output, ".png", also=also)) == 1


def test_an_empty_name_is_no_folder():
    with pytest.raises(InputError, match="name of the output is empty"):
        images.outputs(["a.png"], "", ".fov")


@pytest.mark.parametrize("name", ["all.png", "all.fov", "all.jxl"])
def test_several_inputs_do_not_make_a_folder_named_like_a_picture(tmp_path, name):
    with pytest.raises(InputError, match=f"{name} is the name of one file, for 2 inputs; name a folder"):
        images.outputs(["a.fov", "b.fov"], str(tmp_path / name), ".png")
    assert not list(tmp_path.iterdir())
    assert images.outputs(["a.fov", "b.fov"], str(tmp_path / name) + "/", ".png")[0][1].endswith(f"{name}/a.png")


def test_several_inputs_need_a_directory(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match="directory"):
        images.outputs(["a.png", "b.png"], str(tmp_path / "file"), ".fov")
