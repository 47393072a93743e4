"""Memory and time of a large picture: bench_large.py FOLDER -o results.jsonl [--megapixels 12] [--codecs s4,m4,s6,avif6]

The picture is a sheet of the folder's first 24 PNG of 768x512, mirrored below as often as it takes. Every codec, a model and
its effort or AVIF and its speed, codes it at quality 50 in a fresh process and decodes it in another, on one thread. Noted
are processor seconds per megapixel, building the model included, and the process' peak memory, all that it loads included.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from PIL import Image

from foveal.bench import machine

COLUMNS, ROWS, SIZE = 6, 4, (768, 512)
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def sheet(folder: Path, megapixels: float) -> Image.Image:
    """The picture, 4608 wide and as high as the megapixels make it."""
    paths = sorted(folder.glob("*.png"))[: COLUMNS * ROWS]
    if len(paths) < COLUMNS * ROWS:
        raise SystemExit(f"{folder} has {len(paths)} PNG; {COLUMNS * ROWS} of {SIZE[0]}x{SIZE[1]} are needed")
    pictures = [Image.open(path).convert("RGB") for path in paths]
    upright = [np.asarray(p if p.size == SIZE else p.transpose(Image.Transpose.ROTATE_90)) for p in pictures]
    rows = [np.concatenate(upright[i : i + COLUMNS], 1) for i in range(0, len(upright), COLUMNS)]
    once = np.concatenate(rows)
    height = round(megapixels * 1e6 / once.shape[1])
    parts = [once[::-1] if i % 2 else once for i in range(-(-height // len(once)))]
    return Image.fromarray(np.concatenate(parts)[:height])


def job(codec: str, way: str, source: Path, target: Path) -> None:
    """What a process of its own does: encode or decode, and print what it took."""
    avif, number = codec.startswith("avif"), int(codec.lstrip("avifsm"))
    if not avif:
        import torch

        import foveal

        torch.set_num_threads(1)
    if way == "encode":
        picture = Image.open(source)
        picture.load()
        start = time.process_time()
        if avif:
            picture.save(target, "AVIF", quality=50, speed=number, max_threads=1)
        else:
            target.write_bytes(foveal.compress(picture, quality=50, effort=number, model=codec[0]))
        seconds = time.process_time() - start
    else:
        start = time.process_time()
        shown = Image.open(source) if avif else foveal.decompress(source.read_bytes())
        shown.load()
        seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"seconds": seconds, "peak_mib": round(peak)}))


def measured(codec: str, picture: Path, coded: Path, pixels: int) -> dict[str, object]:
    """Both ways of one codec."""
    row: dict[str, object] = {"codec": codec}
    for way, source in (("encode", picture), ("decode", coded)):
        command = [sys.executable, __file__, str(source), "-o", str(coded), "--job", codec, way]
        environment = {**os.environ, **ONE_THREAD}
        said = json.loads(subprocess.run(command, check=True, capture_output=True, env=environment).stdout)
        row[f"{way}_cpu_s_per_mpx"] = round(said["seconds"] / pixels * 1e6, 3)
        row[f"{way}_peak_mib"] = said["peak_mib"]
    return row | {"bytes": coded.stat().st_size}


def main() -> None:
    """Measure every codec, one line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--megapixels", type=float, default=12)
    parser.add_argument("--codecs", default="s4,m4,s6,avif6")
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.job:
        job(options.job[0], options.job[1], options.folder, options.output)
        return

    picture = sheet(options.folder, options.megapixels)
    with tempfile.TemporaryDirectory() as folder, options.output.open("a", encoding="utf-8") as output:
        path, pixels = Path(folder) / "picture.png", picture.width * picture.height
        picture.save(path, compress_level=1)
        for codec in options.codecs.split(","):
            row = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "cpu": machine.cpu(), "width": picture.width,
                   "height": picture.height, **measured(codec, path, Path(folder) / "coded", pixels)}  # fmt: skip
            output.write(json.dumps(row) + "\n")
            output.flush()
            print(row)


if __name__ == "__main__":
    main()
