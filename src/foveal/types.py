"""Plain results that cross the public door; no torch, no heavy imports."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Info:
    """What a .fov file says of itself. ``bytes`` on disk, ``bpp`` bits per pixel, ``level`` 0..79, ``quality`` 0..100,
    ``mode`` "RGB" or "L", ``patches`` 16x16 tokens, ``dropped`` of them, ``alpha`` the patent's compression ratio
    m^2 / (m^2 - p), ``layers`` of quality, ``chunks`` in the file's order, each with its "type", "bytes" of its payload and
    "crc_ok"."""

    width: int
    height: int
    bytes: int
    bpp: float
    model: str
    level: float
    quality: float
    mode: str
    alpha_channel: bool
    patches: int
    dropped: int
    alpha: float
    packets: int
    chunks: list[dict[str, Any]] = field(default_factory=list)
    layers: int = 1

    def as_dict(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class ImportanceMap:
    """``gradient`` (H, W) float32 Sobel magnitude on luma, ``patch_gradient`` (h, w) float32 its mean per patch,
    ``classes`` (h, w) uint8 with 0 = dropped, ``threshold`` the mean gradient below which patches were dropped (0 when
    something else decided), ``kept`` share in [0, 1], ``alpha`` compression ratio >= 1."""

    gradient: NDArray[np.float32]
    patch_gradient: NDArray[np.float32]
    classes: NDArray[np.uint8]
    threshold: float
    kept: float
    alpha: float


@dataclass(frozen=True)
class DecodeReport:
    """A decoded picture and what is wrong with it. ``concealed`` (h, w) uint8, 1 = a 16x16 patch of which packets are
    lost, shown coarsely or from the base layer; ``packets_read``, those of use, of the ``packets`` that the file was
    written with; ``damaged`` one line for each thing that was missing or left out."""

    image: Image.Image
    concealed: NDArray[np.uint8]
    packets_read: int
    packets: int
    damaged: tuple[str, ...] = ()


@dataclass(frozen=True)
class VideoModelInfo:
    """A network that restores video: its size, mode ("x2", or "x1" for 1 and 1.5), the first 8 bytes of its weights' hash as
    side information names them, and kMAC per pixel of what it gives."""

    name: str
    mode: str
    weights_hash: str
    parameters: int
    kmac_per_pixel: float


@dataclass(frozen=True)
class ModelInfo:
    """A model that this installation holds. ``id`` is written into files; kMAC per pixel of one whole side, prior and
    attention products included."""

    name: str
    id: int
    weights_hash: str
    parameters: int
    kmac_encode: float
    kmac_decode: float
    file_bytes: int
    default: bool


@dataclass(frozen=True)
class Check:
    """One line of ``foveal doctor``: what was tried (``name``), whether it holds, and what was found or is wrong."""

    name: str
    ok: bool
    detail: str
