"""The encoders: what may be chosen, what PyAV is told, and that two runs give the same bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import video_clips as made

from foveal.errors import InputError, UnsupportedVideoError
from foveal.video import basecodec
from foveal.video.basecodec import ENCODERS, EncoderSettings
from foveal.video.frames import Reader
from foveal.video.mux import Writer


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, False),
        ({"SIMD Extensions": {"baseline": ["X86_V2"]}}, False),  # as NumPy tells of a CPU with nothing beyond
        ({"SIMD Extensions": {"found": ["X86_V3"]}}, False),
        ({"SIMD Extensions": {"found": ["X86_V3", "X86_V4"]}}, True),
        ({"SIMD Extensions": {"found": ["AVX512F"]}}, True),
    ],
)
def test_avx512_is_known_of_every_cpu(told: dict[str, object], expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numpy.show_config", lambda mode: told)
    assert basecodec.has_avx512() is expected


def test_this_pyav_has_every_encoder() -> None:
    assert basecodec.available() == list(ENCODERS)


@pytest.mark.parametrize(
    "arguments",
    [
        {"codec": "h263"},
        {"crf": 23, "bitrate": 100000},
        {"codec": "x264", "crf": 52},
        {"codec": "svtav1", "crf": -1},
        {"bitrate": 900},
        {"codec": "x264", "preset": "fastest"},
        {"codec": "svtav1", "preset": 14},
        {"bits": 9},
        {"crf": "20"},
        {"bitrate": "800k"},
        {"codec": ["x264"]},
        {"threads": 0},
        {"gop": 0},
    ],
)
def test_settings_outside_their_range_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(InputError):
        EncoderSettings(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "crf", "quality"),
    [
        (EncoderSettings("x264"), 23, 23 / 51),
        (EncoderSettings("x265", crf=0), 0, 0.0),
        (EncoderSettings("svtav1", crf=63), 63, 1.0),
        (EncoderSettings("x264", bitrate=80000), None, None),
        (EncoderSettings("ffv1"), None, None),
    ],
)
def test_crf_and_the_networks_quality(settings: EncoderSettings, crf: float | None, quality: float | None) -> None:
    assert (settings.used_crf, settings.quality) == (crf, quality)


def test_options_name_threads_rate_and_siting() -> None:
    video = made.video_format()
    assert EncoderSettings("x264", bitrate=80000, gop=50).options(video) | {"x264-params": ""} == {
        "threads": "4", "g": "50", "b": "80000", "preset": "medium", "x264-params": "",
    }  # fmt: skip
    assert EncoderSettings("svtav1", crf=30.3, preset=8).options(video)["svtav1-params"] == "lp=4:crf=30.25"
    assert "pools=2:frame-threads=2" in EncoderSettings("x265", threads=2).options(video)["x265-params"]


def test_absent_encoder_is_named_with_those_there_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(basecodec, "_has", lambda _, name: name == "libx264")
    with pytest.raises(UnsupportedVideoError, match=r"no encoder libsvtav1.*it has: x264"):
        Writer(tmp_path / "a.mp4", made.video_format(), EncoderSettings("svtav1"))
    assert list(tmp_path.iterdir()) == []


def test_missing_pyav_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(basecodec.MissingExtraError, match=r"PyAV.*pip install '.\[video\]'"):
        basecodec.available()


@pytest.mark.parametrize("codec", list(ENCODERS))
def test_two_runs_give_the_same_bytes(codec: str, tmp_path: Path) -> None:
    preset = {"svtav1": 10, "ffv1": None}.get(codec, "fast")
    coded = []
    for name in ("a.mkv", "b.mkv"):
        with Writer(tmp_path / name, made.video_format(160, 96), EncoderSettings(codec, preset=preset)) as writer:
            for frame in made.frames(12, 160, 96):
                writer.write(frame)
        coded.append((tmp_path / name).read_bytes())
    assert coded[0] == coded[1]


@pytest.mark.parametrize(("codec", "crfs"), [("svtav1", (0, 20, 63)), ("x265", (0, 25, 51)), ("x264", (0, 25, 51))])
def test_a_lower_crf_is_nearer_to_the_original(codec: str, crfs: tuple[float, ...], tmp_path: Path) -> None:
    preset = 10 if codec == "svtav1" else "ultrafast"
    originals, errors = made.frames(4), []
    for crf in crfs:
        with Writer(tmp_path / "a.mkv", made.video_format(), EncoderSettings(codec, crf=crf, preset=preset)) as writer:
            for frame in originals:
                writer.write(frame)
        with Reader(tmp_path / "a.mkv") as reader:
            gaps = [(a.planes.y - b.planes.y.astype(float)) ** 2 for a, b in zip(reader, originals, strict=True)]
        errors.append(float(sum(gap.mean() for gap in gaps)))
    assert errors[0] < errors[1] < errors[2]


@pytest.mark.parametrize("codec", ["svtav1", "x265", "x264"])
def test_ten_bits_stay_ten(codec: str, tmp_path: Path) -> None:
    settings = EncoderSettings(codec, crf=1, preset=10 if codec == "svtav1" else "fast")
    with Writer(tmp_path / "a.mp4", made.video_format(bits=10), settings) as writer:
        for frame in made.frames(3, bits=10):
            writer.write(frame)
    with Reader(tmp_path / "a.mp4") as reader:
        assert reader.format.bits == 10
        frame = next(iter(reader))
    gap = abs(frame.planes.y.astype(int) - made.planes(0, bits=10).y)
    assert gap.mean() < 8 and frame.planes.y.max() > 255


def test_x264_says_the_threads_it_was_given(tmp_path: Path) -> None:
    with Writer(tmp_path / "a.mkv", made.video_format(64, 256), EncoderSettings("x264", threads=2)) as writer:
        for frame in made.frames(2, 64, 256):
            writer.write(frame)
    assert re.findall(rb" threads=(\d+)", (tmp_path / "a.mkv").read_bytes()) == [b"2"]


@pytest.mark.parametrize(("codec", "size"), [("x265", (8, 8)), ("svtav1", (2, 2))])
def test_too_small_pictures_are_refused(codec: str, size: tuple[int, int], tmp_path: Path) -> None:
    with pytest.raises(UnsupportedVideoError, match="at least"):
        Writer(tmp_path / "a.mkv", made.video_format(*size), EncoderSettings(codec))


def test_svtav1_has_a_highest_bitrate(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"bitrate 100000001: svtav1 takes 100000000 at most; give that, or a crf"):
        EncoderSettings("svtav1", bitrate=100_000_001)
    assert EncoderSettings("x264", bitrate=300_000_000).bitrate == 300_000_000
    settings = EncoderSettings("svtav1", bitrate=100_000_000, preset=10)
    with Writer(tmp_path / "a.mkv", made.video_format(64, 64), settings) as writer:  # and it takes just that
        writer.write(made.frames(1, 64, 64)[0])


@pytest.mark.parametrize("size", [(80, 60), (60, 80), (64, 63), (16, 16)])
def test_svtav1_codes_small_pictures_at_a_crf_alone(size: tuple[int, int], tmp_path: Path) -> None:
    refused = rf"{size[0]}x{size[1]}: svtav1 keeps to a bitrate from pictures of 64x64 on; give --crf"
    with pytest.raises(UnsupportedVideoError, match=refused):
        Writer(tmp_path / "a.mkv", made.video_format(*size), EncoderSettings("svtav1", bitrate=80000))
    assert list(tmp_path.iterdir()) == []
    for settings in (EncoderSettings("svtav1", crf=50, preset=10), EncoderSettings("x264", bitrate=80000)):
        with Writer(tmp_path / "a.mkv", made.video_format(*(n & ~1 for n in size)), settings) as writer:
            writer.write(made.frames(1, *(n & ~1 for n in size))[0])


@pytest.mark.parametrize("arguments", [{"bitrate": 80000}, {"crf": 14}, {"crf": 0}, {"preset": 6}])
def test_a_lossless_codec_has_no_rate_and_no_preset(arguments: dict[str, int]) -> None:
    ((name, value),) = arguments.items()
    with pytest.raises(InputError, match=rf"^{name} {value}: ffv1 is lossless; leave it out, or take another codec$"):
        EncoderSettings("ffv1", **arguments)  # type: ignore[arg-type]
