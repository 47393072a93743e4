from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from foveal.bench import machine, results
from foveal.bench.rivals import Spec
from foveal.bench.run import Summary, bench
from foveal.bench.worker import Worker, timed
from foveal.cli import app
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
    assert first["command"] == (
        "foveal bench pictures --rivals jpeg,webp -o results.jsonl --no-foveal --limit 1 --threads 1 --repeats 2"
    )
    assert str(tmp_path) not in json.dumps(first)


def test_the_command_of_the_first_line_can_be_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(folder, tmp_path / "results.jsonl", limit=1, qualities=None, rivals=("jpeg",), repeats=1)
    said = json.loads((tmp_path / "results.jsonl").read_text().splitlines()[0])["command"]
    monkeypatch.chdir(folder.parent)
    words = [folder.name if word == "pictures" else word for word in shlex.split(said)[1:]]
    assert CliRunner().invoke(app, words).exit_code == 0
    again = results.read(Path("results.jsonl")).points
    assert [(p.key, p.bytes) for p in again] == [(p.key, p.bytes) for p in first.points]


def test_a_system_without_a_load_average_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise OSError("not here")

    monkeypatch.setattr("os.getloadavg", refuse)
    assert machine.about([], ["numpy", "no-such-package"])["load"] is None
    monkeypatch.delattr("os.getloadavg")
    found = machine.about([], ["numpy", "no-such-package"])
    assert found["load"] is None and found["cores"] >= 1 and list(found["packages"]) == ["numpy"]


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


FOREIGN = (b"my notes\nunfinished", b"\x89PNG\r\n\x1a\n\0\0", b'{"my":"single line config"}')


@pytest.mark.parametrize("data", FOREIGN)
@pytest.mark.parametrize("resume", [True, False])
def test_a_file_that_holds_something_else_is_left_alone(
    folder: Path, tmp_path: Path, data: bytes, resume: bool
) -> None:
    output = tmp_path / "notes.txt"
    output.write_bytes(data)
    with pytest.raises(InputError, match="left as it is; name another"):
        run(folder, output, resume=resume)
    assert output.read_bytes() == data


def test_a_refused_results_file_keeps_its_unfinished_line(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    run(folder, output, limit=1)
    with output.open("a") as file:
        file.write('{"kind": "poi')
    before = output.read_bytes()
    with pytest.raises(InputError, match="1 threads, not 2"):
        run(folder, output, threads=2)
    assert output.read_bytes() == before


def test_an_output_that_is_a_folder_or_in_none_is_refused(folder: Path, tmp_path: Path) -> None:
    for output in (tmp_path, folder / "a.png" / "results.jsonl"):
        with pytest.raises(InputError, match="; name a"):
            run(folder, output)


def test_the_command_refuses_in_one_line(folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from foveal.cli import app

    (tmp_path / "notes.txt").write_text("mine")
    for words in (["bench", "--rivals", "jpeg"], ["bench-loss"]):
        for output in (tmp_path, tmp_path / "notes.txt"):
            done = CliRunner().invoke(app, [*words, str(folder), "-o", str(output)])
            assert (done.exit_code, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_another_picture_of_the_same_name_does_not_get_old_numbers(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    first = run(folder, output)
    assert all(point.source for point in first.points)
    other = tmp_path / "other"
    other.mkdir()
    (folder / "a.png").rename(other / "c.png")
    (folder / "b.png").rename(other / "a.png")
    before = output.read_bytes()
    with pytest.raises(InputError, match=r"another a\.png .*name another output file, or start it anew"):
        run(other, output)
    assert output.read_bytes() == before
    again = run(other, output, resume=False)
    assert [p.bytes for p in again.points if p.image == "a.png"] == [
        p.bytes for p in first.points if p.image == "b.png"
    ]


def test_measurements_without_a_source_are_resumed(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "results.jsonl"
    points = run(folder, output, limit=1).points
    records = [json.loads(line) for line in output.read_text().splitlines()]
    for record in records:
        record.pop("source", None)
    output.write_text("".join(json.dumps(record) + "\n" for record in records))
    again = run(folder, output)
    assert [point.source for point in again.points] == [""] * len(points) + [again.points[-1].source] * len(points)
    assert [p.encode_s_per_mpx for p in again.points[: len(points)]] == [p.encode_s_per_mpx for p in points]
