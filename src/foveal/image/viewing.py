"""Decoded integers to what a user sees: pixels, a Pillow image, a report. The last steps of the hall."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from foveal import container
from foveal.header import Header
from foveal.image import concealment, patches, pixels
from foveal.image.decoder import Decoded
from foveal.image.network import Network


def show(network: Network, decoded: Decoded, head: Header) -> NDArray[np.uint8]:
    """Integers -> (H, W, 3) uint8"""
    rgb = network.synthesise(decoded.values, decoded.level, decoded.levels, decoded.masked, decoded.grid)
    gone = decoded.gone
    if gone.any() and not gone.all():
        sigma = network.spread_of(decoded.scales[gone], decoded.level)
        rgb = concealment.extend(rgb, gone.reshape(decoded.grid), network.basis(sigma.shape[1]), sigma)
    return patches.join(rgb, head.height, head.width)


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
