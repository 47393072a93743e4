"""The hall of the image codec: one line per room, ``compress`` and ``decompress`` mirrored (CN115514976A).

    pixels -> patches -> importance -> analysis -> quantise | prior -> range coder -> packets -> container
    pixels <- patches <- synthesis  <- dequantise           | prior <- range coder <- packets <- container

``Encoder`` and ``decode`` (encoder.py, decoder.py) are its two flights of stairs, ``Network`` holds what was learned.
"""

from __future__ import annotations

import hashlib
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from foveal import container, datagrams, registry
from foveal.errors import FovealError, FovealWarning, InputError
from foveal.header import MAX_LEVEL, Header
from foveal.image import importance as ranking
from foveal.image import pixels, quantize, viewing
from foveal.image.decoder import begin, check_whole, decode, salience_of
from foveal.image.encoder import Encoder, Stream
from foveal.image.network import Network
from foveal.image.partition import Layout, TokenSymbols, base_payloads, layers_of
from foveal.numerics import exact
from foveal.types import DecodeReport, ImportanceMap

WHOLE = (int, np.integer)
NUMBER = (int, float, np.integer, np.floating)


@exact()
def compress(
    image: Any,
    *,
    quality: float = 60,
    keep: float | str = "auto",
    threshold: float | None = None,
    alpha: float | None = None,
    mask: Any = None,
    effort: int = 4,
    target_bpp: float | None = None,
    target_bytes: int | None = None,
    target_psnr: float | None = None,
    packets: int = 1,
    mtu: int | None = None,
    layers: int = 1,
    model: str = registry.DEFAULT,
    tune: str = "psnr",
    exif: bytes | None = None,
    icc_profile: bytes | None = None,
    xmp: bytes | None = None,
) -> bytes:
    """Code a picture (Pillow image, or uint8 array (H, W), (H, W, 3) or (H, W, 4)) as a .fov file.

    quality 0..100; at most one of target_bpp, target_bytes (not exceeded) and target_psnr (RGB dB, reached) replaces it,
    with a FovealWarning where no level does so. keep 'auto' drops a patch when that lowers D + R/lambda; 'all', a share in
    (0, 1], threshold (mean gradient of a patch, grey levels per pixel), alpha (the patent's ratio, 1 or more) or mask force
    the choice: a mask has the size of the picture, (H, W), or of its patches, (ceil(H/16), ceil(W/16)); what is not 0 is
    kept, and integers up to 3 are classes, each a step finer. effort 1..3 rounds plainly, 4..5 optimises rate and
    distortion, 6..10 refines what is rounded as well. tune 'psnr' minimises the squared error, 'msssim' one that counts
    more in a patch where little hides it. The tokens go into so many packets, 1..65535, or into as many as fit datagrams of
    mtu bytes each, 128..65507 (see ``pack``). layers above 1, up to 5 ('s') or 7 ('m'), part every patch by frequency, so
    that the file's beginning shows all of the picture coarsely, and send the dropped patches too, last of all; each layer
    has so many packets. model: 's' or 'm'.
    Metadata is the image's own unless given; b"" drops it. Raises InputError and its kind, LimitError for a picture of more
    than 65535 pixels a side or 2^28 in all.
    """
    check_options(
        quality=quality,
        effort=effort,
        target_bpp=target_bpp,
        target_bytes=target_bytes,
        target_psnr=target_psnr,
        model=model,
        tune=tune,
    )
    check_partition(packets, mtu, layers, model)
    picture = _pixels(image)
    meta = pixels.metadata(
        image if isinstance(image, Image.Image) else None, exif=exif, icc_profile=icc_profile, xmp=xmp
    )
    chosen = choose(picture.rgb, keep=keep, threshold=threshold, alpha=alpha, mask=mask)
    encoder = Encoder(Network.load(model), picture.rgb, chosen, effort, packets, mtu, layers, tune)
    plane = pixels.compress_alpha(picture.alpha) if picture.alpha is not None else None

    def file(stream: Stream) -> container.Contents:
        return contents_of(encoder, stream, mode=picture.mode, alpha=plane, exif=meta.exif, icc=meta.icc, xmp=meta.xmp)

    if target_psnr is not None:
        stream = _search(encoder, lambda s: _psnr(encoder, file(s)) < target_psnr, above=True)
        if stream.level == MAX_LEVEL and (reached := _psnr(encoder, file(stream))) < target_psnr:
            _missed(f"target_psnr {target_psnr:g} dB is beyond the finest level, which has {reached:.2f}")
    elif target_bytes is not None or target_bpp is not None:
        budget = target_bytes or (target_bpp or 0) * picture.rgb.shape[0] * picture.rgb.shape[1] / 8
        stream = _search(encoder, lambda s: len(_written(file(s))) <= budget, above=False)
        if stream.level == 0 and (taken := len(_written(file(stream)))) > budget:
            _missed(f"{budget:.0f} bytes do not hold the coarsest level, which takes {taken}: scale the picture down")
    else:
        stream = encoder.at(quantize.level_of(quality))
    return _written(file(stream))


def samples(image: Any) -> NDArray[np.uint8]:
    """The (H, W, 3) uint8 samples of R'G'B' that ``compress`` codes of a picture (Pillow image or array, as there), to
    compare a decoded picture with: of 16 bits, CMYK and the like what they are converted to, with the same warnings. Grey is
    repeated; the alpha plane, which is kept without loss, is left out. Raises InputError and its kind, LimitError."""
    return _pixels(image).rgb


def decompress(data: bytes, *, on_loss: str = "error") -> Image.Image:
    """Decode a .fov file to a Pillow image, with ``info['exif'|'icc_profile'|'xmp']`` as Pillow sets them.

    on_loss 'error' refuses damaged or missing packets, 'conceal' shows their patches from the base layer, 'auto' does so
    for missing packets of a file that is otherwise whole. Raises FormatError and its kinds, LimitError.
    """
    return decode_report(data, on_loss=on_loss).image


@exact()
def decode_report(data: bytes, *, on_loss: str = "conceal") -> DecodeReport:
    """``decompress``, with what was lost and which patches are concealed: its errors, and its values of on_loss."""
    if on_loss not in ("error", "conceal", "auto"):
        raise InputError(f"on_loss {on_loss!r} is not known; use 'error', 'conceal' or 'auto'")
    if on_loss == "auto":
        chunks = container.list_chunks(data)
        intact = all(chunk.crc_ok for chunk in chunks) and chunks[-1:] and chunks[-1].type == "IEND"
        on_loss = "conceal" if intact else "error"
    contents = container.read(data, tolerant=on_loss == "conceal")
    head = contents.header
    network = Network.load(registry.name_of(head.model, head.weights))
    decoded = decode(network, contents, on_loss)
    image = viewing.frame(viewing.show(network, decoded, contents), contents)
    concealed, useless = viewing.concealed(decoded.lost, decoded.grid), decoded.useless
    damaged = contents.damaged
    if useless:
        named = ", ".join(map(str, useless[:8])) + (", ..." if len(useless) > 8 else "")
        damaged += (f"{len(useless)} packets refine what is lost: {named}",)
    return DecodeReport(image, concealed, len(contents.packets) - len(useless), head.packets, damaged)


@exact()
def repack(data: bytes, *, packets: int | None = None, mtu: int | None = None, layers: int | None = None) -> bytes:
    """The same picture in other packets: so many, or as many as fit datagrams of ``mtu`` bytes; in so many ``layers``, or
    as many as it has. Its symbols are coded anew and decode to the same integers; dropped patches that the file holds
    stay its end, and those that it does not hold cannot be had back. The file must be whole; ancillary chunks of unknown
    kinds are left out.

    Raises InputError for options, FormatError and its kinds for the file.
    """
    if packets is None and mtu is None and layers is None:
        raise InputError("neither packets nor mtu nor layers is given; say how to cut the file")
    contents = container.read(data)
    head = contents.header
    name = registry.name_of(head.model, head.weights)
    count, layers = 1 if packets is None else packets, head.layers if layers is None else layers
    check_partition(count, mtu, layers, name)
    network = Network.load(name)
    decoding = begin(network, contents)
    sent = TokenSymbols(decoding.have.size, network.prior.cuts)
    for packet in contents.packets:
        decoding.add(packet, sent.put)
    check_whole(decoding, "error")
    classes = decoding.which.numpy().astype(np.uint8).reshape(decoding.grid)
    layout = Layout.of(count, mtu, layers, head.complete)
    base, *more = base_payloads(network.tables, decoding.batches, layout.version)
    found = layers_of(layout, classes, salience_of(decoding.base, decoding.index), decoding.grid[1], len(sent.cuts) - 1)
    parted = tuple(container.Packet(i, p) for i, p in enumerate(sent.payloads(network.tables, found, layout)))
    head = replace(head, packets=len(parted), version=layout.version, layers=layout.layers, complete=layout.complete)
    return _written(replace(contents, header=head, base=base, more=tuple(more), packets=parted))


def _written(contents: container.Contents) -> bytes:
    """The file, in its short form if it has one."""
    return container.shorten(container.write(contents))


def check_partition(packets: int, mtu: int | None, layers: int = 1, model: str = registry.DEFAULT) -> None:
    """InputError for a number or size of packets or layers out of range, or number and size at once."""
    if not (isinstance(packets, WHOLE) and 1 <= packets <= 65535):
        raise InputError(f"packets {packets!r} is not a whole number in 1..65535")
    if mtu is not None and packets != 1:
        raise InputError(f"packets {packets} and mtu {mtu} are both given; choose one")
    if mtu is not None:
        datagrams.check(mtu)
    most = len(Network.load(model).prior.cuts) - 1
    if not (isinstance(layers, WHOLE) and 1 <= layers <= most):
        raise InputError(f"layers {layers!r} is not a whole number in 1..{most}")


def contents_of(encoder: Encoder, stream: Stream, *, mode: Any = "RGB", **chunks: Any) -> container.Contents:
    """A stream with its header, ready for the container."""
    weights, (height, width) = encoder.network.weights, encoder.rgb.shape[:2]
    head = Header(
        width=width,
        height=height,
        mode=mode,
        alpha=chunks.get("alpha") is not None,
        model=weights.id,
        weights=weights.digest,
        level=stream.level,
        packets=len(stream.packets),
        classes=stream.class_count,
        version=stream.layout.version,
        layers=stream.layout.layers,
        complete=stream.layout.complete,
    )
    sent = tuple(container.Packet(i, p) for i, p in enumerate(stream.packets))
    chunks |= {"classes": stream.class_map, "base": stream.base, "more": stream.more, "filter": stream.filter}
    return container.Contents(header=head, packets=sent, **chunks)


def check_options(**options: Any) -> None:
    """InputError naming the value and the remedy for one of ``compress``' options outside its range. ``model`` is one of
    those that are given."""
    ranges = {
        "quality": (0, 100),
        "effort": (1, 10),
        "target_bpp": (1e-9, 1e9),
        "target_bytes": (1, 1 << 40),
        "target_psnr": (1e-9, 1000),
    }
    for name, (low, high) in ranges.items():
        if name not in options:
            continue
        value, kind = options[name], WHOLE if name == "effort" else NUMBER
        absent = value is None and name.startswith("target")
        if not absent and not (isinstance(value, kind) and low <= value <= high):
            what = "whole number" if kind is WHOLE else "number"
            raise InputError(f"{name} {value!r} is not a {what} in {low:g}..{high:g}")
    targets = [n for n in ("target_bpp", "target_bytes", "target_psnr") if options.get(n) is not None]
    if len(targets) > 1:
        raise InputError(f"{' and '.join(targets)} are both given; choose one target")
    if options.get("tune", "psnr") not in ranking.TUNES:
        raise InputError(f"tune {options['tune']!r} is not one of {', '.join(ranking.TUNES)}")
    registry.path_of(options["model"])


def choose(
    rgb: NDArray[np.uint8], *, keep: float | str, threshold: float | None, alpha: float | None, mask: Any
) -> NDArray[np.uint8] | None:
    """Forced importance classes (h, w), or None when rate and distortion decide ('auto')."""
    given = [
        n
        for n, v in (
            ("keep", None if isinstance(keep, str) and keep == "auto" else True),
            ("threshold", threshold),
            ("alpha", alpha),
            ("mask", mask),
        )
        if v is not None
    ]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given together; choose one way to drop patches")
    if mask is not None:
        return ranking.by_mask(_mask(mask), *rgb.shape[:2])
    if not given:
        return None
    for name, value in (("threshold", threshold), ("alpha", alpha)):
        if value is not None and not isinstance(value, NUMBER):
            raise InputError(f"{name} {value!r} is not a number")
    means = ranking.patch_means(ranking.gradient(rgb))
    if threshold is not None:
        return ranking.by_threshold(means, threshold)
    if alpha is not None:
        return ranking.by_alpha(means, alpha)[0]
    if isinstance(keep, str) and keep == "all":
        return np.ones(means.shape, np.uint8)
    if not isinstance(keep, NUMBER):
        raise InputError(f"keep {keep!r} is not 'auto', 'all' or a share in (0, 1]")
    return ranking.by_share(means, float(keep))[0]


@exact()
def importance(
    image: Any,
    *,
    keep: float | str = "auto",
    threshold: float | None = None,
    alpha: float | None = None,
    mask: Any = None,
    quality: float = 60,
    model: str = registry.DEFAULT,
) -> ImportanceMap:
    """What the encoder sees of a picture: gradient, its mean per patch, and the classes ``compress`` would use. Arguments
    and errors as there."""
    check_options(quality=quality, model=model)
    rgb = samples(image)
    gradient = ranking.gradient(rgb)
    means = ranking.patch_means(gradient)
    classes = choose(rgb, keep=keep, threshold=threshold, alpha=alpha, mask=mask)
    if classes is None:
        classes = Encoder(Network.load(model), rgb, None, 4, 1).at(quantize.level_of(quality), finish=False).classes
    kept = int((classes > 0).sum())
    forced = (
        threshold
        if threshold is not None
        else (float(means[classes > 0].min()) if mask is None and keep != "auto" and kept < classes.size else 0.0)
    )
    return ImportanceMap(
        gradient, means, classes, forced, kept / classes.size, ranking.ratio(classes.size, classes.size - kept)
    )


def _mask(mask: Any) -> NDArray[np.generic]:
    """A mask as an array. Of a Pillow picture every sample counts that is not black: luma would round dark colours off."""
    try:
        if not isinstance(mask, Image.Image):
            return np.asarray(mask)
        mask.load()
        if mask.mode == "LA":
            mask = mask.convert("L")
        plain = mask.mode in ("1", "L", "F", "RGB", "RGBA") or mask.mode.startswith("I")
        return np.asarray(mask if plain else mask.convert("RGB"))
    except (FovealError, MemoryError):
        raise
    except Exception as e:  # a ragged list, a damaged file: NumPy and Pillow raise whatever they meet
        raise InputError(f"the mask cannot be read: {e}") from e


def _pixels(image: Any) -> pixels.Pixels:
    return pixels.from_pillow(image) if isinstance(image, Image.Image) else pixels.from_array(image)


def _search(encoder: Encoder, fits: Any, above: bool) -> Stream:
    """The finest stream for which ``fits`` still holds (``above``: the coarsest for which it no longer does), by
    bisection over re-quantised streams; the end of the range when the target lies outside."""
    low, high = 0, MAX_LEVEL
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


def _missed(message: str) -> None:
    warnings.warn(message, FovealWarning, stacklevel=4)


def _psnr(encoder: Encoder, contents: container.Contents) -> float:
    """RGB PSNR in dB as a decoder would show it."""
    rgb = viewing.show(encoder.network, decode(encoder.network, contents, "error"), contents)
    error = np.square(rgb.astype(np.float64) - encoder.rgb).mean()
    return float(10 * np.log10(255.0**2 / max(error, 1e-9)))


@exact()
def golden_digest(model: str = registry.DEFAULT) -> str:
    """SHA-256 (16 hex digits) of the coded streams and decoded integers of a synthetic picture: equal on every machine."""
    y, x = np.mgrid[0:150, 0:210]
    planes = (x * 5 + y * 3, (x * y) // 7, (x // 9 * 40 + y // 11 * 23) ^ (x * x // 50))
    rgb = np.stack([(p % 256).astype(np.uint8) for p in planes], -1)
    network = Network.load(model)
    found = hashlib.sha256()
    for level in (96, 605, 1264):
        encoder = Encoder(network, rgb, None, 4, 3)
        encoder.layout, encoder.care = Layout(3, version=1), 1.0  # the digests that weights carry are of these
        contents = contents_of(encoder, encoder.at(level, finish=False))
        values = decode(network, contents, "error").values.to(torch.int32).numpy()
        for part in (contents.base, *(p.payload for p in contents.packets), values.tobytes()):
            found.update(part)
    return found.hexdigest()[:16]
