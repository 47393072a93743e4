"""Tables, plots and the page of the video benchmark."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from foveal.bench import video_report as report
from foveal.bench.video_results import Results, Speed


@pytest.fixture
def results(video_point) -> Results:
    """Two clips: Lanczos at half size takes 20 % fewer bits than full size, S+side gains 1 dB over it, S 0.5 dB."""
    points = []
    for clip, more in (("a.mp4", 1.0), ("b.mp4", 2.0)):
        for crf, kbps, psnr in ((30, 400, 34), (35, 200, 31), (40, 100, 28)):
            points.append(video_point(clip, "full", crf, kbps * more, psnr))
            half = (crf - 9, kbps * more * 0.8)
            points.append(video_point(clip, "lanczos", *half, psnr))
            points.append(video_point(clip, "S", *half, psnr + 0.5, reused=0.25, weights="1"))
            points.append(video_point(clip, "S+side", *half, psnr + 1, side_bytes=50, flicker=0.2, weights="1"))
            points.append(video_point(clip, "auto-S", crf, kbps * more * 0.8, psnr + 1, scale=2.0))
        for variant, psnr in (("lanczos", 31), ("realesr", 29)):
            points.append(video_point(clip, variant, 26, 160, psnr, part="start", frames=4))
    speeds = [Speed("S", 1280, 720, n, 1, n / 10, n / 12, 300.0, 0.25, "1") for n in (24, 96)]
    speeds.append(Speed("realesr", 1280, 720, 2, 1, 9.0, 8.0, 900.0, None, ""))
    return Results(({"command": "foveal bench video", "options": {"frames": 10}},), tuple(points), tuple(speeds))


def cells(results: Results, title: str) -> dict[tuple[str, str], dict[str, str]]:
    """A table by its first two columns."""
    table = next(table for table in report.tables(results) if table.title.startswith(title))
    head, *rows = table.rows
    return {(row[0], row[1]): dict(zip(head, row, strict=True)) for row in rows}


def test_bd_rates_are_means_over_clips(results: Results) -> None:
    found = cells(results, "BD-rate against full")
    assert found["x264", "lanczos"]["PSNR-Y"] == "-20.0"
    assert found["x264", "lanczos"]["clips"] == "2"
    assert float(found["x264", "S+side"]["PSNR-Y"]) < -30
    assert ("x264", "full") not in found


def test_gains_are_decibels_at_equal_bits(results: Results) -> None:
    found = cells(results, "Gain over Lanczos")
    assert found["x264", "S"]["dB PSNR-Y"] == "+0.50"
    assert found["x264", "S+side"]["VMAF"] == "+2.00"
    assert found["x264", "S"]["worst point, dB"] == "+0.500"


def test_what_is_repaired_at_full_size_is_held_against_full_size(results: Results) -> None:
    full = [p for p in results.points if p.variant == "full" and p.codec == "x264"]
    repaired = [replace(p, variant="x1-S", psnr_y=p.psnr_y + 0.25) for p in full]
    both = replace(results, points=(*results.points, *repaired))
    found = cells(both, "Gain over full size")
    assert set(found) == {("x264", "x1-S")}
    assert (found["x264", "x1-S"]["dB PSNR-Y"], found["x264", "x1-S"]["worst point, dB"]) == ("+0.25", "+0.250")
    assert ("x264", "x1-S") not in cells(both, "Gain over Lanczos")
    assert float(cells(both, "BD-rate against full")["x264", "x1-S"]["PSNR-Y"]) < 0


def test_every_clip_has_its_line(results: Results) -> None:
    found = cells(results, "Every clip")
    assert set(found) == {("x264", "a.mp4"), ("x264", "b.mp4")}
    assert found["x264", "b.mp4"]["lanczos: full is better from kbit/s"] == "above 800"


def test_auto_is_held_against_the_better_of_both(results: Results) -> None:
    line = cells(results, "--scale auto")["x264", "a.mp4"]
    assert (line["PSNR-Y"], line["scales chosen, by CRF"]) == ("+0.0", "30:2 35:2 40:2")


def test_the_rival_stands_beside_the_same_streams(results: Results) -> None:
    found = cells(results, "The same streams")
    assert (found["x264", "realesr"]["PSNR-Y"], found["x264", "lanczos"]["PSNR-Y"]) == ("29.00", "31.00")
    assert found["x264", "realesr"]["frames each"] == "4"


def test_flicker_is_a_ratio_to_the_original(results: Results) -> None:
    found = cells(results, "Flicker")
    assert (found["x264", "lanczos"]["ratio"], found["x264", "S+side"]["ratio"]) == ("1.25", "0.50")


def test_speed_is_held_against_the_rival(results: Results) -> None:
    found = cells(results, "Speed")
    assert found["S", "1"]["against realesr"] == "48.0x"
    assert found["realesr", "1"]["fps"] == "0.22"


def test_page_plots_and_text_are_written(results: Results, tmp_path: Path) -> None:
    page = report.write(tmp_path / "out", results).read_text()
    for name in ("rd-psnr.png", "rd-vmaf-neg.png", "speed.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    assert page.count("<img") == 3 and page.count("<h2>") == len(report.tables(results)) + 1
    assert (tmp_path / "out" / "video.txt").read_text() == report.text(results) + "\n"


def test_without_measurements_there_are_no_tables(tmp_path: Path) -> None:
    empty = Results((), (), ())
    assert report.tables(empty) == []
    assert report.write(tmp_path, empty).is_file()
