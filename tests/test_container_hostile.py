"""Hostile bytes: cut at every byte, every byte flipped, garbage. A typed error or the truth, nothing else. In chunks, and
in the short form."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.container import SIGNATURE, Contents, Packet, list_chunks, read, read_header, shorten, write
from foveal.errors import FormatError, FovealError, LimitError, NotFovealError, TruncatedError
from foveal.header import Header
from foveal.short import start_of

HEADER = Header(33, 17, "RGB", True, 7, b"8 bytes!", 960, 2, classes=3, version=2, layers=2)
CONTENTS = Contents(
    HEADER,
    b"base",
    (Packet(0, b"word"), Packet(1, b"wordword")),
    b"map",
    b"alpha",
    b"icc",
    b"exif",
    b"xmp",
    more=(b"second", b"third"),
)
DATA = write(CONTENTS)
PLAIN = replace(
    CONTENTS,
    header=replace(HEADER, packets=1, version=1, layers=1),
    packets=(Packet(0, b"symbols" * 30),),
    more=(),
    filter=b"taps",
)
SHORT = shorten(write(PLAIN))
# what was written, its bytes, and how many of them must be intact: those before what follows BASE
FORMS = {
    "chunks": (CONTENTS, DATA, list_chunks(DATA)[4].offset),
    "short": (PLAIN, SHORT, next(s.offset for s in start_of(SHORT).sections if s.type == b"fILT")),
}
PLACES = [(form, place) for form, (_, data, _) in FORMS.items() for place in range(len(data))]


def is_true_part(contents: Contents, whole: Contents = CONTENTS) -> bool:
    """Whether contents hold nothing that was not written, and name what they lack."""
    vital = all(getattr(contents, n) == getattr(whole, n) for n in ("header", "base", "classes"))
    rest = all(getattr(contents, n) in (None, getattr(whole, n)) for n in ("alpha", "icc", "exif", "xmp", "filter"))
    parts = contents.more == whole.more or (contents.more == whole.more[:1] and not contents.packets)
    parts = parts or not (contents.more or contents.packets)
    complete = replace(contents, damaged=()) == whole
    packets = set(contents.packets) <= set(whole.packets)
    return vital and rest and parts and packets and (complete or bool(contents.damaged))


@pytest.mark.parametrize(("form", "length"), PLACES)
def test_cut_at_every_byte(form, length):
    whole, data, vital = FORMS[form]
    cut = data[:length]
    with pytest.raises(TruncatedError):
        read(cut)
    try:
        contents = read(cut, tolerant=True)
    except TruncatedError:
        assert length < vital
    else:
        assert is_true_part(contents, whole) and contents.damaged


@pytest.mark.parametrize("length", range(len(SIGNATURE), len(DATA)))
def test_listing_a_cut_file(length):
    intact = [c for c in list_chunks(DATA) if c.offset + c.length + 12 <= length]
    listed = list_chunks(DATA[:length])
    assert [c for c in listed if c.crc_ok] == intact
    assert len(listed) - len(intact) == (length not in {c.offset for c in list_chunks(DATA)})


@pytest.mark.parametrize(("form", "position"), PLACES)
def test_flip_every_byte(form, position):
    whole, intact, vital = FORMS[form]
    for flip in (0x01, 0x20, 0x80, 0xFF):
        data = bytearray(intact)
        data[position] ^= flip
        with pytest.raises((FormatError, LimitError)):
            read(data)
        try:
            contents = read(data, tolerant=True)
        except FovealError as error:
            assert position < vital, error
        else:
            assert is_true_part(contents, whole)


@given(st.binary(max_size=300))
def test_garbage_is_not_foveal(data):
    with pytest.raises((NotFovealError, TruncatedError)):
        read(data)


@given(st.binary(max_size=300), st.booleans())
def test_garbage_after_the_signature(data, tolerant):
    with pytest.raises((FormatError, LimitError)):
        read(SIGNATURE + data, tolerant=tolerant)
    with pytest.raises((FormatError, LimitError)):
        read_header(SIGNATURE + data)


@given(st.binary(max_size=200), st.integers(0, len(DATA)))
def test_garbage_inside(data, position):
    spoilt = DATA[:position] + data + DATA[position:]
    for tolerant in (False, True):
        try:
            contents = read(spoilt, tolerant=tolerant)
        except (FormatError, LimitError):
            continue
        assert is_true_part(contents)


@given(st.lists(st.sampled_from(list_chunks(DATA)), max_size=14))
def test_chunks_in_any_order(chosen):
    data = SIGNATURE + b"".join(DATA[c.offset : c.offset + c.length + 12] for c in chosen)
    in_order = [c for c in list_chunks(DATA) if c in chosen]
    try:
        contents = read(data)
    except FormatError:
        assert data != DATA
    else:
        assert chosen == in_order
        assert contents.base == CONTENTS.base
