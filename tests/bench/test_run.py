from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foveal.bench import results
from foveal.bench.rivals import Spec
from foveal.bench.run import Summary, bench
from foveal.bench.worker import Worker, timed
from foveal.errors import FovealError, InputError

GRID = {"jpeg": (20, 50, 90), "webp": (10, 50, 90)}


def run(folder: Path, output: Path, **options: Any) -> Summary:
    asked = {
        "rivals": ("jpeg", "webp"),
        "qualities": GRID,
        "with_foveal": False,
        "progress": False,
        "repeats": 2,
    }
    return bench(folder, output=output, **{**asked, **options})


def test_every_picture_codec_and_setting_gets_a_line(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    summary = run(folder, tmp_path / "results.jsonl", report=tmp_path / "report")
    assert [point.key[:2] for point in summary.points] == [
        (image, codec) for image in ("a.png", "b.png") for codec in ("jpeg", "webp") for _ in range(3)
    ]
    for point in summary.points:
        assert point.bpp == pytest.approx(8 * point.bytes / (point.width * point.height), rel=1e-4)
        assert 15 < point.psnr_db < 60 and 0.3 < point.ms_ssim <= 1
        assert point.encode_s_per_mpx > 0 and point.decode_s_per_mpx > 0
        assert point.encode_repeats == point.decode_repeats == 2
    assert summary.page is not None and summary.page.exists()
    assert "vs webp" in str(summary)


def test_the_first_line_tells_how_it_was_run(folder: Path, tmp_path: Path) -> None:
    run(folder, tmp_path / "results.jsonl", limit=1)
    first = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])
    assert first["kind"] == "run"
    assert {"date", "cpu", "packages", "python"} <= set(first)
    assert (first["threads"], first["pictures"], first["folder"]) == (1, 1, "pictures")
    assert first["command"] == "foveal bench pictures --rivals jpeg,webp -o results.jsonl --no-foveal --threads 1"
    assert str(tmp_path) not in json.dumps(first)


def test_a_broken_off_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    points = run(folder, output).points
    lines = output.read_text().splitlines(keepends=True)
    output.write_text("".join(lines[:5]) + lines[5][:40])
    again = run(folder, output)
    assert again.points[:4] == points[:4]  # kept, times included
    assert [point.key for point in again.points] == [point.key for point in points]
    assert [point.bytes for point in again.points] == [point.bytes for point in points]
    before = output.read_text()
    run(folder, output)
    assert output.read_text() == before  # nothing left to do


def test_without_resuming_the_file_begins_anew(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    run(folder, output, limit=1)
    run(folder, output, limit=1, rivals=["jpeg"], resume=False)
    assert {point.codec for point in results.read(output).points} == {"jpeg"}


def test_measurements_that_do_not_belong_together_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    run(folder, output, limit=1)
    with pytest.raises(InputError, match="1 threads, not 2"):
        run(folder, output, threads=2)
    output.write_text(output.read_text().replace("Pillow", "Pillow 1"))
    with pytest.raises(InputError, match="measured with jpeg Pillow 1"):
        run(folder, output)


def test_arguments_that_cannot_be_used_are_refused_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    with pytest.raises(InputError, match="unknown codec 'gif'"):
        run(folder, output, rivals=["gif"])
    with pytest.raises(InputError, match="not a folder"):
        run(folder / "none", output)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no pictures"):
        run(tmp_path / "empty", output)
    assert not output.exists()


def test_a_codec_that_fails_is_named(tmp_path: Path) -> None:
    job = {
        "do": "decode",
        "source": str(tmp_path / "none.jpg"),
        "target": str(tmp_path / "x.npy"),
        "repeats": 1,
    }
    with Worker(Spec("jpeg")) as worker, pytest.raises(FovealError, match="jpeg failed: FileNotFoundError"):
        worker.ask(job)
    with pytest.raises(FovealError, match="gif failed: InputError"):
        Worker(Spec("gif"))


def test_timed_stops_repeating_when_its_time_is_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("foveal.bench.worker.time.perf_counter", lambda: float(next(clock)))
    result, seconds = timed(lambda: "done", 10)  # every call takes 1 s of this clock
    assert (result, seconds) == ("done", [1.0, 1.0, 1.0])


def test_foveal_itself_is_coded_and_decoded_in_two_processes(folder: Path, tmp_path: Path) -> None:
    summary = run(folder, tmp_path / "r.jsonl", with_foveal=True, rivals=[], qualities=(20, 80), limit=1, repeats=1)
    coarse, fine = summary.points
    assert (coarse.codec, coarse.setting, fine.setting) == ("foveal", 20, 80)
    assert coarse.bytes < fine.bytes and coarse.psnr_db < fine.psnr_db
    model = next(m for m in results.read(summary.results).run["models"] if m["name"] == "s")
    assert model["kmac_encode"] > 0 and model["weights_hash"][:16] in fine.version
