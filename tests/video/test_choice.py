"""Which size: probes at equal bits, sizes that fit, VMAF as the goal."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import video_clips as made

from foveal.errors import InputError, UnsupportedVideoError
from foveal.video import choice
from foveal.video.basecodec import EncoderSettings
from foveal.video.choice import Probe, choose, sample, shrink, small_size
from foveal.video.frames import Reader
from foveal.video.resize import resize_planes
from foveal.video.types import Planes, VideoFormat


def plain(video: VideoFormat) -> choice.Receiver:
    """A receiver that resamples alone."""

    def receiver(scale: float, settings: EncoderSettings, coded: choice.Coded) -> choice.Show:
        def show(small: Planes, original: Planes) -> Planes:
            return small if scale == 1 else resize_planes(small, video.width, video.height, ratio=1 / scale)

        return show

    return receiver


class Known(Probe):
    """A probe whose encodes follow a law: bytes = base x 2^(-crf/6), error = floor + slope / bytes."""

    laws: ClassVar[dict[float, tuple[float, float, float]]] = {
        1.0: (400000.0, 0.0, 4e5),
        1.5: (240000.0, 2.0, 3e5),
        2.0: (160000.0, 6.0, 1.6e5),
    }

    def __init__(self, settings: EncoderSettings) -> None:
        video = made.video_format(640, 480)
        super().__init__([made.planes()] * 25, video, settings, plain(video), Path())
        self.measured: list[tuple[float, float]] = []

    def _code(self, scale: float, crf: float) -> int:
        return round(self.laws[scale][0] * 2 ** (-crf / 6 * 51 / self.settings.encoder.worst))

    def _measure(self, scale: float, crf: float, with_vmaf: bool) -> tuple[float, float]:
        self.measured.append((scale, crf))
        error = error_at(scale, self.size(scale, crf))
        return error, 100 - 4 * error if with_vmaf else 0.0


def error_at(scale: float, size: float) -> float:
    return Known.laws[scale][1] + Known.laws[scale][2] / size


@pytest.mark.parametrize("codec", ["x264", "svtav1"])
@pytest.mark.parametrize("share", [0.1, 0.35, 0.5, 0.7, 0.8])
def test_the_least_error_at_equal_bits_wins_and_keeps_to_the_budget(codec: str, share: float) -> None:
    settings = EncoderSettings(codec, crf=round(share * (51 if codec == "x264" else 63)))
    probe = Known(settings)
    found = choice.by_error(probe, choice.SCALES)
    budget = probe.size(1.0, settings.crf or 0)
    best = min(choice.SCALES, key=lambda scale: error_at(scale, budget))
    near = 10 * math.log10(error_at(found.scale, budget) / error_at(best, budget))
    assert near < 0.15  # only a tie may go another way
    assert len(probe.sizes) <= 9 and len(probe.measured) <= 5
    assert probe.size(found.scale, found.settings.used_crf or 0) == pytest.approx(budget, rel=0.06)
    assert "full size" in found.why and "half size" in found.why and "kbit/s" in found.why
    assert f"crf {found.settings.used_crf:g}" in found.why


def test_rates_decide() -> None:
    assert choice.by_error(Known(EncoderSettings("x264", crf=10)), choice.SCALES).scale == 1
    assert choice.by_error(Known(EncoderSettings("x264", crf=46)), choice.SCALES).scale == 2


def test_a_bitrate_stays_what_it_is() -> None:
    settings = EncoderSettings("x264", bitrate=80000)
    found = choice.by_error(Known(settings), choice.SCALES)
    assert found.settings == settings
    assert found.scale == min(choice.SCALES, key=lambda scale: error_at(scale, 80000 * 25 * 1001 / 30000 / 8))


def test_full_size_is_kept_in_a_tie(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Known, "laws", dict.fromkeys(choice.SCALES, (400000.0, 0.0, 400000.0)))
    assert choice.by_error(Known(EncoderSettings("x264", crf=30)), choice.SCALES).scale == 1


@pytest.mark.parametrize("codec", ["x264", "svtav1"])
@pytest.mark.parametrize("goal", [60, 80.1, 93])
def test_vmaf_is_reached_with_the_least_bits(codec: str, goal: float) -> None:
    probe = Known(EncoderSettings(codec))
    found = choice.by_vmaf(probe, choice.SCALES, goal)
    point = probe.point(found.scale, found.settings.crf or 0, True)
    assert goal <= point.vmaf < goal + 2
    assert len(probe.points) < 3 * 9
    for scale in choice.SCALES:
        reached = [p for p in probe.points.values() if p.scale == scale and p.vmaf >= goal]
        assert not reached or point.bytes <= min(p.bytes for p in reached) * 1.006
    assert f"VMAF {point.vmaf:.1f}" in found.why


def test_vmaf_that_cannot_be_reached_is_an_error_with_the_best() -> None:
    with pytest.raises(InputError, match=r"target-vmaf 99\.9: not reached; the best is 9\d\.\d, at full size"):
        choice.by_vmaf(Known(EncoderSettings("x264")), choice.SCALES, 99.9)


@pytest.mark.parametrize(
    ("size", "scale", "small"),
    [((64, 48), 2, (32, 24)), ((64, 48), 1, (64, 48)), ((65, 49), 1, (65, 49)), ((65, 49), 2, (34, 26)),
     ((64, 48), 1.5, (44, 32)), ((719, 405), 1.5, (480, 270)), ((2, 2), 2, (2, 2))],
)  # fmt: skip
def test_small_sizes_are_even_and_lose_nothing(size: tuple[int, int], scale: float, small: tuple[int, int]) -> None:
    assert small_size(*size, scale) == small
    shrunk = shrink(made.planes(0, *size), scale, 0)
    assert shrunk.y.shape == small[::-1] and shrunk.u.shape == (-(-small[1] // 2), -(-small[0] // 2))


def test_what_is_shrunk_comes_back_at_its_place() -> None:
    planes = made.planes(0, 65, 49)
    for scale in (1.5, 2.0):
        back = resize_planes(shrink(planes, scale, 1), 65, 49, ratio=1 / scale, chroma_location=1)
        gaps = [np.abs(a.astype(float) - b).mean() for a, b in ((back.y, planes.y), (back.u, planes.u))]
        assert max(gaps) < 9, gaps


def test_short_videos_are_probed_whole_and_long_ones_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made.clip(tmp_path / "a.mp4", times=range(60), options={"g": "5", "crf": "1"})
    with Reader(path) as reader:
        video, frames = reader.format, list(reader)
    assert len(sample(path, video)) == 60
    monkeypatch.setattr(choice, "SEGMENT_SECONDS", 0.2)
    found = sample(path, video)
    assert len(found) == 18
    places = [next(n for n, f in enumerate(frames) if np.array_equal(f.planes.y, p.y)) for p in found]
    assert places == [*range(7, 13), *range(27, 33), *range(47, 53)]
    monkeypatch.setattr(choice, "MEMORY", 5 * 64 * 48 * 3 // 2)
    assert len(sample(path, video)) <= 6


def test_lossless_codecs_and_tiny_videos_stay_as_they_are(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", width=20, height=20)
    with Reader(path) as reader:
        video = reader.format
    assert "lossless" in choose(path, video, EncoderSettings("ffv1"), plain(video)).why
    found = choose(path, video, EncoderSettings("x264"), plain(video))
    assert found.scale == 1 and "too small" in found.why


def test_real_probes(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", "ffv1", width=160, height=96, times=range(6))
    with Reader(path) as reader:
        video = reader.format
    settings = EncoderSettings("x264", crf=40, preset="ultrafast")
    found = choose(path, video, settings, plain(video))
    assert found.scale in choice.SCALES and found.settings.codec == "x264"
    probe = Probe(sample(path, video), video, settings, plain(video), tmp_path)
    low, high = probe.point(1.0, 45), probe.point(1.0, 15)
    assert low.bytes < high.bytes and low.error > high.error > 0
    assert probe.size(2.0, 15) < high.bytes


def test_vmaf_is_measured_on_what_is_shown(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", "ffv1", width=160, height=96, times=range(4))
    with Reader(path) as reader:
        video = reader.format
    probe = Probe(sample(path, video), video, EncoderSettings("x264", preset="ultrafast"), plain(video), tmp_path)
    good, bad = probe.point(1.0, 4, True), probe.point(1.0, 45, True)
    assert 100 >= good.vmaf > bad.vmaf >= 0 and good.vmaf > 80


def test_missing_ffmpeg_names_the_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import sys

    from foveal.errors import MissingExtraError
    from foveal.video.vmaf import vmaf

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(MissingExtraError, match=r"pip install '.\[bench\]'"):
        vmaf(tmp_path / "a.y4m", tmp_path / "b.y4m")


def test_ffmpeg_that_fails_is_told(tmp_path: Path) -> None:
    from foveal.errors import FovealError
    from foveal.video.vmaf import vmaf

    with pytest.raises(FovealError, match="could not measure VMAF"):
        vmaf(tmp_path / "a.y4m", tmp_path / "b.y4m")


@pytest.mark.parametrize("late", [0, 100])
def test_pictures_are_sampled_where_there_are_some(late: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made.outlasted(tmp_path / "a.mkv", late=late)
    with Reader(path) as reader:
        video, frames = reader.format, [frame.planes.y for frame in reader]
    monkeypatch.setattr(choice, "SEGMENT_SECONDS", 0.24)
    found = sample(path, video)
    places = [next(n for n, y in enumerate(frames) if np.array_equal(y, p.y)) for p in found]
    assert places == [*range(6, 12), *range(22, 28), *range(39, 45)]


def test_probes_in_threads_leave_the_warnings_of_the_process_alone(tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv", "ffv1", width=96, height=64, times=range(4))
    with Reader(path) as reader:
        video = reader.format
    before = list(warnings.filters)

    def one(crf: float) -> float:
        return choose(path, video, EncoderSettings("x264", crf=crf, preset="ultrafast"), plain(video)).scale

    with ThreadPoolExecutor(3) as pool:
        assert set(pool.map(one, range(30, 36))) <= set(choice.SCALES)
    assert list(warnings.filters) == before


@pytest.mark.parametrize(("seconds", "each"), [(112.0, 1.0), (12.0, 1.0), (3.0, 0.24)])
def test_a_duration_beyond_the_end_is_not_believed(
    seconds: float, each: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made.outlasted(tmp_path / "a.mkv")
    with Reader(path) as reader:
        video = replace(reader.format, seconds=seconds)
    monkeypatch.setattr(choice, "SEGMENT_SECONDS", each)
    found = sample(path, video)
    assert len(found) == (50 if each == 1.0 else 12)  # all of them, or two pieces of three
    assert len(choice.take(path, 1.0, 10)) == 10 and choice.take(path, 2.5, 10) == []


def test_a_file_without_pictures_is_still_refused(tmp_path: Path) -> None:
    path = made.with_cover(tmp_path / "a.mp4", pictures=False)
    with pytest.raises(UnsupportedVideoError, match="no video in it"):
        choice.take(path, 0.0, 4)


@pytest.mark.parametrize("scales", [choice.SCALES, (2.0,)])
def test_lossless_codecs_have_no_vmaf_to_reach(scales: tuple[float, ...], tmp_path: Path) -> None:
    path = made.clip(tmp_path / "a.mkv")
    with Reader(path) as reader, pytest.raises(InputError, match=r"target-vmaf 90: ffv1 is lossless; leave it out"):
        choose(path, reader.format, EncoderSettings("ffv1"), plain(reader.format), scales, 90)


def test_sizes_that_cannot_be_coded_at_a_bitrate_are_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[float]] = []
    monkeypatch.setattr(choice, "sample", lambda *_: [made.planes(0, 120, 100)])
    monkeypatch.setattr(choice, "by_error", lambda _, scales: asked.append(scales))
    video = made.video_format(120, 100)
    for settings in (EncoderSettings(crf=30), EncoderSettings(bitrate=80000), EncoderSettings("x264", bitrate=80000)):
        choose("a.mkv", video, settings, plain(video))
    assert asked == [[1.0, 1.5, 2.0], [1.0, 1.5], [1.0, 1.5, 2.0]]


def test_probes_tell_nothing_of_their_own_files(tmp_path: Path) -> None:
    """65x49 becomes even for x264, which is told of the file that is asked for, not of those that nobody sees."""
    path = made.clip(tmp_path / "a.mkv", "ffv1", width=65, height=49, times=range(4))
    with Reader(path) as reader:
        video = reader.format
    probe = Probe(sample(path, video), video, EncoderSettings("x264", preset="ultrafast"), plain(video), tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe.size(1.0, 30) > 0
