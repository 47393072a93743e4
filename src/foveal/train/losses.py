"""Rate plus weighted distortion, and the network that is trained: both transforms and the float prior."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from foveal.image.prior import BaseIndex
from foveal.image.quantize import CARE, LAMBDA_MIN
from foveal.image.transform import (
    BASE,
    NODE_SPACING,
    NODES,
    PATCH,
    Analysis,
    GridWindows,
    HyperAnalysis,
    Shortcut,
    Size,
    Synthesis,
    interpolate,
)
from foveal.train.precision import native_bf16
from foveal.train.twin import PriorTwin


def rate_weight(level: Tensor) -> Tensor:
    """lambda of a level, in bits per pixel per squared 8-bit error."""
    return LAMBDA_MIN * torch.exp2(level / 8)


BARE_LEVEL = 28.0
Tokens = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]  # the first five arguments of PriorTwin.slices


@dataclass
class Batch:
    """images (B, 3, H, W) float in [0, 255]; level (B,); coded, visible (B, h, w) bool; finer (B, h, w) in levels;
    auto (B,) bool."""

    images: Tensor
    level: Tensor
    coded: Tensor  # False: dropped or lost
    visible: Tensor  # False: dropped
    finer: Tensor
    auto: Tensor  # True: patches are dropped where rate and distortion say so, as well


def ln_steps(channels: int, level: Tensor) -> Tensor:
    """ln of the quantiser step at each ``level`` (n,) -> (n, channels): sqrt(20 / lambda), a little finer towards high rates
    and for the thumbnail. Fixed: when learned, the steps of single channels wandered off by factors of seven
    (docs/LOG.md)."""
    uniform = 0.5 * torch.log(20 / rate_weight(level)) - 0.2 * level / 63
    finer = torch.where(torch.arange(channels) < BASE, -0.4, 0.0)
    return uniform[:, None] + finer


def _without_gain(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Weights of before there were gains have none: all are 1."""
    gain = model.get_buffer("gain")
    state.setdefault(prefix + "gain", torch.ones_like(gain))


class _Analysed(NamedTuple):
    """What is coded: token_level (B, h, w), step (B, h, w, D), ln_step and weight (B, T, D), hyper-latent's bits (B,),
    decoded thumbnail (B, T, BASE) and its bits (B,), context (B, T, context), patches sent (B, h, w), latents to be rounded
    (B, h, w, D)."""

    token_level: Tensor
    step: Tensor
    ln_step: Tensor
    weight: Tensor
    z_bits: Tensor
    base: Tensor
    base_bits: Tensor
    context: Tensor
    coded: Tensor
    wanted: Tensor


class ImageModel(nn.Module):
    """What is trained. ``gain`` (NODES, D) is what the encoder multiplies latents by (``train/gain.py``): 1 until an export
    has fitted it, and not trained."""

    ln_step: Tensor
    gain: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.shortcut, self.analysis, self.synthesis = Shortcut(size), Analysis(size), Synthesis(size)
        self.hyper, self.prior = HyperAnalysis(size), PriorTwin(size)
        nodes = torch.arange(NODES) * float(NODE_SPACING)
        self.register_buffer("ln_step", ln_steps(size.latent, nodes), persistent=False)
        self.register_buffer("gain", torch.ones(NODES, size.latent))
        self.register_load_state_dict_pre_hook(_without_gain)  # type: ignore[no-untyped-call]
        self.size = size

    def freeze_encoder(self) -> None:
        """Train prior and synthesis only: no gradient of hard symbols has served the analysis well (docs/LOG.md)."""
        for part in (self.analysis, self.hyper):
            part.requires_grad_(False)

    def freeze_all_but_finish(self) -> None:
        """Train the convolutions at full resolution only; nothing is propagated back through the rest."""
        self.requires_grad_(False)
        if self.synthesis.finish is not None:
            self.synthesis.finish.requires_grad_(True)

    @torch.no_grad()
    def _pays(self, auto: Tensor, tokens: Tokens, fake: bool) -> Tensor:
        """(B, T) bool: patches worth their bits by keep='auto', as the encoder decides it, on linear coefficients and
        before the ViT; all patches of samples that are not ``auto`` (B,)."""
        everything = torch.ones(tokens[0].shape[:2], dtype=torch.bool, device=auto.device)
        if auto.device.type == "cpu":  # the few samples that ask; on CUDA, finding them would make the host wait
            some = torch.nonzero(auto)[:, 0]
            if len(some):
                latents, base, context, ln_step, weight = (x.expand(len(auto), -1, -1)[some] for x in tokens)
                gain = self.prior.slices(latents, base, context, ln_step, weight, everything[some], False, fake)[2]
                everything[some] = gain > 0
            return everything
        gain = self.prior.slices(*tokens, everything, False, fake)[2]
        return (gain > 0) | ~auto[:, None]

    @torch.no_grad()
    def latents(self, batch: Batch, index: BaseIndex) -> Tensor:
        """(B, h, w, D): what ``forward`` rounds to hard symbols where it is not told what is ``wanted``."""
        return self._analysed(batch, index, False, True, native_bf16(batch.images.device.type), None).wanted

    def _analysed(
        self, batch: Batch, index: BaseIndex, noise: bool, fake: bool, half: bool, wanted: Tensor | None
    ) -> _Analysed:
        b, _, height, width = batch.images.shape
        h, w = height // PATCH, width // PATCH
        patches = batch.images.view(b, 3, h, PATCH, w, PATCH).permute(0, 2, 4, 1, 3, 5).reshape(b, h, w, -1)
        t = self.shortcut(patches)
        image_level = batch.level[:, None, None]
        token_level = image_level + batch.finer
        ln_step = interpolate(self.ln_step, token_level)  # (B, h, w, D)
        base_ln = interpolate(self.ln_step[:, :BASE], image_level)
        ln_step = torch.cat([base_ln.expand(b, h, w, BASE), ln_step[..., BASE:]], -1)
        step = ln_step.exp()
        weight = (rate_weight(token_level)[..., None] * step.square()).detach().flatten(1, 2)
        flat_ln, linear = ln_step.flatten(1, 2), (t / step).flatten(1, 2)
        transforms, prior = _precisions(batch.images.device.type, half)
        with transforms:
            z = self.hyper(t / interpolate(self.ln_step, image_level).exp()).float()
        with prior:
            z, z_bits = self.prior.hyper(z, image_level, noise)
            features = self.prior.spread_out(z, image_level, h, w, fake).flatten(1, 2)
            thumbnail = linear[..., :BASE]
            if wanted is not None:
                thumbnail = (wanted[..., :BASE] / step[..., :BASE]).flatten(1, 2)
            base, base_bits = self.prior.base(
                thumbnail, features, flat_ln[:, :1, :BASE], CARE * weight[:, :1, :BASE], index, noise, fake
            )
            context = self.prior.context(base, features, token_level.flatten(1), index.ring, fake)
            pays = self._pays(batch.auto, (linear, base, context, flat_ln, weight), fake).view(b, h, w)
        visible, coded = batch.visible & pays, batch.coded & pays
        with transforms:
            if wanted is None:
                wanted = self.analysis(t, self.shortcut.std, GridWindows(visible)) * interpolate(self.gain, token_level)
                wanted = torch.cat([t[..., :BASE], wanted[..., BASE:]], -1)
        return _Analysed(token_level, step, flat_ln, weight, z_bits, base, base_bits, context, coded, wanted)

    def forward(
        self,
        batch: Batch,
        index: BaseIndex,
        noise: bool,
        fake: bool,
        bf16: bool | None = None,
        wanted: Tensor | None = None,
        nudge: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """-> bpp (B,), base_bpp (B,), patch squared error (B, h, w), reconstruction (B, 3, H, W), what was rounded and what
        that is decoded to (B, h, w, D), patches sent (B, h, w) bool. ``wanted`` (B, h, w, D) is rounded in place of what the
        analysis makes of the pictures; ``nudge`` (B, h, w, D), zero, gathers the gradient of the decoded latents.
        ``bf16``: None where the device multiplies it."""
        b, _, height, width = batch.images.shape
        h, w = height // PATCH, width // PATCH
        kind = batch.images.device.type
        half = native_bf16(kind) if bf16 is None else bf16
        transforms, prior = _precisions(kind, half)
        at = self._analysed(batch, index, noise, fake, half, wanted)
        v = (at.wanted / at.step).flatten(1, 2)
        with prior:
            v_hat, bits, _ = self.prior.slices(
                v, at.base, at.context, at.ln_step, CARE * at.weight, at.coded.flatten(1), noise, fake
            )
        with transforms:
            latents = v_hat.view(b, h, w, -1) * at.step
            out = self.synthesis(
                latents if nudge is None else latents + nudge,
                at.token_level,
                ~at.coded,
                self.shortcut,
                GridWindows(torch.ones_like(at.coded)),
            )
        error = (out - batch.images).square().view(b, 3, h, PATCH, w, PATCH).mean((1, 3, 5))
        pixels = height * width
        return {
            "bpp": (at.z_bits + at.base_bits + bits.sum(1)) / pixels,
            "z_bpp": at.z_bits / pixels,
            "base_bpp": at.base_bits / pixels,
            "error": error,
            "image": out,
            "wanted": at.wanted,
            "latents": latents,
            "sent": at.coded,
        }


def loss(out: dict[str, Tensor], batch: Batch) -> Tensor:
    """Mean over samples of (bpp + lambda * squared error), each weighted so that no rate dominates; an error in a
    token that was lost or dropped counts a quarter, and no more than at level 28: most of it cannot be helped, and with
    the lambda of a high level it would outweigh everything else."""
    level = batch.level[:, None, None]
    bare = 0.25 * rate_weight(level.clamp(max=BARE_LEVEL))
    weight = torch.where(batch.coded, rate_weight(level + batch.finer), bare)
    total = out["bpp"] + (weight * out["error"]).mean((1, 2))
    return (total * sample_weight(batch.level)).mean()


def sample_weight(level: Tensor) -> Tensor:
    """How much a picture of ``level`` (B,) counts, so that no rate dominates."""
    return (rate_weight(level) / rate_weight(torch.tensor(36.0))) ** -0.4


def psnr_db(error: Tensor) -> Tensor:
    """Squared 8-bit error -> dB"""
    return 10 * torch.log10(255.0**2 / error.clamp_min(1e-6))


def _precisions(kind: str, half: bool) -> tuple[torch.autocast, torch.autocast]:
    """Those of the transforms and of the prior, which stays in fp32 where that is fast."""
    transforms = torch.autocast(kind, torch.bfloat16, enabled=half)
    return transforms, torch.autocast(kind, torch.bfloat16, enabled=half and kind == "cpu")
