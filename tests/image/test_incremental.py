"""Decoding while a file arrives, and what is shown when parts of it do not."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import foveal
from foveal import container
from foveal.image import viewing


@pytest.fixture(scope="module")
def data(photo):
    return foveal.compress(photo, quality=80, packets=5)


@pytest.fixture(scope="module")
def rich(photo):
    return foveal.compress(
        np.dstack([photo, photo[..., 0]]), packets=3, exif=b"II*\0" + bytes(8), icc_profile=b"profile"
    )


def fed(data, step, **options):
    decoder, pictures = foveal.Decoder(**options), []
    for start in range(0, len(data), step):
        if (picture := decoder.feed(data[start : start + step])) is not None:
            pictures.append(picture)
    return decoder, pictures


def same(a, b):
    return a.mode == b.mode and np.array_equal(np.asarray(a), np.asarray(b)) and a.info == b.info


@pytest.mark.parametrize("step", [1, 7, 100, 10**6])
def test_pieces_of_any_size_end_in_the_same_picture(rich, step):
    decoder, pictures = fed(rich, step)
    assert decoder.finished and decoder.image is pictures[-1]
    assert same(decoder.flush(), foveal.decompress(rich))
    assert not decoder.concealed.any()


def test_a_picture_for_the_base_layer_and_each_packet_and_no_other(data, monkeypatch):
    calls = []
    show = viewing.show
    monkeypatch.setattr(viewing, "show", lambda *a: calls.append(1) or show(*a))
    _, pictures = fed(data, 1)
    assert len(calls) == 8  # three parts of the base, five packets; the end of the file changes no pixel
    assert len(pictures) == 9


def test_what_stands_before_the_packets_is_not_read_again_for_each(rich, monkeypatch):
    """A colour profile may have 16 MiB and a file 65535 packets."""
    sizes = []
    read = container.read
    monkeypatch.setattr(container, "read", lambda data, **how: sizes.append(len(data)) or read(data, **how))
    decoder, _ = fed(rich, 64)
    assert decoder.finished and len(sizes) == 5  # three parts of the base, the filter, the end


def test_packets_that_come_together_are_shown_once(data, monkeypatch):
    calls = []
    show = viewing.show
    monkeypatch.setattr(viewing, "show", lambda *a: calls.append(1) or show(*a))
    fed(data, len(data))
    assert len(calls) == 1


def test_each_picture_is_that_of_the_file_cut_there(data):
    chunks = container.list_chunks(data)
    decoder = foveal.Decoder()
    for chunk in chunks:
        start = 0 if chunk is chunks[0] else chunk.offset
        picture = decoder.feed(data[start : chunk.offset + 12 + chunk.length])
        if chunk.type in ("BASE", "BAS2", "BAS3", "PCKT"):
            report = foveal.decode_report(data[: chunk.offset + 12 + chunk.length])
            assert same(picture, report.image)
            assert np.array_equal(decoder.concealed, report.concealed)
    assert decoder.finished


@pytest.mark.parametrize("on_loss", ["error", "conceal"])
@settings(max_examples=25, deadline=None)
@given(at=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.integers(0, 10**6), step=st.integers(50, 5000))
def test_damaged_and_cut_files_end_as_in_one_go(rich, on_loss, at, bit, cut, step):
    damaged = bytearray(rich)
    damaged[at % len(rich)] ^= 1 << bit
    damaged = bytes(damaged[: len(rich) - cut % len(rich) // 4])

    def outcome(decode):
        try:
            return decode()
        except foveal.FovealError as error:
            return error

    one = outcome(lambda: foveal.decompress(damaged, on_loss=on_loss))
    other = outcome(lambda: fed(damaged, step, on_loss=on_loss)[0].flush())
    if isinstance(one, foveal.FovealError):
        assert isinstance(other, foveal.FovealError)
    else:
        assert same(one, other)


def test_a_chunk_that_claims_to_be_longer_than_the_file_does_not_swallow_the_rest(rich):
    packet = next(chunk for chunk in container.list_chunks(rich) if chunk.type == "PCKT")
    damaged = bytearray(rich)
    damaged[packet.offset + 1] ^= 128
    for step in (50, len(rich)):
        decoder, _ = fed(bytes(damaged), step, on_loss="conceal")
        assert same(decoder.flush(), foveal.decompress(bytes(damaged), on_loss="conceal"))
    assert 0 < decoder.concealed.sum() < decoder.concealed.size


def test_a_damaged_colour_profile_does_not_take_the_picture(rich):
    profile = next(chunk for chunk in container.list_chunks(rich) if chunk.type == "iCCP")
    damaged = bytearray(rich)
    damaged[profile.offset + 9] ^= 1
    decoder, _ = fed(bytes(damaged), 50)
    assert same(decoder.flush(), foveal.decompress(bytes(damaged), on_loss="conceal"))
    with pytest.raises(foveal.CorruptError):
        fed(bytes(damaged), 50, on_loss="error")


def test_bytes_behind_the_end_are_refused_whenever_they_come(data):
    decoder = foveal.Decoder(on_loss="error")
    decoder.feed(data)
    with pytest.raises(foveal.CorruptError, match="behind the end"):
        decoder.feed(b"more")
    with pytest.raises(foveal.InputError, match="str"):
        decoder.feed("text")


def test_foreign_bytes_are_refused_at_once_and_nothing_is_no_picture():
    with pytest.raises(foveal.NotFovealError):
        foveal.Decoder().feed(b"x" * 50)
    decoder = foveal.Decoder()
    assert decoder.feed(b"") is None and decoder.image is None and decoder.concealed is None
    with pytest.raises(foveal.TruncatedError):
        decoder.flush()
    with pytest.raises(foveal.InputError, match="on_loss"):
        foveal.Decoder(on_loss="maybe")


def test_a_flipped_byte_conceals_that_packet_alone(data, photo):
    chunks = [chunk for chunk in container.list_chunks(data) if chunk.type == "PCKT"]
    whole = foveal.decode_report(data)
    before = np.zeros_like(whole.concealed)
    for chunk in chunks:
        damaged = bytearray(data)
        damaged[chunk.offset + 15] ^= 4
        with pytest.raises(foveal.CorruptError):
            foveal.decompress(bytes(damaged))
        with pytest.raises(foveal.CorruptError):
            foveal.decompress(bytes(damaged), on_loss="auto")
        report = foveal.decode_report(bytes(damaged))
        assert report.packets_read == report.packets - 1 == 4
        assert report.concealed.any() and not (report.concealed & before).any()
        before |= report.concealed
    assert before.sum() == (foveal.importance(photo, quality=80).classes > 0).sum()
    assert whole.damaged == () and not whole.concealed.any()


def test_missing_packets_of_an_intact_file_are_concealed_when_it_is_left_to_the_file(data):
    cut = foveal.truncate(data, len(data) * 2 // 3)
    with pytest.raises(foveal.CorruptError, match="missing"):
        foveal.decompress(cut)
    automatic, asked = foveal.decode_report(cut, on_loss="auto"), foveal.decode_report(cut, on_loss="conceal")
    assert same(automatic.image, asked.image) and automatic.concealed.any()
    assert "packets missing" in automatic.damaged[0]
    with pytest.raises(foveal.TruncatedError):
        foveal.decompress(data[:-5], on_loss="auto")


@pytest.mark.parametrize("quality", [40, 60, 85])
def test_every_packet_makes_the_picture_better(quality):
    with Image.open(Path(__file__).parents[2] / "demo" / "dog.png") as image:
        original = np.asarray(image.convert("RGB").crop((100, 100, 484, 356)))
    _, pictures = fed(foveal.compress(original, quality=quality, packets=8), 40)
    errors = [np.square(np.asarray(p, float) - original).mean() for p in pictures]
    psnr_db = 10 * np.log10(255**2 / np.array(errors))
    assert len(psnr_db) in (11, 12)  # the end may come with the last packet
    assert (np.diff(psnr_db) >= -0.05).all(), psnr_db.round(2)
