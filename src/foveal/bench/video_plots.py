"""The video report's plots, as PNG bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from foveal.bench.plots import figure_and_axes, png
from foveal.bench.video_curves import VideoCurve
from foveal.bench.video_results import Speed, model_of

__all__ = ["rates", "speed"]

COLOURS = {
    "full": "#333333",
    "lanczos": "#8c8c8c",
    "realesr": "#7b3294",
    "s": "#e69f00",
    "m": "#c8102e",
    "l": "#0072b2",
}


def rates(curves: Mapping[tuple[str, str], Mapping[str, VideoCurve]], metric: str, label: str) -> bytes:
    """A small plot per codec (row) and clip (column): quality over kbit/s; `curves` by (codec, clip) and variant."""
    codecs, clips = (list(dict.fromkeys(key[k] for key in curves)) for k in range(2))
    figure, grid = figure_and_axes(3.1 * len(clips) + 0.6, 2.7 * len(codecs) + 0.6, len(codecs), len(clips))
    for row, codec in zip(grid, codecs, strict=True):
        for axes, clip in zip(row, clips, strict=True):
            for variant, curve in curves.get((codec, clip), {}).items():
                axes.plot(curve.kbps, curve.quality[metric], label=variant, **_style(variant))
            axes.set_xscale("log")
            _ticks(axes)
            axes.set_title(f"{codec}, {clip}", fontsize=8)
            _plain(axes)
    handles = {name: line for axes in grid.flat for line, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        handles.values(), handles.keys(), loc="outside upper center", ncol=len(handles), frameon=False, fontsize=9
    )
    figure.supxlabel("kbit/s (logarithmic)", fontsize=9)
    figure.supylabel(label, fontsize=9)
    return png(figure)


def speed(speeds: Sequence[Speed]) -> bytes:
    """Bars of frames per second of processor time; of each way the longest run."""
    longest = {(s.variant, s.threads): s for s in sorted(speeds, key=lambda s: s.frames)}
    shown = list(longest.values())
    figure, grid = figure_and_axes(7, 0.42 * len(shown) + 1.1)
    axes, places = grid[0, 0], range(len(shown))
    axes.barh(places, [s.cpu_fps for s in shown], color=[_colour(s.variant) for s in shown], height=0.62)
    axes.set_xscale("log")
    for place, s in zip(places, shown, strict=True):
        axes.annotate(
            f"{s.cpu_fps:.3g}", (s.cpu_fps, place), (4, 0), textcoords="offset points", va="center", fontsize=9
        )
    axes.set_yticks(places, [s.variant for s in shown])
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel("frames per second of processor time, 1280x720 (logarithmic)")
    _plain(axes)
    return png(figure)


def _style(variant: str) -> dict[str, Any]:
    dash = ":" if variant.startswith("auto") else "--" if variant.startswith("x1") else "-"
    width = 1.6 if "+side" in variant or variant == "full" else 1.1
    return {"color": _colour(variant), "ls": dash, "lw": width, "marker": "o", "ms": 3 if "+side" in variant else 2}


def _colour(variant: str) -> str:
    return COLOURS.get(model_of(variant) or variant, "#666666")


def _ticks(axes: Any) -> None:
    """Plain numbers at 1, 2 and 5: names of all of a decade's parts run into each other in a small plot."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())


def _plain(axes: Any) -> None:
    axes.grid(color="#e6e6e6", lw=0.7)
    axes.tick_params(labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
