"""What the video benchmark's file says: tables as text, plots, and one HTML page that needs nothing else."""

from __future__ import annotations

import html
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foveal.bench import report as pages
from foveal.bench import video_curves as vc
from foveal.bench import video_plots
from foveal.bench.video_curves import VideoCurve, mean
from foveal.bench.video_results import Point, Results, Speed

__all__ = ["tables", "text", "write"]

HEADS = {"psnr_y": "PSNR-Y", "ssim_y": "SSIM", "xpsnr_y": "XPSNR", "vmaf": "VMAF", "vmaf_neg": "VMAF-NEG"}
Curves = Mapping[tuple[str, str], Mapping[str, VideoCurve]]  # (codec, clip) -> variant -> curve


@dataclass(frozen=True)
class Table:
    """A title, what the numbers are, and rows of cells, the first being the head."""

    title: str
    note: str
    rows: Sequence[Sequence[str]]


def tables(results: Results) -> list[Table]:
    """All tables that the results have numbers for."""
    curves = all_curves(results.points)
    found = [_bd_rates(curves), *(_gains(curves, results.points, anchor) for anchor in ANCHORS), _clips(curves)]
    found += [_auto(curves, results.points), _rivals(results.points), _flicker(results.points)]
    found += [_speed(results.speeds), _cost(results.points)]
    return [table for table in found if len(table.rows) > 1]


def text(results: Results) -> str:
    """The tables as plain text."""
    return "\n\n".join("\n".join([table.title, *_lines(table.rows)]) for table in tables(results))


def write(folder: Path, results: Results) -> Path:
    """rd-psnr.png, rd-vmaf-neg.png, speed.png, video.txt and index.html in `folder`; the page's path.

    Raises MissingExtraError without matplotlib.
    """
    folder.mkdir(parents=True, exist_ok=True)
    curves = all_curves(results.points)
    plots = {}
    if curves:
        plots = {f"rd-{metric.replace('_', '-').removesuffix('-y')}": video_plots.rates(curves, metric, HEADS[metric])
                 for metric in ("psnr_y", "vmaf_neg")}  # fmt: skip
    if results.speeds:
        plots["speed"] = video_plots.speed(results.speeds)
    for name, png in plots.items():
        (folder / f"{name}.png").write_bytes(png)
    (folder / "video.txt").write_text(text(results) + "\n", encoding="utf-8")
    page = folder / "index.html"
    page.write_text(_page(results, plots), encoding="utf-8")
    return page


def all_curves(points: Sequence[Point]) -> Curves:
    """Curves of every codec and clip, codec by codec."""
    whole = [p for p in points if p.part == "clip"]
    codecs, clips = (list(dict.fromkeys(getattr(p, name) for p in whole)) for name in ("codec", "clip"))
    found = {(codec, clip): vc.clip_curves(whole, clip, codec) for codec in codecs for clip in clips}
    return {key: curves for key, curves in found.items() if curves}


def _by_codec(curves: Curves) -> dict[str, list[Mapping[str, VideoCurve]]]:
    """Codec -> the curves of its clips."""
    return {
        codec: [c for (own, _), c in curves.items() if own == codec] for codec in dict.fromkeys(k[0] for k in curves)
    }


def _variants(curves: Sequence[Mapping[str, VideoCurve]], *without: str) -> list[str]:
    return [variant for variant in dict.fromkeys(v for c in curves for v in c) if variant not in without]


def _pairs(curves: Sequence[Mapping[str, VideoCurve]], anchor: str, test: str) -> list[tuple[VideoCurve, VideoCurve]]:
    return [(c[anchor], c[test]) for c in curves if anchor in c and test in c]


def _bd_rates(curves: Curves) -> Table:
    rows = [["codec", "shown as", *HEADS.values(), "clips"]]
    for codec, own in _by_codec(curves).items():
        for variant in _variants(own, "full"):
            pairs = _pairs(own, "full", variant)
            found = [mean(vc.bd_rate(*pair, metric) for pair in pairs) for metric in HEADS]
            if pairs:
                rows.append([codec, variant, *map(_percent, found), _counts(found)])
    return Table("BD-rate against full resolution, %", BD_NOTE, rows)


def _gains(curves: Curves, points: Sequence[Point], anchor: str) -> Table:
    """Of what is shown at half size over Lanczos, of what is repaired at full size over full size as it was coded."""
    head = ["codec", "shown as", "dB PSNR-Y", "least clip", "VMAF", "VMAF-NEG", "worst point, dB", "of clip", "at CRF"]
    rows = [head]
    for codec, own in _by_codec(curves).items():
        for variant in _variants(own, *ANCHORS):
            if variant.startswith("x1-") != (anchor == "full"):
                continue
            pairs = _pairs(own, anchor, variant)
            found = {metric: [vc.gain(*pair, metric) for pair in pairs] for metric in ("psnr_y", "vmaf", "vmaf_neg")}
            means = [mean(values) for values in found.values()]
            if means[0] is None:
                continue
            least = min(value for value in found["psnr_y"] if value is not None)
            worst = vc.worst(points, variant, codec, anchor=anchor)
            last = [f"{worst[0]:+.3f}", worst[1], f"{worst[2]:g}"] if worst else ["-", "-", "-"]
            rows.append([codec, variant, _signed(means[0]), f"{least:+.2f}", *map(_signed, means[1:]), *last])
    return Table(f"Gain over {ANCHORS[anchor]} at equal bits", GAIN_NOTE, rows)


def _clips(curves: Curves) -> Table:
    variants = _variants(list(curves.values()), "full")
    head = [
        "codec",
        "clip",
        *(f"{v}: BD-rate %" for v in variants),
        *(f"{v}: full is better from kbit/s" for v in variants),
    ]
    rows = [head]
    for (codec, clip), own in curves.items():
        if "full" not in own:
            continue
        pairs = [(own["full"], own[v]) if v in own else None for v in variants]
        rates = [vc.bd_rate(*pair, "psnr_y") if pair else None for pair in pairs]
        crossings = [_kbps(vc.crossover(*pair, "psnr_y"), own["full"]) if pair else "-" for pair in pairs]
        rows.append([codec, clip, *("-" if rate is None else f"{rate:+.1f}" for rate in rates), *crossings])
    return Table("Every clip: PSNR-Y against full resolution", CLIP_NOTE, rows)


def _auto(curves: Curves, points: Sequence[Point]) -> Table:
    rows = [["codec", "clip", "model", "PSNR-Y", "VMAF-NEG", "scales chosen, by CRF"]]
    for (codec, clip), own in curves.items():
        for variant in (v for v in own if v.startswith("auto-")):
            model = variant.removeprefix("auto-")
            both = [own[v] for v in ("full", f"x1-{model}+side", f"{model}+side") if v in own]
            chosen = sorted((p.crf, p.scale) for p in points if (p.codec, p.clip, p.variant) == (codec, clip, variant))
            cells = [
                vc.bd_rate_to_best(both, own[variant], metric) if both else None for metric in ("psnr_y", "vmaf_neg")
            ]
            scales = " ".join(f"{crf:g}:{scale:g}" for crf, scale in chosen)
            shown = ["-" if cell is None else f"{cell:+.1f}" for cell in cells]
            rows.append([codec, clip, model, *shown, scales])
    return Table("--scale auto: BD-rate against the better of full and half size, %", AUTO_NOTE, rows)


def _rivals(points: Sequence[Point]) -> Table:
    start = [point for point in points if point.part == "start"]
    rows = [["codec", "shown as", *HEADS.values(), "streams", "frames each"]]
    for codec, variant in dict.fromkeys((p.codec, p.variant) for p in start):
        own = [p for p in start if (p.codec, p.variant) == (codec, variant)]
        values = [mean(float(getattr(p, metric)) for p in own) for metric in HEADS]
        frames = sorted({p.frames for p in own})
        cells = [
            "-" if v is None else f"{v[0]:.4f}" if m == "ssim_y" else f"{v[0]:.2f}"
            for m, v in zip(HEADS, values, strict=True)
        ]
        rows.append([codec, variant, *cells, str(len(own)), " ".join(map(str, frames))])
    return Table("The same streams of half size, first frames", "Means over the clips.", rows)


def _flicker(points: Sequence[Point]) -> Table:
    rows = [["codec", "shown as", "decoded", "original", "ratio", "highest ratio", "of clip", "at CRF"]]
    moving = [p for p in points if p.part == "clip" and p.flicker_original and (p.static_share or 0) >= STATIC_SHARE]
    for codec, variant in dict.fromkeys((p.codec, p.variant) for p in moving):
        own = [p for p in moving if (p.codec, p.variant) == (codec, variant)]
        sums = [math.fsum(getattr(p, name) for p in own) / len(own) for name in ("flicker", "flicker_original")]
        ratio, clip, crf = max(
            (p.flicker / p.flicker_original, p.clip, p.crf) for p in own if p.flicker is not None and p.flicker_original
        )
        cells = [f"{sums[0]:.3f}", f"{sums[1]:.3f}", f"{sums[0] / sums[1]:.2f}", f"{ratio:.2f}", clip, f"{crf:g}"]
        rows.append([codec, variant, *cells])
    return Table("Flicker where the original is static, 8-bit levels", FLICKER_NOTE, rows)


def _speed(speeds: Sequence[Speed]) -> Table:
    rows = [
        ["shown as", "threads", "frames", "fps", "fps of CPU time", "against realesr", "peak MiB", "blocks reused, %"]
    ]
    rival = {s.threads: s.cpu_fps for s in speeds if s.variant == "realesr"}
    for s in speeds:
        ratio = f"{s.cpu_fps / rival[s.threads]:.1f}x" if s.threads in rival else "-"
        reused = "-" if s.reused is None else f"{100 * s.reused:.0f}"
        numbers = [f"{s.fps:.2f}", f"{s.cpu_fps:.2f}", ratio, f"{s.peak_mib:.0f}", reused]
        rows.append([s.variant, str(s.threads), str(s.frames), *numbers])
    return Table("Speed: a 640x360 file to raw 1280x720 frames", SPEED_NOTE, rows)


def _cost(points: Sequence[Point]) -> Table:
    rows = [["codec", "shown as", "encode s/MP", "restore s/MP", "side information, kbit/s", "blocks reused, %"]]
    whole = [p for p in points if p.part == "clip"]
    for codec, variant in dict.fromkeys((p.codec, p.variant) for p in whole):
        own = [p for p in whole if (p.codec, p.variant) == (codec, variant)]
        pixels = math.fsum(p.frames * p.width * p.height for p in own) / 1e6
        encode, restore = (
            math.fsum(getattr(p, name) for p in own) / pixels for name in ("encode_cpu_s", "restore_cpu_s")
        )
        side = mean(p.kbps * p.side_bytes / p.bytes for p in own)
        reused = mean(p.reused for p in own)
        cells = [
            f"{encode:.3f}",
            f"{restore:.3f}",
            f"{side[0]:.2f}" if side else "-",
            f"{100 * reused[0]:.0f}" if reused else "-",
        ]
        rows.append([codec, variant, *cells])
    return Table("Processor seconds per megapixel of shown frames", "", rows)


def _percent(found: tuple[float, int] | None) -> str:
    return "-" if found is None else f"{found[0]:+.1f}"


def _signed(found: tuple[float, int] | None) -> str:
    return "-" if found is None else f"{found[0]:+.2f}"


def _counts(found: Sequence[tuple[float, int] | None]) -> str:
    counts = sorted({pair[1] if pair else 0 for pair in found})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]}-{counts[-1]}"


def _kbps(rate: float | None, full: VideoCurve) -> str:
    if rate is None:
        return "-"
    return "everywhere" if rate == 0 else f"above {full.kbps[-1]:.0f}" if math.isinf(rate) else f"{rate:.0f}"


def _lines(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if k < 2 else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _page(results: Results, plots: Mapping[str, bytes]) -> str:
    title = f"Foveal video benchmark: {len({p.clip for p in results.points})} clips"
    parts = [f"<h1>{html.escape(title)}</h1>"]
    parts += [pages.image_tag(png, name) for name, png in plots.items()]
    parts += [pages.section(table.title, table.note, table.rows) for table in tables(results)]
    parts.append(pages.section("How it was run", "", _run(results.runs)))
    return pages.PAGE.format(title=html.escape(title), style=pages.STYLE, body="\n".join(parts))


def _run(runs: Sequence[Mapping[str, Any]]) -> list[Sequence[str]]:
    """The last run's metadata, and the commands of all."""
    rows: list[Sequence[str]] = [["what", "value"]]
    rows += [["command", str(run["command"])] for run in runs]
    for name, value in (runs[-1] if runs else {}).items():
        entries = value.items() if isinstance(value, Mapping) else [("", value)]
        rows += [[f"{name} {key}".strip(), str(entry)] for key, entry in entries if name != "command"]
    return rows


STATIC_SHARE = 0.05
BD_NOTE = (
    "Bits at equal quality, PCHIP over the quality that both reach; means over the clips that have a figure. The CRFs "
    "are low-rate ones. Negative is fewer bits."
)
ANCHORS = {"lanczos": "Lanczos", "full": "full size"}
GAIN_NOTE = (
    "Mean over the rates that both cover; side information counts as bits. Worst point: the smallest difference to "
    "the same stream as it is."
)
CLIP_NOTE = "BD-rate in %, and the rate from which full resolution is at least as good."
AUTO_NOTE = (
    "At each quality the cheapest of full size, full size restored (where it was measured) and half size with side "
    "information is the anchor."
)
FLICKER_NOTE = (
    "Mean absolute difference from frame to frame in 16x16 blocks that change by at most 1.5 levels in the original; "
    f"clips of which at least {STATIC_SHARE:.0%} is static. A ratio above 1 is flicker that the original has not."
)
SPEED_NOTE = "From file to file, decoding included, warm; processor time leaves out what else the machine did."
