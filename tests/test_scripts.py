"""The programs in scripts/ that the tables of the documents stand on run, and write what they say."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
Results = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[:96, :112]
    pixels = np.stack([2 * x, 2 * y, (x * y // 20) % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(made / "a.png")
    return made


@pytest.fixture
def results(program: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> Results:
    """Runs a script's main in this process; what it wrote to the file behind -o."""

    def run(name: str, *words: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(sys, "argv", [name, *words])
        program(f"scripts/{name}.py").main()
        return [json.loads(line) for line in Path(words[words.index("-o") + 1]).read_text().splitlines()]

    return run


def test_what_dropping_patches_saves(folder: Path, tmp_path: Path, results: Results) -> None:
    run, *rows = results("bench_keep", str(folder), "-o", str(tmp_path / "r.jsonl"))
    assert run["kind"] == "run" and run["weights"] and run["cpu"]
    found = {row["keep"]: row for row in rows}
    assert list(found) == ["all", 0.75, 0.5, 0.25, "auto"]
    assert found["all"]["psnr_db"] > found[0.5]["psnr_db"] > found[0.25]["psnr_db"]
    assert found["all"]["bpp"] > found[0.5]["bpp"] and found["all"]["ms_ssim"] > found[0.25]["ms_ssim"]
    assert [found[keep]["dropped"] for keep in ("all", 0.75, 0.5)] == [0, 10, 21]


def test_what_packets_cost(folder: Path, tmp_path: Path, results: Results) -> None:
    run, *rows = results("bench_packets", str(folder), "-o", str(tmp_path / "r.jsonl"))
    assert run["command"] == f"scripts/bench_packets.py {folder.name} --limit 1"
    assert {(row["quality"], row["layers"]) for row in rows} == {(q, n) for q in (37, 60, 75) for n in (1, 2, 3, 5)}
    for row in rows:
        assert row["bytes_mtu_1200"] > row["bytes"] and abs(row["db"] - row["one_packet_db"]) < 0.5
        assert 0 < row["first_picture_share"] < row["base_share"] < 1 and row["first_picture_db"] < row["base_db"]


def test_what_the_integer_prior_costs(folder: Path, tmp_path: Path, results: Results) -> None:
    checkpoint = str(ROOT / "training" / "image-s.safetensors")
    words = (checkpoint, "--data", str(folder), "--limit", "1", "-o", str(tmp_path / "r.jsonl"))
    rows = results("bench_prior", *words)
    assert len({row["level"] for row in rows}) == len(rows) > 10
