"""Pairs for training restoration: what a real codec leaves of a frame, and the frame. Made once, kept in one file.

Each clip is reduced by an antialiased kernel, coded by x264, x265 or SVT-AV1 at a random CRF and preset in memory,
decoded, and two of its frames are kept. Mode x2: coded at half the size. Mode x1: coded at full size, or, for two clips
in five, at two thirds of it and brought back by Lanczos, as the receiver does for x1.5. Some of the clips have been coded
once before, as most videos have when they reach Foveal: then that is what is to be restored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor

from foveal.errors import InputError, MissingExtraError
from foveal.train import checkpoint
from foveal.train.video_clips import moving, piece, read_clips
from foveal.video.attention_sr import MODES
from foveal.video.basecodec import has_avx512, pyav
from foveal.video.frames import planes_of
from foveal.video.mux import fill
from foveal.video.resize import resize_planes
from foveal.video.types import Planes

SIDE, FRAMES = 256, 8  # of a clip at full size
PHOTOGRAPHS = 0.75  # share of the clips that photographs make, where there are real clips too
HELD = 24  # one clip in so many more is made from what is held out
BEFORE, BEFORE_CRF = 0.4, (16, 28)  # share of clips of photographs that were coded before, by x264, and its CRF range
THIRDS = 0.4  # share of x1 clips that are coded at two thirds of the size


@dataclass(frozen=True)
class Coder:
    """A codec as the sender uses it: PyAV's names, presets and CRF ranges to draw from (``full``: for mode x1, since at full
    size low rates take higher ones), the end of its CRF scale."""

    name: str
    encoder: str
    decoder: str
    presets: tuple[str, ...]
    crf: tuple[int, int]
    full: tuple[int, int]
    top: int
    options: tuple[tuple[str, str], ...] = ()

    def crf_of(self, mode: str) -> tuple[int, int]:
        """The first and the last CRF that pairs of a mode are coded at."""
        return self.crf if mode == "x2" else self.full


CODERS = (
    Coder(
        "x264", "libx264", "h264", ("superfast", "veryfast", "fast", "medium"), (18, 42), (20, 49), 51,
        (("x264-params", "asm=avx2"),) if has_avx512() else (),  # its AVX-512 code does not repeat itself
    ),
    Coder(
        "x265", "libx265", "hevc", ("superfast", "veryfast", "fast", "medium"), (18, 42), (20, 49), 51,
        (("x265-params", "pools=none:frame-threads=1:log-level=none"),),
    ),
    Coder("svtav1", "libsvtav1", "libdav1d", ("6", "8", "10"), (20, 60), (24, 63), 63, (("svtav1-params", "lp=1"),)),
)  # fmt: skip


def code(frames: list[Planes], coder: Coder, crf: int, preset: str) -> list[Planes]:
    """Encode 8-bit frames and decode them again, in memory. Raises MissingExtraError if this PyAV lacks the encoder."""
    av = pyav()
    height, width = frames[0].y.shape
    try:
        encoder = av.CodecContext.create(coder.encoder, "w")
    except av.error.FFmpegError as e:
        raise MissingExtraError.of(f"PyAV with {coder.encoder}", "video") from e
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.thread_count = Fraction(1, 25), Fraction(25), 1
    encoder.options = {"crf": str(crf), "preset": preset, **dict(coder.options)}
    packets = []
    for n, planes in enumerate(frames):
        frame = av.VideoFrame(width, height, "yuv420p")
        for plane, values in zip(frame.planes, (planes.y, planes.u, planes.v), strict=True):
            fill(plane, values)
        frame.pts, frame.time_base = n, encoder.time_base
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = av.CodecContext.create(coder.decoder, "r")
    decoder.thread_count = 1
    out = [frame for packet in packets for frame in decoder.decode(packet)]
    return [planes_of(frame, 8) for frame in [*out, *decoder.decode(None)]]


@dataclass
class Pairs:
    """Pairs of one mode, all uint8 but ``quality`` (N,) float, ``coder`` (N,) int, places in CODERS, and ``scale`` (N,)
    float: 2 for x2, 1 or 1.5 for x1.

    Inputs y (N, h, w) and u, v (N, h/2, w/2); targets y (N, S, S) and u, v (N, S/2, S/2); h = S / 2 for x2, S for x1.
    """

    mode: str
    y: Tensor
    u: Tensor
    v: Tensor
    target_y: Tensor
    target_u: Tensor
    target_v: Tensor
    quality: Tensor
    coder: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.quality)

    def to(self, device: torch.device) -> Pairs:
        """The same pairs on another device."""
        return Pairs(self.mode, **{k: v.to(device) for k, v in self.tensors().items()})

    def tensors(self) -> dict[str, Tensor]:
        """Everything but the mode, by name."""
        return {k: v for k, v in vars(self).items() if k != "mode"}


def _coded(clip: list[Planes], mode: str, random: np.random.Generator) -> tuple[list[Planes], float, int, float]:
    """The clip as the network will see it, its quality in [0, 1], which coder it was, and the ratio of the sizes."""
    which = int(random.integers(len(CODERS)))
    coder = CODERS[which]
    first, last = coder.crf_of(mode)
    crf, preset = int(random.integers(first, last + 1)), str(random.choice(coder.presets))
    kernel = str(random.choice(("lanczos", "bicubic", "area"), p=(0.7, 0.2, 0.1)))
    side = clip[0].y.shape[0]
    ratio = 2.0 if mode == "x2" else 1.5 if random.random() < THIRDS else 1.0
    small = -(-round(side / ratio) // 2) * 2
    if ratio > 1:
        clip = [resize_planes(p, small, small, kernel, ratio=ratio) for p in clip]
    out = code(clip, coder, crf, preset)
    if ratio == 1.5:
        out = [resize_planes(p, side, side, ratio=1 / ratio) for p in out]
    return out, crf / coder.top, which, ratio


def make(clips: Callable[[], list[Planes]], count: int, mode: str, random: np.random.Generator) -> Pairs:
    """``count`` pairs, two of each clip that ``clips()`` gives."""
    rows: list[tuple[NDArray[Any], ...]] = []
    facts: list[tuple[float, int, float]] = []
    for _ in track(range((count + 1) // 2), f"pairs {mode}", console=Console(stderr=True), transient=True):
        clip = clips()
        coded, quality, which, ratio = _coded(clip, mode, random)
        for n in sorted({int(random.integers(1, len(clip) - 1)), len(clip) - 1})[:2]:
            rows.append((coded[n].y, coded[n].u, coded[n].v, clip[n].y, clip[n].u, clip[n].v))
            facts.append((quality, which, ratio))
    y, u, v, ty, tu, tv = (torch.from_numpy(np.stack(column)[:count]) for column in zip(*rows, strict=True))
    q, coder, scale = (torch.tensor(column[:count]) for column in zip(*facts, strict=True))
    return Pairs(mode, y, u, v, ty, tu, tv, q, coder, scale)


def source(
    photographs: list[Tensor], clips: list[list[Planes]], random: np.random.Generator
) -> Callable[[], list[Planes]]:
    """A function that makes a new clip at every call, from photographs and real clips in the share PHOTOGRAPHS."""

    def one() -> list[Planes]:
        if photographs and (not clips or random.random() < PHOTOGRAPHS):
            clip = moving(photographs[random.integers(len(photographs))], SIDE, FRAMES, random)
            crf = int(random.integers(BEFORE_CRF[0], BEFORE_CRF[1] + 1))
            return code(clip, CODERS[0], crf, "veryfast") if random.random() < BEFORE else clip
        return piece(clips[random.integers(len(clips))], SIDE, FRAMES, random)

    return one


def produce(
    photographs: tuple[list[Tensor], list[Tensor]],
    clips: Path | None,
    hold_out: str,
    count: int,
    seed: int,
    modes: Sequence[str] = tuple(MODES),
) -> dict[str, Pairs]:
    """Pairs of ``modes`` from (training, held-out) photographs and a folder of clips: "train.x2", "held.x2", ..."""
    random = np.random.default_rng(seed)
    real: tuple[list[list[Planes]], list[list[Planes]]] = read_clips(clips, hold_out) if clips else ([], [])
    out = {}
    for part, pictures, films, number in zip(
        ("train", "held"), photographs, real, (count, max(2, count // HELD)), strict=True
    ):
        for mode in modes:
            if pictures or films:
                out[f"{part}.{mode}"] = make(source(pictures, films, random), number, mode, random)
    return out


def save(path: Path, pairs: dict[str, Pairs]) -> None:
    """Write pairs into one file, atomically."""
    checkpoint.write(path, {f"{k}.{name}": t.contiguous() for k, p in pairs.items() for name, t in p.tensors().items()})


def load(path: Path) -> dict[str, Pairs]:
    """Read what ``save`` wrote; InputError if it is something else."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found: dict[str, dict[str, Tensor]] = {}
    try:
        for name, tensor in load_file(path).items():
            part, _, field = name.rpartition(".")
            found.setdefault(part, {})[field] = tensor
        return {part: Pairs(part.rpartition(".")[2], **fields) for part, fields in found.items()}
    except (OSError, SafetensorError, TypeError) as e:
        raise InputError(f"{path}: not a file of training pairs ({e}); remove it, and it is made again") from e


@dataclass(frozen=True)
class Batch:
    """Crops in [0, 1]: y (B, 1, n, n) and u, v (B, 1, n/2, n/2), n = side for x2 and 2 side for x1.

    Targets (B, 1, 2 side, 2 side) and (B, 1, side, side); ``quality`` and ``scale`` (B,). ``group``
    consecutive samples are alike, as parts of one frame are.
    """

    y: Tensor
    u: Tensor
    v: Tensor
    target: tuple[Tensor, Tensor, Tensor]
    quality: Tensor
    scale: Tensor
    group: int


def batches(pairs: Pairs, batch: int, side: int, random: np.random.Generator) -> Iterator[Batch]:
    """Endless random crops of ``side`` samples of the work grid, half of them upside down (mirroring would move chroma), cut
    on the device that the pairs are on.

    Samples come in groups of one, four or ``batch`` of neighbouring quality and mostly the same codec: channel attention
    pools over a group as it pools over a frame, of which one crop would be too small a part.
    """
    device = pairs.y.device
    order = np.lexsort([x.cpu().numpy() for x in (pairs.quality, pairs.coder, pairs.scale)])
    small = 1 if pairs.mode == "x2" else 2  # samples of the input a sample of the work grid
    room = (pairs.target_u.shape[-1] - side) // 2 + 1
    if room < 1 or side % 2:
        raise InputError(f"crop {side} is odd or larger than the pairs, {pairs.target_u.shape[-1]}; lower --crop")

    parts = ((pairs.y, small), (pairs.u, small / 2), (pairs.v, small / 2),
             (pairs.target_y, 2), (pairs.target_u, 1), (pairs.target_v, 1))  # fmt: skip

    def crops(planes: Tensor, scale: float, where: Tensor) -> Tensor:
        """(B, 1, n, n) in [0, 1], n = scale * side: of the pictures where[0], from (where[1], where[2]) on, where[3]
        says which are upside down."""
        along = torch.arange(int(side * scale), device=device)
        which, y, x, flip = where
        down = torch.where(flip[:, None] > 0, along.flip(0), along) + (y * scale).long()[:, None]
        across = along + (x * scale).long()[:, None]
        return planes[which[:, None, None], down[:, :, None], across[:, None]][:, None].float() / 255

    while True:
        group = int(random.choice([g for g in (1, 4, batch) if batch % g == 0]))
        index: list[int] = []
        for _ in range(batch // group):
            near = int(random.integers(len(order))) + random.integers(-2 * group, 2 * group + 1, group)
            index += order[near.clip(0, len(order) - 1)].tolist()
        places = [
            (2 * int(random.integers(room)), 2 * int(random.integers(room)), random.random() < 0.5) for _ in index
        ]
        where = torch.tensor([(i, *place) for i, place in zip(index, places, strict=True)]).T.to(device)
        y, u, v, *target = (crops(planes, scale, where) for planes, scale in parts)
        yield Batch(y, u, v, (target[0], target[1], target[2]), pairs.quality[where[0]], pairs.scale[where[0]], group)
