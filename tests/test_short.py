"""The short form of a file: the same contents in fewer bytes, and the same errors for damage."""

import io
import re
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal import container, short
from foveal.container import Contents, Packet, list_chunks, read, read_header, read_metadata, write
from foveal.errors import (
    CorruptError,
    FormatError,
    LimitError,
    NotFovealError,
    TruncatedError,
    VersionError,
)
from foveal.header import Header, Limits

HEADER = Header(33, 17, "RGB", True, 7, b"8 bytes!", 960, 1, classes=3)
CONTENTS = Contents(
    HEADER, b"base layer", (Packet(0, b"symbols" * 30),), b"map", b"alpha", b"icc", b"exif", b"xmp", filter=b"taps"
)
LONG = write(CONTENTS)
SHORT = short.shorten(LONG)
START = short.start_of(SHORT)


def with_start(change) -> bytes:
    """SHORT with its bytes before the checksum changed, and a checksum that agrees."""
    start = change(bytearray(SHORT[: START.size - 4]))
    return bytes(start) + zlib.crc32(start[4:]).to_bytes(4, "big") + SHORT[START.size :]


payloads = st.binary(min_size=1, max_size=300)


@given(
    base=payloads,
    words=st.none() | st.binary(max_size=20_000),
    optional=st.fixed_dictionaries(
        {k: st.none() | payloads for k in ("classes", "alpha", "icc", "exif", "xmp", "filter")}
    ),
    mode=st.sampled_from(["L", "RGB"]),
    level=st.integers(0, 1264),
    promised=st.booleans(),
)
def test_any_file_of_one_packet_has_a_short_form(base, words, optional, mode, level, promised):
    classes = 1 if optional["classes"] is None else 4
    head = Header(65_535, 1, mode, optional["alpha"] is not None, 65_535, b"8 bytes!", level, 1, classes)
    packets = () if words is None else (Packet(0, words),)
    if words is None and not promised:
        head = replace(head, packets=0)
    contents = Contents(head, base, packets, **optional)
    long = write(contents)
    data = short.shorten(long)
    assert short.is_short(data) and short.expand(data) == long and short.shorten(short.expand(data)) == data
    sections = len(list_chunks(long)) - 2
    assert len(long) - len(data) == 8 + 36 + 12 * (sections + 1) + 2 * len(packets) - 27 - sum(
        4 + len(body) for body in varints(data)
    )
    if words is not None or not promised:
        assert read(data) == read(long) == contents
    assert read(data, tolerant=True) == read(long, tolerant=True)


def varints(data: bytes) -> list[bytes]:
    """The lengths of a file's sections as they are written."""
    return re.findall(rb"[\x80-\xff]*[\x00-\x7f]", data[23 : short.start_of(data).size - 4])


def test_what_is_parted_or_has_chunks_of_its_own_stays_in_chunks():
    parted = replace(HEADER, version=2, packets=2)
    more = replace(CONTENTS, header=parted, packets=(Packet(0, b"a"), Packet(1, b"b")), more=(b"second", b"third"))
    body = b"own" + zlib.crc32(b"mine" + b"own").to_bytes(4, "big")
    foreign = LONG[:-12] + b"\0\0\0\3mine" + body + LONG[-12:]
    for data in (write(more), foreign, write(replace(CONTENTS, header=replace(HEADER, packets=2)))):
        read(data, tolerant=True)
        assert short.shorten(data) is data and short.expand(data) is data


@pytest.mark.parametrize("step", [1, 2, 7, 100, 1000])
@pytest.mark.parametrize("data", [SHORT, LONG, b"", b"no picture", SHORT + b"more"], ids=lambda d: str(len(d)))
def test_pieces_make_the_chunks_that_the_whole_makes(data, step):
    expander, found = short.Expander(), b""
    for at in range(0, len(data), step):
        found += expander.feed(data[at : at + step])
        assert short.expand(data)[: len(found)] == found
    assert found == short.expand(data)


@given(st.binary(max_size=300), st.booleans())
def test_garbage_after_the_first_bytes(data, tolerant):
    for start in (SHORT[:5], SHORT[: START.size]):
        with pytest.raises((FormatError, LimitError)):
            read(start + data, tolerant=tolerant)
        list_chunks(start + data)


def test_bytes_behind_the_end_are_refused_or_ignored():
    with pytest.raises(CorruptError, match="after IEND"):
        read(SHORT + b"tail")
    forgiven = read(SHORT + b"tail", tolerant=True)
    assert replace(forgiven, damaged=()) == CONTENTS and forgiven.damaged


def test_a_later_version_says_so():
    with pytest.raises(VersionError, match="version 2"):
        read(SHORT[:4] + b"\2" + SHORT[5:])
    with pytest.raises(NotFovealError, match="text mode"):
        read(SHORT[:4] + b"\n" + SHORT[5:])


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s[:5] + bytes([s[5] | 0x20]) + s[6:],  # unused bit
        lambda s: s[:5] + bytes([s[5] & ~16]) + s[6:],  # a packet that is not announced
        lambda s: s[:5] + bytes([s[5] & ~2]) + s[6:],  # an alpha plane that is not announced
        lambda s: s[:7] + b"\0\0" + s[9:],  # width 0
        lambda s: s[:11] + b"\xff\xff" + s[13:],  # level
        lambda s: s[:-1] + bytes([s[-1] | 0x80]) + b"\0",  # a length in more bytes than it takes
        lambda s: s[:-1] + b"\xff\xff\xff\xff\xff",  # one that never ends
    ],
)
def test_fields_out_of_range_are_refused(change):
    data = with_start(change)
    with pytest.raises(CorruptError):
        read(data)
    with pytest.raises(CorruptError):
        read(data, tolerant=True)


def test_a_length_above_the_limit_is_refused_before_its_bytes_are_there():
    with pytest.raises(LimitError, match="xMP_"):
        read(with_start(lambda s: s[:-1] + b"\xff\xff\xff\x7f"))
    with pytest.raises(LimitError):
        read(SHORT, limits=Limits(max_chunk=100))


def test_header_and_metadata_without_the_rest():
    file = io.BytesIO(SHORT)
    assert read_header(file) == HEADER and file.tell() <= short.MOST
    assert read_header(SHORT[: START.size]) == HEADER
    with pytest.raises(TruncatedError):
        read_header(SHORT[: START.size - 1])
    assert read_metadata(file) == (b"icc", b"exif", b"xmp")
    assert read_metadata(io.BytesIO(SHORT.replace(b"exif", b"EXIF"))) == (b"icc", None, b"xmp")
    assert read_metadata(io.BytesIO(SHORT[:-3])) == (b"icc", b"exif", None)
    assert read_metadata(io.BytesIO(SHORT[:20])) == (None, None, None)
    broken = SHORT[:8] + b"?" + SHORT[9:]
    assert read_metadata(io.BytesIO(broken)) == (None, None, None)


def test_it_is_listed_as_its_chunks():
    assert list_chunks(SHORT) == list_chunks(LONG)
    damaged = list_chunks(SHORT.replace(b"taps", b"TAPS"))
    assert [chunk.type for chunk in damaged if not chunk.crc_ok] == ["fILT"]


def test_the_example_of_the_format_page():
    page = (Path(__file__).parents[1] / "FORMAT.md").read_text(encoding="utf-8")
    long, brief = (
        bytes.fromhex("".join(re.findall(r"^((?:[0-9A-F]{2} {1,2})+)", block, re.MULTILINE)))
        for block in re.findall(r"```hex\n(.*?)```", page, re.DOTALL)
    )
    assert container.shorten(long) == brief and read(brief) == read(long)
