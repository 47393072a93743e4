from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from foveal.bench import results
from foveal.bench.results import Point
from foveal.errors import InputError


def test_what_is_appended_is_read_back(tmp_path: Path, points: list[Point], point: Callable[..., Point]) -> None:
    file = tmp_path / "results.jsonl"
    lossless = point("c.png", "jpeg", 100, 9.0, math.inf)
    results.append(file, {"threads": 2})
    for item in (*points, lossless):
        results.append(file, item)
    results.append(file, {"threads": 2, "note": "a second run"})
    read = results.read(file)
    assert read.run == {"threads": 2}
    assert read.points == (*points, lossless)
    assert json.loads(file.read_text().splitlines()[-2])["psnr_db"] is None  # JSON has no infinity


def test_an_unfinished_line_is_ignored_and_can_be_cut(tmp_path: Path, points: list[Point]) -> None:
    file = tmp_path / "results.jsonl"
    results.append(file, {"threads": 1})
    results.append(file, points[0])
    whole = file.read_text()
    file.write_text(whole + '{"kind": "poi')
    assert results.read(file).points == (points[0],)
    results.cut_unfinished_line(file)
    assert file.read_text() == whole


@pytest.mark.parametrize("line", ["[]", "no JSON", '{"kind": "other"}', '{"kind": "point", "image": "a.png"}'])
def test_other_files_are_refused(tmp_path: Path, line: str) -> None:
    file = tmp_path / "other.jsonl"
    file.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1"):
        results.read(file)


@pytest.mark.parametrize(
    ("name", "value"), [("image", ["a"]), ("bytes", 1.5), ("setting", None), ("psnr_db", "x"), ("width", True)]
)
def test_values_of_another_type_are_refused(
    tmp_path: Path, point: Callable[..., Point], name: str, value: object
) -> None:
    file = tmp_path / "other.jsonl"
    results.append(file, point("a.png", "jpeg", 1, 0.5, 30))
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, name: value}) + "\n")
    with pytest.raises(InputError, match=f"line 1: {name} is "):
        results.read(file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        results.read(tmp_path / "none.jsonl")


COMMITTED = Path(__file__).parents[2] / "benchmarks" / "results"


@pytest.mark.parametrize("name", ["kodak", "kodak-effort", "kodak-effort-10", "kodak-speed"])
def test_files_of_old_know_no_sources_and_are_read(tmp_path: Path, name: str) -> None:
    file = Path(shutil.copy(COMMITTED / f"{name}.jsonl", tmp_path))
    assert results.holds_records(file)
    assert {point.source for point in results.read(file).points} == {""}


@pytest.mark.parametrize(
    "data",
    [
        b"a note of mine",
        b"a note\nof two lines\nand a half",
        b"\n",
        b"\x89PNG\r\n\x1a\n\0\xff\xd8",
        b'{"my":"single line config"}',
        b'{"kind": "point", "x": 1}',
        b'{"kind": "run"}',
        b'{"kind": "loss run", "date": "today"}\n',
        b'["kind"]\n',
        b'{"kind": ["run"]}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_what_is_not_ours_is_refused_and_left_alone(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"notes\.txt holds something else .*; name another"):
        results.holds_records(file)
    assert file.read_bytes() == data


def test_an_empty_file_and_the_beginning_of_a_run_are_begun_anew(tmp_path: Path) -> None:
    file = tmp_path / "new" / "results.jsonl"
    assert not results.holds_records(file)
    results.begin(file)
    assert file.read_bytes() == b"" and not results.holds_records(file)
    file.write_text('{"kind": "run", "date": "2026-11-')
    assert not results.holds_records(file)
    file.write_text('{"kind": "run", "date": "2026-11-26"}\n{"ki')
    assert results.holds_records(file)


def test_places_that_cannot_be_written_are_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    with pytest.raises(InputError, match="is not a file; name a file"):
        results.holds_records(tmp_path)
    for path in (tmp_path, tmp_path / "file" / "results.jsonl"):
        for act in (results.begin, lambda path: results.append(path, {"threads": 1}), results.cut_unfinished_line):
            with pytest.raises(InputError, match=r"cannot write results to .*; name another"):
                act(path)
    assert (tmp_path / "file").read_text() == "text"
