"""Train S of AttentionSR with one thing changed, from scratch, on the same pairs for as many steps; what each gains.

    python scripts/ablate_video.py --pool pairs.safetensors --seeds 1,2,3 -o benchmarks/results/ablation-video.jsonl

The pool is one that `foveal train video --pool` made. A line for every variant and seed, written at once; those that are
in the file are not trained again. The gain is PSNR-Y over plain Lanczos on the pool's held-out pairs.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path

from foveal.train.video_loop import train
from foveal.video.attention_sr import SIZES

CHANGES: dict[str, dict[str, bool]] = {
    "serial": {},
    "parallel": {"parallel": True},
    "no-norm": {"norm": False},
    "no-channel-attention": {"channel": False},
    "no-spatial-attention": {"spatial": False},
}


def done(output: Path) -> set[tuple[str, int, int]]:
    """Variants, seeds and steps that the file has."""
    lines = output.read_text(encoding="utf-8").splitlines() if output.exists() else []
    return {(line["variant"], line["seed"], line["steps"]) for line in map(json.loads, lines)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--steps", type=int, default=1000)
    told = parser.parse_args()
    if not told.pool.is_file():
        parser.error(f"{told.pool} is not there: make it with foveal train video --pool")
    for seed in map(int, told.seeds.split(",")):
        for name, change in CHANGES.items():
            if (name, seed, told.steps) in done(told.output):
                continue
            with tempfile.TemporaryDirectory() as scratch:
                log = Path(scratch, "log.jsonl")
                train(
                    Path(scratch), Path(scratch, "s.safetensors"), pool=told.pool, size=replace(SIZES["s"], **change),
                    steps=told.steps, seed=seed, threads=1, log=log, compiled=True, structure_from=1,
                )  # fmt: skip
                last = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
            line = {"variant": name, "seed": seed, "steps": told.steps, "gain_db": last["gain_db"]["all"]}
            with told.output.open("a", encoding="utf-8") as f:
                f.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
