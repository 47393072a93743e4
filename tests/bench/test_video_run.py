"""The video benchmark from clips to tables. Foveal's own encoder and restorer are tested in their rooms: here ffmpeg
stands in for them, so that what is measured is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import foveal
from foveal.bench import video_media as media
from foveal.bench import video_results, video_run, video_speed
from foveal.bench.pictures import fingerprint
from foveal.bench.video_run import bench_video
from foveal.bench.video_worker import VideoWorker
from foveal.cli import app
from foveal.errors import FovealError, InputError

RATES = ["x264=35,45/25,35"]


class StandIn(VideoWorker):
    """In this process: x264 by ffmpeg, and Lanczos for every restorer. A scale "auto" is 2."""

    calls: list[tuple[str, dict[str, Any]]]
    original: media.Clip
    lose_frames = False
    side = True

    def __init__(self, threads: int, bound: bool = False) -> None:
        self.threads = threads

    def close(self) -> None: ...

    def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        type(self).calls.append((name, arguments))
        report: Any = None
        if name == "encode":
            original = type(self).original = media.read_clip(arguments["source"])
            scale = 2 if arguments["scale"] == "auto" else arguments["scale"]
            small = f"scale={original.width // scale}:{original.height // scale}"
            cut = ["-frames:v", 2] if self.lose_frames else []
            words = ["-c:v", "libx264", "-crf", arguments["crf"], "-threads", 1]
            media.ffmpeg("-i", arguments["source"], "-vf", small, *words, *cut, arguments["out"])
            side = 40 if arguments["side_information"] else 0
            report = {"scale": scale, "side_bytes": side, "why": "it stands in"}
        else:
            media.lanczos(arguments["source"], arguments["out"], type(self).original)
            report = None if name == "lanczos" else {"reused": 0.5, "side_information": self.side, "why": "told"}
        return {"report": report, "seconds": 0.5, "cpu_seconds": 0.25, "peak_mib": 100.0}


@pytest.fixture
def folder(clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of one clip, and the stand-ins."""
    (tmp_path / "clips").mkdir()
    clip("clips/pan.y4m", width=80, height=48, frames=5, still=True)
    StandIn.calls, StandIn.lose_frames, StandIn.side = [], False, True
    for module in (video_run, video_speed):
        monkeypatch.setattr(module, "VideoWorker", StandIn)
    for module in (video_results, video_speed):
        monkeypatch.setattr(
            module, "weights_of", lambda variant: "1234" if variant[-1] == "S" or "S+" in variant else ""
        )
    return tmp_path / "clips"


def measure(folder: Path, output: Path, **changes: Any) -> str:
    options: dict[str, Any] = {"codecs": ["x264"], "rates": RATES, "parts": ["rates", "auto"], "frames": 4}
    return bench_video(folder, output=output, **{**options, **changes})


def test_a_run_is_written_line_by_line_resumed_and_reported(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "video.jsonl"
    table = measure(folder, output, report=tmp_path / "report")
    lines = output.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["kind"] for record in records] == ["video run"] + ["point"] * 10
    assert "BD-rate against full resolution" in table and (tmp_path / "report" / "index.html").is_file()
    assert str(tmp_path) not in output.read_text()
    calls = len(StandIn.calls)
    output.write_text("\n".join(lines[:8]) + "\n{unfinished")
    assert measure(folder, output) == table
    again = output.read_text().splitlines()
    assert sorted(line for line in again if "point" in line[:20]) == sorted(lines[1:])
    assert len(StandIn.calls) < 2 * calls
    before = len(StandIn.calls)
    assert measure(folder, output) == table
    assert len(StandIn.calls) == before
    with pytest.raises(InputError, match="made with options"):
        measure(folder, output, frames=3)


def test_another_clip_of_the_same_name_does_not_get_old_numbers(folder: Path, tmp_path: Path) -> None:
    output, source = tmp_path / "video.jsonl", folder / "pan.y4m"
    measure(folder, output)
    lines = output.read_text().splitlines()
    assert {json.loads(line)["source"] for line in lines[1:]} == {fingerprint(source)}
    source.write_bytes(source.read_bytes()[:-1] + b"\x00")
    with pytest.raises(
        InputError, match=r"measured with another pan\.y4m .*name another output file, or start it anew"
    ):
        measure(folder, output)
    assert output.read_text().splitlines() == lines
    measure(folder, output, resume=False)
    assert json.loads(output.read_text().splitlines()[-1])["source"] == fingerprint(source)


def test_measurements_without_a_mark_of_their_clip_are_resumed(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "video.jsonl"
    measure(folder, output)
    records = [json.loads(line) for line in output.read_text().splitlines()]
    old = [json.dumps({key: value for key, value in record.items() if key != "source"}) for record in records]
    output.write_text("\n".join(old) + "\n")
    before = len(StandIn.calls)
    measure(folder, output)
    assert len(StandIn.calls) == before and output.read_text().splitlines() == old


def test_points_hold_the_bytes_of_the_stream_and_of_the_side_information(folder: Path, tmp_path: Path) -> None:
    measure(folder, tmp_path / "video.jsonl", rates=["x264=35/25"], parts=["rates", "auto", "x1"])
    points = {p.key[2:4]: p for p in video_results.read(tmp_path / "video.jsonl").points}
    plain, blind, aided = (points[variant, 25] for variant in ("lanczos", "S", "S+side"))
    assert plain.bytes == blind.bytes == aided.bytes - 40 and (blind.side_bytes, aided.side_bytes) == (0, 40)
    assert plain.psnr_y == blind.psnr_y == aided.psnr_y
    assert aided.kbps == pytest.approx(aided.bytes * 8 / (4 / 25) / 1000, abs=1e-3)
    assert (aided.frames, aided.scale, points["full", 35].scale, points["auto-S", 35].scale) == (4, 2, 1, 2)
    assert (plain.weights, plain.reused, blind.weights, blind.reused) == ("", None, "1234", 0.5)
    assert points["auto-S", 35].why == "it stands in"
    assert (plain.encode_s, plain.encode_cpu_s) == (0.5, 0.25)
    assert plain.static_share is not None and plain.static_share == 0.4


def test_the_start_of_a_clip_is_measured_beside_the_rival(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_run.video_rivals, "check", lambda: Path())
    table = measure(folder, tmp_path / "video.jsonl", rates=["x264=35/35"], parts=["rates", "rival"], rival_frames=2)
    start = [p for p in video_results.read(tmp_path / "video.jsonl").points if p.part == "start"]
    assert {(p.variant, p.crf, p.frames) for p in start} == {(v, 35, 2) for v in ("lanczos", "S", "S+side", "realesr")}
    assert "The same streams of half size" in table
    rival = next(arguments for name, arguments in StandIn.calls if name == "realesr")
    assert rival["frames"] == 2


def test_speed_is_measured_for_two_lengths_at_720p(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_speed, "FRAMES", (2, 6))
    table = measure(folder, tmp_path / "video.jsonl", parts=["speed"])
    speeds = video_results.read(tmp_path / "video.jsonl").speeds
    assert [(s.variant, s.frames) for s in speeds] == [(v, n) for v in ("lanczos", "S", "S+side") for n in (2, 6)]
    assert {(s.width, s.height, s.threads, s.peak_mib) for s in speeds} == {(1280, 720, 1, 100)}
    assert speeds[0].cpu_fps == 8 and "peak MiB" in table
    assert measure(folder, tmp_path / "video.jsonl", parts=["speed"]) == table


def test_an_encoder_that_loses_frames_is_not_measured(folder: Path, tmp_path: Path) -> None:
    StandIn.lose_frames = True
    with pytest.raises(FovealError, match="2 frames of the 4"):
        measure(folder, tmp_path / "video.jsonl")


def test_side_information_that_was_not_used_is_not_measured_as_if(folder: Path, tmp_path: Path) -> None:
    StandIn.side = False
    with pytest.raises(FovealError, match=r"S\+side: told"):
        measure(folder, tmp_path / "video.jsonl", rates=["x264=35/25"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"parts": ["everything"]}, "unknown part"), ({"codecs": ["vp9"]}, "no rates"), ({"clips": ["x"]}, "begins with")],
)
def test_what_it_does_not_know_is_refused(folder: Path, tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure(folder, tmp_path / "video.jsonl", **changes)
    assert not (tmp_path / "video.jsonl").exists()


@pytest.mark.parametrize("words", [("bench-video",), ("bench", "video")])
def test_the_command_has_two_names(folder: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    from typer.testing import CliRunner

    options = ["--codecs", "x264", "--rates", "x264=35/25", "--frames", "4", "--parts", "rates", "--clips", "pan"]
    done = CliRunner().invoke(app, [*words, str(folder), "-o", str(tmp_path / "video.jsonl"), *options])
    assert done.exit_code == 0, done.stderr
    assert "Processor seconds per megapixel" in done.stdout
    (run,) = video_results.read(tmp_path / "video.jsonl").runs
    assert run["options"] == {"frames": 4, "threads": 1, "rival_frames": 4} and run["foveal"] == foveal.__version__
    assert "--rates x264=35/25" in run["command"]
