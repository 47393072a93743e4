"""Several files at once: Ctrl-C, memory that does not suffice, and standard streams that are closed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner, Result

import foveal
from foveal.cli import app
from foveal.cli_support import clips, jobs

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="foveal")


def fresh(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "foveal", *map(str, arguments)]


def noise(path: Path, width: int = 32, height: int = 32) -> Path:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.skipif(os.name == "nt", reason="signals to a group of processes")
@pytest.mark.parametrize("to_group", [True, False])
@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_every_process_and_leaves_what_was_done(tmp_path: Path, to_group: bool) -> None:
    """The first picture is done in a moment; the others would take minutes."""
    names = [noise(tmp_path / "small.png"), *(noise(tmp_path / f"large{n}.png", 1024, 1024 + n) for n in range(3))]
    out = tmp_path / "out"
    command = fresh("encode", *names, "-o", out, "-j", 2, "--effort", 9)
    with subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT, start_new_session=True) as process:
        while not (out / "small.fov").exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        (os.killpg if to_group else os.kill)(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)  # ends when every process that holds standard error has
    assert (process.returncode, told) == (130, b"foveal: interrupted\n")
    assert [path.name for path in out.iterdir()] == ["small.fov"]


def test_ctrl_c_in_this_process_is_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    done = []

    def work(source: str, target: str) -> str:
        done.append(source)
        raise KeyboardInterrupt("half is done")

    with pytest.raises(typer.Exit) as stop:
        jobs.run_each([("a", "b"), ("c", "d")], work)
    assert (stop.value.exit_code, done) == (130, ["a"])
    assert capsys.readouterr().err == "foveal: interrupted: half is done\n"


def test_memory_that_does_not_suffice_is_one_files_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [noise(tmp_path / f"{name}.png", 32 + 16 * n) for n, name in enumerate(("python", "torch", "fine"))]
    compress = foveal.compress

    def scarce(image: Any, **options: Any) -> bytes:
        if image.width == 32:
            raise MemoryError
        if image.width == 48:
            torch.empty(1 << 50, dtype=torch.uint8)
        return compress(image, **options)

    monkeypatch.setattr(foveal, "compress", scarce)
    result = run("encode", *names, "-o", f"{tmp_path / 'out'}/", "--effort", 1)
    assert result.exit_code == 2
    remedy = "scale it down, or use fewer jobs with -j"
    assert result.stderr.splitlines() == [f"foveal: not enough memory for {name}; {remedy}" for name in names[:2]]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["fine.fov"]


def test_other_errors_are_not_hidden() -> None:
    def work(source: str, target: str) -> str:
        raise RuntimeError("a fault of ours")

    with pytest.raises(RuntimeError, match="a fault of ours"):
        jobs.run_each([("a", "b")], work)


@pytest.mark.skipif(os.name == "nt", reason="a shell that closes streams")
@pytest.mark.parametrize(
    ("arguments", "closed", "told"),
    [
        (("encode", "-", "-o", "b.fov"), "<&-", "standard input is closed"),
        (("encode", "a.png", "-o", "-"), ">&-", "standard output is closed"),
        (("info", "-"), "<&-", "standard input is closed"),
    ],
)
def test_closed_streams_are_one_line(tmp_path: Path, arguments: tuple[str, ...], closed: str, told: str) -> None:
    noise(tmp_path / "a.png")
    command = ["sh", "-c", f'exec "$@" {closed}', "sh", *fresh(*arguments)]
    done = subprocess.run(command, cwd=tmp_path, stderr=subprocess.PIPE, env=ENVIRONMENT, text=True)
    assert done.returncode == 2
    assert told in done.stderr and done.stderr.startswith("foveal: ") and len(done.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_clips_from_closed_streams_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(foveal.InputError, match="standard input is closed"):
        clips.restore_one("-", "a.mkv", {}, watched=False)
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(foveal.InputError, match="standard output is closed"):
        clips.decode_one("a.mkv", "-", {}, watched=False)


@pytest.mark.skipif(os.name == "nt", reason="a shell that closes streams")
def test_closed_standard_error_is_no_fault(tmp_path: Path) -> None:
    noise(tmp_path / "a.png")
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", *fresh("encode", "a.png", "--effort", "1")]
    assert subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT).returncode == 0
    assert (tmp_path / "a.fov").exists()


def test_damaged_exif_does_not_stop_decoding(tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), (9, 90, 200)).save(tmp_path / "a.jpg", exif=b"Exif\0\0garbage-not-tiff")
    assert run("encode", tmp_path / "a.jpg", "--effort", 1).exit_code == 0
    for suffix in ("avif", "tif"):
        result = run("decode", tmp_path / "a.fov", "-o", tmp_path / f"b.{suffix}")
        assert (result.exit_code, len(result.stderr.splitlines())) == (0, 1)
        assert result.stderr.startswith(f"foveal: warning: {tmp_path / 'a.fov'}: ") and "EXIF" in result.stderr
        with Image.open(tmp_path / f"b.{suffix}") as picture:
            assert picture.size == (32, 32)


@pytest.mark.filterwarnings("default")
def test_a_warning_of_compare_is_one_line(tmp_path: Path) -> None:
    deep = tmp_path / "deep.png"
    Image.fromarray(np.linspace(0, 65_535, 48 * 64).astype(np.uint16).reshape(48, 64)).save(deep)
    result = run("compare", deep, noise(tmp_path / "other.png", 64, 48))
    assert result.exit_code == 0 and " dB" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"foveal: warning: {deep}: ") and line.endswith("converted to 8 bits")


def test_other_warnings_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(UserWarning, match="a fault of ours"), jobs.warnings_in_lines():
        warnings.warn("a fault of ours", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == ""


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_a_name_that_is_no_text_is_printed(tmp_path: Path) -> None:
    source = noise(tmp_path / "a.png")
    coded = os.fsencode(tmp_path) + b"/\xffb.fov"
    Path(os.fsdecode(coded)).write_bytes(foveal.compress(Image.open(source)))
    command = [*fresh("info"), coded]
    done = subprocess.run(command, capture_output=True, env={**ENVIRONMENT, "PYTHONIOENCODING": "utf-8:strict"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\\udcffb.fov" in done.stdout
