"""One model, several processes: the same weights in each, each its share of the batch, gradients averaged.

``torchrun --nproc-per-node 4 -m foveal train image ...`` starts the processes and sets RANK, LOCAL_RANK, WORLD_SIZE,
MASTER_ADDR and MASTER_PORT; without them a run is alone and nothing here costs anything. All gradients are views of one flat
tensor: a step needs one all-reduce and one norm, and neither frozen nor unused parameters need special treatment.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from foveal.errors import FovealError, InputError

CLIP = 1.0  # longest gradient of the image model


@dataclass(frozen=True)
class Group:
    """This process among those that train together."""

    device: torch.device
    rank: int = 0
    world: int = 1

    def average(self, x: Tensor) -> Tensor:
        """Mean of ``x`` over the processes, in place."""
        if self.world > 1:
            dist.all_reduce(x)
            x /= self.world
        return x

    def first_says(self, value: float) -> float:
        """The first process's ``value``, in all of them."""
        if self.world == 1:
            return value
        box = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(box, 0)
        return box.item()

    def start_equal(self, model: nn.Module) -> None:
        """Give every process the first one's weights."""
        for tensor in model.state_dict().values() if self.world > 1 else ():
            dist.broadcast(tensor, 0)

    def check_equal(self, model: nn.Module) -> None:
        """Raise FovealError if the processes' weights have come apart."""
        if self.world == 1:
            return
        own = torch.stack([t.detach().double().sum() for t in model.state_dict().values()])
        first = own.clone()
        dist.broadcast(first, 0)
        worst = (own - first).abs().max()
        dist.all_reduce(worst, dist.ReduceOp.MAX)
        if worst.item() != 0:
            raise FovealError(
                f"weights of the {self.world} processes have come apart (sums differ by {worst.item():.3g}); "
                "go on from the last checkpoint with --resume, on equal devices"
            )


def device_of(name: str) -> torch.device:
    """The device of a name (auto, cpu, cuda or cuda:N), made the current one. Raises InputError if this torch lacks it."""
    if name != "cpu" and not name.startswith("cuda") and name != "auto":
        raise InputError(f"--device {name}: not one of auto, cpu, cuda, cuda:N")
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"--device {name}: this torch sees no CUDA device; use cpu or auto")
    try:
        where = torch.device(name if ":" in name else "cuda:0")
        torch.cuda.set_device(where)
    except RuntimeError as e:
        raise InputError(f"--device {name}: no such CUDA device ({str(e).splitlines()[0]}); use cuda:0 or auto") from e
    return where


@contextmanager
def joined(device: str) -> Iterator[Group]:
    """The group that the environment names, on ``device`` (auto, cpu, cuda or cuda:N); left at the end."""
    told = {k: os.environ.get(k, d) for k, d in (("RANK", "0"), ("LOCAL_RANK", "0"), ("WORLD_SIZE", "1"))}
    if not all(value.isdecimal() for value in told.values()):
        raise InputError(f"{told}: numbers are expected; start the processes with torchrun")
    rank, local, world = map(int, told.values())
    where = device_of(f"cuda:{local}" if world > 1 and device_of(device).type == "cuda" else device)
    if world > 1:
        try:
            dist.init_process_group("nccl" if where.type == "cuda" else "gloo")
        except (ValueError, RuntimeError) as e:
            raise InputError(f"the {world} processes do not find each other ({e}); start them with torchrun") from e
    try:
        yield Group(where, rank, world)
    finally:
        if world > 1:
            dist.destroy_process_group()


class Gradients:
    """The gradients of a model's trainable parameters, as views of one flat tensor."""

    def __init__(self, model: nn.Module, longest: float = CLIP) -> None:
        self.longest = longest
        for parameter in model.parameters():
            parameter.grad = None
        mine = [p for p in model.parameters() if p.requires_grad]
        self.flat = torch.zeros(sum(p.numel() for p in mine), device=mine[0].device)
        for parameter, part in zip(mine, torch.split(self.flat, [p.numel() for p in mine]), strict=True):
            parameter.grad = part.as_strided(parameter.shape, parameter.stride())  # as the parameter lies in memory

    def settle(self, group: Group) -> Tensor:
        """Average over the processes and clip. Returns the norm before clipping; where it is not finite the gradient
        becomes zero. Nothing waits for the device."""
        norm: Tensor = torch.linalg.vector_norm(group.average(self.flat))
        self.flat.nan_to_num_(0, 0, 0).mul_(
            torch.where(norm.isfinite(), (self.longest / (norm + 1e-6)).clamp(max=1.0), 0.0)
        )
        return norm

    def clear(self) -> None:
        self.flat.zero_()
