"""Decoded pictures for docs/: pictures.py PHOTO -o docs/pictures --bpp 0.15 0.4

Each is the file that `foveal encode --target-bpp` writes, decoded by `foveal decode` in a process of its own; a JSON line
per picture says how large it was and how near.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path


def foveal(*arguments: str | Path) -> str:
    """Run the command line in a fresh process; its standard output."""
    done = subprocess.run(
        [sys.executable, "-m", "foveal", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return done.stdout


def main() -> None:
    """One picture for every rate."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photo", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--bpp", type=float, nargs="+", default=[0.15, 0.4])
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    lines = []
    for bpp in options.bpp:
        name = f"{options.photo.stem}-{bpp:g}bpp"
        coded, shown = options.output / f"{name}.fov", options.output / f"{name}.png"
        foveal("encode", options.photo, "-o", coded, "--target-bpp", bpp)
        foveal("decode", coded, "-o", shown)
        info = json.loads(foveal("info", "--json", coded))
        report = foveal("compare", options.photo, coded).strip()
        lines.append({"picture": shown.name, "bytes": info["bytes"], "bpp": info["bpp"], "model": info["model"],
                      "dropped": info["dropped"], "patches": info["patches"], "compare": report})  # fmt: skip
        coded.unlink()
        print(json.dumps(lines[-1]))
    (options.output / f"{options.photo.stem}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


if __name__ == "__main__":
    main()
