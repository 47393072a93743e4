"""The example programs run, stop by themselves and leave what they promise."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    y, x = np.mgrid[:96, :128]
    pixels = np.stack([2 * x, 2 * y, (x * y // 20) % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_picture_refines_over_a_lossy_link(photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    example = load("udp_link")
    monkeypatch.setattr(example, "QUIET_S", 0.4)
    out = tmp_path / "out"
    lines = example.main(
        [str(photo), "-o", str(out), "--loss", "0.1", "--rate", "40000", "--mtu", "300", "--quality", "90"]
    )
    assert 1 <= len(lines) <= example.PICTURES
    assert [path.name for path in sorted(out.iterdir())] == [line.split(":")[0] for line in lines]
    with Image.open(out / "00.png") as picture:
        assert picture.size == (128, 96)


def test_nothing_arrives_and_it_stops_all_the_same(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load("udp_link")
    monkeypatch.setattr(example, "QUIET_S", 0.4)
    assert example.main([str(photo), "-o", str(tmp_path / "out"), "--loss", "1", "--rate", "200000"]) == []
