"""How well the device is used: counted operations of a step against the fastest plain matrix product."""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from foveal.image.prior import BaseIndex
from foveal.train.losses import Batch, ImageModel, loss
from foveal.train.precision import native_bf16


def flops_per_pixel(model: ImageModel, batch: Batch, index: BaseIndex) -> float:
    """Floating-point operations of products and convolutions per pixel of ``batch``, forward and backward; a multiply-add
    is two. The optimiser's are left out. Gradients become zero, random numbers stay as they were."""
    devices = [batch.images.device] if batch.images.is_cuda else []
    with torch.random.fork_rng(devices), FlopCounterMode(display=False) as counter:
        torch.autograd.backward(loss(model(batch, index, True, False), batch))
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.grad.zero_()
    return float(counter.get_total_flops() / batch.images[:, 0].numel())


def fastest_product(device: torch.device) -> float:
    """Operations per second in the best of six products, of bf16 where the device multiplies it, else of fp32: the peak that
    a share is a share of."""
    n, best = 8192 if device.type == "cuda" else 512, float("inf")
    kind = torch.bfloat16 if native_bf16(device.type) else torch.float32
    a = torch.randn(n, n, dtype=kind, device=device)
    for _ in range(6):
        begin = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - begin)
    return 2 * n**3 / best


class Speed:
    """Pixels per second, and the share of the device's peak that they come to."""

    def __init__(self, model: ImageModel, batch: Batch, index: BaseIndex) -> None:
        self.flops, self.peak = flops_per_pixel(model, batch, index), fastest_product(batch.images.device)

    def row(self, pixels: int, seconds: float, world: int) -> dict[str, float]:
        """``pixels`` of each of ``world`` processes took ``seconds``."""
        own = pixels / seconds
        return {
            "mpx_per_s": round(own * world / 1e6, 3),
            "tflops": round(own * world * self.flops / 1e12, 4),
            "share_of_peak": round(own * self.flops / self.peak, 4),
        }
