from __future__ import annotations

import json
import math
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


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        results.read(tmp_path / "none.jsonl")
