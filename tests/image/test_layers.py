"""Quality layers, tokens spread over packets, the base layer in parts; and that files of version 1 still decode."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import foveal
from foveal import container
from foveal.errors import CorruptError, InputError
from foveal.image import codec, packets
from foveal.image.decoder import begin, decode
from foveal.image.encoder import Encoder
from foveal.image.partition import Layout


def shown(data, **options):
    return np.asarray(foveal.decompress(data, **options))


def psnr_db(a, b):
    return 10 * np.log10(255.0**2 / max(np.square(np.asarray(a, np.float64) - b).mean(), 1e-9))


def values_of(network, data):
    return decode(network, container.read(data), "error").values


def with_packets(data, numbers):
    """The file with these of its packets alone, and good checksums."""
    contents = container.read(data)
    return container.write(replace(contents, packets=tuple(contents.packets[n] for n in numbers)))


@pytest.fixture(scope="module")
def layered(photo):
    """Three layers of four packets each, then the dropped patches in four."""
    return foveal.compress(photo, quality=70, keep=0.6, packets=4, layers=3)


@pytest.fixture(scope="module")
def plain(photo):
    return foveal.compress(photo, quality=70, keep=0.6)


# --- layers ---


@pytest.mark.parametrize("options", [{"packets": 1}, {"packets": 3}, {"mtu": 400}])
@pytest.mark.parametrize("layers", [2, 5])
def test_layers_hold_what_one_packet_holds_and_the_dropped_patches(network, photo, plain, options, layers):
    data = foveal.compress(photo, quality=70, keep=0.6, layers=layers, **options)
    kept = codec.choose(photo, keep=0.6, threshold=None, alpha=None, mask=None).ravel() > 0
    assert (values_of(network, data)[kept] == values_of(network, plain)[kept]).all()
    assert psnr_db(photo, shown(data)) > psnr_db(photo, shown(plain)) + 0.5
    assert (foveal.inspect(data).layers, foveal.inspect(plain).layers) == (layers, 1)


def test_without_the_last_layer_the_dropped_patches_are_as_in_a_plain_file(layered, plain):
    """But for the filter, which is fitted to the whole file."""
    before, same = (
        container.write(replace(container.read(data, tolerant=True), filter=None))
        for data in (with_packets(layered, range(12)), plain)
    )
    assert np.array_equal(shown(before, on_loss="auto"), shown(same))
    assert foveal.decode_report(before).concealed.sum() == foveal.inspect(plain).dropped


def test_every_layer_makes_all_of_the_picture_better(photo, layered):
    steps = [psnr_db(photo, shown(with_packets(layered, range(n)), on_loss="auto")) for n in (0, 4, 8, 12, 16)]
    assert (np.diff(steps) > 0.5).all(), steps


@pytest.mark.parametrize("quality", [40, 60, 85])
@pytest.mark.parametrize("layers", [2, 5])
def test_every_prefix_decodes_and_no_packet_makes_it_worse(quality, layers):
    with Image.open(Path(__file__).parents[2] / "demo" / "dog.png") as image:
        original = np.asarray(image.convert("RGB").crop((100, 100, 484, 356)))
    data = foveal.compress(original, quality=quality, packets=2, layers=layers)
    ends = [c.offset + 12 + c.length for c in container.list_chunks(data) if c.type in ("BASE", "BAS2", "BAS3", "PCKT")]
    steps = [psnr_db(original, shown(data[:end], on_loss="conceal")) for end in ends]
    assert (np.diff(steps) >= -0.05).all(), np.round(steps, 2)


def test_a_flipped_byte_conceals_the_tokens_of_that_packet_alone(layered):
    whole = shown(layered)
    seen = np.zeros((10, 13), int)
    chunks = [chunk for chunk in container.list_chunks(layered) if chunk.type == "PCKT"]
    for number, chunk in enumerate(chunks):
        damaged = bytearray(layered)
        damaged[chunk.offset + 15] ^= 1
        report = foveal.decode_report(bytes(damaged))
        useless = 2 - number // 4 if number < 12 else 0
        assert report.packets_read == 16 - 1 - useless
        assert ("refine what is lost" in " ".join(report.damaged)) == (useless > 0)
        assert report.concealed.any() and not np.array_equal(np.asarray(report.image), whole)
        seen += report.concealed
        with pytest.raises(CorruptError):
            foveal.decompress(bytes(damaged), on_loss="auto")
    classes = foveal.inspect(layered)
    assert sorted(np.unique(seen)) == [1, 3] and (seen == 1).sum() == classes.dropped


@settings(max_examples=40, deadline=None)
@given(kept=st.sets(st.integers(0, 15)))
def test_any_subset_of_packets_decodes_to_what_it_holds(network, layered, kept):
    data = with_packets(layered, sorted(kept))
    useful = {n for n in kept if n >= 12 or all(m in kept for m in range(n % 4, n, 4))}
    report = foveal.decode_report(data, on_loss="auto")
    assert report.packets_read == len(useful)
    assert np.array_equal(np.asarray(report.image), shown(with_packets(layered, sorted(useful)), on_loss="auto"))
    assert bool(report.concealed.any()) == (len(useful) < 16)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_datagrams_of_a_layered_file_decode(layered, data):
    sent = foveal.pack(layered, mtu=400, copies=2)
    kept = [m for m in sent if data.draw(st.booleans())] + data.draw(st.lists(st.sampled_from(sent), max_size=4))
    data.draw(st.randoms()).shuffle(kept)
    try:
        file = foveal.unpack(kept)
    except (CorruptError, InputError) as error:
        assert "base" in str(error) or "no intact datagram" in str(error)
        return
    report = foveal.decode_report(file, on_loss="auto")
    assert report.image.size == (208, 160)
    assert (len(set(kept)) < len(sent)) or not report.concealed.any()


def test_repacking_changes_layers_and_no_integer(network, photo, layered):
    for options in ({"layers": 1}, {"layers": 5, "packets": 2}, {"layers": 2, "mtu": 300}, {"mtu": 300}):
        other = foveal.repack(layered, **options)
        assert (values_of(network, other) == values_of(network, layered)).all()
        assert foveal.inspect(other).layers == options.get("layers", 3)
        assert foveal.repack(other, packets=4, layers=3) == layered
    without = foveal.compress(photo, quality=70, keep=0.6)
    again = foveal.repack(without, layers=3)  # it holds nothing of the dropped patches
    assert (values_of(network, again) == values_of(network, without)).all()
    assert foveal.repack(again, packets=1, layers=1) == without


def test_feeding_a_layered_file_byte_by_byte_ends_in_the_same_picture(layered):
    decoder = foveal.Decoder()
    pictures = [p for i in range(len(layered)) if (p := decoder.feed(layered[i : i + 1])) is not None]
    assert len(pictures) == 3 + 16 + 1 and decoder.finished and not decoder.concealed.any()
    assert np.array_equal(np.asarray(pictures[-1]), shown(layered))


@pytest.mark.parametrize("layers", [0, 6, 1.5, "two"])
def test_layers_out_of_range_are_refused(photo, plain, layers):
    for action in (lambda: foveal.compress(photo, layers=layers), lambda: foveal.repack(plain, layers=layers)):
        with pytest.raises(InputError, match="layers"):
            action()


@pytest.mark.parametrize("on_loss", ["error", "conceal"])
def test_r18_layers_that_contradict_are_refused(layered, on_loss):
    contents = container.read(layered)
    many = container.write(replace(contents, header=replace(contents.header, layers=6)))
    kept = int(contents.header.rows * contents.header.columns * 0.6)
    across = contents.packets[0]._replace(payload=packets.wrap((kept - 1, 2), b"x"))
    for data in (many, container.write(replace(contents, packets=(across, *contents.packets[1:])))):
        with pytest.raises(CorruptError):
            foveal.decompress(data, on_loss=on_loss)


# --- the base layer in parts ---


def test_the_first_part_of_the_base_makes_a_picture_and_each_other_one_a_better_one(photo, layered):
    ends = {c.type: c.offset + 12 + c.length for c in container.list_chunks(layered)}
    reports = [foveal.decode_report(layered[: ends[name]]) for name in ("BASE", "BAS2", "BAS3")]
    steps = [psnr_db(photo, np.asarray(report.image)) for report in reports]
    assert steps == sorted(steps) and steps[0] > 12
    assert all(report.concealed.all() and report.packets_read == 0 for report in reports)
    for name, report in zip(("BASE", "BAS2"), reports, strict=False):
        cut = foveal.truncate(layered, ends[name] + 12)
        assert np.array_equal(shown(cut, on_loss="auto"), np.asarray(report.image))
        assert foveal.unpack(foveal.pack(cut)) == cut
        with pytest.raises(CorruptError, match="part of the base layer"):
            foveal.decompress(cut)


def test_packets_behind_a_damaged_part_of_the_base_count_as_lost(layered):
    for name in ("BAS2", "BAS3"):
        chunk = next(c for c in container.list_chunks(layered) if c.type == name)
        damaged = bytearray(layered)
        damaged[chunk.offset + 10] ^= 1
        report = foveal.decode_report(bytes(damaged))
        assert np.array_equal(np.asarray(report.image), shown(layered[: chunk.offset], on_loss="conceal"))
        assert report.packets_read == 0 and report.concealed.all()
        decoder = foveal.Decoder()
        decoder.feed(bytes(damaged))
        assert np.array_equal(np.asarray(decoder.flush()), np.asarray(report.image))


# --- tokens spread over packets ---


@given(st.integers(1, 20), st.integers(1, 20), st.data())
def test_spreading_orders_all_tokens_by_class_and_quarter(h, w, data):
    random = np.random.default_rng(data.draw(st.integers(0, 9)))
    classes, salience = random.integers(0, 4, (h, w)).astype(np.uint8), random.integers(0, 50, h * w)
    ordered = packets.order(classes, salience)
    found = packets.spread(ordered, classes, w)
    assert sorted(found) == sorted(ordered)
    assert (np.diff(classes.ravel()[found].astype(int)) <= 0).all()
    for c in (1, 2, 3):
        own, before = (order[classes.ravel()[order] == c] for order in (found, ordered))
        for quarter in range(4):
            part = slice(-(-len(own) * quarter // 4), -(-len(own) * (quarter + 1) // 4))
            assert set(own[part]) == set(before[part])


def test_neighbours_travel_in_different_packets(network, photo):
    """Of patches side by side, the share in one packet: what chance gives, or less."""
    data = foveal.compress(photo, keep="all", quality=90, packets=12)
    contents = container.read(data)
    decoding = begin(network, contents)
    packet = np.zeros(decoding.have.size, int)
    for number, one in enumerate(contents.packets):
        first, count = packets.unwrap(one.payload, packet.size)[0]
        packet[decoding.layers[0].tokens[first : first + count]] = number
    grid = packet.reshape(decoding.grid)
    together = np.mean([*(grid[1:] == grid[:-1]).ravel(), *(grid[:, 1:] == grid[:, :-1]).ravel()])
    assert together < 1.2 / 12


# --- version 1 ---


def test_files_of_version_1_decode_whatever_their_packets(network, photo):
    encoder = Encoder(network, photo, None, 4, 1)
    encoder.layout = Layout(4, version=1)
    old = container.write(codec.contents_of(encoder, encoder.at(900)))
    new = foveal.repack(old, packets=4)
    assert [container.read(data).header.version for data in (old, new)] == [1, 2]
    assert [c.type for c in container.list_chunks(old)].count("PCKT") == 4
    assert "BAS2" not in [c.type for c in container.list_chunks(old)]
    assert (values_of(network, old) == values_of(network, new)).all()
    cut = foveal.truncate(old, len(old) - 100)
    assert foveal.decode_report(cut, on_loss="auto").packets_read == 3
    assert foveal.unpack(foveal.pack(old)) == old


def test_a_plain_file_is_of_version_1_and_shorter(photo, plain):
    assert container.read(plain).header.version == 1
    parted = foveal.repack(plain, packets=2)
    chunks = len(container.expand(plain))  # the short form spares more
    assert container.read(parted).header.version == 2 and len(plain) < chunks < len(parted) < chunks + 80
