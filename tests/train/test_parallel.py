"""Two processes with half a batch each do what one does with the whole; started as torchrun starts them, over gloo."""

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from foveal.errors import InputError
from foveal.train.parallel import CLIP, Gradients, Group, device_of, joined

PROGRAM = """
import sys, time
from functools import partial
from pathlib import Path

import torch

from foveal.errors import FovealError
from foveal.train import checkpoint, loop
from foveal.train.parallel import joined

folder, out, batch = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
torch.rand_like = lambda x: torch.full_like(x, 0.5)  # the noise is each process's own; here there is none
loop.WARMUP, loop.LOG_EVERY = 1, 3
with joined("cpu") as group:
    options = loop.Options(steps=3, batch=batch, crop=128, threads=1, hard_from=0.6, log=out.with_suffix(".log"))
    run = loop.prepare(folder, out, options, group, time.monotonic())
    checkpoint.save(out.with_suffix(f".before{group.rank}"), run.model.state_dict(), {})
    run.held.clear()
    run.forward = partial(run.model, bf16=False)  # bf16 gradients of halves, averaged, differ by 1/500
    run.go()
    checkpoint.save(out.with_suffix(f".after{group.rank}"), run.model.state_dict(), {})
    if group.world > 1:
        with torch.no_grad():
            run.model.prior.scale[3] += 1e-6 * group.rank
        try:
            group.check_equal(run.model)
        except FovealError as e:
            print(e)
        group.start_equal(run.model)
        group.check_equal(run.model)
"""


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def start(folder, out, batch, **environment):
    clean = {k: v for k, v in os.environ.items() if k not in {"RANK", "LOCAL_RANK", "WORLD_SIZE"}}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder), str(out), str(batch)],
        env={**clean, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in environment.items()}},
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def runs(folder, tmp_path_factory):
    """One process with batches of 4, two with 2 each: (standard outputs, folder of what they wrote)"""
    where, port = tmp_path_factory.mktemp("runs"), free_port()
    processes = [start(folder, where / "one.sft", 4)]
    for rank in range(2):
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        processes.append(start(folder, where / "two.sft", 2, **ranks))
    said = [p.communicate(timeout=240)[0] for p in processes]
    assert [p.returncode for p in processes] == [0, 0, 0]
    return said, where


def moved(where, name, rank=0):
    """All that three steps changed, as one vector."""
    before, after = (load_file(where / f"{name}.{when}{rank}") for when in ("before", "after"))
    return torch.cat([(after[k] - before[k]).flatten() for k in sorted(before)])


def test_half_batches_in_two_processes_are_one_whole_batch(runs):
    one, two = (moved(runs[1], name) for name in ("one", "two"))
    assert one.norm() > 0 and (one - two).norm() < 0.02 * one.norm()


def test_processes_stay_equal(runs):
    first, second = (load_file(runs[1] / f"two.after{rank}") for rank in range(2))
    assert all((first[k] == second[k]).all() for k in first)


def test_only_the_first_process_saves_and_logs(runs):
    rows = [json.loads(line) for line in (runs[1] / "two.log").read_text().splitlines()]
    assert [r["step"] for r in rows] == [3, 3] and (runs[1] / "two.sft").is_file()


def test_weights_that_come_apart_are_noticed(runs):
    assert runs[0][0] == "" and all("come apart" in said for said in runs[0][1:])


def test_alone_nothing_is_shared():
    with joined("cpu") as group:
        x = torch.tensor([3.0])
        assert group == Group(torch.device("cpu")) and group.average(x) is x and group.first_says(2.5) == 2.5
        group.check_equal(nn.Linear(2, 2))
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="cuda"), joined("cuda"):
            pass


def test_gradients_are_views_and_are_clipped():
    model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2), nn.Linear(2, 1))
    model[0].requires_grad_(False)
    unused, gradients = model[1], Gradients(model)
    model[2](torch.ones(5, 2) * 1000).sum().backward()
    assert model[0].weight.grad is None and not unused.weight.grad.any() and gradients.flat.any()
    norm = gradients.settle(Group(torch.device("cpu")))
    assert norm > 1000 and gradients.flat.norm().item() == pytest.approx(CLIP, rel=1e-5)
    assert model[2].weight.grad.norm() > 0.9 * CLIP
    model[2].weight.grad[0, 0] = torch.inf
    assert not gradients.settle(Group(torch.device("cpu"))).isfinite() and not gradients.flat.any()
    model[2].weight.grad += 0.1
    gradients.settle(Group(torch.device("cpu")))
    assert gradients.flat.norm().item() == pytest.approx(0.1 * 2**0.5)  # a short one stays as it is
    gradients.clear()
    assert not model[2].weight.grad.any()


def test_a_gradient_lies_in_memory_as_its_parameter_does() -> None:
    conv = torch.nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
    gradients = Gradients(conv, 0.5)
    x = torch.rand(2, 3, 9, 9)
    torch.autograd.backward(conv(x).sum())
    assert conv.weight.grad is not None and conv.weight.grad.stride() == conv.weight.stride() != (27, 9, 3, 1)
    wanted = torch.autograd.grad(conv(x).sum(), conv.weight)[0]
    torch.testing.assert_close(conv.weight.grad, wanted)
    assert gradients.settle(Group(torch.device("cpu"))) > 0.5
    assert gradients.flat.norm().item() == pytest.approx(0.5, rel=1e-5)


@pytest.mark.parametrize("name", ["gpu", "cuda", "cpu:x"])
def test_a_device_that_is_not_there_is_an_error_that_names_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match=name):
        device_of(name)
    assert device_of("auto") == device_of("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(InputError, match="cuda:x"):
        device_of("cuda:x")
