"""Which products a device is fast at."""

from foveal.video import inference


def native_bf16(kind: str) -> bool:
    """Whether devices of this kind ("cpu", "cuda") multiply bf16: GPUs do, of CPUs those with AVX-512 BF16 or AMX. Elsewhere
    such a product takes 40 times as long as one of fp32 (AVX2)."""
    return kind != "cpu" or inference.native_bf16()
