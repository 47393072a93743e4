"""The programs in scripts/ that the tables of the documents stand on run, and write what they say."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("pictures")
    y, x = np.mgrid[:96, :112]
    pixels = np.stack([2 * x, 2 * y, (x * y // 20) % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(made / "a.png")
    return made


def results(name: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Run a script's main in this process; what it wrote to the file behind -o."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(sys, "argv", [name, *words])
    module.main()
    return [json.loads(line) for line in Path(words[words.index("-o") + 1]).read_text().splitlines()]


def test_what_dropping_patches_saves(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, *rows = results("bench_keep", str(folder), "-o", str(tmp_path / "r.jsonl"), monkeypatch=monkeypatch)
    assert run["kind"] == "run" and run["weights"] and run["cpu"]
    found = {row["keep"]: row for row in rows}
    assert list(found) == ["all", 0.75, 0.5, 0.25, "auto"]
    assert found["all"]["psnr_db"] > found[0.5]["psnr_db"] > found[0.25]["psnr_db"]
    assert found["all"]["bpp"] > found[0.5]["bpp"] and found["all"]["ms_ssim"] > found[0.25]["ms_ssim"]
    assert [found[keep]["dropped"] for keep in ("all", 0.75, 0.5)] == [0, 10, 21]


def test_what_packets_cost(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, *rows = results("bench_packets", str(folder), "-o", str(tmp_path / "r.jsonl"), monkeypatch=monkeypatch)
    assert run["command"] == f"scripts/bench_packets.py {folder.name} --limit 1"
    assert {(row["quality"], row["layers"]) for row in rows} == {(q, n) for q in (37, 60, 75) for n in (1, 2, 3, 5)}
    for row in rows:
        assert row["bytes_mtu_1200"] > row["bytes"] and abs(row["db"] - row["one_packet_db"]) < 0.5
        assert 0 < row["first_picture_share"] < row["base_share"] < 1 and row["first_picture_db"] < row["base_db"]


def test_what_the_integer_prior_costs(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = str(ROOT / "training" / "image-s.safetensors")
    words = (checkpoint, "--data", str(folder), "--limit", "1", "-o", str(tmp_path / "r.jsonl"))
    rows = results("bench_prior", *words, monkeypatch=monkeypatch)
    assert len({row["level"] for row in rows}) == len(rows) > 10
