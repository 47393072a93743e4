"""The tables and plots of docs/results.md from a results file of `foveal bench`, and a codec's new rows put into one.

python scripts/kodak_tables.py benchmarks/results/kodak.jsonl --plots docs/plots
python scripts/kodak_tables.py benchmarks/results/kodak.jsonl --new foveal=s.jsonl --new foveal-m9=a.jsonl,b.jsonl
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

from foveal.bench import plots, results
from foveal.bench.curves import bd_rate, complete_images, image_curves, mean_curves
from foveal.bench.results import Point

ROWS = [
    "foveal-m",
    "foveal-m9",
    "foveal-m3",
    "foveal",
    "foveal9",
    "foveal3",
    "foveal-m-msssim",
    "foveal9-msssim",
    "foveal-msssim",
    "webp",
    "avif",
    "jxl",
]
COLUMNS = ["jpeg", "webp", "avif", "avif6", "jxl", "vvc", "foveal"]
SHOWN = ["foveal", "foveal-m", "foveal-m9", "jpeg", "webp", "avif", "jxl", "vvc"]


def replaced(path: Path, codec: str, sources: Sequence[Path]) -> None:
    """The points of ``codec`` in ``path`` become those of ``sources``, of which it may be one: as many qualities as there
    are, each of all pictures. The sources' run lines are kept behind the others."""
    old = [line for line in path.read_text().splitlines() if json.loads(line).get("codec") != codec]
    new = [line for source in sources for line in source.read_text().splitlines()]
    runs = [line for line in new if json.loads(line)["kind"] == "run" and codec in json.loads(line)["codecs"]]
    points = [line for line in new if json.loads(line).get("codec") == codec]
    pictures = {point["image"] for line in old if "image" in (point := json.loads(line))}
    found = Counter((point["image"], point["setting"]) for point in map(json.loads, points))
    settings = {setting for _, setting in found}
    if not points or found != Counter((image, setting) for image in pictures for setting in settings):
        raise SystemExit(
            f"{codec}: {len(points)} points, expected {len(pictures)} pictures at {len(settings)} qualities"
        )
    temporary = path.with_suffix(".part")
    temporary.write_text("\n".join(dict.fromkeys([*old, *runs, *points])) + "\n")
    temporary.replace(path)


def table(points: Sequence[Point], metric: str) -> str:
    """BD-rates of the mean curves, row against column, as Markdown."""
    curves = mean_curves(points)
    rows = ["| | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for test in (name for name in ROWS if name in curves):
        found = [
            bd_rate(curves[a].bpp, getattr(curves[a], metric), curves[test].bpp, getattr(curves[test], metric))
            for a in COLUMNS
        ]
        rows.append(f"| {test} | " + " | ".join(f"{value:+.1f}" for value in found) + " |")
    return "\n".join(rows)


def settings(points: Sequence[Point], codec: str) -> str:
    """Mean bits per pixel, dB and MS-SSIM at each quality, as Markdown."""
    own = [p for p in points if p.codec == codec]
    at = {q: [p for p in own if p.setting == q] for q in sorted({p.setting for p in own})}
    rows = [f"| quality, {codec} | " + " | ".join(f"{q:g}" for q in at) + " |"]
    for name, digits in (("bpp", 3), ("psnr_db", 2), ("ms_ssim", 3)):
        rows.append(
            f"| {name} | "
            + " | ".join(f"{fmean(getattr(p, name) for p in ps):.{digits}f}" for ps in at.values())
            + " |"
        )
    return "\n".join(rows)


def by_picture(points: Sequence[Point], codec: str, anchor: str = "avif") -> str:
    """BD-rate of each picture: the range, how many below zero, and the mean."""
    found = {}
    for image in complete_images(points):
        curves = image_curves(points, image)
        one, other = curves[anchor], curves[codec]
        found[image] = bd_rate(one.bpp, one.psnr_db, other.bpp, other.psnr_db)
    low, high = min(found, key=found.__getitem__), max(found, key=found.__getitem__)
    ahead = sum(value < 0 for value in found.values())
    return (
        f"{codec} against {anchor}: ahead on {ahead} of {len(found)}, from {found[low]:+.1f} ({low}) to {found[high]:+.1f} "
        f"({high}), mean {fmean(found.values()):+.1f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--new", action="append", default=[], help="CODEC=FILE,FILE whose points replace the codec's")
    parser.add_argument("--plots", type=Path, help="folder for kodak-psnr.png, kodak-ms-ssim.png and kodak-images.png")
    options = parser.parse_args()
    for item in options.new:
        codec, _, files = item.partition("=")
        replaced(options.results, codec, [Path(name) for name in files.split(",")])
    points = results.read(options.results).points
    for metric in ("psnr_db", "ms_ssim_db"):
        print(f"{metric}\n{table(points, metric)}\n")
    for codec in ("foveal-m", "foveal-m9", "foveal"):
        print(settings(points, codec), by_picture(points, codec), sep="\n", end="\n\n")
    if options.plots:
        shown = [p for p in points if p.codec in SHOWN]
        curves, images = mean_curves(shown), complete_images(shown)
        mean = f"mean of {len(images)} pictures"
        for name, metric, title in (("psnr", "psnr_db", "PSNR"), ("ms-ssim", "ms_ssim_db", "MS-SSIM")):
            drawn = plots.rate_distortion(curves, metric, f"{title} over rate, {mean}")
            (options.plots / f"kodak-{name}.png").write_bytes(drawn)
        each = {image: image_curves(shown, image) for image in images}
        (options.plots / "kodak-images.png").write_bytes(plots.images(each))


if __name__ == "__main__":
    main()
