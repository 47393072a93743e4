"""The hall of the image codec: one line per room, ``compress`` and ``decompress`` mirrored (CN115514976A).

    pixels -> patches -> importance -> analysis -> quantise | prior -> range coder -> packets -> container
    pixels <- patches <- synthesis  <- dequantise           | prior <- range coder <- packets <- container

``Encoder`` and ``decode`` (encoder.py, decoder.py) are its two flights of stairs, ``Network`` holds what was learned.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from foveal import container, registry
from foveal.errors import InputError
from foveal.image import importance as ranking
from foveal.image import patches, pixels, quantize
from foveal.image.decoder import decode
from foveal.image.encoder import Encoder, Stream
from foveal.image.network import Network
from foveal.types import ImportanceMap


def compress(image: Any, *, quality: float = 60, keep: float | str = "auto", threshold: float | None = None,
             alpha: float | None = None, mask: Any = None, effort: int = 4, target_bpp: float | None = None,
             target_bytes: int | None = None, target_psnr: float | None = None, packets: int = 1,
             model: str = registry.DEFAULT, exif: bytes | None = None, icc_profile: bytes | None = None,
             xmp: bytes | None = None) -> bytes:
    """Code a picture (Pillow image, or uint8 array (H, W), (H, W, 3) or (H, W, 4)) as a .fov file.

    quality 0..100; at most one of target_bpp, target_bytes (not exceeded when reachable) and target_psnr (RGB dB, reached
    when reachable) replaces it. keep 'auto' drops a patch when that lowers D + R/lambda; 'all', a share, threshold (mean
    gradient), alpha (the patent's ratio) or mask force the choice. effort 1..3 rounds plainly, 4..9 optimises rate and
    distortion. Metadata is the image's own unless given; b"" drops it. Raises InputError and its kind.
    """
    check_options(quality=quality, effort=effort, target_bpp=target_bpp, target_bytes=target_bytes,
                  target_psnr=target_psnr, packets=packets, model=model)
    picture = pixels.from_pillow(image) if isinstance(image, Image.Image) else pixels.from_array(image)
    meta = pixels.metadata(image if isinstance(image, Image.Image) else None, exif=exif, icc_profile=icc_profile, xmp=xmp)
    chosen = choose(picture.rgb, keep=keep, threshold=threshold, alpha=alpha, mask=mask)
    encoder = Encoder(Network.load(model), picture.rgb, chosen, effort, packets)

    def file(stream: Stream) -> container.Contents:
        plane = pixels.compress_alpha(picture.alpha) if picture.alpha is not None else None
        return contents_of(encoder, stream, mode=picture.mode, alpha=plane, exif=meta.exif, icc=meta.icc, xmp=meta.xmp)

    if target_psnr is not None:
        stream = _search(encoder, lambda s: _psnr(encoder, file(s)) < target_psnr, above=True)
    elif target_bytes is not None or target_bpp is not None:
        budget = target_bytes or (target_bpp or 0) * picture.rgb.shape[0] * picture.rgb.shape[1] / 8
        stream = _search(encoder, lambda s: len(container.write(file(s))) <= budget, above=False)
    else:
        stream = encoder.at(quantize.level_of(quality))
    return container.write(file(stream))


def decompress(data: bytes, *, on_loss: str = "error") -> Image.Image:
    """Decode a .fov file to a Pillow image, with ``info['exif'|'icc_profile'|'xmp']`` as Pillow sets them.

    on_loss 'error' refuses damaged or missing packets, 'conceal' shows their patches from the base layer.
    Raises FormatError and its kinds, LimitError.
    """
    if on_loss not in ("error", "conceal"):
        raise InputError(f"on_loss {on_loss!r} is not known; use 'error' or 'conceal'")
    contents = container.read(data, tolerant=on_loss == "conceal")
    head = contents.header
    network = Network.load(registry.name_of(head.model, head.weights))
    rgb = _show(network, contents, on_loss)
    alpha = None
    if head.alpha:  # a lost alpha plane shows as opaque
        lost = np.full(rgb.shape[:2], 255, np.uint8)
        alpha = pixels.decompress_alpha(contents.alpha, head.width, head.height) if contents.alpha else lost
    image = pixels.to_pillow(pixels.Pixels(rgb, alpha, head.mode))
    pixels.attach(image, contents.exif, contents.icc, contents.xmp)
    return image


def _show(network: Network, contents: container.Contents, on_loss: str) -> NDArray[np.uint8]:
    """Contents -> (H, W, 3) uint8"""
    decoded = decode(network, contents, on_loss)
    rgb = network.synthesise(decoded.values, decoded.levels, decoded.masked, decoded.grid)
    return patches.join(rgb, contents.header.height, contents.header.width)


def contents_of(encoder: Encoder, stream: Stream, *, mode: Any = "RGB", **chunks: bytes | None) -> container.Contents:
    """A stream with its header, ready for the container."""
    weights, (height, width) = encoder.network.weights, encoder.rgb.shape[:2]
    head = container.Header(width=width, height=height, mode=mode, alpha=chunks.get("alpha") is not None,
                            model=weights.id, weights=weights.digest, level=stream.level,
                            packets=len(stream.packets), classes=stream.class_count)
    sent = tuple(container.Packet(i, p) for i, p in enumerate(stream.packets))
    return container.Contents(header=head, classes=stream.class_map, base=stream.base, packets=sent, **chunks)


def check_options(**options: Any) -> None:
    """InputError naming the value and the remedy for an option outside its range."""
    ranges = {"quality": (0, 100), "effort": (1, 9), "target_bpp": (1e-9, 1e9), "target_bytes": (1, 1 << 40),
              "target_psnr": (1e-9, 1000), "packets": (1, 65535)}
    for name, (low, high) in ranges.items():
        value = options[name]
        if value is not None and not (isinstance(value, (int, float)) and low <= value <= high):
            raise InputError(f"{name} {value!r} is not a number in {low:g}..{high:g}")
    targets = [n for n in ("target_bpp", "target_bytes", "target_psnr") if options[n] is not None]
    if len(targets) > 1:
        raise InputError(f"{' and '.join(targets)} are both given; choose one target")
    registry.path_of(options["model"])


def choose(rgb: NDArray[np.uint8], *, keep: float | str, threshold: float | None, alpha: float | None, mask: Any
           ) -> NDArray[np.uint8] | None:
    """Forced importance classes (h, w), or None when rate and distortion decide ('auto')."""
    given = [n for n, v in (("keep", keep not in ("auto", "all") or None), ("threshold", threshold), ("alpha", alpha),
                            ("mask", mask)) if v is not None]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given together; choose one way to drop patches")
    if mask is not None:
        array = np.asarray(mask.convert("L") if isinstance(mask, Image.Image) else mask)
        return ranking.by_mask(array, *rgb.shape[:2])
    if keep == "auto" and not given:
        return None
    means = ranking.patch_means(ranking.gradient(rgb))
    if threshold is not None:
        return ranking.by_threshold(means, threshold)
    if alpha is not None:
        return ranking.by_alpha(means, alpha)[0]
    if keep == "all":
        return np.ones(means.shape, np.uint8)
    if isinstance(keep, str):
        raise InputError(f"keep {keep!r} is not 'auto', 'all' or a share in (0, 1]")
    return ranking.by_share(means, float(keep))[0]


def importance(image: Any, *, keep: float | str = "auto", threshold: float | None = None, alpha: float | None = None,
                   mask: Any = None, quality: float = 60, model: str = registry.DEFAULT) -> ImportanceMap:
    """What the encoder sees of a picture: gradient, its mean per patch, and the classes ``compress`` would use."""
    rgb = (pixels.from_pillow(image) if isinstance(image, Image.Image) else pixels.from_array(image)).rgb
    gradient = ranking.gradient(rgb)
    means = ranking.patch_means(gradient)
    classes = choose(rgb, keep=keep, threshold=threshold, alpha=alpha, mask=mask)
    if classes is None:
        classes = Encoder(Network.load(model), rgb, None, 4, 1).at(quantize.level_of(quality)).classes
    kept = int((classes > 0).sum())
    forced = threshold if threshold is not None else (
        float(means[classes > 0].min()) if mask is None and keep != "auto" and kept < classes.size else 0.0)
    return ImportanceMap(gradient, means, classes, forced, kept / classes.size,
                         ranking.ratio(classes.size, classes.size - kept))


def _search(encoder: Encoder, fits: Any, above: bool) -> Stream:
    """The finest stream for which ``fits`` still holds (``above``: the coarsest for which it no longer does), by
    bisection over re-quantised streams; the end of the range when the target lies outside."""
    low, high = 0, quantize.FINEST
    best = {low: encoder.at(low), high: encoder.at(high)}
    if fits(best[high]):
        return best[high]
    if not fits(best[low]):
        return best[low]
    while high - low > 1:
        middle = (low + high) // 2
        best[middle] = encoder.at(middle)
        low, high = (middle, high) if fits(best[middle]) else (low, middle)
    return best[high if above else low]


def _psnr(encoder: Encoder, contents: container.Contents) -> float:
    """RGB PSNR in dB as a decoder would show it."""
    error = np.square(_show(encoder.network, contents, "error").astype(np.float64) - encoder.rgb).mean()
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))


def golden_digest(model: str = registry.DEFAULT) -> str:
    """SHA-256 (16 hex digits) of the coded streams and decoded integers of a synthetic picture: equal on every machine."""
    y, x = np.mgrid[0:150, 0:210]
    planes = (x * 5 + y * 3, (x * y) // 7, (x // 9 * 40 + y // 11 * 23) ^ (x * x // 50))
    rgb = np.stack([(p % 256).astype(np.uint8) for p in planes], -1)
    network = Network.load(model)
    found = hashlib.sha256()
    for level in (96, 605, 1008):
        encoder = Encoder(network, rgb, None, 4, 3)
        contents = contents_of(encoder, encoder.at(level))
        values = decode(network, contents, "error").values.to(torch.int32).numpy()
        for part in (contents.base, *(p.payload for p in contents.packets), values.tobytes()):
            found.update(part)
    return found.hexdigest()[:16]
