"""Datagrams: any subset that can be enough is enough, in any order; damage and contradictions are told apart."""

from __future__ import annotations

import random
import struct
import zlib
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal import datagrams
from foveal.datagrams import ALPHA, BASE, EXIF, ICC, PACKET, XMP, Datagram, Sections, join, split
from foveal.errors import CorruptError, InputError, LimitError


def sections(base: int = 3000, packets: int = 6, seed: int = 0) -> Sections:
    noise = random.Random(seed)
    rest = {ALPHA: noise.randbytes(2500), ICC: noise.randbytes(300), EXIF: b"II", XMP: b"<x/>"}
    bodies = {n: noise.randbytes(40 + 100 * n) for n in range(packets)}
    return Sections(noise.randbytes(base), bodies, packets, rest)


def messages(whole: Sections, mtu: int = 1200, copies: float = 2.5, file: int = 7) -> list[bytes]:
    return [datagram.to_bytes() for datagram in split(file, whole, mtu, copies)]


@pytest.mark.parametrize("base", [1, 255, 256, 5000, 40_000])
@pytest.mark.parametrize("mtu", [700, 1200, 65_507])
def test_all_datagrams_in_any_order_with_duplicates_make_the_same_file(base: int, mtu: int) -> None:
    whole = sections(base)
    sent = messages(whole, mtu)
    assert max(map(len, sent)) <= mtu
    assert len(set(sent)) == len(sent)
    random.Random(1).shuffle(sent)
    assert join([*sent, *sent[:5]]) == (7, whole)


def test_any_k_shares_of_the_base_rebuild_it() -> None:
    whole = sections(400, 0)
    base = [d.to_bytes() for d in split(7, whole, 1200, 2.4) if d.kind == BASE]
    assert len(base) == 8  # 3 pieces of 134 bytes, and 5 more shares
    for three in combinations(base, 3):
        assert join(three)[1].base == whole.base
    with pytest.raises(CorruptError, match=r"2 of the 3 datagrams needed.*base-0001"):
        join([base[0], base[2]])


def test_shares_are_what_the_format_page_says() -> None:
    def times(a: int, b: int) -> int:
        product = 0
        for bit in range(8):
            product ^= (a << bit) if b >> bit & 1 else 0
        for bit in range(14, 7, -1):
            product ^= 0x11D << (bit - 8) if product >> bit & 1 else 0
        return product

    whole = Sections(bytes(range(192)) * 2, {5: b"run and stream"}, 9)
    sent = split(0xCAFE, whole, 1200, 2)
    pieces = {d.number: d.payload for d in sent if d.kind == BASE}
    assert [len(p) for p in pieces.values()] == [128] * 6
    inverse = {v: next(i for i in range(1, 256) if times(i, v) == 1) for v in range(1, 16)}
    for n in (3, 4, 5):
        for at in range(0, 128, 17):
            total = 0
            for i in range(3):
                total ^= times(pieces[i][at], inverse[n ^ i])
            assert pieces[n][at] == total
    packet = next(d for d in sent if d.kind == PACKET).to_bytes()
    head = b"FVD1" + struct.pack(">IBHHI", 0xCAFE, 1, 5, 9, 0) + b"run and stream"
    assert packet == head + struct.pack(">I", zlib.crc32(head))


def test_a_large_base_is_cut_into_blocks_and_survives_losses_in_each() -> None:
    whole = sections(90_000, 0)
    base = [d for d in split(7, whole, 300, 2.5) if d.kind == BASE]
    assert len({d.number >> 8 for d in base}) == 4
    kept = [d.to_bytes() for d in base if d.number & 255 >= 100]
    assert join(kept)[1].base == whole.base


def test_pieces_of_the_base_come_first_and_its_other_shares_are_spread() -> None:
    kinds = [(d.kind, d.number) for d in split(7, sections(4000, 11), 1200, 2)]
    assert kinds[:24] == [(BASE, n) for n in range(24)]
    places = [i for i, (kind, n) in enumerate(kinds) if kind == BASE and n >= 24]
    gaps = [b - a for a, b in pairwise(places)]
    assert max(gaps) - min(gaps) <= 1


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_subsets_give_the_base_or_a_typed_error_and_every_packet_that_came(data: st.DataObject) -> None:
    whole = sections(data.draw(st.integers(1, 6000)), data.draw(st.integers(0, 8)))
    sent = split(3, whole, 1200, data.draw(st.floats(1, 4)))
    kept = data.draw(st.lists(st.sampled_from(sent), min_size=1, max_size=2 * len(sent)))
    came = {d.number for d in kept if d.kind == BASE}
    needed = next(d.needed for d in sent if d.kind == BASE)
    if len(came) < needed:
        with pytest.raises(CorruptError, match="base"):
            join(d.to_bytes() for d in kept)
        return
    _, found = join(d.to_bytes() for d in kept)
    assert found.base == whole.base
    assert found.packets == {d.number: d.payload for d in kept if d.kind == PACKET}
    assert all(whole.rest[kind] == body for kind, body in found.rest.items())


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_a_damaged_datagram_counts_as_lost(data: st.DataObject) -> None:
    sent = messages(sections())
    which = data.draw(st.integers(0, len(sent) - 1))
    damaged = bytearray(sent[which])
    damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= data.draw(st.integers(1, 255))
    others = [m for i, m in enumerate(sent) if i != which]
    assert join([*others, bytes(damaged)]) == join(others)


@given(st.binary(max_size=60))
def test_what_is_no_datagram_is_none(data: bytes) -> None:
    assert Datagram.from_bytes(data) is None
    assert Datagram.from_bytes(b"FVD1" + data) is None


@pytest.mark.parametrize(
    "fields",
    [
        (6, 0, 1, 5),
        (0, 0, 0, 5),
        (0, 255, 3, 5),
        (0, 0, 256, 5),
        (1, 4, 4, 0),
        (1, 0, 4, 5),
        (2, 2, 2, 5),
        (2, 0, 1, 0),
    ],
)
def test_fields_out_of_range_make_no_datagram(fields: tuple[int, int, int, int]) -> None:
    head = b"FVD1" + struct.pack(">IBHHI", 1, *fields) + b"x"
    assert Datagram.from_bytes(head + struct.pack(">I", zlib.crc32(head))) is None


def test_contradictions_are_refused() -> None:
    one, two = messages(sections(seed=1), file=1), messages(sections(seed=2), file=2)
    with pytest.raises(InputError, match="two files"):
        join([*one, two[0]])
    same = messages(sections(seed=2), file=1)
    with pytest.raises(CorruptError, match="contradict"):
        join([*one, same[0]])
    with pytest.raises(CorruptError, match="contradict"):
        join([*one, Datagram(1, PACKET, 6, 7, 0, b"x").to_bytes()])
    with pytest.raises(CorruptError, match="sizes"):
        join([*one, Datagram(1, BASE, 77, 23, 3000, b"x").to_bytes()])
    with pytest.raises(InputError, match="no intact datagram"):
        join([b"", b"FVD1"])
    packets = [d.to_bytes() for d in split(1, sections(), 1200, 2) if d.kind == PACKET]
    with pytest.raises(CorruptError, match="every datagram of the base"):
        join(packets)


def test_lost_parts_are_named() -> None:
    kept = [d for d in split(1, sections(), 1200, 2) if (d.kind, d.number) not in {(ALPHA, 1), (PACKET, 3)}]
    found = join(d.to_bytes() for d in kept)[1]
    assert found.lost == ("1 of 3 datagrams of alpha", "1 of 6 packets")
    assert ALPHA not in found.rest


@pytest.mark.parametrize(("mtu", "copies"), [(127, 2), (65_508, 2), (1200.0, 2), (1200, 0.5), (1200, 256), (1200, "2")])
def test_options_out_of_range_are_refused(mtu: int, copies: float) -> None:
    with pytest.raises(InputError, match="is not a"):
        datagrams.check(mtu, copies)


def test_what_cannot_be_counted_or_fit_is_refused() -> None:
    with pytest.raises(InputError, match="repack"):
        split(1, Sections(b"b", {0: bytes(1200)}, 1), 1200, 2)
    with pytest.raises(LimitError, match="alpha"):
        split(1, Sections(b"b", {}, 0, {ALPHA: bytes(8 << 20)}), 128, 1)
    with pytest.raises(LimitError, match="base"):
        split(1, Sections(bytes(8 << 20), {}, 0), 128, 1)
