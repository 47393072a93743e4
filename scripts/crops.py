"""The same crops by Foveal, AVIF and WebP at equal bytes: crops.py FOLDER -o docs/pictures/crops.webp --bpp 0.35

AVIF's (speed 4) quality is the one whose file is nearest to the rate; Foveal is given its bytes as the target, WebP (method
6) the quality nearest to them. Files are decoded as users would decode them. A JSON line per picture says bytes and PSNR.
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

import foveal
from foveal.bench.metrics import psnr_db

CROPS = {  # picture -> left, top
    "kodim01": (330, 150),
    "kodim05": (250, 60),
    "kodim07": (300, 120),
    "kodim15": (260, 130),
    "kodim19": (120, 330),
    "kodim23": (100, 90),
}
SIDE, ZOOM, LINE = 176, 2, 22


def coded(picture: Image.Image, kind: str, bytes_: float, **options: Any) -> bytes:
    """The file of Pillow's codec ``kind`` whose size is nearest to ``bytes_``, over all qualities."""
    low, high, found = 0, 100, []
    while low <= high:
        quality = (low + high) // 2
        file = io.BytesIO()
        picture.save(file, kind, quality=quality, **options)
        found.append(file.getvalue())
        low, high = (quality + 1, high) if len(found[-1]) < bytes_ else (low, quality - 1)
    return min(found, key=lambda data: abs(len(data) - bytes_))


def main() -> None:
    """A sheet, a row for every picture: original, Foveal, AVIF, WebP."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bpp", type=float, default=0.25)
    parser.add_argument("--model", default="m")
    options = parser.parse_args()
    wide, high = SIDE * ZOOM, SIDE * ZOOM + LINE
    sheet = Image.new("RGB", (4 * wide, high * len(CROPS)), "white")
    draw, lines = ImageDraw.Draw(sheet), []
    for row, (name, (left, top)) in enumerate(CROPS.items()):
        picture = Image.open(options.folder / f"{name}.png").convert("RGB")
        avif = coded(picture, "avif", options.bpp * picture.width * picture.height / 8, speed=4)
        own = f"Foveal {options.model}"
        files = {
            own: foveal.compress(picture, target_bytes=len(avif), model=options.model),
            "AVIF": avif,
            "WebP": coded(picture, "webp", len(avif), method=6),
        }
        shown = {own: foveal.decompress(files[own])}
        shown |= {k: Image.open(io.BytesIO(files[k])).convert("RGB") for k in ("AVIF", "WebP")}
        facts = {k: (len(files[k]), round(psnr_db(np.asarray(picture), np.asarray(shown[k])), 2)) for k in files}
        lines.append({"picture": name, **{k: {"bytes": n, "psnr_db": p} for k, (n, p) in facts.items()}})
        captions = [name, *(f"{k} {n} bytes, {p:.2f} dB" for k, (n, p) in facts.items())]
        for column, (image, caption) in enumerate(zip([picture, *shown.values()], captions, strict=True)):
            crop = image.crop((left, top, left + SIDE, top + SIDE)).resize((wide, wide), Image.Resampling.NEAREST)
            sheet.paste(crop, (column * wide, row * high + LINE))
            draw.text((column * wide + 6, row * high + 5), caption, fill="black")
    sheet.save(options.output, quality=88)
    options.output.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    print(f"{options.output}: " + "; ".join(json.dumps(line) for line in lines))


if __name__ == "__main__":
    main()
