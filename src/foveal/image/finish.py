"""The end of the larger synthesis: convolutions at the picture's full resolution. A part of ``transform.py``."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

HALO = 16  # pixels beside a tile, whole patches; the convolutions reach 7
WHOLE = 1 << 19  # pixels of a picture that is computed at once
TILE = (256, 512)  # rows and columns, whole patches, of what is computed at once of a larger one: it fits into caches
PER_PIXEL = 4  # features of the 1/8 branch for each pixel


class Finish(nn.Module):
    """What no linear output of a patch can do: a residual of the picture from its pixels and the features of the 1/8
    branch, by ``blocks`` residual 3x3 convolutions of ``width`` channels that know the level. It starts at zero.

    (Such networks stand in the loop of video codecs as filters, e.g. Zhang et al. 2018, "Residual highway convolutional
    neural networks for in-loop filtering in HEVC"; here one is part of the synthesis, and the fitted filter follows.)
    """

    def __init__(self, width: int, blocks: int, detail: int, nodes: int) -> None:
        super().__init__()
        self.pixels = nn.Conv2d(3, width, 3, padding=1)
        self.features = nn.Conv2d(detail, PER_PIXEL * 64, 1)
        self.join = nn.Conv2d(PER_PIXEL, width, 1)
        self.level, self.gain = (nn.Parameter(torch.zeros(nodes, width)) for _ in range(2))
        self.convs = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(blocks))
        self.end = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.end.weight)
        assert self.end.bias is not None
        nn.init.zeros_(self.end.bias)
        self.register_load_state_dict_pre_hook(_without)  # type: ignore[no-untyped-call]

    @property
    def reach(self) -> int:
        """Pixels to each side that a pixel depends on."""
        return len(self.convs) + 2

    def forward(self, pixels: Tensor, features: Tensor, level: Tensor, gain: Tensor) -> Tensor:
        """pixels (B, 3, H, W), H and W whole patches; features (B, detail, H / 8, W / 8), activated; level and gain
        (B, h, w, width), this module's tables at the level of each patch -> (B, 3, H, W)"""
        height, width = pixels.shape[2:]
        patch = height // level.shape[1]
        whole = height * width <= WHOLE
        again = not whole and torch.is_grad_enabled()  # in training crops nothing is computed twice
        made = []
        for y, y_end in _cuts(height, height if whole else TILE[0]):
            top, bottom, row = max(0, y - HALO), min(height, y_end + HALO), []
            for x, x_end in _cuts(width, width if whole else TILE[1]):
                left, right = max(0, x - HALO), min(width, x_end + HALO)
                inputs = (
                    pixels[:, :, top:bottom, left:right],
                    features[:, :, top // 8 : bottom // 8, left // 8 : right // 8],
                    *(t[:, top // patch : bottom // patch, left // patch : right // patch] for t in (level, gain)),
                )
                part = checkpoint(self._residual, *inputs, use_reentrant=False) if again else self._residual(*inputs)
                row.append(part[:, :, y - top : y_end - top, x - left : x_end - left])
            made.append(torch.cat(row, 3))
        return torch.cat(made, 2).add_(pixels)

    def _residual(self, pixels: Tensor, features: Tensor, level: Tensor, gain: Tensor) -> Tensor:
        x: Tensor = self.pixels(((pixels - 128) / 64).contiguous(memory_format=torch.channels_last))
        x = x + self.join(F.pixel_shuffle(self.features(features), 8))
        x = _by_patch(torch.add, x, level)
        for conv in self.convs:
            x = conv(F.hardswish(x)).add_(x)
        x = F.hardswish(x)
        out: Tensor = self.end(x + _by_patch(torch.mul, x, gain))
        return out.to(pixels.dtype) * 4


def _cuts(size: int, most: int) -> list[tuple[int, int]]:
    """0 .. size in parts of ``most``: where each begins and ends."""
    return [(start, min(size, start + most)) for start in range(0, size, most)]


def _by_patch(operation: Callable[[Tensor, Tensor], Tensor], x: Tensor, table: Tensor) -> Tensor:
    """``operation`` of x (B, C, H, W) and what the table (B, h, w, C) has for the patch that a pixel lies in."""
    b, h, w, c = table.shape
    height, width = x.shape[2:]
    rows = x.permute(0, 2, 3, 1).view(b, h, height // h, w, width // w, c)
    return operation(rows, table.to(x.dtype)[:, :, None, :, None]).view(b, height, width, c).permute(0, 3, 1, 2)


def _without(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of before there was a ``Finish`` are loaded with one at its start, which is zero."""
    for name, tensor in module.state_dict().items():
        state.setdefault(prefix + name, tensor)
