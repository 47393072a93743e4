from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import foveal
from foveal.bench.compare import CAPTION, GAP, compare
from foveal.errors import FovealWarning, InputError


def test_measures_and_draws(folder: Path, tmp_path: Path) -> None:
    Image.open(folder / "a.png").save(tmp_path / "a.jpg", quality=30)
    found = compare(folder / "a.png", tmp_path / "a.jpg", tmp_path / "side.png")
    size = (tmp_path / "a.jpg").stat().st_size
    assert (found.width, found.height, found.bytes) == (64, 48, size)
    assert found.bpp == pytest.approx(8 * size / (64 * 48))
    assert 20 < found.psnr_db < 45 and 0.5 < found.ms_ssim < 1
    assert f"{found.psnr_db:.2f} dB" in str(found)
    assert found.as_dict()["bytes"] == size

    sheet = np.asarray(Image.open(tmp_path / "side.png")).astype(int)
    reference, coded = (np.asarray(Image.open(path)).astype(int) for path in (folder / "a.png", tmp_path / "a.jpg"))
    assert sheet.shape == (48 + CAPTION, 3 * 64 + 2 * GAP, 3)
    panels = [sheet[CAPTION:, left : left + 64] for left in range(0, 3 * (64 + GAP), 64 + GAP)]
    assert np.array_equal(panels[0], reference) and np.array_equal(panels[1], coded)
    assert np.array_equal(panels[2], np.minimum(abs(reference - coded) * found.difference_scale, 255))
    assert (sheet[:CAPTION] < 128).any()  # the caption


def test_equal_pictures(folder: Path) -> None:
    found = compare(folder / "a.png", folder / "a.png")
    assert (found.psnr_db, found.difference_scale) == (math.inf, 128)
    assert found.ms_ssim == pytest.approx(1)


def test_a_fov_file_is_known_by_its_first_bytes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coded = tmp_path / "coded.bin"
    coded.write_bytes(b"\x89FOV\r\n\x1a\n rest")
    monkeypatch.setattr(foveal, "decompress", lambda _: Image.open(folder / "a.png"), raising=False)
    found = compare(folder / "a.png", coded)
    assert (found.psnr_db, found.bytes) == (math.inf, 13)


def test_what_cannot_be_compared_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"64x48 and .* 33x17"):
        compare(folder / "a.png", folder / "b.png")
    with pytest.raises(InputError, match=r"cannot read .*none\.png"):
        compare(folder / "a.png", folder / "none.png")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match="not a picture"):
        compare(folder / "a.png", tmp_path / "text.png", tmp_path / "side.png")
    assert not (tmp_path / "side.png").exists()


def test_the_pictures_are_not_overwritten(folder: Path, tmp_path: Path) -> None:
    files = {name: (folder / name).read_bytes() for name in ("a.png", "b.png")}
    (tmp_path / "link.png").symlink_to(folder / "a.png")
    for output in (folder / "a.png", folder / ".." / "pictures" / "a.png", tmp_path / "link.png"):
        for pair in (("a.png", "a.png"), ("a.png", "b.png"), ("b.png", "a.png")):
            with pytest.raises(InputError, match=r"would overwrite .*a\.png; name another"):
                compare(folder / pair[0], folder / pair[1], output)
    assert {name: (folder / name).read_bytes() for name in files} == files


def test_an_output_that_cannot_be_written_is_told(folder: Path, tmp_path: Path) -> None:
    for output in (tmp_path / "none" / "side.png", tmp_path):
        with pytest.raises(InputError, match="cannot write"):
            compare(folder / "a.png", folder / "a.png", output)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_names_that_are_no_png_and_pipes_are_refused(folder: Path, tmp_path: Path) -> None:
    a = folder / "a.png"
    for output in ("both.jpg", "both.fov", "-"):
        with pytest.raises(InputError, match=r"written as PNG; end its name in \.png"):
            compare(a, a, tmp_path / output if output != "-" else output)
    for pair in (("-", a), (a, "-")):
        with pytest.raises(InputError, match="compare reads files, not standard input"):
            compare(*pair)
    assert [path.name for path in tmp_path.iterdir()] == ["pictures"]


def test_16_bits_are_compared_as_they_are_coded(tmp_path: Path) -> None:
    deep = np.linspace(0, 65_535, 40 * 48).astype(np.uint16).reshape(40, 48)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    Image.fromarray(np.rint(deep / 257).astype(np.uint8)).save(tmp_path / "plain.png")
    with pytest.warns(FovealWarning, match="converted to 8 bits"):
        assert compare(tmp_path / "deep.png", tmp_path / "plain.png").psnr_db == math.inf
