"""Datagrams: any subset that can be enough is enough, in any order; damage and contradictions are told apart."""

from __future__ import annotations

import dataclasses
import random
import struct
import zlib
from itertools import combinations, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal import datagrams
from foveal.datagrams import ALPHA, BASE, EXIF, ICC, PACKET, PARITY, XMP, Datagram, Sections, join, split
from foveal.errors import CorruptError, InputError, LimitError


def sections(base: int = 3000, packets: int = 6, seed: int = 0) -> Sections:
    noise = random.Random(seed)
    rest = {ALPHA: noise.randbytes(2500), ICC: noise.randbytes(300), EXIF: b"II", XMP: b"<x/>"}
    bodies = {n: noise.randbytes(40 + 100 * n) for n in range(packets)}
    return Sections(noise.randbytes(base), bodies, packets, rest)


def messages(whole: Sections, mtu: int = 1200, copies: float = 2.5, file: int = 7, parity: float = 0) -> list[bytes]:
    return [datagram.to_bytes() for datagram in split(file, whole, mtu, copies, parity)]


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


@pytest.mark.parametrize("parity", [-0.1, 254.5, 255])
def test_parity_that_leaves_no_share_for_the_packet_is_refused(parity: float) -> None:
    datagrams.check(1200, 2, 254)
    with pytest.raises(InputError, match=r"0\.\.254"):
        datagrams.check(1200, 2, parity)


def test_what_cannot_be_counted_or_fit_is_refused() -> None:
    with pytest.raises(InputError, match="repack"):
        split(1, Sections(b"b", {0: bytes(1200)}, 1), 1200, 2)
    with pytest.raises(LimitError, match="alpha"):
        split(1, Sections(b"b", {}, 0, {ALPHA: bytes(8 << 20)}), 128, 1)
    with pytest.raises(LimitError, match="base"):
        split(1, Sections(bytes(8 << 20), {}, 0), 128, 1)


# --- parity of the packets ---


def of_kinds(sent: list[bytes], *kinds: int) -> list[bytes]:
    return [message for message in sent if message[8] in kinds]


@pytest.mark.parametrize(("packets", "parity", "more"), [(1, 0.3, 1), (6, 0.3, 2), (6, 1, 6), (4, 3.5, 14)])
def test_any_datagrams_as_many_as_packets_give_them_all(packets: int, parity: float, more: int) -> None:
    whole = sections(100, packets)
    sent = messages(whole, parity=parity)
    some, rest = of_kinds(sent, PACKET, PARITY), of_kinds(sent, BASE, ALPHA, ICC, EXIF, XMP)
    assert len(some) == packets + more
    for gone in combinations(range(len(some)), min(more, 3)):
        kept = [message for i, message in enumerate(some) if i not in gone]
        assert join(rest + kept) == (7, whole)
    _, found = join(rest + some[more + 1 :])  # one fewer than needed: what came counts
    assert found.packets == {n: body for n, body in whole.packets.items() if n > more}
    assert found.count == packets or not some[more + 1 :]
    assert join(rest + some[packets:])[1].packets == (whole.packets if more >= packets else {})


def test_parity_of_many_packets_comes_in_blocks_and_a_burst_falls_on_all() -> None:
    noise = random.Random(3)
    whole = Sections(b"base", {n: noise.randbytes(20 + n % 7) for n in range(600)}, 600)
    sent = messages(whole, parity=0.3)
    numbers = [struct.unpack_from(">H", message, 9)[0] for message in of_kinds(sent, PARITY)]
    assert {n >> 8 for n in numbers} == {0, 1, 2, 3}
    assert all(n & 255 >= 150 for n in numbers) and len(numbers) == 4 * 45
    burst = set(of_kinds(sent, PACKET)[100:280])
    assert join([message for message in sent if message not in burst]) == (7, whole)


def test_parity_is_what_the_format_page_says() -> None:
    """One packet: its parity is the piece over n, here n = 1, so the piece itself."""
    sent = split(7, Sections(b"base", {0: b"run and stream"}, 1), 1200, 1, 0.5)
    (share,) = [d for d in sent if d.kind == PARITY]
    assert (share.number, share.needed, share.size) == (1, 1, 1)
    assert share.payload == struct.pack(">H", 14) + b"run and stream"


def test_a_file_that_lacks_packets_has_no_parity() -> None:
    whole = sections(100, 4)
    del whole.packets[2]
    assert not of_kinds(messages(whole, parity=1), PARITY)


def test_parity_fits_the_datagrams() -> None:
    room = 300 - datagrams.PACKET_OVERHEAD
    assert max(map(len, messages(Sections(b"base", {0: bytes(room)}, 1), 300, parity=1))) == 300
    with pytest.raises(InputError, match="repack"):
        split(7, Sections(b"base", {0: bytes(room + 1)}, 1), 300, 1)


def test_parity_that_contradicts_is_refused() -> None:
    whole = sections(100, 4)
    sent = [Datagram.from_bytes(m) for m in messages(whole, parity=0.5)]
    good = [d for d in sent if d is not None]
    share = next(d for d in good if d.kind == PARITY)
    base = [d for d in good if d.kind == BASE]
    one = [d for d in good if d.kind == PACKET][:1]

    def changed(**fields: object) -> Datagram:
        return dataclasses.replace(share, **fields)  # type: ignore[arg-type]

    wrong = [
        [changed(size=5), *one],
        [changed(number=256 + 5)],
        [changed(), changed(number=share.number + 1, payload=b"shorter")],
        [changed(payload=b"ab"), *[d for d in good if d.kind == PACKET][-1:]],
    ]
    for messages_ in wrong:
        with pytest.raises(CorruptError, match="contradict"):
            join([d.to_bytes() for d in base + messages_])
    invented = [changed(number=n, payload=b"\xff" * len(share.payload)) for n in (4, 5)]
    with pytest.raises(CorruptError, match="parity is damaged"):
        join([d.to_bytes() for d in base + invented + [d for d in good if d.kind == PACKET][:2]])


@pytest.mark.parametrize("parity", [-0.1, 255, "many"])
def test_parity_out_of_range_is_refused(parity: float) -> None:
    with pytest.raises(InputError, match="parity"):
        datagrams.check(1200, 1, parity)
