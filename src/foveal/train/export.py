"""From a training checkpoint to shipped weights: transforms as fp16, the prior as exact integers, frozen tables."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from foveal.image.prior import ACT_MAX, EXACT, SCALES, VALUE_MAX, VALUE_UNIT
from foveal.image.transform import LEVELS, SIZES, interpolate
from foveal.train import checkpoint
from foveal.train.losses import ImageModel, ln_steps
from foveal.train.twin import SCALE_MIN, SPACING, PriorTwin

UNIT = 64  # activations per 1.0
INDEX_UNIT = 16 / SPACING  # sixteenths of a scale index per unit of log-scale
REACH_MAX = 255


def _dense(name: str, layer: nn.Module, unit: Tensor | float, extra: Tensor | None = None) -> dict[str, Tensor]:
    """Integers W, b, shift with (W x + b) >> shift = unit * layer(x / 64), each output's shift as large as exactness
    in fp32 allows. ``extra`` (80, out): level-dependent biases, added to the sum."""
    assert isinstance(layer, nn.Linear)
    unit = torch.as_tensor(unit, dtype=torch.float64).expand(layer.out_features)
    weight = layer.weight.double() * (unit / UNIT)[:, None]
    bias = layer.bias.double() * unit
    add = extra.double() * unit if extra is not None else torch.zeros(1, layer.out_features, dtype=torch.float64)
    reach = weight.abs().sum(1) * ACT_MAX + bias.abs() + add.abs().amax(0) + 1
    shift = torch.floor(torch.log2((EXACT - 1 - ACT_MAX * layer.in_features) / reach))
    shift = torch.minimum(shift, torch.floor(torch.log2(32000 / weight.abs().amax(1).clamp_min(1e-9)))).clamp(1, 20)
    scale = torch.exp2(shift)
    out = {
        f"{name}.weight": (weight * scale[:, None]).round().to(torch.int16),
        f"{name}.bias": ((bias + 0.5) * scale).round().to(torch.int32),
        f"{name}.shift": shift.to(torch.uint8),
    }
    if extra is not None:
        out[f"{name[0]}_level"] = (add * scale).round().to(torch.int32)
    return out


def integer_prior(prior: PriorTwin, ln_step: Tensor) -> dict[str, Tensor]:
    """All integer arrays of ``IntegerPrior``. ``ln_step`` (80, D)."""
    levels = torch.arange(LEVELS, dtype=torch.float32)

    def rows(table: Tensor) -> Tensor:
        return interpolate(table, levels)

    def to_index(ln: Tensor) -> Tensor:
        return ((ln - math.log(SCALE_MIN)) * INDEX_UNIT).round().clamp(-30000, 30000).to(torch.int16)

    out = {
        "z_mean": (rows(prior.z_mean) * VALUE_UNIT).round().to(torch.int16),
        "z_index": to_index(rows(prior.z_scale)),
    }
    out |= _dense("z1", prior.z1, UNIT, rows(prior.z_level)) | _dense("z2", prior.z2, UNIT)
    out |= _dense("c1", prior.c1, UNIT, rows(prior.c_level)) | _dense("c2", prior.c2, UNIT)

    def halves(n: int) -> Tensor:
        return torch.cat([torch.full((n,), float(UNIT)), torch.full((n,), 2 * INDEX_UNIT)])

    base = prior.size.cuts[0]
    for i, (b1, b2, b3) in enumerate(zip(prior.b1, prior.b2, prior.b3, strict=True)):
        out |= _dense(f"b1.{i}", b1, UNIT) | _dense(f"b2.{i}", b2, UNIT) | _dense(f"b3.{i}", b3, halves(base))
        out[f"linear.{i}"] = (prior.linear[i] * 16384).round().to(torch.int16)
        out[f"base_spread.{i}"] = to_index(prior.base_scale[i] - ln_step[:, :base])
    for i, (s1, s2, s3) in enumerate(zip(prior.s1, prior.s2, prior.s3, strict=True)):
        out |= (
            _dense(f"s1.{i}", s1, UNIT)
            | _dense(f"s2.{i}", s2, UNIT)
            | _dense(f"s3.{i}", s3, halves(prior.cuts[i + 1] - prior.cuts[i]))
        )
    out["spread"] = to_index(prior.scale - ln_step)
    out["scale_q8"] = (256 * SCALE_MIN * torch.exp(torch.arange(SCALES) * SPACING)).round().to(torch.int32)
    reach = UNIT * math.log1p(VALUE_MAX / VALUE_UNIT)
    out["squash_from"] = torch.tensor(
        [math.ceil(VALUE_UNIT * math.expm1((k - 0.5) / UNIT)) for k in range(1, int(reach + 0.5) + 1)],
        dtype=torch.int32,
    )
    return out


def parametric_tables(prior: PriorTwin) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Probabilities (64, 2*255+2) float64 and reach (64,) of the trained density."""
    probabilities, reach = np.zeros((SCALES, 2 * REACH_MAX + 2)), np.zeros(SCALES, np.int64)
    with torch.no_grad():
        for i in range(SCALES):
            s = torch.arange(-4000, 4001, dtype=torch.float64)
            p = torch.exp2(-prior.density.bits(s, torch.full_like(s, float(i)))).numpy()
            p /= p.sum()
            inside = [k for k in range(1, REACH_MAX + 1) if p[4000 + k] > 3e-6]
            k = max(inside, default=1)
            reach[i] = k
            probabilities[i, : 2 * k + 1] = p[4000 - k : 4001 + k]
            probabilities[i, 2 * k + 1] = max(1 - p[4000 - k : 4001 + k].sum(), 2e-5)
    return probabilities, reach


def counts_of(probabilities: np.ndarray[Any, Any], reach: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Integer counts summing to 65536 per row, none below 1 within reach."""
    out = np.zeros(probabilities.shape, np.int64)
    for i, k in enumerate(reach):
        row = probabilities[i, : 2 * k + 2] / probabilities[i, : 2 * k + 2].sum()
        counts = np.maximum(1, np.round(row * 65536)).astype(np.int64)
        counts[counts.argmax()] += 65536 - counts.sum()
        out[i, : 2 * k + 2] = counts
    return out


def fitted_tables(
    prior: PriorTwin, histogram: np.ndarray[Any, Any]
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Counted symbols (64, 2*256+1), symmetrised and smoothed with the trained density worth 200 observations."""
    probabilities, reach = parametric_tables(prior)
    for i, k in enumerate(reach):
        seen = histogram[i] + histogram[i, ::-1]
        centre = len(seen) // 2
        inside = seen[centre - k : centre + k + 1]
        row = np.append(inside, seen.sum() - inside.sum()) / 2
        probabilities[i, : 2 * k + 2] = row + 200 * probabilities[i, : 2 * k + 2]
    return probabilities, reach


def export(
    weights: Path,
    out: Path,
    histogram: np.ndarray[Any, Any] | None = None,
    silent: int = 0,
    gain: Tensor | None = None,
) -> dict[str, Any]:
    """Write the shipped weights of the training checkpoint ``weights``, with the encoder's ``gain`` (NODES, D) if there is
    one; returns the facts stored with them."""
    model = ImageModel(SIZES[checkpoint.size_of(weights)])
    facts = checkpoint.load(weights, model)
    model = model.float().eval()
    with torch.no_grad():
        ln_step = ln_steps(model.size.latent, torch.arange(LEVELS, dtype=torch.float32))
        tensors = {f"prior.{k}": v for k, v in integer_prior(model.prior, ln_step).items()}
        probabilities, reach = (
            parametric_tables(model.prior) if histogram is None else fitted_tables(model.prior, histogram)
        )
        tensors["tables.counts"] = torch.from_numpy(counts_of(probabilities, reach)[:, : 2 * int(reach.max()) + 2]).to(
            torch.uint16  # a row sums to 65536 and has more than one count
        )
        tensors["tables.reach"] = torch.from_numpy(reach).to(torch.int32)
        tensors["tables.silent"] = torch.tensor([silent], dtype=torch.int32)
        tensors["ln_step"] = ln_step
        tensors["gain"] = (model.gain if gain is None else gain).half()
        for name, module in (
            ("shortcut", model.shortcut),
            ("analysis", model.analysis),
            ("synthesis", model.synthesis),
            ("hyper", model.hyper),
        ):
            for key, value in module.state_dict().items():
                small = key in ("mean", "std") or value.ndim == 1
                tensors[f"{name}.{key}"] = value.float() if small else value.half()
    facts["cuts"] = list(model.size.cuts)
    checkpoint.write(out, {k: v.contiguous() for k, v in tensors.items()}, {"facts": json.dumps(facts)})
    return facts
