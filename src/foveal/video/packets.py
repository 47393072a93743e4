"""Packets on their way from one file to another: their times, their form, and streams that hold sound back."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import Any

from foveal.video.basecodec import pyav
from foveal.video.subtitles import Change

_LANGUAGE, _CODEC_DELAY = b"\x22\xb5\x9c\x83und", b"\x56\xaa\x84"  # Matroska's elements (RFC 9559) with 3 and 4 bytes
_CLUSTER = b"\x1f\x43\xb6\x75\x83\xe7\x81\0"  # an empty one, at time 0


def time_of(packet: Any) -> Fraction:
    """When a packet belongs into the file, in seconds."""
    stamp = packet.dts if packet.dts is not None else packet.pts
    return Fraction(stamp or 0) * Fraction(packet.time_base)


def shown_at(packet: Any) -> Fraction:
    """When a packet is shown, in seconds."""
    return Fraction(packet.pts or 0) * Fraction(packet.time_base)


def from_start(packets: Iterable[Any], start: Fraction) -> Iterator[Any]:
    """Packets with times that count from ``start`` seconds."""
    for packet in packets:
        behind = round(start / packet.time_base) if start else 0
        if behind and packet.pts is not None:
            packet.pts -= behind
        if behind and packet.dts is not None:
            packet.dts -= behind
        yield packet


def with_times(packets: Iterable[Any]) -> Iterator[Any]:
    """Packets with decoding times also where Matroska, which keeps none, leaves them out at the start of a stream."""
    held: dict[int, list[Any]] = {}
    for packet in packets:
        if packet.pts is None and packet.dts is None:
            packet.pts = packet.dts = 0  # a cover picture
        if packet.dts is None:
            held.setdefault(packet.stream_index, []).append(packet)
            continue
        step, early = max(1, packet.duration or 1), held.pop(packet.stream_index, [])
        for place, other in enumerate(early):
            other.dts = packet.dts - (len(early) - place) * step
            yield other
        yield packet
    for rest in held.values():
        for packet, dts in zip(rest, decoding_times([packet.pts for packet in rest]), strict=True):
            packet.dts = dts
            yield packet


def decoding_times(shown: list[int]) -> list[int]:
    """Times to decode pictures at, in decoding order, that are to be shown at ``shown``: increasing, none after its
    picture is shown. The times of parts, which may start anew behind their ends, are left aside."""
    order = sorted(shown)
    rank = {time: place for place, time in enumerate(order)}
    delay = max(place - rank[time] for place, time in enumerate(shown))
    step = order[1] - order[0] if len(order) > 1 else 1
    return [order[0] - (delay - n) * step for n in range(delay)] + order[: len(order) - delay]


def moved(packet: Any, stream: Any) -> Any:
    """The packet, as one of ``stream``."""
    packet.stream = stream
    return packet


def changed(packet: Any, change: Change, stream: Any) -> Any:
    """A packet of text in another form, None when there is no text in it."""
    payload = change(bytes(packet))
    if payload is None:
        return None
    new = pyav().Packet(payload)
    new.pts, new.dts, new.duration, new.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    new.is_keyframe = True
    return moved(new, stream)


def delayed(out: Any, stream: Any, delay: Fraction) -> Any:
    """A new stream like ``stream``, of whose sound players leave out the first ``delay`` seconds (Matroska's CodecDelay).

    PyAV takes that from a template alone: the header of a file in memory, with it in place of the language.
    """
    av, file = pyav(), io.BytesIO()
    options = {"live": "1", "write_crc32": "0", "fflags": "+bitexact"}
    with av.open(file, "w", format="matroska", container_options=options) as header:
        header.add_stream_from_template(stream, opaque=True)
        header.start_encoding()
    element = _CODEC_DELAY + round(delay * 10**9).to_bytes(4, "big")
    file = io.BytesIO(file.getvalue().replace(_LANGUAGE, element, 1) + _CLUSTER)
    with av.open(file, format="matroska") as template:
        return out.add_stream_from_template(template.streams[0], opaque=True)
