"""What a results file says: tables as text, plots as PNG, and one HTML page that needs nothing else.

BD-rates compare mean curves over the pictures that every codec has been through. Times are medians over the
points between 0.25 and 1 bit per pixel (over all points where a codec has none there), so that codecs are
compared at like rates; ratios are to Pillow's AVIF at speed 6 where it was measured.
"""

from __future__ import annotations

import base64
import html
import os
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from foveal.bench import plots, results
from foveal.bench.curves import Table, bd_table, complete_images, image_curves, labels, mean_curves
from foveal.bench.results import Point

__all__ = ["report", "speed_ratios", "speeds", "text"]

SPEED_BPP = (0.25, 1.0)
REFERENCES = ("avif6", "avif", "webp", "jpeg")

Row = Sequence[str]


def report(
    source: str | os.PathLike[str], folder: str | os.PathLike[str], points: Sequence[Point] | None = None
) -> Path:
    """Write index.html, rd_psnr.png, rd_ms_ssim.png, images.png and speed.png into a folder; the page's path.

    `source` is the results file; `points` are those to show, all in the file by default.
    Raises InputError when the file has no complete picture, MissingExtraError without matplotlib.
    """
    read = results.read(Path(source))
    points = read.points if points is None else points
    pictures = _pictures(points)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, png in pictures.items():
        (folder / f"{name}.png").write_bytes(png)
    page = folder / "index.html"
    page.write_text(_page(read.run, points, pictures), encoding="utf-8")
    return page


def text(points: Sequence[Point]) -> str:
    """The BD-rate table and the times as plain text."""
    parts = []
    for title, rows in (
        ("BD-rate, PSNR (%): row against column", _bd_rows(points)),
        ("Times", _speed_rows(points)),
    ):
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines = ["  ".join([row[0].ljust(widths[0]), *_right(row[1:], widths[1:])]).rstrip() for row in rows]
        parts.append("\n".join([title, *lines]))
    return "\n\n".join(parts)


def speeds(points: Sequence[Point]) -> dict[str, tuple[float, float]]:
    """Label -> (encode, decode) in seconds per megapixel."""
    names = labels(points)
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(names[point.codec, point.options], []).append(point)
    return {label: _median_times(group) for label, group in groups.items()}


def speed_ratios(points: Sequence[Point]) -> tuple[str, dict[str, tuple[float, float]]]:
    """The reference codec, and label -> (encode, decode) as ratios to the reference's encode and decode."""
    times = speeds(points)
    reference = next((name for name in REFERENCES if name in times), next(iter(times)))
    encode, decode = times[reference]
    return reference, {label: (pair[0] / encode, pair[1] / decode) for label, pair in times.items()}


def _median_times(points: Sequence[Point]) -> tuple[float, float]:
    low, high = SPEED_BPP
    usual = [point for point in points if low <= point.bpp <= high] or points
    return (
        statistics.median(point.encode_s_per_mpx for point in usual),
        statistics.median(point.decode_s_per_mpx for point in usual),
    )


def _pictures(points: Sequence[Point]) -> dict[str, bytes]:
    curves = mean_curves(points)
    count = len(complete_images(points))
    mean = f"mean of {count} picture{'s' if count > 1 else ''}"
    reference, ratios = speed_ratios(points)
    return {
        "rd_psnr": plots.rate_distortion(curves, "psnr_db", f"PSNR over rate, {mean}"),
        "rd_ms_ssim": plots.rate_distortion(curves, "ms_ssim_db", f"MS-SSIM over rate, {mean}"),
        "images": plots.images({name: image_curves(points, name) for name in complete_images(points)}),
        "speed": plots.speed(ratios, reference),
    }


def _bd_rows(points: Sequence[Point], metric: str = "psnr_db") -> list[Row]:
    table: Table = bd_table(mean_curves(points), metric)
    head = ["", *(f"vs {anchor}" for anchor in table)]
    return [head, *([test, *(_percent(row[anchor]) for anchor in table)] for test, row in table.items())]


def _image_rows(points: Sequence[Point]) -> list[Row]:
    """Per picture, the BD-rate of the first codec against each other one."""
    first, *anchors = mean_curves(points)
    rows: list[Row] = [["", *(f"{first} vs {anchor}" for anchor in anchors)]]
    for image in complete_images(points):
        table = bd_table(image_curves(points, image))
        rows.append([image, *(_percent(table[first][anchor]) for anchor in anchors)])
    return rows


def _speed_rows(points: Sequence[Point]) -> list[Row]:
    times = speeds(points)
    reference, ratios = speed_ratios(points)
    encode_reference = times[reference][0]
    head = [
        "",
        "encode s/MP",
        "decode s/MP",
        f"encode / {reference}'s encode",
        f"decode / {reference}'s decode",
    ]
    rows: list[Row] = [[*head, f"decode / {reference}'s encode"]]
    for label, (encode, decode) in times.items():
        values = (*ratios[label], decode / encode_reference)
        rows.append([label, f"{encode:.3f}", f"{decode:.3f}", *(f"{value:.2f}" for value in values)])
    return rows


def _curve_rows(points: Sequence[Point]) -> list[Row]:
    rows: list[Row] = [["", "bpp", "PSNR dB", "MS-SSIM"]]
    for label, curve in mean_curves(points).items():
        for bpp, psnr, ssim in zip(curve.bpp, curve.psnr_db, curve.ms_ssim, strict=True):
            rows.append([label, f"{bpp:.3f}", f"{psnr:.2f}", f"{ssim:.4f}"])
    return rows


def _model_rows(models: Iterable[Mapping[str, Any]]) -> list[Row]:
    head = ["model", "analysis kMAC/px", "synthesis kMAC/px", "parameters", "file KiB", "weights"]
    rows: list[Row] = [head]
    for model in models:
        cost = [f"{model['kmac_encode']:.2f}", f"{model['kmac_decode']:.2f}", f"{model['parameters']:,}"]
        rows.append([str(model["name"]), *cost, f"{model['file_bytes'] / 1024:.0f}", str(model["weights_hash"])[:16]])
    return rows


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def _right(cells: Row, widths: Sequence[int]) -> list[str]:
    return [cell.rjust(width) for cell, width in zip(cells, widths, strict=True)]


def _page(run: Mapping[str, Any], points: Sequence[Point], pictures: Mapping[str, bytes]) -> str:
    title = f"Foveal benchmark: {run.get('folder', 'pictures')}, {len(complete_images(points))} pictures"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        image_tag(pictures["rd_psnr"], "PSNR over rate"),
        section("BD-rate on PSNR, %", BD_NOTE, _bd_rows(points)),
        section("BD-rate on MS-SSIM, %", "", _bd_rows(points, "ms_ssim_db")),
        image_tag(pictures["rd_ms_ssim"], "MS-SSIM over rate"),
        section("Time", TIME_NOTE.format(run.get("threads", "?")), _speed_rows(points)),
        image_tag(pictures["speed"], "times as ratios"),
        section("Cost of the transforms", "", _model_rows(run["models"])) if run.get("models") else "",
        section("Every picture", "BD-rate on PSNR, %.", _image_rows(points)),
        image_tag(pictures["images"], "a plot per picture"),
        section("Mean curves", "", _curve_rows(points)),
        section("How it was run", "", _run_rows(run)),
    ]
    return PAGE.format(title=html.escape(title), style=STYLE, body="\n".join(parts))


def _run_rows(run: Mapping[str, Any]) -> list[Row]:
    rows: list[Row] = [["what", "value"]]
    for name, value in run.items():
        if isinstance(value, Mapping):
            rows += [[f"{name}: {key}", str(entry)] for key, entry in value.items()]
        elif name != "models":
            rows.append([name, str(value)])
    return rows


def section(title: str, note: str, rows: Sequence[Row]) -> str:
    paragraph = f"<p>{html.escape(note)}</p>" if note else ""
    return f"<h2>{html.escape(title)}</h2>{paragraph}{_table(rows)}"


def _table(rows: Sequence[Row]) -> str:
    head, *body = [_cells(row, "td" if index else "th") for index, row in enumerate(rows)]
    return f"<table><thead>{head}</thead><tbody>{''.join(body)}</tbody></table>"


def _cells(row: Row, tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"


def image_tag(png: bytes, alt: str) -> str:
    return f'<img alt="{alt}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'


BD_NOTE = (
    "Bits of the row's codec against the column's at equal RGB PSNR: mean curves, PCHIP over the common "
    "range. Negative is fewer bits."
)
TIME_NOTE = (
    "Seconds per megapixel with {} thread(s), all in the same run: medians over the points from "
    f"{SPEED_BPP[0]} to {SPEED_BPP[1]} bits per pixel."
)
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>{style}</head><body>
{body}
</body></html>
"""
STYLE = """<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color:
#222 } img { max-width: 100%; height: auto; margin: 1rem 0 } table { border-collapse: collapse;
font-variant-numeric: tabular-nums } th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px
solid #ddd } th:first-child, td:first-child { text-align: left }
</style>"""
