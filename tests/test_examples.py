"""The example programs run, stop by themselves and leave what they promise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

Program = Callable[[str], ModuleType]


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    y, x = np.mgrid[:96, :128]
    pixels = np.stack([2 * x, 2 * y, (x * y // 20) % 256], -1).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_picture_refines_over_a_lossy_link(
    photo: Path, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = program("examples/udp_link.py")
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
    photo: Path, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = program("examples/udp_link.py")
    monkeypatch.setattr(example, "QUIET_S", 0.4)
    assert example.main([str(photo), "-o", str(tmp_path / "out"), "--loss", "1", "--rate", "200000"]) == []
