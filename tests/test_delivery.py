"""Files cut to a size, sent as datagrams, and made of those that arrive."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import foveal
from foveal import container, datagrams


def picture() -> Image.Image:
    """96x80 RGBA with edges, noise and a hole, EXIF and a made-up profile."""
    y, x = np.mgrid[:80, :96]
    planes = [x * 2 + y, y * 3, 255 - x * 2 + (x // 9 % 2) * 70, np.where((x - 40) ** 2 + (y - 40) ** 2 < 400, 0, 255)]
    pixels = np.stack(planes, -1) % 256
    pixels[:40, :48, :3] += np.random.default_rng(0).integers(-60, 60, (40, 48, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def whole() -> bytes:
    return foveal.compress(
        picture(), quality=90, mtu=300, exif=b"II*\0" + bytes(8), icc_profile=bytes(700), xmp=b"<x/>"
    )


def types(data: bytes) -> list[str]:
    return [chunk.type for chunk in container.list_chunks(data)]


def test_all_datagrams_make_the_same_bytes(whole: bytes) -> None:
    sent = foveal.pack(whole, mtu=300)
    assert max(map(len, sent)) <= 300
    assert foveal.unpack(reversed(sent)) == whole
    assert foveal.unpack(foveal.pack(whole, mtu=1200, copies=1)) == whole


def test_packets_that_are_too_large_are_parted_without_loss() -> None:
    one = foveal.compress(picture(), quality=90)
    arrived = foveal.unpack(foveal.pack(one, mtu=256))
    assert types(arrived).count("PCKT") > types(one).count("PCKT") == 1
    assert np.array_equal(np.asarray(foveal.decompress(arrived)), np.asarray(foveal.decompress(one)))
    assert foveal.repack(arrived, packets=1) == one


@pytest.mark.filterwarnings("ignore:.*did not arrive:foveal.FovealWarning")
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_subset_with_duplicates_and_damage_decodes_or_says_that_the_base_is_lost(
    whole: bytes, data: st.DataObject
) -> None:
    sent = foveal.pack(whole, mtu=300, copies=1.6)
    kept = [m for m in sent if data.draw(st.booleans())] + data.draw(st.lists(st.sampled_from(sent), max_size=4))
    flipped = bytearray(data.draw(st.sampled_from(sent)))
    flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    data.draw(st.randoms()).shuffle(kept)
    try:
        file = foveal.unpack([bytes(flipped), *kept])
    except (foveal.CorruptError, foveal.InputError) as error:
        assert "base" in str(error) or "no intact datagram" in str(error)
        return
    report = foveal.decode_report(file, on_loss="auto")
    assert report.image.size == (96, 80)
    assert report.packets_read == types(file).count("PCKT")
    assert bool(report.concealed.any()) == (report.packets_read < report.packets)


def test_a_lost_colour_profile_or_alpha_plane_does_not_take_the_picture(whole: bytes) -> None:
    sent = [m for m in foveal.pack(whole, mtu=300) if m[8] < 2]
    with pytest.warns(foveal.FovealWarning, match="the alpha plane did not arrive"):
        file = foveal.unpack(sent)
    assert types(file)[:3] == ["HEAD", "BASE", "BAS2"] and types(file)[-2:] == ["PCKT", "IEND"]
    report = foveal.decode_report(file, on_loss="auto")
    assert report.image.mode == "RGBA" and np.asarray(report.image)[..., 3].min() == 255
    assert not report.concealed.any()
    assert "ALPH" in " ".join(report.damaged)


@pytest.mark.parametrize(("kind", "name"), [(2, "alpha"), (3, "iccp"), (4, "exif"), (5, "xmp")])
def test_what_is_lost_beside_packets_is_told(whole: bytes, kind: int, name: str) -> None:
    sent = foveal.pack(whole, mtu=300)
    of_kind = [m for m in sent if m[8] == kind]
    assert of_kind
    whole_name = "the alpha plane" if name == "alpha" else "a colour profile, EXIF or XMP"
    told = whole_name if len(of_kind) == 1 else f"1 of {len(of_kind)} datagrams of {name}"
    with pytest.warns(foveal.FovealWarning, match=f"^{told}.* did not arrive; the file is without$"):
        file = foveal.unpack([m for m in sent if m != of_kind[0]])
    assert len(file) < len(whole)


def test_a_lost_alpha_plane_is_told_beside_lost_packets(whole: bytes) -> None:
    sent = [m for m in foveal.pack(whole, mtu=300, parity=0) if m[8] not in (2, 5)]
    lost = next(m for m in sent if m[8] == 1)
    with pytest.warns(foveal.FovealWarning, match="^the alpha plane did not arrive; the file is without$"):
        foveal.unpack([m for m in sent if m != lost])


def test_packets_that_are_all_lost_are_no_matter_of_warnings(whole: bytes) -> None:
    file = foveal.unpack([m for m in foveal.pack(whole, mtu=300) if m[8] not in (1, 6)])
    assert foveal.decode_report(file, on_loss="conceal").packets_read == 0
    assert types(file)[-4:] == ["ALPH", "eXIF", "xMP_", "IEND"]


def test_a_lost_packet_alone_is_no_matter_of_warnings(whole: bytes) -> None:
    sent = foveal.pack(whole, mtu=300, parity=0)
    (lost,) = [m for m in sent if m[8] == 1][:1]
    report = foveal.decode_report(foveal.unpack([m for m in sent if m != lost]), on_loss="auto")
    assert report.packets_read == report.packets - 1


def test_unknown_chunks_are_left_out_without_a_warning(whole: bytes) -> None:
    chunk = b"\0\0\0\3noTe" + b"abc"
    chunk += zlib.crc32(chunk[4:]).to_bytes(4, "big")
    data = container.expand(whole)
    assert foveal.unpack(foveal.pack(data[:-12] + chunk + data[-12:], mtu=300)) == foveal.unpack(
        foveal.pack(data, mtu=300)
    )


def test_truncation_goes_on_with_what_is_small_when_a_packet_does_not_fit() -> None:
    exif = b"II*\0" + bytes(40)
    for options in ({"packets": 1}, {"mtu": 700}):
        data = foveal.compress(picture().convert("RGB"), quality=90, exif=exif, **options)
        cut = foveal.truncate(data, len(data) - 60)
        assert len(cut) <= len(data) - 60
        assert "eXIF" in types(cut) and container.read(cut, tolerant=True).exif == exif
        assert types(cut).count("PCKT") == types(data).count("PCKT") - 1


def test_truncation_keeps_the_most_important_and_never_more_than_asked(whole: bytes) -> None:
    packets = -1
    for size in [*range(900, len(whole), 150), len(whole)]:
        try:
            cut = foveal.truncate(whole, size)
        except foveal.InputError:
            assert size < 1500
            continue
        assert len(cut) <= size
        report = foveal.decode_report(cut, on_loss="auto")
        numbers = [p.number for p in container.read(cut, tolerant=True).packets]
        assert numbers == list(range(len(numbers)))
        if {"iCCP", "ALPH"} <= set(types(cut)):  # from there on everything goes into packets
            assert report.packets_read >= packets
            packets = report.packets_read
        else:
            assert packets < 0
    assert packets == len(container.read(whole).packets)
    assert foveal.truncate(whole, len(whole)) == whole


def test_truncation_says_what_header_and_base_layer_need(whole: bytes) -> None:
    with pytest.raises(foveal.InputError, match="do not hold header and base layer, which take") as caught:
        foveal.truncate(whole, 30)
    needed = int(str(caught.value).split("take ")[1].split(";")[0])
    smallest = foveal.truncate(whole, needed)
    assert len(smallest) == needed and types(smallest) == ["HEAD", "BASE", "IEND"]
    with pytest.raises(foveal.InputError):
        foveal.truncate(whole, needed - 1)


@pytest.mark.parametrize("action", [lambda d: foveal.truncate(d, 10**6), foveal.pack])
def test_only_intact_files_are_cut_or_sent(whole: bytes, action) -> None:
    damaged = bytearray(whole)
    damaged[-40] ^= 1
    with pytest.raises(foveal.CorruptError):
        action(bytes(damaged))
    with pytest.raises(foveal.FormatError):
        action(whole[:-20])
    with pytest.raises(foveal.NotFovealError):
        action(b"not a file of ours at all")
    with pytest.raises(foveal.InputError, match="NoneType"):
        action(None)


@pytest.mark.parametrize("mtu", [None, 300])
def test_what_lacks_its_end_or_its_base_layer_is_not_cut(mtu: int | None) -> None:
    data = foveal.compress(picture(), quality=50, mtu=mtu)
    chunks = container.list_chunks(data)
    for at in range(4, 30) if mtu is None else [chunk.offset for chunk in chunks]:
        with pytest.raises(foveal.FormatError):
            foveal.truncate(data[:at], 10)
    head = container.expand(data)[: chunks[1].offset]
    stray = b"\0\0\0\x01abcdx" + zlib.crc32(b"abcdx").to_bytes(4, "big")
    for other in (container.SIGNATURE + stray, head + stray):
        with pytest.raises(foveal.FormatError):
            foveal.truncate(other, 10)


def test_alpha_that_contradicts_its_length_is_told_as_such(whole: bytes) -> None:
    sent = [datagrams.Datagram.from_bytes(d) for d in foveal.pack(whole, mtu=300)]
    wrong = [replace(d, size=d.size + 5) if d and d.kind == datagrams.ALPHA else d for d in sent]
    with pytest.warns(foveal.FovealWarning, match="^bytes of alpha did not arrive"):
        foveal.unpack(d.to_bytes() for d in wrong if d)


def test_arguments_of_another_kind_are_refused(whole: bytes) -> None:
    with pytest.raises(foveal.InputError, match="'x'"):
        foveal.truncate(whole, "x")  # type: ignore[arg-type]
    with pytest.raises(foveal.InputError, match="list"):
        foveal.unpack(whole)  # type: ignore[arg-type]
    for nothing in (None, 5, [None], ["a" * 40]):
        with pytest.raises(foveal.InputError, match=r"datagrams? (is|are) given as \w+; give"):
            foveal.unpack(nothing)  # type: ignore[arg-type]
    for size in (float("nan"), "900"):
        with pytest.raises(foveal.InputError, match="not a number of bytes"):
            foveal.truncate(whole, size)  # type: ignore[arg-type]
    assert foveal.truncate(whole, np.int64(2000)) == foveal.truncate(whole, 2000)  # type: ignore[arg-type]
    sent = foveal.pack(whole, mtu=300, copies=np.float32(2))  # type: ignore[arg-type]
    assert foveal.unpack(map(memoryview, sent)) == whole  # type: ignore[arg-type]
    with pytest.raises(foveal.InputError, match="model"):
        foveal.compress(np.zeros((8, 8), np.uint8), model=["s"])  # type: ignore[arg-type]
    assert foveal.pack(whole, mtu=np.int64(1200)) == foveal.pack(whole, mtu=1200)  # type: ignore[arg-type]


def test_a_file_with_packets_missing_can_be_sent_on(whole: bytes) -> None:
    cut = foveal.truncate(whole, len(whole) * 3 // 4)
    assert foveal.unpack(foveal.pack(cut, mtu=300)) == cut


def test_datagrams_that_are_no_file_are_a_typed_error() -> None:
    from foveal import datagrams

    for base in (b"nonsense", container.SIGNATURE, foveal.compress(picture())):
        sent = datagrams.split(1, datagrams.Sections(base, {0: b"12345678x"}, 1), 1200, 1)
        with pytest.raises(foveal.FormatError):
            foveal.unpack([d.to_bytes() for d in sent])
