"""Side information as bytes: there and back, the same bytes always, and typed errors for everything else."""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
import pytest
import video_clips as made
from hypothesis import example, given
from hypothesis import strategies as st

from foveal.errors import CorruptError, FormatError, FovealError, InputError, LimitError, TruncatedError, VersionError
from foveal.video import sidecode
from foveal.video.sidecode import FIRST_TAPS, GROUP, STEP, Facts, Pusher, SideReader, SideWriter
from foveal.video.types import AROUND, LUMA, OWN, TAPS

CHANNELS = 2
FACTS = Facts(2.0, "x264", 30.5, "lanczos", "s", b"\x01\x02\x03\x04\x05\x06\x07\x08", 200, 130, channels=CHANNELS)
GOLDEN = (
    "46565349040403000bea7340010203040506070800c800820000000300abcdef02"  # header
    "b3ef66386c2599888c4746a7322d5bcb7d8bf1c9cc4476ac"  # stream and CRC
)


def clip(frames: int, seed: int = 0, facts: Facts = FACTS, churn: float = 0.1) -> list[np.ndarray]:
    """Weights that change here and there from frame to frame."""
    rng = np.random.default_rng(seed)
    found = [rng.integers(0, 4, facts.blocks).astype(np.uint8)]
    while len(found) < frames:
        new, moves = rng.integers(0, 4, facts.blocks), rng.random(facts.blocks) < churn * (len(found) % 3)
        found.append(np.where(moves, new, found[-1]).astype(np.uint8))
    return found


def taps_of(start: int) -> list[int]:
    """Taps of the group that begins at a frame: some at the ends of their range, some that stay, some that move."""
    taps = [0] * TAPS
    taps[0], taps[1], taps[2], taps[7], taps[OWN], taps[OWN + 1] = (
        -128,
        127,
        start % 64,
        -5,
        STEP + start // 64,
        -start // 64,
    )
    taps[LUMA:] = [STEP - start // 64, 5]
    return taps


def change_of(start: int) -> list[int]:
    """The last layer's coefficients in the group that begins at a frame: none in the first, others in each of the next two,
    then those of the third go on."""
    change = [0] * (36 * CHANNELS)
    if start >= GROUP:
        change[0], change[17], change[18], change[71] = -128, 127, min(start, 2 * GROUP) // GROUP, -3
    return change


def coded(frames: list[np.ndarray], facts: Facts = FACTS) -> bytes:
    writer = SideWriter(facts)
    for start in range(0, len(frames), GROUP):
        writer.push(frames[start : start + GROUP], taps_of(start), change_of(start) if facts.channels else None)
    return writer.finish(0xABCDEF)


def sealed(body: bytes) -> bytes:
    """With the checksum that belongs to it."""
    return body + zlib.crc32(body).to_bytes(4, "big")


@pytest.mark.parametrize("count", [1, 5, GROUP, 2 * GROUP + 3, 3 * GROUP + 1])
def test_there_and_back(count: int) -> None:
    frames = clip(count)
    reader = SideReader(coded(frames))
    assert reader.facts == replace(FACTS, frames=count, check=0xABCDEF)
    for number, wanted in enumerate(frames):
        assert reader.change(number) == change_of(number // GROUP * GROUP)
        weights, taps = reader.frame(number)
        assert weights.dtype == taps.dtype == np.float32 and np.array_equal(weights, wanted / 2)
        assert np.array_equal(taps * 64, taps_of(number // GROUP * GROUP))


def test_any_order_of_frames() -> None:
    frames = clip(80)
    reader = SideReader(coded(frames))
    for number in (70, 70, 3, 79, 0):
        assert np.array_equal(reader.frame(number)[0] * 2, frames[number])
    for number in (70, 0, 79):
        assert reader.change(number) == change_of(number // GROUP * GROUP)
        assert np.array_equal(reader.frame(number)[0] * 2, frames[number])


def test_without_channels_nothing_is_told_of_the_last_layer() -> None:
    frames, facts = clip(70), replace(FACTS, channels=0)
    reader = SideReader(coded(frames, facts))
    assert reader.change(69) == [] and np.array_equal(reader.frame(69)[0] * 2, frames[69])


@given(
    st.integers(1, 700), st.integers(1, 500), st.sampled_from(sidecode.SCALES), st.sampled_from(sidecode.CODECS),
    st.one_of(st.none(), st.integers(0, 6300)), st.integers(0, 2**32 - 1), st.integers(0, 128),
)  # fmt: skip
def test_facts_there_and_back(
    width: int, height: int, scale: float, codec: str, crf: int | None, check: int, channels: int
) -> None:
    told = None if crf is None else crf / 100
    facts = Facts(scale, codec, told, "area", "m", bytes(8), width, height, 1, check, channels)
    assert Facts.from_bytes(facts.to_bytes()) == facts
    assert facts.blocks == (-(-height // 64), -(-width // 64))


def test_the_cost_is_what_is_written() -> None:
    writer, frames = SideWriter(FACTS), clip(GROUP, churn=0.3)
    told = writer.cost(frames, taps_of(77), change_of(GROUP))
    assert writer.cost(frames, taps_of(77), change_of(GROUP)) == told
    writer.push(frames, taps_of(77), change_of(GROUP))
    assert abs(8 * (len(writer.finish(0)) - 37) - told) <= 64


def test_a_tap_out_of_range_is_refused() -> None:
    writer = SideWriter(FACTS)
    writer.push(clip(1), [200, *taps_of(0)[1:]])
    with pytest.raises(CorruptError, match="tap of 200"):
        SideReader(writer.finish(0)).frame(0)


def test_what_stays_costs_next_to_nothing() -> None:
    still = clip(1) * (10 * GROUP)
    assert len(coded(still, replace(FACTS, channels=0))) < 37 + 60
    assert len(coded(still)) < len(coded(still, replace(FACTS, channels=0))) + 20  # two changes, then none for 8 groups


def golden() -> tuple[list[np.ndarray], list[int], list[int]]:
    frames = [np.array([[2, 2, 2, 2], [2, 0, 2, 2], [2, 2, 2, 3]], np.uint8)] * 2
    taps = list(FIRST_TAPS)
    taps[11], taps[12], taps[OWN], taps[AROUND], taps[AROUND + 3], taps[LUMA] = 3, -1, 40, 9, -6, 72
    change = [0] * (36 * CHANNELS)
    change[0], change[12], change[18] = 2, -1, 5
    return [*frames, np.array([[2, 2, 2, 2], [2, 0, 0, 2], [1, 2, 2, 3]], np.uint8)], taps, change


def test_golden_bytes() -> None:
    writer = SideWriter(FACTS)
    writer.push(*golden())
    assert writer.finish(0xABCDEF).hex() == GOLDEN


class Second:
    """The decoder of docs/video-side-information.md in plain integers, written from that page."""

    def __init__(self, data: bytes) -> None:
        assert data[:4] == b"FVSI" and zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "big")
        width, height, self.frames = (int.from_bytes(data[a:b], "big") for a, b in ((20, 22), (22, 24), (24, 28)))
        self.columns, self.rows = -(-width // 64), -(-height // 64)
        self.channels, self.stream, self.place = data[32], data[33:-4], 8
        self.low, self.range = 0, 2**64 - 1
        self.point = int.from_bytes(self.stream[:8].ljust(8, b"\0"), "big")
        self.counts = [[1, 1] for _ in range(49)]

    def outcome(self, cum: list[int]) -> int:
        scale = self.range // 2**24
        q = ((self.point - self.low) % 2**64) // scale
        k = next(i for i in range(len(cum) - 1) if q < cum[i + 1])
        self.low = (self.low + scale * cum[k]) % 2**64
        self.range = scale * (cum[k + 1] - cum[k])
        if self.range < 2**32:
            word = int.from_bytes(self.stream[self.place : self.place + 4].ljust(4, b"\0"), "big")
            self.low, self.range = (self.low << 32) % 2**64, (self.range << 32) % 2**64
            self.point, self.place = ((self.point << 32) + word) % 2**64, self.place + 4
        return k

    def decision(self, context: int) -> int:
        no, yes = self.counts[context]
        p = 65536 * (2 * yes - 1) // (2 * (no + yes) - 2)
        bit = self.outcome([0, (65536 - p) * (2**24 - 2) // 65536 + 1, 2**24])
        self.counts[context][bit] += 1
        if no + yes + 1 > 255:
            self.counts[context] = [(n + 1) // 2 for n in self.counts[context]]
        return bit

    def bits(self, n: int) -> int:
        return self.outcome([i * 2 ** (24 - n) for i in range(2**n + 1)]) if n else 0

    def tap(self, i: int, old: int) -> int:
        if i < 24:
            y, x = divmod(i + (i >= 12), 5)
            kind = 0 if 1 <= y <= 3 and 1 <= x <= 3 else 1
        else:
            kind = 2 if i == 28 else 3 if i < 33 else 4 if i < 37 else 5
        return self.number(16 + kind, 22, old)

    def number(self, same: int, longer: int, old: int) -> int:
        if self.decision(same):
            return old
        up, length = self.bits(1), 0
        while length < 7 and self.decision(longer + length):
            length += 1
        far = 2**length + self.bits(length)
        return old + far if up else old - far

    def coefficient(self, i: int, old: int) -> int:
        wave = 0 if i % 9 == 0 else 1 if i % 9 in (1, 3) else 2
        return self.number(30 + 3 * (i // (9 * self.channels)) + wave, 42, old)

    def read(self) -> list[tuple[list[list[int]], list[int], list[int]]]:
        told, taps, old = (
            [],
            [64 * (i in (28, 37, 38)) for i in range(39)],
            [[2] * self.columns for _ in range(self.rows)],
        )
        change = [0] * (36 * self.channels)
        for frame in range(self.frames):
            if frame % 64 == 0 and self.channels and self.decision(29):
                change = [self.coefficient(i, z) for i, z in enumerate(change)]
            if frame % 64 == 0:
                taps = [self.tap(i, tap) for i, tap in enumerate(taps)]
            new = [list(row) for row in old]
            for y, x in np.ndindex(self.rows, self.columns) if not self.decision(0) else ():
                near = [(b, a) for b, a in ((y, x - 1), (y - 1, x)) if a >= 0 and b >= 0]
                changed = sum(new[b][a] != old[b][a] for b, a in near)
                different = sum(new[b][a] != old[y][x] for b, a in near)
                if self.decision(1 + 3 * changed + different):
                    rest = {0: [1, 2, 3], 1: [0, 2, 3], 2: [1, 3, 0], 3: [2, 1, 0]}[old[y][x]]
                    alike = [sum(new[b][a] == w for b, a in near) for w in rest]
                    i = 0 if self.decision(10 + alike[0]) else 1 if self.decision(13 + alike[1]) else 2
                    new[y][x] = rest[i]
            told.append((new, taps, change))
            old = new
        return told


@pytest.mark.parametrize("seed", range(4))
def test_a_second_decoder_reads_the_same(seed: int) -> None:
    frames = clip(70 + 64 * seed, seed, churn=0.4)
    for number, (weights, taps, change) in enumerate(Second(coded(frames)).read()):
        assert np.array_equal(weights, frames[number])
        assert taps == taps_of(number // GROUP * GROUP) and change == change_of(number // GROUP * GROUP)


def test_a_second_decoder_reads_the_golden_bytes() -> None:
    frames, taps, change = golden()
    told = Second(bytes.fromhex(GOLDEN)).read()
    assert [weights for weights, _, _ in told] == [frame.tolist() for frame in frames]
    assert [found for _, *found in told] == [[taps, change]] * 3


def test_the_check_is_of_samples_not_of_memory() -> None:
    wide = made.planes(3, 64, 48, 10)
    sparse = replace(wide, y=np.repeat(wide.y, 2, 1)[:, ::2], u=np.asfortranarray(wide.u), v=wide.v.astype(">u2"))
    assert sidecode.check_of(wide) == sidecode.check_of(sparse)
    data = b"".join(plane.astype("<u2").tobytes() for plane in (wide.y, wide.u, wide.v))
    assert sidecode.check_of(wide) == zlib.crc32(data)
    narrow = made.planes(3, 64, 48)
    assert sidecode.check_of(narrow) == zlib.crc32(narrow.y.tobytes() + narrow.u.tobytes() + narrow.v.tobytes())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({0: 0}, CorruptError), ({4: 5}, VersionError), ({4: 3}, VersionError), ({4: 1}, VersionError),
        ({4: 0}, CorruptError),
        ({5: 5}, CorruptError), ({5: 1}, CorruptError), ({6: 5}, CorruptError), ({7: 3}, CorruptError),
        ({8: 0x7F}, CorruptError),
        ({10: 7}, CorruptError), ({11: 63}, CorruptError), ({20: 0, 21: 0}, CorruptError), ({22: 0, 23: 0}, CorruptError),
        ({24: 0, 25: 0, 26: 0, 27: 0}, CorruptError), ({32: 129}, CorruptError), ({20: 255, 22: 255}, LimitError),
    ],
)  # fmt: skip
def test_impossible_facts_are_refused(change: dict[int, int], error: type[FovealError]) -> None:
    body = bytearray(coded(clip(3))[:-4])
    for place, value in change.items():
        body[place] = value
    with pytest.raises(error):
        SideReader(sealed(bytes(body)))


def test_every_cut_and_every_damaged_byte_is_seen() -> None:
    data = coded(clip(6))
    for length in range(len(data)):
        with pytest.raises((TruncatedError, CorruptError)):
            SideReader(data[:length])
    for place in range(len(data)):
        damaged = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        with pytest.raises((FormatError, LimitError)):
            SideReader(damaged)


@given(st.binary(max_size=60))
@example(b"\xff" * 40)
def test_an_invented_stream_ends_in_weights_or_a_typed_error(stream: bytes) -> None:
    head = replace(FACTS, frames=70).to_bytes()
    reader = SideReader(sealed(head + stream))
    try:
        weights, taps = reader.frame(69)
        change = reader.change(69)
    except CorruptError:
        return
    assert weights.shape == FACTS.blocks and set(np.unique(weights)) <= {0, 0.5, 1, 1.5}
    assert taps.shape == (TAPS,) and taps.min() >= -2 and taps.max() < 2
    assert len(change) == 36 * CHANNELS and min(change) >= -128 and max(change) <= 127


@given(st.binary(max_size=80))
def test_anything_else_is_a_typed_error(data: bytes) -> None:
    with pytest.raises((FormatError, LimitError)):
        SideReader(data)


def test_the_largest_frame_count_costs_nothing_until_it_is_asked_for() -> None:
    reader = SideReader(sealed(replace(FACTS, frames=2**32 - 1).to_bytes()))
    assert reader.frame(0)[0].shape == FACTS.blocks


def test_too_many_bytes_and_frames_that_are_not_there() -> None:
    with pytest.raises(LimitError, match="at most"):
        SideReader(bytes(sidecode.MAX_BYTES + 1))
    reader = SideReader(coded(clip(3)))
    for number in (-1, 3):
        for asked in (reader.frame, reader.change):
            with pytest.raises(InputError, match="of 3 frames"):
                asked(number)


@pytest.mark.parametrize(
    "facts",
    [replace(FACTS, scale=3.0), replace(FACTS, codec="mpeg2"), replace(FACTS, kernel="box"), replace(FACTS, model="xl"),
     replace(FACTS, channels=129), replace(FACTS, channels=-1),
     replace(FACTS, weights=b"1"), replace(FACTS, width=0), replace(FACTS, height=1 << 16)],
)  # fmt: skip
def test_facts_that_do_not_fit_are_refused(facts: Facts) -> None:
    with pytest.raises(InputError, match="no side information"):
        facts.to_bytes()


def test_symbols_of_a_stream_are_read_as_written() -> None:
    rng, pusher = np.random.default_rng(1), Pusher()
    written = [(int(rng.integers(28)), bool(rng.random() < 0.2)) for _ in range(2000)]
    for context, bit in written:
        pusher.put(context, bit)
        pusher.put_bits(context, 6)
    puller = sidecode.Puller(pusher.finish())
    assert [(puller.get(context), puller.get_bits(6)) for context, _ in written] == [(bit, c) for c, bit in written]
