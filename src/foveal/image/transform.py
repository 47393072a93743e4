"""Analysis and synthesis transforms: a linear DCT shortcut plus a vision transformer (CN115514976A, claims 1-6).

Tokens are 16x16 patches. ``Analysis`` sees the *visible* (not dropped) patches only; patches meet each other
in window attention alone, so a dropped patch cannot reach any symbol except through the base layer, which is
linear. ``Synthesis`` sees every token; a dropped or lost one is its thumbnail, the prior's mean and a mask vector.

Channels are ordered by frequency: the first ``BASE`` are the thumbnail (Y, Cb, Cr mean, first AC of Y).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from foveal.image.finish import Finish
from foveal.image.pieces import in_pieces

PATCH = 16
WINDOW = 8
BASE = 6
LEVELS = 80
NODES, NODE_SPACING = 10, 9  # learned tables have nodes at levels 0, 9, ... 81; in between they are interpolated
KEPT = 4096  # tokens of a picture above which blocks are computed again for a gradient: bounds memory
PIECE = 4096  # tokens that go together where each, or each window, is on its own: bounds memory
CLASS_LEVELS = 4  # one importance class finer = 4 levels = step / 2^(1/4)


@dataclass(frozen=True)
class Size:
    """The numbers of one model size; kMAC/px are in MODEL_CARD.md and measured by a test."""

    luma: int = 256
    chroma: int = 64
    width: int = 192  # of the synthesis
    encoder_width: int = 192
    heads: int = 6  # of the synthesis
    mlp: int = 2
    encoder_blocks: int = 2
    decoder_blocks: int = 3
    detail: int = 48  # channels of the 1/8 branch
    detail_blocks: int = 2
    finish: int = 0  # channels of the convolutions at full resolution, 0: none
    finish_blocks: int = 5
    hyper: int = 48
    context: int = 128  # hidden width of the prior
    cuts: tuple[int, ...] = (BASE, 24, 64, 128, 224, 384)

    @property
    def latent(self) -> int:
        return self.luma + 2 * self.chroma

    @property
    def encoder_heads(self) -> int:
        return self.heads * self.encoder_width // self.width


SIZES = {
    "s": Size(),
    "m": Size(
        width=384,
        heads=12,
        decoder_blocks=4,
        detail=96,
        detail_blocks=4,
        finish=16,
        context=192,
        cuts=(BASE, 24, 64, 96, 128, 176, 224, 384),
    ),
}


TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))


def dct_matrix() -> Tensor:
    """Orthonormal 16-point DCT-II, (16 frequencies, 16 samples) float64."""
    n = torch.arange(PATCH, dtype=torch.float64)
    dct = torch.cos(math.pi * (n[None] + 0.5) * n[:, None] / PATCH) * math.sqrt(2 / PATCH)
    dct[0] /= math.sqrt(2)
    return dct


def colour_matrices() -> tuple[Tensor, Tensor]:
    """RGB -> YCbCr and back, (3, 3) float64, rows scaled so that a unit error in any plane costs the same RGB squared
    error."""
    to_ycc = torch.tensor(TO_YCC, dtype=torch.float64)
    to_rgb = torch.linalg.inv(to_ycc)
    weight = to_rgb.square().sum(0).sqrt() / math.sqrt(3)
    return to_ycc * weight[:, None], to_rgb / weight


def coding_order(size: Size) -> Tensor:
    """(latent,) int64: which of the 3*256 coefficients (plane, horizontal, vertical frequency) each channel is; the
    thumbnail's first, then by frequency, chroma later and less of it, as in 4:2:0."""
    n = torch.arange(PATCH, dtype=torch.float64)
    frequency = (n[:, None] ** 2 + n**2).sqrt().flatten()
    order = frequency.argsort(stable=True)
    places, keys = [], []
    for plane, count in enumerate((size.luma, size.chroma, size.chroma)):
        kept = order[:count]
        places.append(plane * PATCH**2 + kept % PATCH * PATCH + kept // PATCH)
        keys.append(frequency[kept] * (1.0 if plane == 0 else 1.7) + 0.001 * plane)
    key = torch.cat(keys)
    base = [0, size.luma, size.luma + size.chroma, 1, 2, 3]  # Y00 Cb00 Cr00, two first AC of Y, Y11
    key[base] = torch.arange(-BASE, 0, dtype=torch.float64)
    return torch.cat(places)[key.argsort(stable=True)]


def squash(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|): heavy-tailed coefficients into a range a network likes."""
    return x.sign() * torch.log1p(x.abs())


def interpolate(table: Tensor, level: Tensor) -> Tensor:
    """Rows of ``table`` (NODES, C) at ``level`` (...,) in [0, 79], linearly between nodes -> (..., C)."""
    at = level.clamp(0, LEVELS - 1)[..., None] / NODE_SPACING
    hat = (1 - (at - torch.arange(NODES, device=level.device, dtype=at.dtype)).abs()).clamp_min(0)
    return hat @ table


class GridWindows:
    """8x8 token windows over a dense (B, h, w) grid, padded to whole windows; odd blocks shift by half a window.

    ``visible`` (B, h, w) bool: invisible tokens are never attended to.
    """

    def __init__(self, visible: Tensor) -> None:
        visible = F.pad(visible, (0, -visible.shape[2] % WINDOW, 0, -visible.shape[1] % WINDOW))
        self.shape = visible.shape
        b, h, w = visible.shape
        edge_y = torch.arange(h, device=visible.device) >= h - WINDOW // 2
        edge_x = torch.arange(w, device=visible.device) >= w - WINDOW // 2
        region = (edge_y[:, None] * 2 + edge_x[None]).expand(b, h, w)
        self.masks = []
        for shift in (0, WINDOW // 2):
            seen = self._split(visible[..., None], shift)[..., 0]  # (n, 64)
            mask = seen[:, None, :].expand(-1, WINDOW**2, -1)
            if shift:
                area = self._split(region[..., None], 0)[..., 0]
                mask = mask & (area[:, :, None] == area[:, None, :])
            self.masks.append(mask[:, None])  # (n, 1, 64, 64)

    def _split(self, x: Tensor, shift: int) -> Tensor:
        b, h, w = self.shape
        if shift:
            x = torch.roll(x, (-shift, -shift), (1, 2))
        x = x.view(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, -1)
        return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, WINDOW**2, x.shape[-1])

    def split(self, x: Tensor, odd: int) -> Tensor:
        """(B, h, w, C) -> (n, 64, C)"""
        return self._split(x, odd * WINDOW // 2)

    def join(self, x: Tensor, odd: int) -> Tensor:
        """(n, 64, C) -> (B, h, w, C)"""
        b, h, w = self.shape
        x = x.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, -1).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, -1)
        return torch.roll(x, (WINDOW // 2, WINDOW // 2), (1, 2)) if odd else x


class PackedWindows:
    """The same windows over a list of visible tokens (N, C), so that cost falls with the dropped share.

    ``rows``, ``cols`` (N,) int64 give each token's place in the grid. Windows without a token do not exist.
    """

    def __init__(self, rows: Tensor, cols: Tensor) -> None:
        self.slots, self.masks, self.counts = [], [], []
        for shift in (0, WINDOW // 2):
            y, x = rows + (WINDOW - shift) % WINDOW, cols + (WINDOW - shift) % WINDOW
            wide = int(x.max()) // WINDOW + 1 if len(x) else 1
            window, which = torch.unique(y // WINDOW * wide + x // WINDOW, return_inverse=True)
            slot = which * WINDOW**2 + y % WINDOW * WINDOW + x % WINDOW
            seen = torch.zeros(len(window) * WINDOW**2, dtype=torch.bool, device=rows.device)
            seen[slot] = True
            self.slots.append(slot)
            self.counts.append(len(window))
            self.masks.append(seen.view(-1, 1, 1, WINDOW**2))

    def split(self, x: Tensor, odd: int) -> Tensor:
        """(N, C) -> (n, 64, C), empty places zero"""
        full = x.new_zeros(self.counts[odd] * WINDOW**2, x.shape[-1])
        full[self.slots[odd]] = x
        return full.view(-1, WINDOW**2, x.shape[-1])

    def join(self, x: Tensor, odd: int) -> Tensor:
        """(n, 64, C) -> (N, C)"""
        return x.reshape(-1, x.shape[-1])[self.slots[odd]]


def _relative_index() -> Tensor:
    at = torch.stack(torch.meshgrid(torch.arange(WINDOW), torch.arange(WINDOW), indexing="ij")).flatten(1)
    delta = at[:, :, None] - at[:, None] + WINDOW - 1
    return delta[0] * (2 * WINDOW - 1) + delta[1]  # (64, 64)


class Block(nn.Module):
    """Normalisation, multi-head attention in a window with relative 2-D positions, MLP (Dosovitskiy et al. 2021,
    eq. 2-3; window shift of Liu et al. 2021). Both residual ends start at zero."""

    relative: Tensor

    def __init__(self, width: int, heads: int, mlp: int, odd: int) -> None:
        super().__init__()
        self.heads, self.odd = heads, odd
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, mlp * width), nn.Linear(mlp * width, width)
        self.position = nn.Parameter(torch.zeros(heads, (2 * WINDOW - 1) ** 2))
        self.register_buffer("relative", _relative_index(), persistent=False)
        for end in (self.proj, self.fc2):
            nn.init.zeros_(end.weight)
            nn.init.zeros_(end.bias)

    def forward(self, x: Tensor, windows: GridWindows | PackedWindows) -> Tensor:
        qkv = windows.split(self.qkv(self.norm1(x)), self.odd)  # (n, 64, 3C)
        mixed = in_pieces(self._attended, PIECE // WINDOW**2, qkv, windows.masks[self.odd])
        x = x + self.proj(windows.join(mixed, self.odd))
        return in_pieces(self._perceived, PIECE, x.flatten(0, -2)).view(x.shape)

    def _attended(self, qkv: Tensor, mask: Tensor) -> Tensor:
        """Queries, keys and values (n, 64, 3C) of windows, mask (n, 1, 64 or 1, 64) -> (n, 64, C)"""
        n, tokens, width = qkv.shape[0], WINDOW**2, qkv.shape[-1] // 3
        q, k, v = qkv.view(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        logits = (q * (width // self.heads) ** -0.5) @ k.transpose(-1, -2) + self.position[:, self.relative].to(q.dtype)
        logits = logits.masked_fill(~mask, -1e4)
        out: Tensor = (logits.softmax(-1).to(v.dtype) @ v).transpose(1, 2).reshape(n, tokens, width)
        return out

    def _perceived(self, x: Tensor) -> Tensor:
        """(N, C) -> (N, C)"""
        out: Tensor = x + self.fc2(F.hardswish(self.fc1(self.norm2(x))))
        return out


class Shortcut(nn.Module):
    """The linear transform pair: RGB patches <-> ``latent`` DCT coefficients of YCbCr, plus their mean and std over
    photographs. Separable (colour with the horizontal DCT, then the vertical one), a sixth of a dense product's cost."""

    mean: Tensor
    std: Tensor
    dct: Tensor
    across: Tensor
    back: Tensor
    order: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        (to_ycc, to_rgb), dct = colour_matrices(), dct_matrix()
        self.register_buffer("dct", dct, persistent=False)
        self.register_buffer("across", torch.kron(to_ycc, dct).t().contiguous(), persistent=False)  # (48, 48)
        self.register_buffer("back", torch.kron(to_rgb.t(), dct).contiguous(), persistent=False)
        self.register_buffer("order", coding_order(size), persistent=False)
        self.register_buffer("mean", torch.zeros(size.latent))
        self.register_buffer("std", torch.ones(size.latent))

    def forward(self, patches: Tensor) -> Tensor:
        """(..., 768) pixel values in [0, 255] -> (..., latent), mean removed"""
        pixels = (patches - 128.0).view(-1, 3, PATCH, PATCH).transpose(1, 2)
        rows = pixels.reshape(-1, 3 * PATCH) @ self.across.to(patches.dtype)
        columns = rows.view(-1, PATCH, 3 * PATCH).transpose(1, 2)
        both = columns.reshape(-1, PATCH) @ self.dct.t().to(patches.dtype)  # (plane, horizontal, vertical)
        return both.view(-1, 3 * PATCH**2).index_select(1, self.order).view(*patches.shape[:-1], -1) - self.mean

    def inverse(self, latents: Tensor) -> Tensor:
        """(..., latent) -> (..., 768) pixel values, unclamped"""
        with torch.autocast(latents.device.type, enabled=False):  # bf16 would cost half a grey level
            flat = in_pieces(self._inverse, PIECE, latents.flatten(0, -2))
            return flat.view(*latents.shape[:-1], 3 * PATCH**2)

    def _inverse(self, latents: Tensor) -> Tensor:
        """(N, latent) -> (N, 768)"""
        flat = latents + self.mean
        both = flat.new_zeros(len(flat), 3 * PATCH**2).index_copy(1, self.order, flat)
        columns = both.view(-1, PATCH) @ self.dct.to(flat.dtype)
        rows = columns.view(-1, 3 * PATCH, PATCH).transpose(1, 2).reshape(-1, 3 * PATCH)
        pixels = (rows @ self.back.to(flat.dtype)).view(-1, PATCH, 3, PATCH).transpose(1, 2)
        return pixels.reshape(-1, 3 * PATCH**2) + 128.0


class Analysis(nn.Module):
    """Visible coefficients (mean removed) -> latents. The thumbnail channels pass unchanged."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed = nn.Linear(size.latent, size.encoder_width)
        self.blocks = nn.ModuleList(
            Block(size.encoder_width, size.encoder_heads, size.mlp, i % 2) for i in range(size.encoder_blocks)
        )
        self.out = nn.Linear(size.encoder_width, size.latent - BASE)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, coefficients: Tensor, std: Tensor, windows: GridWindows | PackedWindows) -> Tensor:
        x = self.embed(squash(coefficients / std))
        for block in self.blocks:
            x = block(x, windows)
        change = self.out(x).to(coefficients.dtype) * (std[BASE:] * 0.3)
        return torch.cat([coefficients[..., :BASE], coefficients[..., BASE:] + change], -1)


class HyperAnalysis(nn.Module):
    """Coefficients of every patch in units of the step -> hyper-latent at 1/64 (one per 4x4 patches)."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.token = nn.Linear(size.latent, 64)
        self.pool = nn.Linear(16 * 64, 192)
        self.out = nn.Linear(192, size.hyper)

    def forward(self, steps: Tensor) -> Tensor:
        """(B, h, w, latent) -> (B, ceil(h/4), ceil(w/4), hyper)"""
        x = F.hardswish(self.token(squash(steps)))
        x = F.pad(x, (0, 0, 0, -x.shape[2] % 4, 0, -x.shape[1] % 4))
        b, h, w, c = x.shape
        x = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h // 4, w // 4, 16 * c)
        out: Tensor = self.out(F.hardswish(self.pool(x)))
        return out


class Synthesis(nn.Module):
    """Latents of all tokens -> RGB. Transformer at 1/16, convolutions at 1/8, lapped linear output, and in larger sizes
    convolutions at full resolution."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.embed = nn.Linear(size.latent, size.width)
        self.level = nn.Parameter(torch.zeros(NODES, size.width))
        self.mask_token = nn.Parameter(torch.zeros(size.width))
        self.blocks = nn.ModuleList(Block(size.width, size.heads, size.mlp, i % 2) for i in range(size.decoder_blocks))
        self.out = nn.Linear(size.width, size.latent)
        self.detail = nn.Linear(size.width + size.latent, 4 * size.detail)
        self.convs = nn.ModuleList(nn.Conv2d(size.detail, size.detail, 3, padding=1) for _ in range(size.detail_blocks))
        self.lapped = nn.Conv2d(size.detail, 3 * 64, 2, padding=1)  # 16x16 support, stride 8
        self.finish = Finish(size.finish, size.finish_blocks, size.detail, NODES) if size.finish else None
        for end in (self.out, self.lapped):
            nn.init.zeros_(end.weight)
            assert end.bias is not None
            nn.init.zeros_(end.bias)

    @property
    def reach(self) -> int:
        """Pixels beside a pixel that what lies behind the blocks looks at."""
        return 8 * (len(self.convs) + 1) + (self.finish.reach if self.finish else 0)

    def forward(
        self, latents: Tensor, level: Tensor, masked: Tensor, shortcut: Shortcut, windows: GridWindows
    ) -> Tensor:
        """latents (B, h, w, D) float, mean removed; level (B, h, w) in [0, 79]; masked (B, h, w) bool
        -> (B, 3, 16h, 16w) pixel values, unclamped."""
        coefficients, f = self._patches(latents, level, masked, shortcut, windows)
        out = self._pixels(coefficients, f, shortcut)
        if self.finish is None:
            return out
        finished: Tensor = self.finish(
            out, f, interpolate(self.finish.level, level), interpolate(self.finish.gain, level)
        )
        return finished

    def _patches(
        self, latents: Tensor, level: Tensor, masked: Tensor, shortcut: Shortcut, windows: GridWindows
    ) -> tuple[Tensor, Tensor]:
        """As ``forward`` -> linear coefficients (B, h, w, D), and features of the 1/8 branch (B, detail, 2h, 2w)"""
        b, h, w, _ = latents.shape
        scaled = latents / shortcut.std
        x = self.embed(squash(scaled)) + interpolate(self.level, level) + masked[..., None] * self.mask_token
        x = F.pad(x, (0, 0, 0, -w % WINDOW, 0, -h % WINDOW))  # to whole windows; padding is never attended to
        again = torch.is_grad_enabled() and h * w > KEPT
        for block in self.blocks:
            x = checkpoint(block, x, windows, use_reentrant=False) if again else block(x, windows)
        x = x[:, :h, :w]
        coefficients = latents + self.out(x).to(latents.dtype) * (shortcut.std * 0.3)
        f = self.detail(torch.cat([x.to(scaled.dtype), scaled], -1))
        f = f.view(b, h, w, 2, 2, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, 2 * h, 2 * w)
        f = f.contiguous(memory_format=torch.channels_last)
        for conv in self.convs:
            f = f + conv(F.hardswish(f))
        return coefficients, F.hardswish(f)

    def _pixels(self, coefficients: Tensor, f: Tensor, shortcut: Shortcut) -> Tensor:
        """What ``_patches`` gives -> (B, 3, 16h, 16w)"""
        b, h, w, _ = coefficients.shape
        out = shortcut.inverse(coefficients).view(b, h, w, 3, PATCH, PATCH)
        out = out.permute(0, 3, 1, 4, 2, 5).reshape(b, 3, PATCH * h, PATCH * w)
        lapped = self.lapped(f).view(b, 3, 8, 8, 2 * h + 1, 2 * w + 1).permute(0, 1, 4, 2, 5, 3)
        lapped = lapped.reshape(b, 3, 8 * (2 * h + 1), 8 * (2 * w + 1))[..., 4:-4, 4:-4]
        return out.add_(lapped.to(coefficients.dtype), alpha=8.0)
