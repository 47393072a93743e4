"""Pairs from several processes: as many as were asked for, none made twice, each process with its share of the pictures."""

import os

import numpy as np
import pytest
import torch
from PIL import Image

from foveal.errors import InputError
from foveal.train import data, video_workers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("pictures")
    for n in range(5):
        y, x = np.mgrid[:256, :272] / (7 + n)
        picture = np.stack([np.sin(x * (1 + c / 3)) * np.cos(y + c) for c in range(3)], -1) * 100 + 120
        Image.fromarray(picture.astype(np.uint8)).save(made / f"{n}.png")
    return made


def test_two_processes_make_what_was_asked_for_and_nothing_twice(folder):
    before = dict(os.environ)
    made = video_workers.produce(folder, None, "", 6, 3, workers=2)
    assert {k: len(v) for k, v in made.items() if k.startswith("train")} == {"train.x2": 6, "train.x1": 6}
    assert made["train.x2"].mode == "x2" and made["train.x2"].target_y.shape == (6, 256, 256)
    targets = [t.numpy().tobytes() for t in made["train.x2"].target_y]
    assert len(set(targets)) == 6
    assert dict(os.environ) == before
    again = video_workers.produce(folder, None, "", 6, 3, workers=2)
    assert all((t == again[k].tensors()[n]).all() for k, p in made.items() for n, t in p.tensors().items())


def test_what_goes_wrong_in_a_process_is_told(tmp_path):
    with pytest.raises(InputError, match="no picture"):
        video_workers.produce(tmp_path, None, "", 4, 0, workers=2)


def end_at_once(order):
    os._exit(9)


def test_a_process_that_is_killed_is_told(folder, monkeypatch):
    monkeypatch.setattr(video_workers, "_work", end_at_once)
    with pytest.raises(InputError, match=r"out of memory.*--workers"):
        video_workers.produce(folder, None, "", 4, 0, workers=2)


def test_shares_are_parts_of_the_whole(tmp_path):
    for n in range(2 * data.ENOUGH + 1):
        Image.new("RGB", (16, 16), (n, 0, 0)).save(tmp_path / f"{n:02}.png")

    def reds(share):
        return {int(p[0, 0, 0]) for part in data.load(tmp_path, 16, CPU, share) for p in part}

    whole, one, other = (reds(s) for s in ((0, 1), (0, 2), (1, 2)))
    assert one | other == whole == set(range(2 * data.ENOUGH + 1)) and not one & other
    assert reds((0, 3)) == reds((2, 3)) == whole  # too few to be shared by three
