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
    with pytest.raises(InputError, match=r"no picture of at least 32x32 to train on \(1 files\)"):
        data.load(tmp_path, 32, CPU)


def test_crops_are_parts_of_pictures_mirrored_and_transposed():
    image = torch.arange(3 * 12 * 9).view(3, 12, 9).to(torch.uint8)
    out = data.Pictures([image]).crops(50, 8, data.draw(0, CPU))
    assert out.shape == (50, 3, 8, 8) and out.dtype == torch.float32 and out.is_contiguous()
    parts = [image[:, y : y + 8, x : x + 8].float() for y in range(5) for x in range(2)]
    allowed = [v for p in parts for v in (p, p.flip(2), p.transpose(1, 2), p.flip(2).transpose(1, 2))]
    assert all(any((crop == v).all() for v in allowed) for crop in out)
    assert len({tuple(crop.flatten().tolist()) for crop in out}) > 10


def test_crops_come_from_all_pictures_whatever_their_sizes_and_reach_their_edges():
    images = [torch.full((3, h, w), n, dtype=torch.uint8) for n, (h, w) in enumerate([(4, 4), (5, 9), (16, 4)])]
    for n, image in enumerate(images):
        image[1] = torch.arange(image[0].numel()).view_as(image[0])
        image[2] = 100 + n
    out = data.Pictures(images).crops(400, 4, data.draw(1, CPU))
    assert out[:, 0].unique().tolist() == [0, 1, 2]
    assert all(len(crop[0].unique()) == len(crop[2].unique()) == 1 for crop in out)  # none runs into the next picture
    for n, image in enumerate(images):
        assert set(out[out[:, 0, 0, 0] == n, 1].flatten().tolist()) == set(image[1].flatten().tolist())


def test_processes_share_one_batch():
    pictures = data.Pictures([torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8) for _ in range(3)])
    whole = [pictures.crops(6, 8, draw) for draw in [data.draw(5, CPU)] * 2]
    for rank in range(3):
        draw = data.draw(5, CPU, rank, 3)
        assert all((pictures.crops(2, 8, draw) == batch[2 * rank : 2 * rank + 2]).all() for batch in whole)
    assert (whole[0] != whole[1]).any()
