"""The command line: options, pipes, several files, errors, what it prints."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

import foveal
from foveal.cli import app
from foveal.cli_support import options, show

COMMANDS = (
    "encode",
    "decode",
    "truncate",
    "pack",
    "unpack",
    "info",
    "compare",
    "importance",
    "bench",
    "bench-loss",
    "bench-video",
    "train",
    "video",
    "restore",
    "models",
    "doctor",
)


def run(*arguments: object, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], input=stdin, prog_name="foveal")


def run_fresh(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own, with real pipes."""
    command = [sys.executable, "-W", "error", "-m", "foveal", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def draw(seed: int, width: int = 48, height: int = 40, mode: str = "RGB") -> Image.Image:
    """A slope with a busy corner: flat patches and textured ones."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([3 * x + y, 2 * y + 40, 255 - 2 * x], -1).astype(np.int64)
    noise = np.random.default_rng(seed).integers(-60, 60, (height // 2, width // 2, 3))
    pixels[: height // 2, : width // 2] += noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    draw(1).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def coded(photo: Path) -> Path:
    assert run("encode", photo).exit_code == 0
    return photo.with_suffix(".fov")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    assert command in run("--help").stdout
    result = run(command, "--help")
    assert result.exit_code == 0
    assert "Usage: foveal" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_unknown_options_are_refused(command: str) -> None:
    result = run(command, "--no-such-option")
    assert result.exit_code == 2
    assert "--no-such-option" in result.stderr


def test_version_is_the_packages() -> None:
    assert run("--version").stdout == f"foveal {foveal.__version__}\n"


def test_encode_and_decode_lie_beside_their_input_unless_told(photo: Path) -> None:
    result = run("encode", photo)
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")  # nobody watches: silence
    assert photo.with_suffix(".fov").is_file()
    back = photo.with_name("back.png")
    assert run("decode", photo.with_suffix(".fov"), "-o", back).exit_code == 0
    with Image.open(back) as picture:
        assert (picture.size, picture.mode) == ((48, 40), "RGB")


def test_more_quality_means_more_bytes(photo: Path) -> None:
    sizes = []
    for quality in (10, 50, 95):
        target = photo.with_name(f"{quality}.fov")
        assert run("encode", photo, "-q", quality, "-o", target).exit_code == 0
        sizes.append(target.stat().st_size)
    assert sizes == sorted(set(sizes))


def test_pipes_carry_the_same_bytes_as_files(photo: Path, coded: Path) -> None:
    encoded = run_fresh("encode", "-", stdin=photo.read_bytes())
    assert (encoded.returncode, encoded.stderr) == (0, b"")
    assert encoded.stdout == coded.read_bytes()
    decoded = run_fresh("decode", "-", "-o", "-", stdin=encoded.stdout)
    assert (decoded.returncode, decoded.stderr) == (0, b"")
    assert run("decode", coded, "-o", coded.with_name("file.png")).exit_code == 0
    with Image.open(io.BytesIO(decoded.stdout)) as piped, Image.open(coded.with_name("file.png")) as filed:
        assert np.array_equal(np.asarray(piped), np.asarray(filed))


def test_pictures_are_not_written_to_a_terminal(photo: Path) -> None:
    pty = pytest.importorskip("pty")
    master, terminal = pty.openpty()
    command = [sys.executable, "-m", "foveal", "encode", str(photo), "-o", "-"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=terminal, stderr=subprocess.PIPE)
    os.close(terminal)
    os.close(master)
    assert done.returncode == 2
    assert b"standard output is a terminal" in done.stderr


def test_several_files_go_to_a_folder_in_several_processes(tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    for number, name in enumerate(names):
        draw(number).save(tmp_path / f"{name}.png")
    inputs = [tmp_path / f"{name}.png" for name in names]
    for jobs in (1, 2):
        (tmp_path / f"out{jobs}").mkdir()
        done = run_fresh("encode", *inputs, "-o", tmp_path / f"out{jobs}", "-j", jobs)
        assert (done.returncode, done.stderr) == (0, b"")
    one, two = ([(tmp_path / f"out{j}" / f"{name}.fov").read_bytes() for name in names] for j in (1, 2))
    assert one == two
    assert len(set(one)) == 3


def test_several_files_to_one_file_are_refused(tmp_path: Path, photo: Path) -> None:
    draw(2).save(tmp_path / "other.png")
    (tmp_path / "one.fov").write_bytes(b"precious")
    for output in (tmp_path / "one.fov", "-"):
        result = run("encode", photo, tmp_path / "other.png", "-o", output)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith("foveal: ")
    assert (tmp_path / "one.fov").read_bytes() == b"precious"


def test_one_bad_file_does_not_stop_the_others(tmp_path: Path, photo: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no picture at all")
    (tmp_path / "out").mkdir()
    result = run("encode", tmp_path / "bad.png", photo, "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "bad.png" in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["photo.fov"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("encode", "bad.png"),
        ("encode", "missing.png"),
        ("encode", "photo.png", "--keep", "many"),
        ("encode", "photo.png", "--keep", "1.5"),
        ("encode", "photo.png", "--keep", "0.4", "--alpha", "2"),
        ("encode", "photo.png", "--alpha", "0.5"),
        ("encode", "photo.png", "--target-bpp", "1", "--target-psnr", "30"),
        ("encode", "photo.png", "--model", "none-such"),
        ("encode", "photo.png", "-o", "no/such/folder/x.fov"),
        ("encode", "photo.png", "-q", "50", "--target-bpp", "0.2"),
        ("encode", "photo.png", "-q", "60", "--target-bytes", "900"),
        ("encode", "photo.png", "--quality", "50", "--target-psnr", "30"),
        ("encode", "photo.png", "-o", "photo.avif"),
        ("encode", "photo.png", "-o", "new/photo.jpg"),
        ("decode", "whole.fov", "-o", "a.ico"),
        ("decode", "whole.fov", "-o", "a.png", "--loss-mask", "a.png"),
        ("decode", "whole.fov", "-o", "a.png", "--loss-mask", "whole.fov"),
        ("decode", "whole.fov", "-o", "a.png", "--loss-mask", "a.nosuch"),
        ("decode", "whole.fov", "-o", "-", "--loss-mask", "-"),
        ("decode", "bad.png"),
        ("decode", "cut.fov"),
        ("decode", "flipped.fov"),
        ("info", "bad.png"),
        ("importance", "bad.png"),
        ("compare", "photo.png", "bad.png"),
    ],
)
def test_bad_input_is_one_line_status_two_and_no_output(
    arguments: tuple[str, ...], tmp_path: Path, coded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = coded.read_bytes()
    coded.unlink()
    Path("bad.png").write_bytes(b"no picture at all")
    Path("whole.fov").write_bytes(data)
    Path("cut.fov").write_bytes(data[: len(data) // 2])
    Path("flipped.fov").write_bytes(data[:60] + bytes([data[60] ^ 0xFF]) + data[61:])
    before = sorted(tmp_path.iterdir())
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stderr.startswith("foveal: ")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("arguments", [("-q", "101"), ("-q", "good"), ("--effort", "0"), ("-j", "0")])
def test_values_outside_their_range_are_refused(arguments: tuple[str, ...], photo: Path) -> None:
    result = run("encode", photo, *arguments)
    assert result.exit_code == 2
    assert not photo.with_suffix(".fov").exists()


def test_conversions_with_loss_are_told_in_one_line(tmp_path: Path) -> None:
    draw(3, mode="CMYK").save(tmp_path / "ink.tiff")
    result = run("encode", tmp_path / "ink.tiff")
    assert result.exit_code == 0
    assert result.stderr.startswith("foveal: warning: ")
    assert len(result.stderr.splitlines()) == 1


def test_info_says_what_the_file_holds(coded: Path) -> None:
    text = run("info", coded).stdout
    assert "48x40" in text
    assert f"{coded.stat().st_size:,} bytes" in text
    assert "alpha" in text


def test_info_for_programs_is_one_object_a_line(coded: Path) -> None:
    result = run("info", coded, coded, "--json", "--verify")
    assert result.exit_code == 0
    first, second = map(json.loads, result.stdout.splitlines())
    assert first == second
    wanted = {
        "width",
        "height",
        "bytes",
        "bpp",
        "model",
        "level",
        "patches",
        "dropped",
        "alpha",
        "packets",
        "chunks",
    }
    assert wanted <= set(first)
    assert (first["width"], first["height"], first["bytes"]) == (48, 40, coded.stat().st_size)
    assert first["patches"] == 3 * 3
    assert first["chunks"][0]["type"] == "HEAD"


def test_info_verify_finds_a_flipped_bit(coded: Path) -> None:
    assert "every checksum is right" in run("info", coded, "--verify").stdout
    data = bytearray(coded.read_bytes())
    data[len(data) // 2] ^= 1
    coded.write_bytes(data)
    result = run("info", coded, "--verify")
    assert (result.exit_code, result.stdout) == (2, "")


def test_patches_can_be_chosen_by_share_ratio_and_mask(photo: Path) -> None:
    Image.fromarray(np.pad(np.full((16, 16), 255, np.uint8), ((0, 24), (0, 32)))).save(photo.with_name("mask.png"))
    found = []
    for option, value in (
        ("--keep", "all"),
        ("--keep", 1 / 3),
        ("--alpha", 3),
        ("--mask", photo.with_name("mask.png")),
    ):
        assert run("encode", photo, option, value).exit_code == 0
        found.append(json.loads(run("info", photo.with_suffix(".fov"), "--json").stdout)["dropped"])
    assert found == [0, 6, 6, 8]  # of 9 patches


def test_importance_draws_three_panels(photo: Path) -> None:
    assert run("importance", photo, "--keep", "0.5").exit_code == 0
    with Image.open(photo.with_name("photo-importance.png")) as picture:
        assert picture.mode == "RGB"
        assert picture.width > 3 * 48


def test_info_says_what_is_damaged(tmp_path: Path) -> None:
    data = foveal.compress(draw(1, 96, 96), packets=4)
    target = tmp_path / "a.fov"
    target.write_bytes(data)
    whole = run("info", target).stdout
    assert "  packets   4\n" in whole and "bytes, damaged" not in whole
    spoilt = bytearray(data)
    spoilt[-40] ^= 1
    target.write_bytes(spoilt)
    told = run("info", target).stdout
    assert "  packets   3 of 4\n" in told
    assert [line.split()[0] for line in told.splitlines() if line.endswith("bytes, damaged")] == ["PCKT"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_without_room_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "foveal", "models"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.stderr.startswith("foveal: cannot write the output: No space left") and "Traceback" not in done.stderr
    assert done.returncode == 2


def test_compare_prints_figures_and_writes_a_picture(photo: Path, coded: Path) -> None:
    sheet = photo.with_name("sheet.png")
    result = run("compare", photo, coded, "-o", sheet, "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["bpp"] == pytest.approx(8 * coded.stat().st_size / (48 * 40))
    assert found["psnr_db"] > 20
    with Image.open(sheet) as picture:
        assert picture.width >= 3 * 48
    assert " dB" in run("compare", photo, coded).stdout


def test_models_lists_the_default_one() -> None:
    rows = [json.loads(line) for line in run("models", "--json").stdout.splitlines()]
    assert [row["name"] for row in rows if row["default"]] == ["s"]
    assert all(row["name"] in run("models").stdout for row in rows)


def test_models_lists_the_networks_for_video_under_a_heading() -> None:
    from foveal.video import attention_sr

    images, videos = run("models").stdout.split("\n\n")
    rows = [line.split() for line in videos.splitlines()]
    assert rows[0][:2] == ["video", "mode"] and "name" in images
    known = [[name, mode] for name in attention_sr.trained() for mode in attention_sr.modes_of(name)]
    assert [row[:2] for row in rows[1:]] == known
    count = attention_sr.load_weights(*known[0]).parameters_count
    assert rows[1][3] == f"{count:,}"


def test_doctor_loads_the_networks_for_video(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from foveal.video import attention_sr

    assert "  ok       video weights s x2: " in run("doctor").stdout
    monkeypatch.setattr(attention_sr, "WEIGHTS", tmp_path)
    (tmp_path / "video-m.safetensors").write_bytes(b"damaged")
    attention_sr.load_weights.cache_clear()
    result = run("doctor")
    attention_sr.load_weights.cache_clear()
    assert result.exit_code == 1
    assert "FAILED   video weights: " in result.stdout and "model 'm'" in result.stdout


def test_doctor_names_what_can_be_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    lines = list(show.installation_lines())
    assert "  absent   av: pip install '.[video]' in Foveal's source folder" in lines
    assert not [line for line in lines if "serve" in line or "batch" in line]


def test_help_says_what_the_efforts_do() -> None:
    from foveal.image.refine import ROUNDS

    first, *rest = (str(ROUNDS[effort]) for effort in (6, 7, 8, 9))
    text = options.Effort.__metadata__[0].help
    assert f"6 to 9 refine that in {', '.join([first, *rest[:-1]])} and {rest[-1]} rounds" in text
    assert "rounds" in run("encode", "--help").stdout


def test_doctor_finds_this_installation_sound() -> None:
    result = run("doctor")
    assert result.exit_code == 0
    assert "FAILED" not in result.stdout
    assert "torch" in result.stdout


def test_figures_json_lacks_become_null(photo: Path) -> None:
    found = json.loads(run("compare", photo, photo, "--json").stdout)
    assert found["psnr_db"] is None  # infinite: the two are equal
    assert found["ms_ssim"] == pytest.approx(1)


def test_packed_lost_unpacked_decoded(tmp_path: Path, photo: Path) -> None:
    file, arrived, back, mask = (tmp_path / name for name in ("a.fov", "b.fov", "b.png", "mask.png"))
    assert run("encode", photo, "-o", file, "--mtu", 200, "-q", 70).exit_code == 0
    assert run("pack", file, "--mtu", 200, "-o", tmp_path / "sent").exit_code == 0
    again = run("pack", file, "-o", tmp_path / "sent")
    assert (again.exit_code, again.stdout) == (2, "") and "already" in again.stderr
    assert run("unpack", tmp_path / "sent", "-o", arrived).stderr == ""
    assert arrived.read_bytes() == file.read_bytes()
    packets = [path for path in (tmp_path / "sent").iterdir() if path.read_bytes()[8] == 1]
    packets[0].unlink()
    assert run("unpack", tmp_path / "sent", "-o", arrived).stderr == ""
    assert arrived.read_bytes() == file.read_bytes()  # parity replaces one
    for path in (tmp_path / "sent").iterdir():
        if path.read_bytes()[8] == 6:
            path.unlink()
    result = run("unpack", tmp_path / "sent", "-o", arrived)
    assert (result.exit_code, len(result.stderr.splitlines())) == (0, 1)
    assert f"1 of {len(packets)} packets did not arrive" in result.stderr
    result = run("decode", arrived, "-o", back, "--loss-mask", mask)
    assert result.exit_code == 0
    assert "patches concealed (row,column of patches: " in result.stderr
    with Image.open(mask) as picture:
        shown = np.asarray(picture)
    assert shown.shape == (40, 48) and set(np.unique(shown)) == {0, 255}
    assert run("decode", arrived, "-o", back, "--on-loss", "error").exit_code == 2


def test_base_lost_is_one_line(tmp_path: Path, coded: Path) -> None:
    assert run("pack", coded, "-o", tmp_path / "sent").exit_code == 0
    for path in (tmp_path / "sent").iterdir():
        if path.read_bytes()[8] == 0:
            path.unlink()
    result = run("unpack", tmp_path / "sent")
    assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
    assert "base layer is lost" in result.stderr
    assert run("unpack", tmp_path / "nowhere").exit_code == 2


def test_truncate_keeps_to_the_size(tmp_path: Path, photo: Path) -> None:
    file = tmp_path / "a.fov"
    assert run("encode", photo, "-o", file, "--packets", 3, "--layers", 2, "-q", 95).exit_code == 0
    assert "in 2 layers" in run("info", file).stdout
    size = file.stat().st_size * 3 // 4
    assert run("truncate", file, "--bytes", size).exit_code == 0
    assert file.with_name("a-cut.fov").stat().st_size <= size
    result = run("decode", file.with_name("a-cut.fov"))
    assert result.exit_code == 0 and "concealed" in result.stderr
    result = run("truncate", file, "--bytes", 10, "-o", tmp_path / "b.fov")
    assert result.exit_code == 2 and "header and base layer" in result.stderr
    assert not (tmp_path / "b.fov").exists()
