"""What packets and layers cost and how early a picture shows: bench_packets.py FOLDER -o results.jsonl

For every picture, quality and number of layers: bytes with one packet and with packets of at most 1200 bytes, share of the
file before the first full-size picture (header, class map, first part of the base layer) and before the first packet, the
worst change of PSNR by a part or packet, and PSNR when a half of the bytes is there. One thread.
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
from foveal.bench import machine
from foveal.bench.metrics import psnr_db

QUALITIES = (37, 60, 75)
LAYERS = (1, 2, 3, 5)
SHOWN = ("BASE", "BAS2", "BAS3", "PCKT")


def row(path: Path, quality: float, layers: int) -> dict[str, object]:
    """One measurement."""
    picture = Image.open(path).convert("RGB")
    rgb = np.asarray(picture)
    one = foveal.compress(picture, quality=quality)
    many = foveal.compress(picture, quality=quality, mtu=1200, layers=layers)
    decoder, ends, steps = foveal.Decoder(), [], []
    fed, end = 0, 8  # the signature
    for chunk in foveal.inspect(many).chunks:
        end += 12 + int(chunk["bytes"])
        shown = decoder.feed(many[fed:end])
        fed = end
        if chunk["type"] in SHOWN and shown is not None:
            ends.append(end)
            steps.append(psnr_db(rgb, shown))
    return {
        "image": path.name, "quality": quality, "layers": layers, "bpp": round(8 * len(one) / (rgb.size / 3), 4),
        "bytes": len(one), "bytes_mtu_1200": len(many), "packets": len(steps) - 3,
        "first_picture_share": round(ends[0] / len(one), 4), "first_picture_db": round(steps[0], 2),
        "base_share": round(ends[2] / len(one), 4), "base_db": round(steps[2], 2),
        "half_db": round(max(db for end, db in zip(ends, steps, strict=True) if end <= len(many) / 2), 2),
        "one_packet_db": round(psnr_db(rgb, np.asarray(foveal.decompress(one))), 2), "db": round(steps[-1], 2),
        "worst_step_db": round(min(b - a for a, b in pairwise(steps)), 3),
    }  # fmt: skip


def main() -> None:
    """Measure every PNG of the folder and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pictures = sorted(options.folder.glob("*.png"))[: options.limit]
    table = [row(path, q, layers) for q in QUALITIES for layers in LAYERS for path in pictures]
    command = ["scripts/bench_packets.py", options.folder.resolve().name, "--limit", str(len(pictures))]
    run = {"kind": "run", **machine.about(command), "weights": foveal.models()[0].weights_hash}
    options.output.write_text("".join(json.dumps(line) + "\n" for line in [run, *table]))
    for quality in QUALITIES:
        for layers in LAYERS:
            chosen = [line for line in table if (line["quality"], line["layers"]) == (quality, layers)]
            mean = {k: statistics.mean(float(str(line[k])) for line in chosen) for k in chosen[0] if k != "image"}
            worst = min(float(str(line["worst_step_db"])) for line in chosen)
            print(f"quality {quality}, {layers} layers: {mean['bpp']:.3f} bpp, first picture after "
                  f"{100 * mean['first_picture_share']:.1f} % at {mean['first_picture_db']:.2f} dB, base layer "
                  f"{100 * mean['base_share']:.1f} % at {mean['base_db']:.2f}, half of the bytes {mean['half_db']:.2f}, all "
                  f"{mean['db']:.2f} dB (one packet {mean['one_packet_db']:.2f}), packets of 1200 bytes cost "
                  f"{100 * (mean['bytes_mtu_1200'] / mean['bytes'] - 1):.2f} %, worst step {worst:+.3f} dB")  # fmt: skip


if __name__ == "__main__":
    main()
