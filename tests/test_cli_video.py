"""`foveal video encode`: options, folders, errors, progress, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

sys.path.insert(0, str(Path(__file__).parent / "video"))
import video_clips as made

import foveal
from foveal.cli import app
from foveal.cli_support import clips
from foveal.video.frames import Reader

FAST = ("--codec", "x264", "--preset", "ultrafast", "--no-side-info")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="foveal")


def fresh(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "foveal", *map(str, arguments)]


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What `foveal.video.encode` would be called with, instead of calling it."""
    called: list[dict[str, Any]] = []

    def encode(source: str, out: str, **options: Any) -> Any:
        called.append({"source": source, "out": out, **options})
        raise foveal.InputError("not today")

    monkeypatch.setattr("foveal.video.encode", encode, raising=False)
    return called


@pytest.mark.parametrize("command", [("video",), ("video", "encode"), ("video", "decode"), ("restore",)])
def test_commands_have_help(command: tuple[str, ...]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0 and "Usage: foveal" in result.stdout


def test_options_reach_the_door(options: list[dict[str, Any]]) -> None:
    run("video", "encode", "a.mp4", "-o", "b.mkv", "--scale", "1.5", "-c", "x265", "-b", "800k", "--preset", "slow",
        "--bits", "10", "--model", "m", "--no-side-info")  # fmt: skip
    run("video", "encode", "a.mp4", "--crf", "30.5")
    run("video", "encode", "a.mp4", "--target-vmaf", "85")
    first, second, third = options
    wanted = {"source": "a.mp4", "out": "b.mkv", "scale": 1.5, "codec": "x265", "crf": None, "bitrate": 800_000,
              "target_vmaf": None, "preset": "slow", "bits": 10, "model": "m", "side_information": False,
              "progress": None}  # fmt: skip
    assert first == wanted
    assert (second["scale"], second["codec"], second["crf"]) == ("auto", "svtav1", 30.5)
    assert (second["out"], second["side_information"]) == ("a-small.mp4", True)
    assert third["target_vmaf"] == 85


@pytest.mark.parametrize(
    ("text", "bits"), [("800k", 800_000), ("2.5M", 2_500_000), ("800000", 800_000), ("1m", 1_000_000), (None, None)]
)
def test_bitrates_are_written_as_for_ffmpeg(text: str | None, bits: int | None) -> None:
    assert clips.per_second(text) == bits


@pytest.mark.parametrize(
    "arguments",
    [
        ("none.mp4",),
        ("text.mp4",),
        ("cut.mp4",),
        ("sound.mp4",),
        ("in.mp4", "--scale", "huge"),
        ("in.mp4", "--scale", "3"),
        ("in.mp4", "--bitrate", "fast"),
        ("in.mp4", "--crf", "23", "--bitrate", "80k"),
        ("in.mp4", "--crf", "90"),
        ("in.mp4", "--codec", "h263"),
        ("in.mp4", "--target-vmaf", "80", "--crf", "20"),
        ("in.mp4", "--bits", "9"),
        ("in.mp4", "-o", "in.mp4"),
        ("in.mp4", "-o", "out.avi"),
        ("in.mp4", "-o", "none/out.mp4"),
        ("empty", "-o", "out/"),
        ("-", "-o", "out.mp4"),
    ],
)
def test_bad_input_is_one_line_status_two_and_no_output(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = made.clip(tmp_path / "in.mp4").read_bytes()
    made.with_cover(tmp_path / "sound.mp4", pictures=False)
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = run("video", "encode", *arguments, "--no-side-info")
    assert result.exit_code == 2
    assert result.stderr.startswith("foveal: ") and len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert [path for path in sorted(tmp_path.rglob("*")) if path.name != "out"] == before


def test_a_file_lies_beside_its_input_unless_told(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv")
    result = run("video", "encode", source, *FAST, "--scale", 2)
    assert (result.exit_code, result.stdout) == (0, "")
    with Reader(tmp_path / "in-small.mkv") as reader:
        assert (reader.format.width, reader.format.height) == (32, 24)


def test_a_folder_becomes_a_folder(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("a.mp4", "b.mkv", "c.avi"):
        made.clip(tmp_path / "clips" / name, "mpeg4" if name == "c.avi" else "libx264", times=range(3))
    (tmp_path / "clips" / "note.txt").write_text("not a clip")
    for jobs in (1, 2):
        out = tmp_path / f"out{jobs}"
        result = run("video", "encode", tmp_path / "clips", "-o", out, *FAST, "--scale", 2, "-j", jobs)
        assert result.exit_code == 0, result.stderr
        assert sorted(path.name for path in out.iterdir()) == ["a-small.mp4", "b-small.mkv", "c-small.mkv"]
    for path in (tmp_path / "out1").iterdir():
        assert path.read_bytes() == (tmp_path / "out2" / path.name).read_bytes()


def test_one_bad_clip_does_not_stop_the_others(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video at all")
    source = made.clip(tmp_path / "good.mp4", times=range(3))
    result = run("video", "encode", tmp_path / "bad.mp4", source, "-o", tmp_path / "out", *FAST, "--scale", 2)
    assert result.exit_code == 2 and "bad.mp4" in result.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["good-small.mp4"]


def test_several_clips_to_one_file_are_refused(tmp_path: Path) -> None:
    sources = [made.clip(tmp_path / name, times=range(2)) for name in ("a.mp4", "b.mkv")]
    (tmp_path / "one.mp4").write_bytes(b"precious")
    for target in (tmp_path / "one.mp4", tmp_path / "new.mp4", "-"):
        result = run("video", "encode", *sources, "-o", target, *FAST)
        assert (result.exit_code, result.stdout) == (2, "")
    assert (tmp_path / "one.mp4").read_bytes() == b"precious" and not (tmp_path / "new.mp4").exists()


def test_warnings_are_one_line(tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", "ffv1", pixel_format="yuv444p", times=range(2))
    result = run("video", "encode", source, *FAST, "--scale", 2)
    assert result.exit_code == 0
    assert result.stderr.splitlines() == [f"foveal: warning: {source}: 4:4:4 becomes 4:2:0"]


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_no_file(tmp_path: Path) -> None:
    """A real interrupt of a real process, in the middle of coding."""
    source = made.clip(tmp_path / "in.mkv", width=320, height=240, times=range(60))
    command = fresh("video", "encode", source, "-o", tmp_path / "out.mkv", "--codec", "x264", "--preset", "placebo",
                    "--scale", "1", "--no-side-info")  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        for _ in range(600):
            if len(list(tmp_path.iterdir())) > 1 or process.poll() is not None:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode != 0
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_progress_has_frames_rate_and_time_left(tmp_path: Path) -> None:
    pty = pytest.importorskip("pty")
    source = made.clip(tmp_path / "in.mkv", times=range(40))
    master, terminal = pty.openpty()
    command = fresh("video", "encode", source, "-o", tmp_path / "out.mkv", *FAST, "--scale", "2")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", "TERM": "xterm", "NO_COLOR": "1"}
    told = b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=environment) as process:
        os.close(terminal)
        with suppress(OSError):  # the end of a terminal
            while piece := os.read(master, 65536):
                told += piece
        assert process.communicate()[0] == b""
    os.close(master)
    assert process.returncode == 0
    text = told.decode()
    assert "in.mkv" in text and "40 frames" in text and "fps" in text and "0:00:0" in text
    assert "half size: as asked for" in text


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (("video", "encode", "--crf", "20"), "--crf 20:"),
        (("video", "encode", "-b", "800k"), "--bitrate 800k:"),
        (("video", "encode", "--target-vmaf", "90.5", "--scale", "2"), "--target-vmaf 90.5:"),
        (("video", "decode", "--crf", "14"), "--crf 14:"),
        (("restore", "--crf", "20"), "--crf 20:"),
    ],
)
def test_ffv1_takes_no_rate(command: tuple[str, ...], named: str, tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", times=range(2))
    result = run(*command, "-c", "ffv1", source, "-o", tmp_path / "out.mkv")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"foveal: {named} ffv1 is lossless; leave it out, or take another codec\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


@pytest.mark.parametrize("name", ["decode", "restore"])
def test_the_usual_crf_is_no_rate_that_was_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[dict[str, Any]] = []

    def door(source: str, out: str, **options: Any) -> Any:
        called.append(options)
        raise foveal.InputError("not today")

    monkeypatch.setattr(f"foveal.video.{name}", door)
    command = ("restore",) if name == "restore" else ("video", name)
    for codec in (["-c", "ffv1"], ["-c", "x264", "--crf", "20"]):
        assert run(*command, "a.mkv", *codec).stderr == "foveal: a.mkv: not today\n"
    assert [(o["codec"], o["crf"]) for o in called] == [("ffv1", None), ("x264", 20)]


@pytest.mark.parametrize("words", ["12 frames are done; resume goes on behind them", ""])
@pytest.mark.parametrize("command", [("video", "encode"), ("video", "decode"), ("restore",)])
def test_ctrl_c_says_what_is_kept(command: tuple[str, ...], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def door(source: str, out: str, **options: Any) -> Any:
        raise KeyboardInterrupt(words)

    monkeypatch.setattr(f"foveal.video.{command[-1]}", door)
    result = run(*command, "a.mkv")
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr == (f"foveal: interrupted: {words}\n" if words else "foveal: interrupted\n")


@pytest.mark.parametrize(
    ("rate", "told"),
    [
        (("-b", "300M"), "bitrate 300000000: svtav1 takes 100000000 at most"),
        (("-b", "80k", "--scale", "2"), "48x40: svtav1 keeps to a bitrate from pictures of 64x64 on; give --crf"),
    ],
)
def test_limits_of_svtav1_are_told_in_words(rate: tuple[str, ...], told: str, tmp_path: Path) -> None:
    source = made.clip(tmp_path / "in.mkv", width=96, height=80, times=range(2))
    result = run("video", "encode", source, "-o", tmp_path / "out.mkv", "--no-side-info", *rate)
    assert result.exit_code == 2 and told in result.stderr and len(result.stderr.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["in.mkv"]


def test_sound_may_outlast_the_pictures(tmp_path: Path) -> None:
    source = made.outlasted(tmp_path / "in.mkv", late=3)
    result = run("video", "encode", source, "-o", tmp_path / "out.mkv", *FAST)
    assert result.exit_code == 0, result.stderr
    with Reader(tmp_path / "out.mkv") as reader:
        assert sum(1 for _ in reader) == 50


def test_the_usual_codec_does_not_take_a_suffix_over_that_it_cannot_write(tmp_path: Path) -> None:
    assert clips.pairs(["a.mov"], None, "-small", None, (".mov",)) == [("a.mov", "a-small.mkv")]
    assert clips.pairs(["a.mov"], None, "-small", None) == [("a.mov", "a-small.mov")]
    assert clips.pairs(["a.mp4"], None, "-small", None, (".mov",)) == [("a.mp4", "a-small.mp4")]
