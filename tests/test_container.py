"""The container: round trips, the example of FORMAT.md, each rule of its table, and loss to be forgiven."""

import io
import re
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.container import SIGNATURE, Contents, Packet, list_chunks, read, read_header, read_metadata, write
from foveal.errors import (
    CorruptError,
    InputError,
    LimitError,
    NotFovealError,
    TruncatedError,
    VersionError,
)
from foveal.header import Header, Limits

HEADER = Header(
    width=3,
    height=2,
    mode="L",
    alpha=False,
    model=1,
    weights=bytes.fromhex("0011223344556677"),
    level=448,
    packets=1,
)
SMALL = Contents(HEADER, base=b"\xba\x5e", packets=(Packet(0, b""),))
FULL = Contents(
    header=replace(HEADER, width=40, height=17, mode="RGB", alpha=True, packets=3, classes=3),
    base=b"the base layer",
    packets=(Packet(0, b"most"), Packet(1, b"more"), Packet(2, b"rest")),
    classes=b"class map",
    alpha=b"alpha plane",
    icc=b"profile",
    exif=b"II*\0 tags",
    xmp=b"<x/>",
)
PARTED = Contents(
    header=replace(HEADER, packets=3, version=2, layers=1, complete=True),
    base=b"\xba\x5e",
    packets=(Packet(0, b"coarse"), Packet(1, b"fine"), Packet(2, b"dropped")),
    more=(b"second", b"third"),
)


def chunk(kind: bytes, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(4, "big") + kind + payload + zlib.crc32(kind + payload).to_bytes(4, "big")


def pieces(contents: Contents) -> list[bytes]:
    """The chunks of a file, each as its bytes."""
    data = write(contents)
    return [data[c.offset : c.offset + c.length + 12] for c in list_chunks(data)]


def file_of(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


# --- round trips ---


@pytest.mark.parametrize("contents", [SMALL, FULL, PARTED], ids=["small", "full", "parted"])
def test_read_inverts_write(contents):
    data = write(contents)
    assert read(data) == contents
    assert read(data, tolerant=True) == contents
    assert read(bytearray(data)) == read(memoryview(data)) == contents
    assert write(read(data)) == data


@pytest.mark.parametrize("parts", [0, 1])
def test_a_base_layer_in_parts_may_end_early_and_takes_the_packets_with_it(parts):
    short = replace(PARTED, more=PARTED.more[:parts], packets=())
    found = read(write(short), tolerant=True)
    assert (found.more, found.packets, found.whole_base) == (PARTED.more[:parts], (), False)
    assert "base layer" in found.damaged[0]
    with pytest.raises(InputError, match="packets need all parts"):
        write(replace(PARTED, more=PARTED.more[:parts]))
    data = write(PARTED)
    lost = list_chunks(data)[1 + parts + 1]
    damaged = data[: lost.offset + 8] + b"?" + data[lost.offset + 9 :]
    assert (read(damaged, tolerant=True).more, read(damaged, tolerant=True).packets) == (PARTED.more[:parts], ())


def test_a_picture_without_visible_tokens_has_no_packets():
    contents = replace(SMALL, header=replace(HEADER, packets=0), packets=())
    assert read(write(contents)) == contents


payloads = st.binary(min_size=1, max_size=40)


@given(
    base=payloads,
    words=st.lists(st.binary(max_size=30), max_size=5),
    optional=st.fixed_dictionaries({k: st.none() | payloads for k in ("classes", "alpha", "icc", "exif", "xmp")}),
    width=st.integers(1, 65_535),
    height=st.integers(1, 4096),
    mode=st.sampled_from(["L", "RGB"]),
    level=st.integers(0, 1264),
    parts=st.integers(0, 15),
    weights=st.binary(min_size=8, max_size=8),
)
def test_any_contents_survive(base, words, optional, width, height, mode, level, parts, weights):
    has_alpha = optional["alpha"] is not None
    classes = 1 if optional["classes"] is None else 4
    header = Header(width, height, mode, has_alpha, 65_535, weights, level, len(words), classes)
    packets = tuple(Packet(number, payload) for number, payload in enumerate(words))
    contents = Contents(header, base, packets, **optional)
    if parts:
        header = replace(header, version=2, layers=parts, complete=bool(parts % 2))
        contents = replace(contents, header=header, more=(base, base[::-1]))
    assert read(write(contents)) == contents
    assert Header.from_bytes(header.to_bytes()) == header


def test_the_example_of_the_format_page():
    page = (Path(__file__).parents[1] / "FORMAT.md").read_text(encoding="utf-8")
    block = re.search(r"```hex\n(.*?)```", page, re.DOTALL)
    assert block is not None
    rows = [re.match(r"(?:[0-9A-F]{2} {1,2})+", row) for row in block[1].splitlines()]
    assert write(SMALL) == bytes.fromhex("".join(row[0] for row in rows if row))


def test_grid_rounds_up():
    assert (HEADER.columns, HEADER.rows) == (1, 1)
    assert (FULL.header.columns, FULL.header.rows) == (3, 2)


# --- header first ---


def test_header_needs_44_bytes_only():
    data = write(FULL)
    file = io.BytesIO(data)
    assert read_header(file) == FULL.header
    assert file.tell() == 44
    assert read_header(data[:44]) == FULL.header
    with pytest.raises(TruncatedError):
        read_header(data[:43])


def test_metadata_without_the_rest():
    data = write(FULL)
    assert read_metadata(io.BytesIO(data)) == (FULL.icc, FULL.exif, FULL.xmp)
    damaged = data.replace(b"tags", b"TAGS")
    assert read_metadata(io.BytesIO(damaged)) == (FULL.icc, None, FULL.xmp)
    assert read_metadata(io.BytesIO(data[:60])) == (None, None, None)


def test_list_chunks_shows_damage_without_raising():
    data = write(FULL)
    types = ["HEAD", "iCCP", "CLAS", "BASE", "PCKT", "PCKT", "PCKT", "ALPH", "eXIF", "xMP_", "IEND"]
    chunks = list_chunks(data)
    assert [c.type for c in chunks] == types
    assert all(c.crc_ok for c in chunks)
    assert 8 + sum(c.length + 12 for c in chunks) == len(data)
    damaged = list_chunks(data.replace(b"more", b"MORE"))
    assert [c.crc_ok for c in damaged].index(False) == 5 and sum(c.crc_ok for c in damaged) == 10
    assert [c.type for c in list_chunks(data[:-3])] == types
    assert list_chunks(data + b"tail")[-1] == ("", len(data), 4, False)


def test_no_torch_and_no_numpy_for_the_container():
    code = "import sys, foveal.container; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# --- what write refuses ---


@pytest.mark.parametrize(
    "change",
    [
        {"level": 1265},
        {"classes": 0},
        {"classes": 2},
        {"classes": 5},
        {"patch": 8},
        {"version": 3},
        {"layers": 2},
        {"version": 2, "layers": 16},
        {"version": 2, "layers": 0},
        {"mode": "CMYK"},
        {"weights": b"short"},
        {"model": 65_536},
        {"width": 0},
        {"alpha": True},
    ],
    ids=str,
)
def test_write_refuses_what_no_reader_accepts(change):
    with pytest.raises(InputError):
        write(replace(SMALL, header=replace(HEADER, **change)))


def test_write_refuses_a_class_map_that_the_header_does_not_announce():
    with pytest.raises(InputError, match=r"header\.classes is 1"):
        write(replace(SMALL, classes=b"map"))
    with pytest.raises(InputError, match=r"header\.classes is 3"):
        write(replace(FULL, classes=None))


@pytest.mark.parametrize("numbers", [(1,), (0, 0), (-1,)])
def test_write_refuses_packet_numbers(numbers):
    with pytest.raises(InputError, match="packet numbers"):
        write(replace(SMALL, packets=tuple(Packet(n, b"") for n in numbers)))


def test_write_refuses_empty_payloads():
    with pytest.raises(InputError, match="BASE"):
        write(replace(SMALL, base=b""))


def test_write_keeps_the_limits():
    with pytest.raises(LimitError, match="65536x2"):
        write(replace(SMALL, header=replace(HEADER, width=65_536)))
    with pytest.raises(LimitError, match="pixels"):
        write(replace(SMALL, header=replace(HEADER, width=65_535, height=65_535)))
    for limits in (Limits(max_chunk=23), Limits(max_bytes=60)):
        with pytest.raises(LimitError):
            write(SMALL, limits=limits)
    with pytest.raises(LimitError, match="xMP_"):
        write(replace(FULL, icc=None, exif=None), limits=Limits(max_metadata=3))


# --- what a decoder must reject: the table of FORMAT.md ---

HEAD, BASE, PCKT, IEND = pieces(SMALL)
PARTED_HEAD, _, BAS2, BAS3, _, _, _, IEND = pieces(PARTED)
GOOD_HEAD = HEADER.to_bytes()


def head(offset: int, value: bytes) -> bytes:
    """A HEAD chunk with some bytes of its payload replaced, and a good CRC."""
    return chunk(b"HEAD", GOOD_HEAD[:offset] + value + GOOD_HEAD[offset + len(value) :])


ALPHA_HEAD = head(2, b"\1")
MUST_REJECT = {
    "R1 nothing like it": (b"\x89PNG\r\n\x1a\n" + HEAD + BASE + PCKT + IEND, NotFovealError),
    "R1 text mode": (file_of(HEAD, BASE, PCKT, IEND).replace(b"\r\n", b"\n"), NotFovealError),
    "R2 empty": (b"", TruncatedError),
    "R2 signature only": (SIGNATURE, TruncatedError),
    "R2 no IEND": (file_of(HEAD, BASE, PCKT), TruncatedError),
    "R2 inside a chunk": (file_of(HEAD, BASE, PCKT[:-1]), TruncatedError),
    "R3 CRC": (file_of(HEAD, BASE[:-1] + b"\0", PCKT, IEND), CorruptError),
    "R3 CRC of HEAD": (file_of(HEAD[:-1] + b"\0", BASE, PCKT, IEND), CorruptError),
    "R4 type": (file_of(HEAD, BASE, PCKT, chunk(b"a\0bc"), IEND), CorruptError),
    "R4 type begins with a digit": (file_of(HEAD, chunk(b"1abc"), BASE, PCKT, IEND), CorruptError),
    "R5 HEAD not first": (file_of(BASE, HEAD, PCKT, IEND), CorruptError),
    "R5 ancillary first": (file_of(chunk(b"teXt"), HEAD, BASE, PCKT, IEND), CorruptError),
    "R5 HEAD length": (file_of(chunk(b"HEAD", GOOD_HEAD + b"\0"), BASE, PCKT, IEND), CorruptError),
    "R5 HEAD empty": (file_of(chunk(b"HEAD"), BASE, PCKT, IEND), CorruptError),
    "R5 version 0": (file_of(head(0, b"\0"), BASE, PCKT, IEND), CorruptError),
    "R5 mode": (file_of(head(1, b"\2"), BASE, PCKT, IEND), CorruptError),
    "R5 alpha": (file_of(head(2, b"\2"), BASE, PCKT, IEND), CorruptError),
    "R5 patch": (file_of(head(3, b"\x08"), BASE, PCKT, IEND), CorruptError),
    "R5 width": (file_of(head(4, b"\0\0"), BASE, PCKT, IEND), CorruptError),
    "R5 height": (file_of(head(6, b"\0\0"), BASE, PCKT, IEND), CorruptError),
    "R5 level": (file_of(head(18, b"\x04\xf1"), BASE, PCKT, IEND), CorruptError),
    "R5 classes": (file_of(head(22, b"\x05"), BASE, PCKT, IEND), CorruptError),
    "R5 no classes": (file_of(head(22, b"\x00"), BASE, PCKT, IEND), CorruptError),
    "R5 reserved": (file_of(head(23, b"\1"), BASE, PCKT, IEND), CorruptError),
    "R5 no layers": (file_of(chunk(b"HEAD", PARTED_HEAD[8:31] + b"\x80"), BASE, BAS2, BAS3, PCKT, IEND), CorruptError),
    "R6 version 3": (file_of(head(0, b"\3"), BASE, PCKT, IEND), VersionError),
    "R6 version 3, other length": (file_of(chunk(b"HEAD", b"\3 whatever"), BASE, PCKT, IEND), VersionError),
    "R7 unknown critical": (file_of(HEAD, BASE, chunk(b"NEWS", b"x"), PCKT, IEND), VersionError),
    "R8 HEAD twice": (file_of(HEAD, HEAD, BASE, PCKT, IEND), CorruptError),
    "R8 BASE twice": (file_of(HEAD, BASE, BASE, PCKT, IEND), CorruptError),
    "R8 CLAS late": (file_of(HEAD, BASE, chunk(b"CLAS", b"x"), PCKT, IEND), CorruptError),
    "R8 PCKT early": (file_of(HEAD, PCKT, BASE, IEND), CorruptError),
    "R8 eXIF twice": (file_of(HEAD, BASE, PCKT, *[chunk(b"eXIF", b"x")] * 2, IEND), CorruptError),
    "R8 ICC late": (file_of(HEAD, BASE, PCKT, chunk(b"iCCP", b"x"), IEND), CorruptError),
    "R9 no BASE": (file_of(HEAD, IEND), CorruptError),
    "R9 IEND with bytes": (file_of(HEAD, BASE, PCKT, chunk(b"IEND", b"x")), CorruptError),
    "R9 empty BASE": (file_of(HEAD, chunk(b"BASE"), PCKT, IEND), CorruptError),
    "R9 empty XMP": (file_of(HEAD, BASE, PCKT, chunk(b"xMP_"), IEND), CorruptError),
    "R9 short PCKT": (file_of(HEAD, BASE, chunk(b"PCKT", b"\0"), IEND), CorruptError),
    "R10 number again": (file_of(HEAD, BASE, PCKT, PCKT, IEND), CorruptError),
    "R10 number too high": (file_of(HEAD, BASE, chunk(b"PCKT", b"\0\1"), IEND), CorruptError),
    "R11 missing packet": (file_of(HEAD, BASE, IEND), CorruptError),
    "R12 unexpected ALPH": (file_of(HEAD, BASE, PCKT, chunk(b"ALPH", b"x"), IEND), CorruptError),
    "R12 no ALPH": (file_of(ALPHA_HEAD, BASE, PCKT, IEND), CorruptError),
    "R13 tail": (file_of(HEAD, BASE, PCKT, IEND) + b"\0", CorruptError),
    "R16 CLAS unannounced": (file_of(HEAD, chunk(b"CLAS", b"x"), BASE, PCKT, IEND), CorruptError),
    "R16 no CLAS": (file_of(head(22, b"\2"), BASE, PCKT, IEND), CorruptError),
    "R20 no BAS3": (file_of(PARTED_HEAD, BASE, BAS2, PCKT, IEND), CorruptError),
    "R20 no BAS2, no packets": (file_of(PARTED_HEAD, BASE, BAS3, IEND), CorruptError),
    "R20 a second part in version 1": (file_of(HEAD, BASE, BAS2, PCKT, IEND), CorruptError),
    "R8 parts in another order": (file_of(PARTED_HEAD, BASE, BAS3, BAS2, PCKT, IEND), CorruptError),
    "R14 pixels": (file_of(head(4, b"\xff\xff\xff\xff"), BASE, PCKT, IEND), LimitError),
    "R14 chunk": (file_of(HEAD, b"\x7f\xff\xff\xffBASE"), LimitError),
    "R14 metadata": (file_of(HEAD, b"\x01\x00\x00\x01iCCP"), LimitError),
    "R14 HEAD": (file_of(b"\x0f\xff\xff\xffHEAD"), LimitError),
}


@pytest.mark.parametrize("name", MUST_REJECT)
def test_must_reject(name):
    data, error = MUST_REJECT[name]
    with pytest.raises(error) as caught:
        read(data)
    assert type(caught.value) is error
    assert len(str(caught.value)) > 10


def test_every_rule_of_the_page_has_a_vector():
    page = (Path(__file__).parents[1] / "FORMAT.md").read_text(encoding="utf-8")
    rules = set(re.findall(r"^\| (R\d+) \|", page, re.MULTILINE))
    elsewhere = {"R15", "R17", "R18", "R19"}  # models and streams are not the container's: image/test_codec.py
    assert rules - {name.split()[0] for name in MUST_REJECT} == elsewhere


FORGIVEN = {"R2 no IEND", "R2 inside a chunk", "R4 type", "R11 missing packet", "R12 no ALPH", "R13 tail"}
FORGIVEN |= {"R20 no BAS3", "R20 no BAS2, no packets"}


@pytest.mark.parametrize("name", sorted(set(MUST_REJECT) - FORGIVEN))
def test_tolerant_forgives_nothing_else(name):
    data, error = MUST_REJECT[name]
    with pytest.raises(error):
        read(data, tolerant=True)


@pytest.mark.parametrize("name", sorted(FORGIVEN))
def test_tolerant_reports_what_it_forgives(name):
    contents = read(MUST_REJECT[name][0], tolerant=True)
    assert contents.base == SMALL.base
    assert contents.damaged


def test_unknown_ancillary_chunks_are_skipped():
    extra = chunk(b"cICP", b"\1\2\3\4")
    assert read(file_of(HEAD, extra, BASE, extra, PCKT, extra, extra, IEND)) == SMALL


def test_limits_apply_before_the_data_is_copied():
    data = write(FULL)
    with pytest.raises(LimitError, match=f"{len(data)} bytes"):
        read(data, limits=Limits(max_bytes=len(data) - 1))
    with pytest.raises(LimitError, match="chunks"):
        read(data, limits=Limits(max_chunks=5))
    with pytest.raises(LimitError, match="chunks"):
        list_chunks(data, limits=Limits(max_chunks=5))
    with pytest.raises(LimitError, match="pixels"):
        read_header(data, limits=Limits(max_pixels=40 * 17 - 1))


def test_text_is_not_bytes():
    with pytest.raises(InputError, match="str"):
        read("photo.fov")  # type: ignore[arg-type]


# --- loss ---


def test_any_subset_of_packets_is_a_file_with_loss():
    for kept in [(), (0,), (2,), (0, 2)]:
        data = write(replace(FULL, packets=tuple(FULL.packets[n] for n in kept)))
        with pytest.raises(CorruptError, match="on_loss='conceal'"):
            read(data)
        contents = read(data, tolerant=True)
        assert [p.number for p in contents.packets] == list(kept)
        missing = ", ".join(str(n) for n in range(3) if n not in kept)
        assert contents.damaged == (f"{3 - len(kept)} of 3 packets missing: {missing}",)


def test_a_damaged_packet_is_left_out_and_named():
    contents = read(write(FULL).replace(b"more", b"MORE"), tolerant=True)
    assert contents.packets == (FULL.packets[0], FULL.packets[2])
    assert "PCKT at byte" in contents.damaged[0] and "CRC 0x" in contents.damaged[0]
    assert contents.alpha == FULL.alpha and contents.exif == FULL.exif


def test_a_damaged_length_costs_one_packet():
    data = bytearray(write(FULL))
    target = list_chunks(bytes(data))[4].offset
    for length in (0, 1, 7, 10_000, 0xFFFFFFFF):
        data[target : target + 4] = length.to_bytes(4, "big")
        contents = read(data, tolerant=True)
        assert contents.packets == FULL.packets[1:]
        assert contents.xmp == FULL.xmp


def test_damaged_alpha_and_metadata_are_left_out():
    contents = read(write(FULL).replace(b"alpha plane", b"alpha PLANE"), tolerant=True)
    assert contents.alpha is None and contents.packets == FULL.packets
    contents = read(write(FULL).replace(b"profile", b"PROFILE"), tolerant=True)
    assert contents.icc is None and replace(contents, icc=FULL.icc, damaged=()) == FULL


@pytest.mark.parametrize("vital", [b"class map", b"the base layer"])
def test_the_base_must_be_intact(vital):
    with pytest.raises(CorruptError):
        read(write(FULL).replace(vital, vital.upper()), tolerant=True)


def test_the_search_for_intact_chunks_is_bounded():
    bait = b"".join((4_000_000 - 12 * n).to_bytes(4, "big") + b"PCKTbait" for n in range(300_000))
    broken = (5).to_bytes(4, "big") + b"PCKT"
    contents = read(file_of(HEAD, BASE, broken, bait), tolerant=True)
    assert contents.packets == ()
    assert contents.damaged
