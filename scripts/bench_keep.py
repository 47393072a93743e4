"""What dropping patches saves and what the class map costs: bench_keep.py FOLDER -o results.jsonl

For every picture and share kept: seconds of the analysis transform (median of 5, as a ratio to keeping all, in the same
run), bytes of the class map, file size, PSNR and MS-SSIM at quality 60. One thread.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import foveal
from foveal.bench import machine
from foveal.bench.metrics import ms_ssim, psnr_db
from foveal.image.codec import choose
from foveal.image.encoder import Encoder
from foveal.image.network import Network

KEEPS: tuple[float | str, ...] = ("all", 0.75, 0.5, 0.25, "auto")


def analysis_seconds(encoder: Encoder, visible: np.ndarray) -> float:
    """Median of 5 runs of the vision transformer over the visible patches."""
    times = []
    for _ in range(5):
        start = time.perf_counter()
        encoder.network.analyse(encoder.coefficients, visible, encoder.grid)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def rows(path: Path) -> list[dict[str, object]]:
    """One measurement per share of patches kept."""
    picture = Image.open(path).convert("RGB")
    rgb, out, whole = np.array(picture), [], 0.0
    for keep in KEEPS:
        data = foveal.compress(picture, keep=keep)
        shown, info = np.asarray(foveal.decompress(data)), foveal.inspect(data)
        classes = choose(rgb, keep=keep, threshold=None, alpha=None, mask=None)
        encoder = Encoder(Network.load("s"), rgb, classes, 4, 1)
        classes = encoder.at(605).classes if classes is None else classes
        seconds = analysis_seconds(encoder, (classes > 0).ravel())
        whole = whole or seconds
        out.append({
            "image": path.name, "keep": keep, "dropped": info.dropped, "patches": info.patches, "bpp": round(info.bpp, 5),
            "psnr_db": round(psnr_db(rgb, shown), 3), "ms_ssim": round(ms_ssim(rgb, shown), 5),
            "analysis_ratio": round(seconds / whole, 3),
            "class_map_bpp": round(sum(c["bytes"] for c in info.chunks if c["type"] == "CLAS") * 8
                                   / (info.width * info.height), 6),
        })  # fmt: skip
    return out


def main() -> None:
    """Measure every PNG of the folder and print the means."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    table = [row for path in sorted(options.folder.glob("*.png")) for row in rows(path)]
    command = ["scripts/bench_keep.py", options.folder.resolve().name]
    run = {"kind": "run", **machine.about(command), "weights": foveal.models()[0].weights_hash}
    options.output.write_text("".join(json.dumps(row) + "\n" for row in [run, *table]))
    for keep in KEEPS:
        chosen = [r for r in table if r["keep"] == keep]
        means = {k: round(statistics.mean(float(r[k]) for r in chosen), 4)  # type: ignore[arg-type]
                 for k in ("bpp", "psnr_db", "ms_ssim", "analysis_ratio", "class_map_bpp")}  # fmt: skip
        print(f"keep {keep!s:5} {means}")


if __name__ == "__main__":
    main()
