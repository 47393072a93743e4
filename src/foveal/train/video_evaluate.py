"""What restoration gains over plain Lanczos on held-out pairs: PSNR of luma, per codec and CRF band."""

from __future__ import annotations

import torch
from torch import Tensor

from foveal.train.video_losses import marked, plain
from foveal.train.video_pairs import CODERS, Pairs
from foveal.video.attention_sr import UNKNOWN, AttentionSR, add_residual, network_input

TOGETHER = 8  # pictures
BANDS = ("low crf", "middle crf", "high crf")


def band(crf: float, coder: int, mode: str = "x2") -> int:
    """Which third of its coder's CRF range in a mode a CRF lies in: 0, 1, 2."""
    first, last = CODERS[coder].crf_of(mode)
    return min(2, int(3 * (crf - first) / (last + 1 - first)))


def psnr_y(a: Tensor, b: Tensor) -> Tensor:
    """dB of (B, 1, H, W) in [0, 1] against ``b``, rounded to 8 bits first, a number for each picture."""
    error = (a.clamp(0, 1) * 255).round() - (b * 255).round()
    return 10 * torch.log10(255**2 / error.square().mean((1, 2, 3)).clamp_min(1e-3))


@torch.no_grad()
def gains(network: AttentionSR, pairs: Pairs) -> Tensor:
    """(N, 3): PSNR-Y in dB of plain Lanczos, of the network, and of the network that is not told the quality."""
    own = network.training
    network.eval()
    rows = []
    pairs = pairs.to(next(network.parameters()).device)
    for at in range(0, len(pairs), TOGETHER):
        some = slice(at, at + TOGETHER)
        y, u, v, goal = (x[some][:, None].float() / 255 for x in (pairs.y, pairs.u, pairs.v, pairs.target_y))
        start = plain(y, u, v, network.mode)
        quality, shown = pairs.quality[some], [start[0]]
        for known in (quality, torch.full_like(quality, UNKNOWN)):
            plane = marked(known, pairs.scale[some])
            residual = network(network_input(y, start[1], start[2], plane, network.mode))
            shown.append(add_residual(start, residual)[0])
        rows.append(torch.stack([psnr_y(x, goal) for x in shown], 1))
    network.train(own)
    return torch.cat(rows).cpu()


def table(found: Tensor, pairs: Pairs) -> dict[str, list[float]]:
    """[pairs, dB of Lanczos, gain in dB, gain without the quality plane] of all, of each codec, and of each of its bands."""
    tops = torch.tensor([float(c.top) for c in CODERS])
    of = zip(pairs.quality, pairs.coder, strict=True)
    bands = torch.tensor([band(float(q * tops[c]), int(c), pairs.mode) for q, c in of])

    def row(chosen: Tensor) -> list[float]:
        before, after, blind = found[chosen].mean(0).tolist()
        return [int(chosen.sum()), round(before, 3), round(after - before, 3), round(blind - before, 3)]

    parts = {"all": torch.ones(len(pairs), dtype=torch.bool)}
    for n, coder in enumerate(CODERS):
        parts[coder.name] = pairs.coder == n
        parts |= {f"{coder.name} {name}": parts[coder.name] & (bands == b) for b, name in enumerate(BANDS)}
    for scale in sorted(set(pairs.scale.tolist())):
        parts[f"scale {scale:g}"] = pairs.scale == scale
    return {name: row(chosen) for name, chosen in parts.items() if chosen.any()}
