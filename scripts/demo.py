"""Code one photograph with Foveal, decode it in a fresh process, and show it beside JPEG, WebP and AVIF.

Every step of Foveal is the command a user would type, in a process of its own. The other codecs are Pillow's;
each has the lowest quality whose file is at least as large as Foveal's, so none has fewer bytes than Foveal.
Writes demo/out: the coded files, report*.png, figures.json and index.html.
"""

from __future__ import annotations

import argparse
import html
import io
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

ROOT = Path(__file__).resolve().parent.parent
PHOTO = Path("demo/dog.png")
OUT = Path("demo/out")
RATES: dict[str, tuple[str, ...]] = {"small": ("--target-bpp", "0.15"), "default": ("-q", "60")}
RIVALS: dict[str, dict[str, Any]] = {
    "jpeg": {"optimize": True, "progressive": True},
    "webp": {"method": 6},
    "avif": {"speed": 4},
}


@dataclass(frozen=True)
class Result:
    """One coded file of the photograph; `picture` is the PNG of what a viewer would show."""

    rate: str
    codec: str
    setting: str
    file: str
    picture: str
    bytes: int
    bpp: float
    psnr_db: float
    ms_ssim: float | None

    @property
    def label(self) -> str:
        return f"{self.codec}  {self.bytes:,} bytes  {self.bpp:.3f} bpp  {self.psnr_db:.2f} dB"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    OUT.mkdir(parents=True, exist_ok=True)
    photo = Image.open(PHOTO).convert("RGB")
    results = []
    for rate, options in RATES.items():
        ours = code_with_foveal(rate, options, photo)
        results += [ours, *(code_with_rival(rate, codec, ours.bytes, photo) for codec in RIVALS)]
        draw_sheet([r for r in results if r.rate == rate], photo, sheet_of(rate))
    foveal("importance", PHOTO, "-o", OUT / "importance.png", "--keep", "0.6")
    facts = foveal("info", "--verify", OUT / "small.fov")
    (OUT / "figures.json").write_text(json.dumps([asdict(r) for r in results], indent=1) + "\n")
    (OUT / "index.html").write_text(page(results, facts))
    print(f"\n{facts}\n{table(results)}\n\nreport: {OUT}/index.html and {sheet_of('small')}")


def foveal(*arguments: object) -> str:
    """Run one command in a fresh process, showing it as typed; returns what it printed."""
    words = [str(word) for word in arguments]
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "foveal", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"foveal {shlex.join(words)}: status {done.returncode}")
    seconds = time.perf_counter() - began
    print(f"$ foveal {shlex.join(words)}    # {seconds:.1f} s, start of Python included", flush=True)
    return done.stdout


def code_with_foveal(rate: str, options: tuple[str, ...], photo: Image.Image) -> Result:
    coded, decoded = OUT / f"{rate}.fov", OUT / f"{rate}-foveal.png"
    foveal("encode", PHOTO, "-o", coded, *options)
    foveal("decode", coded, "-o", decoded)
    return measured(rate, "foveal", " ".join(options), coded, decoded, photo)


def code_with_rival(rate: str, codec: str, least: int, photo: Image.Image) -> Result:
    """The file of the lowest quality that has `least` bytes or more; each try halves the range."""
    low, high = 1, 100
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if len(encoded(photo, codec, middle)) >= least else (middle + 1, high)
    coded, decoded = OUT / f"{rate}.{codec}", OUT / f"{rate}-{codec}.png"
    coded.write_bytes(encoded(photo, codec, low))
    Image.open(coded).convert("RGB").save(decoded)
    return measured(rate, codec, f"quality {low}", coded, decoded, photo)


def encoded(photo: Image.Image, codec: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    photo.save(buffer, codec, quality=quality, **RIVALS[codec])
    return buffer.getvalue()


def measured(rate: str, codec: str, setting: str, coded: Path, decoded: Path, photo: Image.Image) -> Result:
    found = json.loads(foveal("compare", PHOTO, decoded, "--json"))
    size = coded.stat().st_size
    bpp = 8 * size / (photo.width * photo.height)
    return Result(rate, codec, setting, coded.name, decoded.name, size, bpp, found["psnr_db"], found["ms_ssim"])


def sheet_of(rate: str) -> Path:
    return OUT / ("report.png" if rate == "small" else f"report-{rate}.png")


def draw_sheet(results: list[Result], photo: Image.Image, target: Path) -> None:
    """The original and every codec's picture, a pixel for a pixel, three a row; then the table."""
    shown = [("original", photo), *((r.label, Image.open(OUT / r.picture)) for r in results)]
    width, height, gap, line = *photo.size, 12, 26
    sheet = Image.new("RGB", (3 * (width + gap) + gap, 2 * (height + line + gap) + gap), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(17)
    for place, (label, picture) in enumerate(shown):
        x, y = gap + place % 3 * (width + gap), gap + place // 3 * (height + line + gap)
        pen.text((x, y), label, "black", font)
        sheet.paste(picture, (x, y + line))
    draw_table(pen, results, gap + 2 * (width + gap), gap + height + gap + 2 * line)
    sheet.save(target)


def draw_table(pen: ImageDraw.ImageDraw, results: list[Result], left: int, top: int) -> None:
    """The rows of the table under each other, every column at a place of its own."""
    font = ImageFont.load_default(15)
    for number, row in enumerate(rows(results)):
        for text, x in zip(row[1:], (0, 70, 140, 210, 290, 370), strict=True):
            pen.text((left + x, top + 28 * number), text, "black", font)


def rows(results: list[Result]) -> list[tuple[str, ...]]:
    """A heading and a row for each result, as text."""
    found = [("rate", "codec", "bytes", "bpp", "PSNR dB", "MS-SSIM", "setting")]
    for r in results:
        similarity = "-" if r.ms_ssim is None else f"{r.ms_ssim:.4f}"
        found.append((r.rate, r.codec, f"{r.bytes:,}", f"{r.bpp:.3f}", f"{r.psnr_db:.2f}", similarity, r.setting))
    return found


def table(results: list[Result]) -> str:
    return "\n".join("{:9}{:8}{:>8}{:>8}{:>9}{:>9}  {}".format(*row) for row in rows(results))


def page(results: list[Result], facts: str) -> str:
    sheets = "".join(f'<h2>{rate}</h2><img src="{sheet_of(rate).name}">' for rate in RATES)
    return f"""<!doctype html><meta charset="utf-8"><title>Foveal: one photograph</title>
<style>body{{font:16px/1.5 sans-serif;margin:2em auto;max-width:1800px;padding:0 1em}}img{{max-width:100%}}
pre{{background:#f4f4f4;padding:1em;overflow:auto}}</style>
<h1>One photograph, four codecs, the same size</h1>
<p>Each of the others has the lowest quality whose file is at least as large as Foveal's.
Foveal's file was decoded in a fresh process. Photograph: gb82 set, Gianni Rosato, CC0.</p>
<pre>{html.escape(table(results))}</pre>{sheets}
<h2>Where the information is (--keep 0.6)</h2><img src="importance.png">
<h2>What the small file holds</h2><pre>{html.escape(facts)}</pre>
"""


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
