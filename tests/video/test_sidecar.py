"""Side information in files: found where it was put, nothing else moved, and no file that breaks the search."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import pytest
import video_clips as made
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from foveal.errors import InputError, LimitError
from foveal.video import sidecar
from foveal.video.frames import Reader

KINDS = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "webm": "libsvtav1"}
DATA = bytes(range(256)) * 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("clips")
    found = {kind: made.clip(folder / f"in.{kind}", codec).read_bytes() for kind, codec in KINDS.items()}
    with av.open(str(folder / "fonts.mkv"), "w") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        out.add_attachment("font.ttf", "application/x-truetype-font", b"F" * 500)
        out.add_attachment("notes.txt", "text/plain", b"notes")
        out.mux(stream.encode(made.picture(made.planes(), 0, made.BASE)))
        out.mux(stream.encode(None))
    return found | {"fonts.mkv": (folder / "fonts.mkv").read_bytes()}


def packets(path: Path) -> list[tuple[object, ...]]:
    with av.open(str(path)) as container:
        return [(p.stream_index, p.pts, p.dts, bytes(p)) for p in container.demux(container.streams.video[0])]


def attached(path: Path) -> dict[str, bytes]:
    with av.open(str(path)) as container:
        return {s.name: bytes(s.data) for s in container.streams if s.type == "attachment"}


@pytest.mark.parametrize("kind", [*KINDS, "fonts.mkv"])
def test_found_where_it_was_put_and_nothing_else_moved(kind: str, clips: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"clip.{kind}"
    path.write_bytes(clips[kind])
    before, files = packets(path), attached(path)
    missing = sidecar.find(path)
    assert missing.data is None and "no side information" in missing.reason
    for data in (DATA, b"", b"\xff" * 5000, DATA):  # each in place of the one before
        sidecar.put(path, data)
        assert sidecar.find(path) == sidecar.Found(data)
        assert packets(path) == before
        with Reader(path) as reader:  # which knows a file that is not whole
            assert sum(1 for _ in reader) > 0
    after = attached(path)
    assert after.pop(sidecar.NAME, DATA) == DATA
    assert after == files
    assert (sidecar.NAME in attached(path)) == (kind not in ("mp4", "mov"))


def test_a_rich_file_keeps_everything(tmp_path: Path) -> None:
    for kind in ("mp4", "mkv"):
        path = made.rich(tmp_path / f"rich.{kind}")
        before = made.facts(path)
        sidecar.put(path, DATA)
        after = made.facts(path)
        after["streams"] = [s for s in after["streams"] if s.get("name") != sidecar.NAME]
        assert after == before


class Pipe:
    """Takes bytes and cannot go back, so that the muxer cannot write sizes."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def test_matroska_from_a_pipe(tmp_path: Path) -> None:
    """The Segment does not say where it ends."""
    pipe, path = Pipe(), tmp_path / "live.mkv"
    with av.open(pipe, "w", format="matroska") as out:
        stream = out.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        out.mux(stream.encode(made.picture(made.planes(), 0, made.BASE)))
        out.mux(stream.encode(None))
    path.write_bytes(pipe.data)
    before = packets(path)
    sidecar.put(path, DATA)
    assert sidecar.find(path).data == DATA and packets(path) == before


def test_matroska_whose_last_part_has_no_end(clips: dict[str, bytes], tmp_path: Path) -> None:
    path, data = tmp_path / "open.mkv", bytearray(clips["mkv"])
    place = data.index(bytes.fromhex("1f43b675")) + 4  # a Cluster
    length = 9 - data[place].bit_length()
    data[place : place + length] = ((1 << 7 * length + 1) - 1).to_bytes(length, "big")
    path.write_bytes(data)
    assert sidecar.find(path).data is None
    with pytest.raises(InputError, match="whatever its size"):
        sidecar.put(path, DATA)
    assert path.read_bytes() == data


def test_matroska_without_room_to_point_at_it(clips: dict[str, bytes], tmp_path: Path) -> None:
    """The Void behind the SeekHead is not a Void: the attachment is found by going through the file."""
    path, data = tmp_path / "full.mkv", bytearray(clips["mkv"])
    head = data.index(sidecar.SEEK_HEAD.to_bytes(4, "big"))
    void = head + 5 + (data[head + 4] & 0x7F)
    assert data[head + 4] & 0x80 and data[void] == sidecar.VOID
    data[void] = 0xE7  # an ID that nothing looks for here
    path.write_bytes(data)
    sidecar.put(path, DATA)
    assert sidecar.find(path).data == DATA
    assert path.read_bytes()[head : void + 1] == data[head : void + 1]


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_a_damaged_structure_is_told_not_raised(kind: str, clips: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"clip.{kind}"
    path.write_bytes(clips[kind])
    sidecar.put(path, DATA)
    whole = path.read_bytes()
    for length in (0, 3, 7, 8, 20, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        assert sidecar.find(path).data is None and sidecar.find(path).reason
        with pytest.raises(InputError, match="cannot take side information"):
            sidecar.put(path, DATA)
        assert path.read_bytes() == whole[:length]


@given(kind=st.sampled_from(["mp4", "mkv"]), data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_damage_ends_in_an_answer(kind: str, data: st.DataObject, clips: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"damaged.{kind}"
    path.write_bytes(clips[kind])
    sidecar.put(path, DATA)
    damaged = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[place] = data.draw(st.integers(0, 255))
    path.write_bytes(damaged)
    found = sidecar.find(path)
    assert (found.data is None) == bool(found.reason)


def test_a_size_beyond_the_limit_is_not_read(clips: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "large.mp4"
    with path.open("wb") as file:
        file.write(clips["mp4"] + struct.pack(">I4s", 24 + sidecar.MAX_BYTES + 1, b"uuid") + sidecar.UUID)
        file.truncate(len(clips["mp4"]) + 24 + sidecar.MAX_BYTES + 1)
    assert "over" in sidecar.find(path).reason
    with pytest.raises(LimitError, match="at most"):
        sidecar.put(path, bytes(sidecar.MAX_BYTES + 1))


def test_a_box_of_64_bits_and_one_to_the_end(clips: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / "long.mp4"
    long = struct.pack(">I4sQ", 1, b"uuid", 32 + len(DATA)) + sidecar.UUID + DATA
    path.write_bytes(clips["mp4"] + long)
    assert sidecar.find(path).data == DATA
    path.write_bytes(clips["mp4"] + struct.pack(">I4s", 0, b"free") + b"rest")
    assert sidecar.find(path).data is None
    with pytest.raises(InputError, match="end of the file"):
        sidecar.put(path, DATA)


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    for content in (b"", b"YUV4MPEG2 W2 H2\n", b"RIFF1234AVI "):
        path.write_bytes(content)
        assert "neither MP4 nor Matroska" in sidecar.find(path).reason
        with pytest.raises(InputError, match="neither"):
            sidecar.put(path, DATA)
    assert sidecar.find(tmp_path / "absent.mp4").data is None
    with pytest.raises(InputError, match="absent"):
        sidecar.put(tmp_path / "absent.mp4", DATA)
