"""Photographs for training: decoded once, kept as uint8 on the device, crops cut there."""

import csv
import hashlib
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foveal.errors import InputError

SUFFIXES = {".avif", ".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def _sources(folder: Path) -> dict[str, str]:
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        return {}
    with manifest.open(newline="") as f:
        return {row["file"]: row["source"] for row in csv.DictReader(f)}


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                for member in tar:
                    stream = tar.extractfile(member)
                    if stream is not None and Path(member.name).suffix.lower() in SUFFIXES:
                        yield Path(member.name).name, stream.read()
        elif path.suffix.lower() in SUFFIXES:
            yield path.name, path.read_bytes()


def load(folder: Path, crop: int, device: torch.device) -> tuple[list[Tensor], list[Tensor]]:
    """Pictures (shards as .tar, or plain files) at least ``crop`` wide and high, as (3, H, W) uint8 tensors.

    Returns (training, validation), split by source when a manifest.csv says where each comes from, else by name:
    about one source in twelve is held out.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give --data a folder of pictures or .tar shards")
    sources = _sources(folder)
    train: list[Tensor] = []
    held: list[Tensor] = []
    for name, data in _files(folder):
        with Image.open(io.BytesIO(data)) as image:
            if min(image.size) < crop:
                continue
            pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous().to(device)
        digest = hashlib.sha256(sources.get(name, name).encode()).digest()
        (held if digest[0] % 12 == 0 else train).append(pixels)
    if not train:
        raise InputError(f"{folder}: no picture of at least {crop}x{crop}; add pictures or lower --crop")
    return train, held


def crops(images: list[Tensor], batch: int, size: int, random: np.random.Generator) -> Tensor:
    """(batch, 3, size, size) float32 in [0, 255], mirrored and transposed at random."""
    out = []
    for _ in range(batch):
        image = images[random.integers(len(images))]
        y, x = (int(random.integers(n - size + 1)) for n in image.shape[1:])
        patch = image[:, y : y + size, x : x + size]
        patch = patch.flip(2) if random.random() < 0.5 else patch
        out.append(patch.transpose(1, 2) if random.random() < 0.5 else patch)
    return torch.stack(out).float()
