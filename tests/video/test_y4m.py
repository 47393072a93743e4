"""y4m: there and back, and what is refused."""

from __future__ import annotations

import io
from fractions import Fraction

import numpy as np
import pytest
import video_clips as made

from foveal.errors import CorruptError, TruncatedError, UnsupportedVideoError
from foveal.video.types import VideoFormat
from foveal.video.y4m import Y4mInput, Y4mOutput

HEADER = b"YUV4MPEG2 W6 H4 F25:1 Ip A1:1 C420jpeg\n"


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("size", [(8, 6), (9, 7)])
def test_there_and_back(bits: int, size: tuple[int, int]) -> None:
    video = VideoFormat(
        *size,
        bits,
        Fraction(1001, 30000),
        Fraction(30000, 1001),
        aspect=Fraction(4, 3),
        full_range=True,
        chroma_location=1,
    )
    pipe, given = io.BytesIO(), [made.planes(i, *size, bits) for i in range(3)]
    output = Y4mOutput(pipe, video, bits)
    for planes in given:
        output.write(planes)
    pipe.seek(0)
    source = Y4mInput(pipe, "pipe")
    found = source.format
    assert (found.width, found.height, found.bits, found.rate, found.aspect, found.full_range) == (
        *size, bits, Fraction(30000, 1001), Fraction(4, 3), True,
    )  # fmt: skip
    for planes in given:
        back = source.read()
        assert back is not None
        assert all(np.array_equal(a, b) for a, b in zip(back, (planes.y, planes.u, planes.v), strict=True))
    assert source.read() is None


@pytest.mark.parametrize(
    ("colour", "sampling", "depth", "size"),
    [("420", "420", 8, 36), ("422p10", "422", 10, 96), ("444", "444", 8, 72), ("mono", "mono", 8, 24),
     ("444p12", "444", 12, 144)],
)  # fmt: skip
def test_samplings_have_their_own_size(colour: str, sampling: str, depth: int, size: int) -> None:
    data = HEADER.replace(b"420jpeg", colour.encode()) + b"FRAME\n" + bytes(size)
    source = Y4mInput(io.BytesIO(data), "pipe")
    assert (source.sampling, source.depth) == (sampling, depth)
    assert source.read() is not None
    assert source.read() is None


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", UnsupportedVideoError),
        (b"RIFF....", UnsupportedVideoError),
        (b"YUV4MPEG2 W6 F25:1\n", UnsupportedVideoError),
        (b"YUV4MPEG2 W6 Hmany F25:1\n", UnsupportedVideoError),
        (b"YUV4MPEG2 W6 H4 It\n", UnsupportedVideoError),
        (b"YUV4MPEG2 W6 H4 F4294967296:1\n", UnsupportedVideoError),
        (b"YUV4MPEG2 W6 H4 F25:1 A1:99999999999\n", UnsupportedVideoError),
        (b"YUV4MPEG2 W6 H4 C411\n", UnsupportedVideoError),
        (b"YUV4MPEG2 " + b"x" * 5000, UnsupportedVideoError),
        (HEADER + b"FRAME\n" + bytes(35), TruncatedError),
        (HEADER + b"PICTURE\n" + bytes(36), CorruptError),
    ],
)
def test_what_is_no_y4m_is_refused(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        Y4mInput(io.BytesIO(data), "pipe").read()
