"""Pictures from a folder, in files or shards, and crops cut from them."""

import io
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.errors import InputError
from foveal.train import data

CPU = torch.device("cpu")


def write(path, height=40, width=48, value=0):
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(file, "PNG")
    path.write_bytes(file.getvalue())
    return file.getvalue()


def test_files_and_shards_of_a_sufficient_size(tmp_path):
    write(tmp_path / "a.png", value=1)
    write(tmp_path / "small.png", height=31)
    (tmp_path / "notes.txt").write_text("not a picture")
    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        for name in ("b.png", "c.png"):
            png = write(tmp_path / "tmp.bin", value=ord(name[0]))
            info = tarfile.TarInfo(f"inside/{name}")
            info.size = len(png)
            tar.addfile(info, io.BytesIO(png))
    train, held = data.load(tmp_path, 32, CPU)
    pictures = train + held
    assert sorted(int(p[0, 0, 0]) for p in pictures) == [1, ord("b"), ord("c")]
    assert all(p.shape == (3, 40, 48) and p.dtype == torch.uint8 for p in pictures)


def test_a_twelfth_is_held_out_and_sources_stay_together(tmp_path):
    for number in range(120):
        write(tmp_path / f"{number}.png", 8, 8, number)
    train, held = data.load(tmp_path, 8, CPU)
    assert len(train) + len(held) == 120 and 2 <= len(held) <= 25
    rows = [f"{n}.png,source {n % 10}" for n in range(120)]
    (tmp_path / "manifest.csv").write_text("file,source\n" + "\n".join(rows) + "\n")
    train, held = data.load(tmp_path, 8, CPU)
    sources = [{int(p[0, 0, 0]) % 10 for p in part} for part in (train, held)]
    assert not sources[0] & sources[1]


def test_nothing_to_train_on(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        data.load(tmp_path / "absent", 32, CPU)
    write(tmp_path / "a.png", 16, 16)
    with pytest.raises(InputError, match="32x32"):
        data.load(tmp_path, 32, CPU)


def test_crops_are_parts_of_pictures_mirrored_and_transposed():
    image = torch.arange(3 * 12 * 9).view(3, 12, 9).to(torch.uint8)
    out = data.crops([image], 50, 8, np.random.default_rng(0))
    assert out.shape == (50, 3, 8, 8) and out.dtype == torch.float32
    parts = [image[:, y : y + 8, x : x + 8].float() for y in range(5) for x in range(2)]
    allowed = [v for p in parts for v in (p, p.flip(2), p.transpose(1, 2), p.flip(2).transpose(1, 2))]
    assert all(any((crop == v).all() for v in allowed) for crop in out)
    assert len({tuple(crop.flatten().tolist()) for crop in out}) > 10
