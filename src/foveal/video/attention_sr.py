"""AttentionSR: what the codec and the downscaling took, put back by a small network with attention (CN114125454A, claim 1).

Everything is computed on the *work grid*, half of the output's luma in each direction, which is also its chroma grid:

    x2  input y at that size (1), plain chroma (2), quality (1)                        -> 4 planes
    x1  input y at the output size, its four sub-pixels as planes (4), chroma (2), quality (1) -> 7 planes

    feature extraction  conv 3x3 -> C, conv 3x3 -> 4C
    channel attention   global mean and global maximum -> one shared two-layer network -> sum -> sigmoid -> multiply
    spatial attention   mean and maximum over channels -> conv 7x7 -> sigmoid -> multiply
    reconstruction      conv 1x1 -> C, residual blocks of conv 3x3 - batch norm - activation
    end                 conv 3x3 -> 6: four sub-pixels of luma, U and V; zero at first

Its output is a residual on top of plain Lanczos resampling, so the untrained network *is* plain resampling.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from foveal.errors import InputError, UnknownModelError

WEIGHTS = Path(__file__).parent.parent / "weights"
MODES = {"x2": 4, "x1": 7}  # planes of the input
UNKNOWN = -1.0  # quality when nothing is known of how the input was coded
ENLARGED = 2.0  # added to the quality plane when the input of mode x1 was coded smaller and enlarged by Lanczos: x1.5
LEAK = 0.1  # slope of the activations below zero


@dataclass(frozen=True)
class SRSize:
    """Widths of a network. ``c``: C above; ``convs`` of each residual block; the rest are switches for ablations."""

    name: str
    c: int
    blocks: int
    convs: int = 1
    channel: bool = True
    spatial: bool = True
    parallel: bool = False
    norm: bool = True


SIZES = {"s": SRSize("s", 16, 3), "m": SRSize("m", 32, 4), "l": SRSize("l", 64, 8, convs=2)}
Pooled = tuple[Tensor, Tensor]


def quality_plane(quality: float | None, scale: float) -> float:
    """The value of the quality plane: CRF / 51 (x264, x265) or CRF / 63 (SVT-AV1), None = unknown, for a scale of 2, 1.5, 1.

    What was enlarged wants sharpening and what was not wants smoothing, so mode x1 is told which it is.
    """
    return (UNKNOWN if quality is None else quality) + (ENLARGED if 1 < scale < 2 else 0.0)


def network_input(y: Tensor, u: Tensor, v: Tensor, quality: Tensor | float, mode: str) -> Tensor:
    """Planes in [0, 1] -> (B, 4 or 7, h, w), centred.

    ``u``, ``v`` (B, 1, h, w): plain chroma of the output. ``y``: (B, 1, h, w) for x2, (B, 1, 2h, 2w) for x1.
    ``quality``: (B,) or one number, as ``quality_plane`` makes it.
    """
    luma = y if mode == "x2" else F.pixel_unshuffle(y, 2)
    plane = torch.as_tensor(quality, dtype=y.dtype, device=y.device).reshape(-1, 1, 1, 1).expand_as(u)
    return torch.cat([luma - 0.5, u - 0.5, v - 0.5, plane], 1)


def add_residual(plain: tuple[Tensor, Tensor, Tensor], residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Restored y (B, 1, 2h, 2w), u, v (B, 1, h, w) from plain ones of those sizes and (B, 6, h, w). Not clamped."""
    y, u, v = plain
    return y + F.pixel_shuffle(residual[:, :4], 2), u + residual[:, 4:5], v + residual[:, 5:6]


class Block(nn.Module):
    """x + activation(BN(conv(x))); with more convolutions only the last has no activation."""

    def __init__(self, size: SRSize) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(size.c, size.c, 3, padding=1) for _ in range(size.convs))
        self.norms = nn.ModuleList(nn.BatchNorm2d(size.c) for _ in range(size.convs)) if size.norm else None

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, C, h, w)"""
        start = x
        for i, conv in enumerate(self.convs):
            x = conv(x)
            x = self.norms[i](x) if self.norms is not None else x
            x = F.leaky_relu(x, LEAK) if i == 0 else x
        return start + x

    def fold_into(self, other: Block) -> None:
        """Fill ``other``, which has no norms, with convolutions that do what these and their norms do."""
        for i, (conv, target) in enumerate(zip(self.convs, other.convs, strict=True)):
            source, goal = cast(nn.Conv2d, conv), cast(nn.Conv2d, target)
            norm = cast(nn.BatchNorm2d, self.norms[i]) if self.norms is not None else None
            if norm is None or norm.running_mean is None or norm.running_var is None or source.bias is None:
                goal.load_state_dict(source.state_dict())
                continue
            gain = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
            shift = norm.bias.double() - norm.running_mean.double() * gain
            weight = source.weight.double() * gain[:, None, None, None]
            goal.load_state_dict({"weight": weight.float(), "bias": (source.bias.double() * gain + shift).float()})


class AttentionSR(nn.Module):
    """The network of one size and mode ("x2", "x1"). Raises InputError for other modes."""

    def __init__(self, size: SRSize, mode: str = "x2") -> None:
        super().__init__()
        if mode not in MODES:
            raise InputError(f"mode {mode!r} of the restoration network is not one of {', '.join(MODES)}")
        self.size, self.mode = size, mode
        wide = 4 * size.c
        self.head = nn.Conv2d(MODES[mode], size.c, 3, padding=1)
        self.widen = nn.Conv2d(size.c, wide, 3, padding=1)
        if size.channel:
            self.squeeze, self.excite = nn.Linear(wide, wide), nn.Linear(wide, wide)
        if size.spatial:
            self.look = nn.Conv2d(2, 1, 7, padding=3)
        self.reduce = nn.Conv2d(wide, size.c, 1)
        self.blocks = nn.ModuleList(Block(size) for _ in range(size.blocks))
        self.end = nn.Conv2d(size.c, 6, 3, padding=1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(cast(Tensor, self.end.bias))

    @property
    def reach(self) -> int:
        """Samples of the work grid to each side on which one output sample depends, the pooled vectors apart."""
        return 3 + 3 * self.size.spatial + self.size.blocks * self.size.convs

    @property
    def parameters_count(self) -> int:
        """Numbers that training learns."""
        return sum(p.numel() for p in self.parameters())

    @property
    def kmac_per_pixel(self) -> float:
        """Thousands of multiply-accumulates per luma sample of the output, norms folded, work per frame left out."""
        layers = [m for m in self.modules() if isinstance(m, nn.Conv2d)]
        return sum(m.weight.numel() for m in layers) / 4 / 1000

    def features(self, inputs: Tensor) -> Tensor:
        """(B, 4 or 7, h, w) -> (B, 4C, h, w)"""
        return F.leaky_relu(self.widen(F.leaky_relu(self.head(inputs), LEAK)), LEAK)

    def attention_pool(self, features: Tensor) -> Pooled:
        """(B, 4C, h, w) -> mean and maximum over the picture, (B, 4C) each. Of tiles: mean the means by
        area, take the largest maximum."""
        return features.mean((2, 3)), features.flatten(2).max(2).values

    def channel_weights(self, pooled: Pooled) -> Tensor:
        """Mean and maximum (B, 4C) -> (B, 4C, 1, 1) in (0, 1)"""
        both = [self.excite(F.leaky_relu(self.squeeze(x), LEAK)) for x in pooled]
        return torch.sigmoid(both[0] + both[1])[:, :, None, None]

    def spatial_weights(self, x: Tensor) -> Tensor:
        """(B, 4C, h, w) -> (B, 1, h, w) in (0, 1)"""
        return torch.sigmoid(self.look(torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True).values], 1)))

    def attend(self, features: Tensor, pooled: Pooled | None = None) -> Tensor:
        """Both attentions, one after the other, and the reduction: (B, 4C, h, w) -> (B, C, h, w).

        The spatial weight is one number for all channels of a sample, so it may be multiplied in after the
        1x1 convolution, on a quarter of the channels.
        """
        x = features
        if self.size.channel:
            x = x * self.channel_weights(pooled or self.attention_pool(features))
        if not self.size.spatial:
            return cast(Tensor, self.reduce(x))
        spatial = self.spatial_weights(features if self.size.parallel else x)
        return F.conv2d(x, self.reduce.weight) * spatial + cast(Tensor, self.reduce.bias)[:, None, None]

    def residual(self, features: Tensor, pooled: Pooled | None = None) -> Tensor:
        """From ``features`` on: (B, 4C, h, w) -> (B, 6, h, w)."""
        x = self.attend(features, pooled)
        for block in self.blocks:
            x = block(x)
        return cast(Tensor, self.end(x))

    def forward(self, inputs: Tensor, pooled: Pooled | None = None) -> Tensor:
        """``network_input`` (B, 4 or 7, h, w) -> residual (B, 6, h, w). ``pooled``: what channel attention sees of the
        picture when ``inputs`` is only a part of it."""
        return self.residual(self.features(inputs), pooled)

    def fold(self) -> AttentionSR:
        """A copy without batch normalisation that computes what this one does in evaluation, up to rounding."""
        out = AttentionSR(replace(self.size, norm=False), self.mode)
        own = {k: v for k, v in self.state_dict().items() if not k.startswith("blocks.")}
        out.load_state_dict(own, strict=False)
        with torch.no_grad():
            for block, other in zip(self.blocks, out.blocks, strict=True):
                cast(Block, block).fold_into(cast(Block, other))
        return out.to(self.end.weight.device).eval().requires_grad_(False)


def trained(mode: str | None = None) -> list[str]:
    """Sizes whose weights are in this installation; with ``mode`` those that have weights of that mode."""
    return [name for name in SIZES if (_file(name).is_file() if mode is None else mode in modes_of(name))]


def modes_of(name: str) -> list[str]:
    """The modes that the shipped weights of a size are for; none where there are no weights, or damaged ones."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(_file(name), "pt") as f:
            kept = {key.split(".")[0] for key in f.keys()}
    except (OSError, SafetensorError):
        return []
    return [mode for mode in MODES if mode in kept]


def fingerprint(name: str, modes: Iterable[str]) -> bytes:
    """SHA-256 over the shipped weights of a size in ``modes``: of each tensor, in the order of their names, its name in the
    file and its values. UnknownModelError when there are none."""
    from safetensors.torch import load

    wanted = list(modes)
    if not set(wanted) & set(modes_of(name)):
        raise _missing(name, wanted[0])
    kept = sorted((k, v) for k, v in load(_file(name).read_bytes()).items() if k.split(".")[0] in wanted)
    return sha256(b"".join(k.encode() + v.numpy().tobytes() for k, v in kept)).digest()


def _file(name: str) -> Path:
    return WEIGHTS / f"video-{name}.safetensors"


def _missing(name: str, mode: str) -> UnknownModelError:
    """Of a size that was never trained, or not in this mode."""
    there, what = trained(), f"video model {name!r}"
    if name in there:
        there, what = trained(mode), f"{what} for scale {'2' if mode == 'x2' else '1 or 1.5'}"
    return UnknownModelError(
        f"there are no weights of {what} in this installation (has {', '.join(there) or 'none'}); choose one of those, or "
        "train with 'foveal train video'"
    )


def save_weights(path: Path, networks: dict[str, AttentionSR], facts: dict[str, object]) -> None:
    """Write folded networks by mode into one file, fp16, and ``facts`` (JSON) with them."""
    from safetensors.torch import save_file

    tensors = {
        f"{mode}.{k}": v.half().contiguous()
        for mode, network in networks.items()
        for k, v in network.fold().state_dict().items()
    }
    temporary = path.with_name(path.name + ".part")
    save_file(tensors, temporary, metadata={"facts": json.dumps(facts)})
    temporary.chmod(0o644)
    temporary.replace(path)


def read_weights(path: Path, name: str, mode: str) -> AttentionSR:
    """The network of ``mode`` in a file of ``save_weights``; UnknownModelError if it is not there or does not fit."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = AttentionSR(replace(SIZES[name], norm=False), mode)
    try:
        tensors = load(path.read_bytes())
        own = {k.removeprefix(f"{mode}."): v.float() for k, v in tensors.items() if k.startswith(f"{mode}.")}
        network.load_state_dict(own)
    except (OSError, SafetensorError, RuntimeError) as e:
        raise UnknownModelError(
            f"{path.name} holds no {mode} weights of video model {name!r} ({str(e).splitlines()[0]}); "
            "reinstall foveal, or train them with 'foveal train video'"
        ) from e
    return network.eval().requires_grad_(False)


@lru_cache(maxsize=6)
def load_weights(name: str, mode: str = "x2") -> AttentionSR:
    """The shipped network of a size ("s", "m", "l") and mode ("x2", "x1"), folded, for inference alone.

    Raises UnknownModelError for a size that was never trained, or not in that mode, or is not known.
    """
    there = modes_of(name)
    if name not in trained() or (there and mode not in there):
        raise _missing(name, mode)
    return read_weights(_file(name), name, mode)
