"""What packets cost and how early a picture shows: bench_packets.py FOLDER -o results.jsonl

For every picture and quality: bytes with one packet and with packets of at most 1200 bytes, share of the file before the
first packet (header, class map, base layer: the first full-size picture), PSNR after each packet. One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import foveal
from foveal.bench.metrics import psnr_db

QUALITIES = (37, 57, 75)


def row(path: Path, quality: float) -> dict[str, object]:
    """One measurement."""
    picture = Image.open(path).convert("RGB")
    rgb = np.asarray(picture)
    one = foveal.compress(picture, quality=quality)
    many = foveal.repack(one, mtu=1200)
    chunks = foveal.inspect(many).chunks
    sizes = [int(c["bytes"]) + 12 for c in chunks if c["type"] == "PCKT"]
    start = 8 + sum(int(c["bytes"]) + 12 for c in chunks if c["type"] in ("HEAD", "CLAS", "BASE"))
    ends = [start + 12 + sum(sizes[:n]) for n in range(len(sizes) + 1)]
    shown = [np.asarray(foveal.decompress(foveal.truncate(many, end), on_loss="conceal")) for end in ends]
    steps = [psnr_db(rgb, picture) for picture in shown]
    return {
        "image": path.name, "quality": quality, "bpp": round(8 * len(one) / (rgb.size / 3), 4), "bytes": len(one),
        "bytes_mtu_1200": len(many), "packets": len(sizes), "first_picture_share": round(start / len(one), 4),
        "first_picture_db": round(steps[0], 2), "db": round(steps[-1], 2),
        "worst_step_db": round(min([b - a for a, b in pairwise(steps)], default=0.0), 3),
    }  # fmt: skip


def main() -> None:
    """Measure every PNG of the folder and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = [row(path, q) for q in QUALITIES for path in sorted(options.folder.glob("*.png"))]
    options.output.write_text("".join(json.dumps(line) + "\n" for line in table))
    for quality in QUALITIES:
        chosen = [line for line in table if line["quality"] == quality]
        mean = {k: statistics.mean(float(str(line[k])) for line in chosen) for k in chosen[0] if k != "image"}
        print(f"quality {quality}: {mean['bpp']:.3f} bpp, first picture after {100 * mean['first_picture_share']:.1f} %, "
              f"{mean['first_picture_db']:.2f} of {mean['db']:.2f} dB, packets of 1200 bytes cost "
              f"{100 * (mean['bytes_mtu_1200'] / mean['bytes'] - 1):.2f} %, worst step "
              f"{min(float(str(line['worst_step_db'])) for line in chosen):+.3f} dB")  # fmt: skip


if __name__ == "__main__":
    main()
