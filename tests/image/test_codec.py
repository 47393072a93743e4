"""The whole image codec: every size and mode, targets, dropped patches, packets that are lost, and hostile files."""

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import foveal
from foveal import container, registry
from foveal.errors import (
    CorruptError,
    FormatError,
    InputError,
    LimitError,
    UnknownModelError,
    VersionError,
)
from foveal.image import codec, packets
from foveal.image.decoder import decode
from foveal.image.quantize import level_of


def shown(data, **options):
    return np.asarray(foveal.decompress(data, **options))


def psnr_db(a, b):
    return 10 * np.log10(255.0**2 / max(np.square(np.asarray(a, np.float64) - b).mean(), 1e-9))


def values_of(network, data, on_loss="error"):
    """What both sides must agree on: decoded integers and which tokens had symbols."""
    found = decode(network, container.read(data, tolerant=on_loss == "conceal"), on_loss)
    return found.values, found.masked


def rewritten(data, **changes):
    """The file with other contents and good checksums."""
    contents = container.read(data, tolerant=True)
    return container.write(replace(contents, damaged=(), **changes))


@pytest.fixture(scope="module")
def whole(photo):
    """A file of four packets with every patch kept."""
    return foveal.compress(photo, keep="all", packets=4)


# --- every picture comes back ---


@pytest.mark.parametrize("size", [(1, 1), (17, 33), (2, 100), (16, 16), (300, 200), (129, 65)])
@pytest.mark.parametrize("keep", ["auto", "all"])
def test_sizes(drawing, size, keep):
    picture = drawing(*size)
    out = shown(foveal.compress(picture, quality=80, keep=keep))
    assert out.shape == picture.shape and out.dtype == np.uint8
    assert psnr_db(picture, out) > 20


def test_twelve_megapixels(drawing):
    picture = np.tile(drawing(750, 800), (4, 5, 1))
    data = foveal.compress(picture, keep=0.1, quality=20, effort=1)
    info = foveal.inspect(data)
    assert (info.width, info.height, info.patches) == (4000, 3000, 250 * 188)
    assert info.dropped == pytest.approx(0.9 * info.patches, abs=1)
    out = shown(data)
    assert out.shape == picture.shape and psnr_db(picture, out) > 15


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA"])
def test_modes(photo, mode):
    image = Image.fromarray(photo[:70, :90]).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(np.arange(70 * 90, dtype=np.uint32).astype(np.uint8).reshape(70, 90)))
    out = foveal.decompress(foveal.compress(image, quality=90))
    assert out.mode == mode and out.size == image.size
    assert psnr_db(np.asarray(image.convert("RGB")), np.asarray(out.convert("RGB"))) > 25
    if "A" in mode:
        assert (np.asarray(out.getchannel("A")) == np.asarray(image.getchannel("A"))).all()


def test_arrays_and_metadata(photo):
    data = foveal.compress(photo, exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", xmp=b"<x/>")
    image = foveal.decompress(data)
    assert image.info["exif"].endswith(b"II*\0\x08\0\0\0\0\0\0\0\0\0") and image.info["xmp"] == b"<x/>"
    assert (np.asarray(image) == shown(foveal.compress(Image.fromarray(photo)))).all()


def test_coding_is_deterministic(photo):
    assert foveal.compress(photo) == foveal.compress(photo)


# --- rate and quality ---


def test_quality_buys_decibels_with_bytes(photo):
    files = [foveal.compress(photo, quality=q) for q in (0, 20, 40, 60, 80, 100)]
    sizes, quality = [len(f) for f in files], [psnr_db(photo, shown(f)) for f in files]
    assert sizes == sorted(set(sizes)) and quality == sorted(set(quality))
    assert quality[-1] > quality[0] + 6


def test_effort_buys_bytes(photo):
    plain, careful = (foveal.compress(photo, effort=e, keep="all", quality=50) for e in (1, 4))
    assert len(careful) < len(plain)


@pytest.fixture(scope="module")
def ends(photo):
    """The coarsest and the finest file."""
    return [foveal.compress(photo, quality=q) for q in (0, 100)]


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_target_bytes_is_not_exceeded_and_nearly_used(photo, ends, share):
    budget = round(len(ends[0]) + share * (len(ends[1]) - len(ends[0])))
    size = len(foveal.compress(photo, target_bytes=budget))
    assert 0.95 * budget < size <= budget


def test_target_bpp(photo, ends):
    target = 4 * len(ends[0] + ends[1]) / (160 * 208)
    assert 0.95 * target < foveal.inspect(foveal.compress(photo, target_bpp=target)).bpp <= target


@pytest.mark.parametrize("share", [0.1, 0.6])
def test_target_psnr_is_reached_and_hardly_exceeded(photo, ends, share):
    low, high = (psnr_db(photo, shown(data)) for data in ends)
    target = low + share * (high - low)
    assert target <= psnr_db(photo, shown(foveal.compress(photo, target_psnr=target))) < target + 0.3


def test_targets_out_of_reach_give_the_end_of_the_range(photo):
    with pytest.warns(foveal.FovealWarning, match="1 bytes do not hold"):
        assert foveal.inspect(foveal.compress(photo, target_bytes=1)).level == 0
    assert foveal.inspect(foveal.compress(photo, target_bytes=10**9)).level == 79
    with pytest.warns(foveal.FovealWarning, match="target_psnr 99 dB is beyond"):
        assert foveal.inspect(foveal.compress(photo, target_psnr=99.0)).level == 79


# --- which patches are kept ---


@pytest.mark.parametrize(
    ("options", "kept"),
    [({"keep": "all"}, 130), ({"keep": 0.3}, 39), ({"alpha": 2.0}, 65), ({"keep": 1}, 130), ({"threshold": 1e6}, 0)],
    ids=str,
)
def test_forced_choices(photo, options, kept):
    info = foveal.inspect(foveal.compress(photo, **options))
    assert info.patches - info.dropped == kept
    assert info.alpha == (130 / kept if kept else float("inf"))
    assert shown(foveal.compress(photo, **options)).shape == photo.shape


def test_every_colour_of_a_mask_but_black_counts(photo):
    blue = np.zeros(photo.shape, np.uint8)
    blue[:80, :96, 2] = 4  # black, as luma
    half = Image.fromarray(blue[..., 2].astype(np.float32) / 8)
    red = Image.new("P", photo.shape[1::-1])
    red.putpalette([0, 0, 0, 2, 0, 0])
    red.paste(1, (0, 0, 96, 80))
    for given in (blue, Image.fromarray(blue), Image.fromarray(blue).convert("RGBA"), half, red):
        assert foveal.inspect(foveal.compress(photo, mask=given)).dropped == 130 - 30
    grid = (blue[::16, ::16, 2] / 4).astype(np.float64)
    assert foveal.inspect(foveal.compress(photo, mask=grid)).dropped == 130 - 30


@pytest.mark.parametrize(
    ("mask", "told"),
    [
        ([[1, 2], [3]], "cannot be read"),
        (np.full((10, 13), 0.9), "holds float64; give whole numbers"),
        (Image.new("F", (13, 10), 0.5), "holds float32; give whole numbers"),
        (np.full((10, 13), "a"), "mask is <U1; give booleans or numbers"),
        (np.full((10, 13), 1j), "mask is complex128; give booleans or numbers"),
    ],
)
def test_masks_that_say_nothing(photo, mask, told):
    with pytest.raises(InputError, match=told):
        foveal.compress(photo, mask=mask)


def test_a_damaged_mask(photo):
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "PNG")
    with pytest.raises(InputError, match="the mask cannot be read"):
        foveal.compress(photo, mask=Image.open(io.BytesIO(file.getvalue()[:3000])))


@pytest.mark.parametrize("options", [{"quality": float("nan")}, {"quality": None}, {"quality": 1000}, {"model": [1]}])
def test_importance_refuses_what_compress_refuses(photo, options):
    for door in (foveal.importance, foveal.compress):
        with pytest.raises(InputError, match=next(iter(options))):
            door(photo, **options)


def test_a_share_that_is_several(photo):
    with pytest.raises(InputError, match="keep"):
        foveal.compress(photo, keep=np.array([0.5, 0.2]))


def test_masks(photo):
    mask = np.zeros(photo.shape[:2], bool)
    mask[:80, :96] = True
    for given in (mask, Image.fromarray(mask), mask[::16, ::16]):
        assert foveal.inspect(foveal.compress(photo, mask=given)).dropped == 130 - 30
    out = shown(foveal.compress(photo, mask=mask, quality=80))
    assert psnr_db(photo[:80, :96], out[:80, :96]) > psnr_db(photo[80:], out[80:]) + 1


def test_classes_spend_bits_where_the_mask_says(photo):
    classes = np.ones((10, 13), np.uint8)
    classes[:, :6] = 3
    plain, finer = (foveal.compress(photo, quality=40, mask=m) for m in (np.ones_like(classes), classes))
    a, b = shown(plain)[:, :96], shown(finer)[:, :96]
    assert psnr_db(photo[:, :96], b) > psnr_db(photo[:, :96], a) + 0.5
    assert len(finer) > len(plain)


def test_every_patch_refined_is_only_finer(photo):
    """The base layer keeps the picture's level when no token has it."""
    quality = [psnr_db(photo, shown(foveal.compress(photo, quality=40, mask=np.full((10, 13), c)))) for c in (1, 2, 3)]
    assert quality == sorted(quality) and quality[2] > quality[0] + 0.5


def test_auto_is_no_worse_than_keeping_all(photo):
    """A patch is dropped where that lowers D + R / lambda; judged on the linear coefficients, hence the slack."""
    level = level_of(30)
    weight = 0.0004 * 2 ** (level / 128)

    def cost(data):
        return 8 * len(data) / photo[..., 0].size + weight * np.square(shown(data) - photo.astype(float)).mean()

    auto, everything = (foveal.compress(photo, quality=30, keep=k) for k in ("auto", "all"))
    assert cost(auto) < 1.02 * cost(everything)


def test_importance_shows_what_compress_does(photo):
    for options in ({"keep": 0.4}, {"keep": "auto", "quality": 10}, {"threshold": 6.0}):
        found = foveal.importance(photo, **options)
        info = foveal.inspect(foveal.compress(photo, **options))
        assert found.gradient.shape == photo.shape[:2] and found.patch_gradient.shape == found.classes.shape == (10, 13)
        assert int((found.classes == 0).sum()) == info.dropped and found.alpha == info.alpha
        assert found.kept == pytest.approx(1 - info.dropped / 130)


def test_a_dropped_patch_reaches_no_symbol_of_another(network, photo):
    """Its details change nothing in the vision transformer's sight: kept latents are equal bit for bit, and so are
    packets when the base layer is."""
    classes = np.random.default_rng(1).integers(0, 2, (10, 13)).astype(np.uint8)
    other = photo.copy()
    for y, x in np.argwhere(classes == 0):
        patch = other[16 * y : 16 * y + 16, 16 * x : 16 * x + 16]
        patch[:] = np.random.default_rng(y * 13 + x).integers(0, 256, patch.shape)
    visible = torch.from_numpy(classes.ravel() > 0)
    first, second = (codec.Encoder(network, p, classes, 4, 1) for p in (photo, other))
    assert (first.latents(classes)[visible] == second.latents(classes)[visible]).all()
    assert (first.latents(classes)[~visible] != second.latents(classes)[~visible]).any()
    second.coefficients = first.coefficients  # the same base layer; latents are from the other picture's pixels
    a, b = first.at(600), second.at(600)
    assert a.base == b.base and a.packets == b.packets and a.class_map == b.class_map


def test_packets_do_not_depend_on_a_dropped_patchs_detail(photo):
    """Through the front door: a dropped patch that keeps its mean, at a level where its ripple is below the thumbnail's
    and hyper-latent's steps, leaves class map and packets as they were."""
    mask = np.ones((10, 13), np.uint8)
    mask[4, 5] = 0
    flat, rippled = photo.copy(), photo.copy()
    ripple = np.where(np.indices((16, 16)).sum(0) % 2, 1, -1)[..., None]
    flat[64:80, 80:96] = 128
    rippled[64:80, 80:96] = 128 + ripple
    a, b = (container.read(foveal.compress(p, mask=mask, quality=30)) for p in (flat, rippled))
    assert a.base == b.base and a.packets == b.packets and a.classes == b.classes


@pytest.mark.parametrize(
    "options",
    [
        {"quality": -1}, {"quality": 101}, {"quality": float("nan")}, {"quality": "high"}, {"quality": None},
        {"effort": 0}, {"effort": 11}, {"effort": 4.5}, {"packets": 0}, {"packets": 1.5}, {"packets": 65_536},
        {"target_bpp": 0}, {"target_bytes": -3}, {"target_psnr": "x"}, {"target_bpp": 1, "target_psnr": 30},
        {"keep": 0}, {"keep": 1.1}, {"keep": "most"}, {"keep": None}, {"threshold": -1}, {"threshold": "x"},
        {"alpha": 0.5}, {"alpha": "x"}, {"keep": 0.5, "alpha": 2}, {"mask": np.ones((10, 13)), "threshold": 1},
        {"mask": np.ones((3, 3))}, {"mask": np.ones(4)}, {"mask": np.full((10, 13), 7)}, {"model": "xxl"},
    ],
    ids=str,
)  # fmt: skip
def test_bad_options_are_named(photo, options):
    with pytest.raises(InputError) as caught:
        foveal.compress(photo, **options)
    assert any(str(name) in str(caught.value) for name in (*options, "class"))


def test_numpy_numbers_are_numbers(photo):
    small = photo[:32, :32]
    assert foveal.compress(small, quality=np.float32(50), packets=np.int64(2)) == foveal.compress(
        small, quality=50, packets=2
    )


def test_on_loss_is_checked(whole):
    with pytest.raises(InputError, match="on_loss"):
        foveal.decompress(whole, on_loss="ignore")


# --- packets ---


def test_packets_change_nothing_but_the_bytes(network, photo, whole):
    one = foveal.compress(photo, keep="all")
    assert len(container.read(whole).packets) == 4 and len(whole) > len(one)
    assert (values_of(network, one)[0] == values_of(network, whole)[0]).all()
    assert (shown(one) == shown(whole)).all()


@pytest.mark.parametrize("kept", [(), (0,), (3,), (0, 2), (1, 2, 3), (0, 1, 2, 3)])
def test_any_subset_of_packets_decodes(network, photo, whole, kept):
    sent = container.read(whole).packets
    data = rewritten(whole, packets=tuple(sent[n] for n in kept))
    values, masked = values_of(network, data, "conceal")
    full, _ = values_of(network, whole)
    tokens = sum(struct.unpack(">II", sent[n].payload[:8])[1] for n in kept)
    assert int((~masked).sum()) == tokens
    assert (values[~masked] == full[~masked]).all()
    assert psnr_db(photo, shown(data, on_loss="conceal")) > 15
    if len(kept) < 4:
        with pytest.raises(CorruptError, match="conceal"):
            foveal.decompress(data)


def test_more_packets_show_more(photo, whole):
    sent = container.read(whole).packets
    quality = [psnr_db(photo, shown(rewritten(whole, packets=sent[:n]), on_loss="conceal")) for n in range(5)]
    assert quality == sorted(quality)


def test_each_cut_shows_what_arrived(network, whole):
    full, _ = values_of(network, whole)
    chunks = [c for c in container.list_chunks(whole) if c.type == "PCKT"]
    for number, chunk in enumerate(chunks):
        for cut in (chunk.offset, chunk.offset + chunk.length // 2):
            values, masked = values_of(network, whole[:cut], "conceal")
            assert (values[~masked] == full[~masked]).all()
            assert 0 <= int((~masked).sum()) - number * (130 // 4) <= number


def test_the_order_of_packets_does_not_matter(network, whole):
    """A reader hands them over by number; the decoder itself does not care."""
    contents = container.read(whole)
    turned = replace(contents, packets=contents.packets[::-1])
    assert (decode(network, turned, "error").values == decode(network, contents, "error").values).all()


def test_a_damaged_packet_is_concealed(network, photo, whole):
    data = bytearray(whole)
    target = [c for c in container.list_chunks(whole) if c.type == "PCKT"][1]
    data[target.offset + 30] ^= 0x40
    with pytest.raises(CorruptError, match="CRC"):
        foveal.decompress(data)
    _, masked = values_of(network, bytes(data), "conceal")
    assert int(masked.sum()) in (32, 33)
    assert psnr_db(photo, shown(data, on_loss="conceal")) > 15


def test_more_packets_than_tokens(photo):
    data = foveal.compress(photo[:32, :48], keep="all", packets=100)
    assert foveal.inspect(data).packets == 6
    assert (shown(data) == shown(foveal.compress(photo[:32, :48], keep="all"))).all()


def with_header(data, offset, value):
    """Bytes of the HEAD payload replaced, with a good checksum."""
    body = bytearray(data[12:40])
    body[4 + offset : 4 + offset + len(value)] = value
    return data[:12] + bytes(body) + zlib.crc32(body).to_bytes(4, "big") + data[44:]


# --- what a decoder must reject: the streams' part of FORMAT.md's table, R15 to R19 ---


def with_packets(data, *payloads):
    contents = container.read(data)
    header = replace(contents.header, packets=len(payloads))
    sent = tuple(container.Packet(n, p) for n, p in enumerate(payloads))
    return container.write(replace(contents, header=header, packets=sent))


@pytest.mark.parametrize("strict", [True, False])
def test_r15_models(whole, strict):
    header, on_loss = container.read(whole).header, "error" if strict else "conceal"
    for changes in ({"model": 999}, {"weights": b"\0" * 8}):
        with pytest.raises(UnknownModelError):
            foveal.decompress(rewritten(whole, header=replace(header, **changes)), on_loss=on_loss)
    assert registry.name_of(header.model, header.weights) == "s"


@pytest.mark.parametrize("on_loss", ["error", "conceal"])
def test_r17_streams_that_leave_their_range(photo, whole, on_loss):
    ones = b"\xff" * 40
    masked = foveal.compress(photo, keep=0.5)
    for data in (
        rewritten(whole, base=ones),
        rewritten(masked, classes=ones),
        with_packets(masked, ones),
        with_packets(foveal.compress(photo, keep=0.5, packets=2), packets.wrap((0, 65), ones)),
    ):
        with pytest.raises(CorruptError):
            foveal.decompress(data, on_loss=on_loss)


@pytest.mark.parametrize("on_loss", ["error", "conceal"])
def test_r18_runs(whole, on_loss):
    first = container.read(whole).packets[0].payload
    short_or_outside = [b"", b"1234567", *(packets.wrap(run, b"x") for run in ((0, 0), (0, 131), (130, 1)))]
    for payloads in (*[(p,) for p in short_or_outside], (first, first), (first, packets.wrap((31, 99), b"x"))):
        with pytest.raises(CorruptError):
            foveal.decompress(with_packets(whole, *payloads), on_loss=on_loss)


def test_r19_tokens_in_no_packet(whole):
    first = container.read(whole).packets[0].payload
    data = with_packets(whole, first)
    with pytest.raises(CorruptError, match="in no packet"):
        foveal.decompress(data)
    assert shown(data, on_loss="conceal").shape == (160, 208, 3)


def test_newer_files_are_refused(whole):
    with pytest.raises(VersionError, match="pip install -U foveal"):
        foveal.decompress(with_header(whole, 0, b"\3"))


def test_huge_sizes_are_refused_before_anything_is_allocated(whole, monkeypatch):
    contents = container.read(whole)
    monkeypatch.setattr(codec.Network, "load", lambda name: pytest.fail("the model was asked for"))
    huge = replace(contents, header=replace(contents.header, width=65_535, height=65_535))
    with pytest.raises(LimitError, match="65535x65535"):
        container.write(huge)
    data = with_header(whole, 4, b"\xff" * 4)
    for on_loss in ("error", "conceal"):
        with pytest.raises(LimitError, match="65535x65535"):
            foveal.decompress(data, on_loss=on_loss)


def test_other_sizes_are_a_picture_or_refused(whole):
    """The header says another grid than the streams were made for."""
    header = container.read(whole).header
    for width, height in ((1, 1), (208, 144), (500, 20), (1000, 700)):
        try:
            out = shown(rewritten(whole, header=replace(header, width=width, height=height)), on_loss="conceal")
        except FormatError:
            continue
        assert out.shape == (height, width, 3)


@pytest.mark.parametrize("part", ["classes", "base", "packet", "header"])
@pytest.mark.parametrize("on_loss", ["error", "conceal"])
def test_hostile_streams_give_a_picture_or_a_format_error(photo, part, on_loss):
    """Bytes flipped, cut, added or invented, with good checksums: never another error, never no end."""
    small = photo[:64, :80]
    data = foveal.compress(small, mask=np.random.default_rng(5).integers(0, 4, (4, 5)), packets=2)
    contents, random = container.read(data), np.random.default_rng(len(part) + len(on_loss))
    outcomes = set()
    for _ in range(40):
        spoilt = rewritten(data, **{
            "classes": lambda: {"classes": damage(contents.classes, random)},
            "base": lambda: {"base": damage(contents.base, random)},
            "packet": lambda: {"packets": (replace_payload(contents.packets[0], random), contents.packets[1])},
            "header": lambda: {"header": replace(contents.header, level=int(random.integers(0, 1265)))},
        }[part]())  # fmt: skip
        try:
            out = shown(spoilt, on_loss=on_loss)
        except FormatError:
            outcomes.add("refused")
        else:
            assert out.shape == small.shape
            outcomes.add("picture")
    assert "picture" in outcomes


def damage(data, random):
    data = bytearray(data)
    kind = random.integers(4)
    if kind == 0:
        for _ in range(int(random.integers(1, 4))):
            data[random.integers(len(data))] ^= int(random.integers(1, 256))
    elif kind == 1:
        del data[int(random.integers(1, len(data) + 1)) :]
    elif kind == 2:
        data += random.bytes(8)
    else:
        data = random.bytes(len(data))
    return bytes(data) or b"\0"


def replace_payload(packet, random):
    return container.Packet(packet.number, packet.payload[:8] + damage(packet.payload[8:], random))


@pytest.mark.parametrize("other", [{"threshold": 5.0}, {"alpha": 2.0}, {"mask": np.ones((160, 208), bool)}])
def test_keep_all_contradicts_another_choice(photo, other):
    with pytest.raises(foveal.InputError, match=r"keep and .* given together"):
        foveal.compress(photo, keep="all", **other)
