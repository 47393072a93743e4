"""Photographs for training: decoded once, kept as uint8 on the device, crops cut there in one gather."""

import csv
import hashlib
import io
import lzma
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foveal.errors import FovealError, InputError, UnsupportedImageError
from foveal.image.pixels import from_pillow

SEED_MAX = 2**32 - 1
ENOUGH = 8  # pictures for each of those that share; of fewer, all have all
PLAIN = {"1", "L", "LA", "P", "RGB", "RGBA"}  # modes that become RGB as they are
SUFFIXES = {".avif", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def _sources(folder: Path) -> dict[str, str]:
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return {}
    try:
        with manifest.open(newline="") as f:
            found = {row["file"]: row["source"] for row in csv.DictReader(f)}
        if None in found.values():
            raise ValueError("a row is too short")
        return found
    except (OSError, KeyError, ValueError, csv.Error) as e:
        raise InputError(f"{manifest}: not a table with the columns file and source ({e!r}); mend or remove it") from e


def _files(folder: Path) -> Iterator[tuple[str, bytes, Path]]:
    """(name, bytes, file or shard) of every picture, in the folder or in its shards."""
    for path in sorted(folder.iterdir()):
        try:
            if path.suffix == ".tar" and path.is_file():
                yield from _members(path)
            elif _is_picture(path) and path.is_file():
                yield path.name, path.read_bytes(), path
        except (OSError, EOFError, tarfile.TarError, zlib.error, lzma.LZMAError) as e:
            raise InputError(f"{path} cannot be read ({e}); mend or remove it") from e


def _members(shard: Path) -> Iterator[tuple[str, bytes, Path]]:
    with tarfile.open(shard) as tar:
        for member in tar:
            stream = tar.extractfile(member)
            if stream is not None and _is_picture(Path(member.name)):
                yield Path(member.name).name, stream.read(), shard


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".")


def _decoded(name: str, data: bytes, where: Path, least: int) -> NDArray[np.uint8] | None:
    """(H, W, 3) uint8; None if a side is below ``least``. Modes of more than 8 bits and the like as the codec reads them,
    if it does."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            if min(image.size) < least:
                return None
            with suppress(UnsupportedImageError):  # of several frames, say, of which the first is as good
                if image.mode not in PLAIN:
                    return from_pillow(image).rgb
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, RuntimeError, Image.DecompressionBombError, FovealError) as e:
        what = name if where.name == name else f"{where.name}, {name}"
        raise InputError(f"{what}: not a picture to train on ({e}); mend or remove it") from e


def load(
    folder: Path,
    crop: int,
    device: torch.device,
    share: tuple[int, int] = (0, 1),
    remedy: str = "add pictures or lower --crop",
) -> tuple[list[Tensor], list[Tensor]]:
    """Pictures (shards as .tar, or plain files) at least ``crop`` wide and high, as (3, H, W) uint8 tensors; of many, only
    those whose place is ``share[0]`` modulo ``share[1]``.

    Returns (training, validation), split by source when a manifest.csv says where each comes from, else by name:
    about one source in twelve is held out.

    Raises InputError for a folder without pictures to train on, whose end is ``remedy``, and for a file that is damaged.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give --data a folder of pictures or .tar shards")
    sources = _sources(folder)
    train: list[Tensor] = []
    held: list[Tensor] = []
    files = list(_files(folder))
    if len(files) >= ENOUGH * share[1]:
        files = files[share[0] :: share[1]]
    with ThreadPoolExecutor() as threads:  # decoders let go of the interpreter
        decoded = threads.map(lambda f: _decoded(f[0], f[1], f[2], crop), files)
    for (name, *_), found in zip(files, decoded, strict=True):
        if found is None:
            continue
        pixels = torch.from_numpy(found).to(device).permute(2, 0, 1).contiguous()
        digest = hashlib.sha256(sources.get(name, name).encode()).digest()
        (held if digest[0] % 12 == 0 else train).append(pixels)
    if not train:
        held_out = f", {len(held)} that would do are held out, as one in twelve is" if held else ""
        raise InputError(
            f"{folder}: no picture of at least {crop}x{crop} to train on ({len(files)} files{held_out}); {remedy}"
        )
    return train, held


@dataclass(frozen=True)
class Draw:
    """Random numbers on the device for this process's part of a batch. All processes draw for the whole batch from
    equal generators and keep their own rows, so that a batch is the same however many processes share it."""

    generator: torch.Generator
    rank: int = 0
    world: int = 1

    def uniform(self, rows: int, *shape: int) -> Tensor:
        """(rows, *shape) float32 in [0, 1)"""
        every = torch.rand(rows * self.world, *shape, generator=self.generator, device=self.generator.device)
        return every[self.rank * rows : (self.rank + 1) * rows]


def draw(seed: int, device: torch.device, rank: int = 0, world: int = 1) -> Draw:
    """A ``Draw`` from ``seed``."""
    return Draw(torch.Generator(device).manual_seed(seed), rank, world)


class Pictures:
    """Photographs of any sizes, one behind the other as pixels (N, 3) uint8 on their device."""

    def __init__(self, images: Sequence[Tensor]) -> None:
        """``images``: (3, H, W) uint8 each, at least as large as any crop; they are copied."""
        device = images[0].device
        self.pixels = torch.empty(sum(i[0].numel() for i in images), 3, dtype=torch.uint8, device=device)
        self.height, self.width = (torch.tensor([i.shape[k] for i in images], device=device) for k in (1, 2))
        area = self.height * self.width
        self.first = area.cumsum(0) - area
        for image, at in zip(images, self.first.tolist(), strict=True):
            self.pixels[at : at + image[0].numel()] = image.permute(1, 2, 0).reshape(-1, 3)

    def crops(self, batch: int, size: int, draw: Draw) -> Tensor:
        """(batch, 3, size, size) float32 in [0, 255], mirrored and transposed at random. No pixel passes the host."""
        which, y, x, mirror, swap = draw.uniform(batch, 5).unbind(1)
        picture = (which * len(self.first)).long()
        width = self.width[picture]
        y, x = ((u * (n[picture] - size + 1)).long() for u, n in ((y, self.height), (x, self.width)))
        along = torch.arange(size, device=which.device)
        across = torch.where(mirror[:, None] < 0.5, along, size - 1 - along)  # (B, size)
        down = along * width[:, None]
        turned = swap[:, None] < 0.5
        rows, columns = torch.where(turned, across, down), torch.where(turned, down, across)
        start = self.first[picture] + y * width + x
        index = start[:, None, None] + rows[:, :, None] + columns[:, None]
        cut = self.pixels.index_select(0, index.flatten()).view(batch, size, size, 3)
        return cut.permute(0, 3, 1, 2).float().contiguous()
