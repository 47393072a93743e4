"""Draw Lanczos, AttentionSR and the original of a few clips side by side, from one coded file of half size each, or with
`--scale 1` of full size, where Lanczos has nothing to do.

    python scripts/video_pictures.py CLIPS -o docs/pictures --clips cockatoo,vid4_foliage,vtest --codec x265 --crf 32

One picture per clip: the region of a frame with the most detail, its pixels doubled, with kbit/s and the PSNR-Y of the
whole frame. `--slices` adds the flicker picture: one row of the clip over time, a line per frame.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from foveal import video
from foveal.bench.metrics import psnr_db
from foveal.bench.video_media import Clip, find_clips, lanczos, luma, prepare, program, stream_bytes

WIDTH, HEIGHT = 232, 184  # of the region, pixels
ZOOM, LINE, GAP = 2, 22, 6
PREFIX = {2: "video", 1: "repaired"}  # of the pictures' names, by scale
Picture = NDArray[np.uint8]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips_folder", type=Path, metavar="CLIPS")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--clips", default="", help="beginnings of file names, with commas")
    parser.add_argument("--codec", default="x265")
    parser.add_argument("--crf", type=float, default=32)
    parser.add_argument("--scale", type=int, choices=(1, 2), default=2)
    parser.add_argument("--model", default="s")
    parser.add_argument("--frames", type=int, default=48)
    parser.add_argument("--frame", type=int, default=24, help="the one that is shown")
    parser.add_argument("--slices", action="store_true")
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    for source in find_clips(options.clips_folder, [name for name in options.clips.split(",") if name]):
        with tempfile.TemporaryDirectory() as scratch:
            draw(source, Path(scratch), options)


def draw(source: Path, scratch: Path, options: argparse.Namespace) -> None:
    """The pictures of one clip."""
    clip = prepare(source, scratch / "original.y4m", options.frames)
    coded, plain, restored = (scratch / name for name in ("coded.mkv", "plain.y4m", "restored.y4m"))
    report = video.encode(
        clip.path, coded, scale=options.scale, codec=options.codec, crf=options.crf, model=options.model
    )
    lanczos(coded, plain, clip)
    video.decode(coded, restored, model=options.model)
    kbps = (stream_bytes(coded)[0] + report.side_bytes) * 8 / clip.seconds / 1000
    number = min(options.frame, clip.frames - 1)
    ways = {
        "Lanczos" if options.scale == 2 else "as coded": plain,
        f"AttentionSR {options.model.upper()}": restored,
        "original": clip.path,
    }
    frames = {name: frame(path, clip, number) for name, path in ways.items()}
    lumas = {name: list(luma(path, clip))[number] for name, path in ways.items()}
    top, left = busiest(lumas["original"])
    captions = [f"{name}, {psnr_db(lumas['original'], lumas[name]):.2f} dB" for name in list(ways)[:2]]
    captions = [f"{captions[0]} ({options.codec}, {kbps:.0f} kbit/s)", captions[1], "original"]
    crops = [picture[top : top + HEIGHT, left : left + WIDTH] for picture in frames.values()]
    save(sheet(crops, captions, ZOOM), options.output / f"{PREFIX[options.scale]}-{source.stem}.webp")
    if options.slices:
        row = top + HEIGHT // 2
        slices = [np.stack([plane[row] for plane in luma(path, clip)]) for path in ways.values()]
        save(
            sheet([np.repeat(s, 4, axis=0) for s in slices], list(ways), 1),
            options.output / f"slice-{source.stem}.webp",
        )


def frame(path: Path, clip: Clip, number: int) -> Picture:
    """One frame of a raw clip as RGB, (H, W, 3)."""
    words = ["-i", str(path), "-vf", rf"select=eq(n\,{number})", "-frames:v", "1"]
    raw = ["-sws_flags", "lanczos+accurate_rnd+full_chroma_int", "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    done = subprocess.run([program(), "-v", "error", *words, *raw], capture_output=True, check=True)
    return np.frombuffer(done.stdout, np.uint8).reshape(clip.height, clip.width, 3)


def busiest(plane: Picture) -> tuple[int, int]:
    """Top and left of the region with the largest mean gradient."""
    values = plane.astype(np.float64)
    detail = np.abs(np.diff(values, axis=0))[:, :-1] + np.abs(np.diff(values, axis=1))[:-1]
    sums = np.pad(detail, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    totals = sums[HEIGHT:, WIDTH:] - sums[:-HEIGHT, WIDTH:] - sums[HEIGHT:, :-WIDTH] + sums[:-HEIGHT, :-WIDTH]
    top, left = np.unravel_index(int(totals.argmax()), totals.shape)
    return int(top) // 2 * 2, int(left) // 2 * 2


def sheet(pictures: list[Picture], captions: list[str], zoom: int) -> Image.Image:
    """Pictures in a row, enlarged without smoothing, each with a line of text above."""
    shown = [Image.fromarray(picture) for picture in pictures]
    shown = [s.resize((s.width * zoom, s.height * zoom), Image.Resampling.NEAREST).convert("RGB") for s in shown]
    width = sum(s.width + GAP for s in shown) - GAP
    found = Image.new("RGB", (width, shown[0].height + LINE), "white")
    pen, font, x = ImageDraw.Draw(found), ImageFont.load_default(14), 0
    for picture, caption in zip(shown, captions, strict=True):
        found.paste(picture, (x, LINE))
        pen.text((x, 2), caption, "black", font)
        x += picture.width + GAP
    return found


def save(picture: Image.Image, path: Path) -> None:
    """Write a WebP of less than 400 kB."""
    for quality in (95, 90, 85, 80, 70):
        picture.save(path, quality=quality, method=6)
        if path.stat().st_size < 400_000:
            break
    print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
