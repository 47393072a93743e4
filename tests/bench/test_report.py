from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from foveal.bench import results
from foveal.bench.report import report, speed_ratios, speeds, text
from foveal.bench.results import Point
from foveal.errors import InputError, MissingExtraError

MODEL = {
    "name": "s",
    "weights_hash": "ab" * 8,
    "parameters": 2_000_000,
    "kmac_encode": 7.12,
    "kmac_decode": 7.98,
}


@pytest.fixture
def file(tmp_path: Path, points: list[Point]) -> Path:
    path = tmp_path / "results.jsonl"
    results.append(path, {"folder": "kodak<b>", "threads": 2, "models": [{**MODEL, "file_bytes": 4096}]})
    for point in points:
        results.append(path, point)
    return path


def test_the_page_needs_no_other_file(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    page = report(file, tmp_path / "report").read_text()
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        "index.html", "rd_psnr.png", "rd_ms_ssim.png", "images.png", "speed.png"
    }  # fmt: skip
    assert page.count("data:image/png;base64,") == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page)
    assert "kodak&lt;b&gt;" in page and "<b>" not in page
    for cell in ("-50.0", "+100.0", "7.12", "7.98", "2,000,000"):
        assert f"<td>{cell}</td>" in page


def test_plots_are_pictures_with_something_drawn(file: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report(file, tmp_path / "report")
    for path in (tmp_path / "report").glob("*.png"):
        with Image.open(path) as plot:
            assert min(plot.size) > 100
            assert len(plot.convert("RGB").getcolors(1 << 24) or []) > 10


def test_times_are_compared_at_like_rates(points: list[Point]) -> None:
    assert speeds(points) == {"jpeg": (0.5, 0.1), "half": (0.125, 0.025)}
    assert speed_ratios(points) == ("jpeg", {"jpeg": (1, 1), "half": (0.25, 0.25)})


def test_text(points: list[Point]) -> None:
    lines = text(points).splitlines()
    assert lines[1].split() == ["vs", "jpeg", "vs", "half"]
    assert lines[2].split() == ["jpeg", "+0.0", "+100.0"]
    assert lines[3].split() == ["half", "-50.0", "+0.0"]
    assert lines[-1].split() == ["half", "0.125", "0.025", "0.25", "0.25", "0.05"]


def test_nothing_complete_is_refused(tmp_path: Path, points: list[Point]) -> None:
    path = tmp_path / "results.jsonl"
    results.append(path, {"threads": 1})
    with pytest.raises(InputError, match="no picture"):
        report(path, tmp_path / "report")
    assert not (tmp_path / "report").exists()


def test_without_matplotlib_the_pip_line_is_given(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"pip install '.\[bench\]'"):
        report(file, tmp_path / "report")


def test_the_report_loads_matplotlib_only_to_draw() -> None:
    heavy = "{'matplotlib', 'torch', 'imagecodecs'}"
    code = f"import sys, foveal.bench.run, foveal.bench.compare; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
