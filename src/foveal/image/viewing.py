"""Decoded integers to what a user sees: pixels, a Pillow image, a report. The last steps of the hall."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from foveal import container
from foveal.image import concealment, patches, pixels, postfilter
from foveal.image.decoder import Decoded
from foveal.image.network import Band, Network, to_bytes


def show(network: Network, decoded: Decoded, contents: container.Contents) -> NDArray[np.uint8]:
    """Integers -> (H, W, 3) uint8, filtered but for the patches of which something is missing"""
    taps = postfilter.decompress(contents.filter) if contents.filter else None
    margin, whole = (0, None) if taps is None else (postfilter.REACH, ~decoded.lost.reshape(decoded.grid))
    bands = network.rendered(decoded.values, decoded.level, decoded.levels, decoded.masked, decoded.grid, margin=margin)
    rgb = np.concatenate([to_bytes(_finished(band, taps, whole)) for band in bands])
    gone = decoded.gone
    if gone.any() and not gone.all():
        sigma = network.spread_of(decoded.scales[gone], decoded.level)
        rgb = concealment.extend(rgb, gone.reshape(decoded.grid), network.basis(sigma.shape[1]), sigma)
    return patches.join(rgb, contents.header.height, contents.header.width)


def _finished(band: Band, taps: NDArray[np.int64] | None, whole: NDArray[np.bool_] | None) -> Tensor:
    """The pixels of a band, filtered in those patches (h, w) that are ``whole``."""
    if taps is None or whole is None:
        return band.pixels
    (above, below), rows = band.edges, slice(band.start // patches.PATCH, band.end // patches.PATCH)
    own = band.pixels[:, above : band.pixels.shape[1] - below]
    if not whole[rows].any():
        return own
    out = postfilter.filtered(band.pixels, taps, band.edges)
    if whole[rows].all():
        return out
    spread = torch.from_numpy(whole[rows].repeat(patches.PATCH, 0).repeat(patches.PATCH, 1))
    return torch.where(spread, out, own)


def frame(rgb: NDArray[np.uint8], contents: container.Contents) -> Image.Image:
    """(H, W, 3) uint8 with a file's alpha plane and metadata; a lost alpha plane shows as opaque."""
    head, alpha = contents.header, None
    if head.alpha:
        lost = np.full(rgb.shape[:2], 255, np.uint8)
        alpha = pixels.decompress_alpha(contents.alpha, head.width, head.height) if contents.alpha else lost
    image = pixels.to_pillow(pixels.Pixels(rgb, alpha, head.mode))
    pixels.attach(image, contents.exif, contents.icc, contents.xmp)
    return image


def concealed(lost: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """(T,) bool -> (h, w) uint8, 1 = shown without its packet"""
    return lost.reshape(grid).astype(np.uint8)
