"""The report's plots, as PNG bytes. Matplotlib is loaded on first use and draws without a display."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from foveal.bench.curves import Curve
from foveal.bench.rivals import extra

__all__ = ["images", "rate_distortion", "speed"]

COLOURS = {
    "foveal": "#c8102e",
    "foveal-m": "#6a0f1f",
    "foveal-m9": "#ef6aa0",
    "foveal-m-msssim": "#f59b42",
    "jpeg": "#8c8c8c",
    "webp": "#e69f00",
    "avif": "#0072b2",
    "avif6": "#56b4e9",
    "jxl": "#009e73",
    "vvc": "#7b3294",
}
SPARE = ("#a6761d", "#e7298a", "#1b9e77", "#666666")
METRICS = {
    "psnr_db": "RGB PSNR, dB",
    "ms_ssim_db": "MS-SSIM, dB: $-10\\,\\log_{10}(1 - m)$",
}
TICKS = (0.1, 0.2, 0.5, 1, 2)  # bits per pixel
SMALL_MULTIPLES = 48  # pictures drawn at most
WINDOW_BPP = (0.06, 3.0)  # rates shown


def rate_distortion(curves: Mapping[str, Curve], metric: str, title: str) -> bytes:
    """Mean quality over mean rate, one line per codec. `metric` is "psnr_db" or "ms_ssim_db"."""
    figure, grid = figure_and_axes(8, 5.5)
    axes = grid[0, 0]
    _draw(axes, curves, metric, marker="o")
    axes.set_xlabel("bits per pixel (logarithmic)")
    axes.set_ylabel(METRICS[metric])
    axes.set_title(title, loc="left")
    axes.legend(frameon=False, loc="lower right")
    return png(figure)


def images(curves: Mapping[str, Mapping[str, Curve]], metric: str = "psnr_db") -> bytes:
    """One small rate-distortion plot per picture; `curves` is picture -> label -> Curve."""
    shown = list(curves)[:SMALL_MULTIPLES]
    columns = min(6, len(shown))
    rows = -(-len(shown) // columns)
    figure, grid = figure_and_axes(2.5 * columns + 0.6, 2.1 * rows + 0.9, rows, columns, shared=True)
    for axes in grid.flat:
        axes.set_visible(False)
    for index, (axes, name) in enumerate(zip(grid.flat, shown, strict=False)):
        axes.set_visible(True)
        _draw(axes, curves[name], metric, width=0.6)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7, labelbottom=index + columns >= len(shown))
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper center", ncol=len(names), frameon=False, fontsize=9)
    figure.supxlabel("bits per pixel (logarithmic)", fontsize=9)
    figure.supylabel(METRICS[metric], fontsize=9)
    return png(figure)


def speed(ratios: Mapping[str, tuple[float, float]], reference: str) -> bytes:
    """Bars of encode and decode time per megapixel, each as a ratio to the reference codec's."""
    figure, grid = figure_and_axes(10, 0.42 * len(ratios) + 1.3, 1, 2)
    left, right = grid[0]
    _bars(left, {label: pair[0] for label, pair in ratios.items()}, f"encode, ratio to {reference}'s encode")
    _bars(right, {label: pair[1] for label, pair in ratios.items()}, f"decode, ratio to {reference}'s decode")
    return png(figure)


def _draw(axes: Any, curves: Mapping[str, Curve], metric: str, marker: str = "", width: float = 1.0) -> None:
    for label, curve in curves.items():
        own = label.startswith("foveal")
        style: dict[str, Any] = {"color": _colour(label, list(curves)), "lw": width * (2.6 if own else 1.5)}
        dash = "--" if label == "avif6" else "-"
        axes.plot(
            curve.bpp,
            getattr(curve, metric),
            dash,
            marker=marker,
            ms=4,
            label=label,
            zorder=3 if own else 2,
            **style,
        )
    axes.set_xscale("log")
    axes.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axes.minorticks_off()
    axes.set_xlim(*WINDOW_BPP)
    axes.grid(color="#e6e6e6", lw=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _bars(axes: Any, values: Mapping[str, float], title: str) -> None:
    """Horizontal bars on a logarithmic axis, the value beside each, growing from ratio 1."""
    names = list(values)
    positions = range(len(names))
    heights = [value - 1 for value in values.values()]
    axes.barh(positions, heights, left=1, color=[_colour(name, names) for name in names], height=0.62)
    axes.set_xscale("log")
    low, high = min(*values.values(), 1), max(*values.values(), 1)
    axes.set_xlim(low / 8, high * 5)
    axes.xaxis.set_major_formatter("{x:g}")
    for position, value in zip(positions, values.values(), strict=True):
        side, shift = ("left", 4) if value >= 1 else ("right", -4)
        place = {"xytext": (shift, 0), "textcoords": "offset points", "ha": side, "va": "center"}
        axes.annotate(f"{value:.2g}x", (value, position), fontsize=9, **place)
    axes.axvline(1, color="#333333", lw=1)
    axes.set_yticks(positions, names)
    axes.invert_yaxis()
    axes.minorticks_off()
    axes.set_title(title, loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)


def _colour(label: str, names: Sequence[str]) -> str:
    own = COLOURS.get(label) or (COLOURS["foveal"] if label == names[0] and label.startswith("foveal") else None)
    return own or SPARE[names.index(label) % len(SPARE)]


def figure_and_axes(
    width: float, height: float, rows: int = 1, columns: int = 1, shared: bool = False
) -> tuple[Any, Any]:
    """A figure and its (rows, columns) array of axes."""
    figures = extra("matplotlib.figure", "matplotlib")
    figure = figures.Figure(figsize=(width, height), layout="constrained", dpi=130)
    return figure, figure.subplots(rows, columns, sharey=shared, squeeze=False)


def png(figure: Any) -> bytes:
    file = io.BytesIO()
    backend = extra("matplotlib.backends.backend_agg", "matplotlib")
    backend.FigureCanvasAgg(figure).print_png(file)
    return file.getvalue()
