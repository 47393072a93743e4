"""What the video benchmark sets out to measure."""

from __future__ import annotations

import pytest

from foveal.bench.video_plan import CODECS, RATES, Job, jobs, parse_rates
from foveal.errors import InputError


def test_there_are_five_rates_of_each_at_both_sizes() -> None:
    assert CODECS == ("x264", "x265", "svtav1")
    for full, half in RATES.values():
        assert len(full) == len(half) == 5
        assert list(full) == sorted(full) and list(half) == sorted(half)


def test_rates_are_changed_by_words() -> None:
    found = parse_rates(["x264=30,40/20,30.5"])
    assert found["x264"] == ((30, 40), (20, 30.5))
    assert found["x265"] == RATES["x265"]
    assert parse_rates([]) == RATES
    for word in ("x264", "x264=30", "x264=30,a/4", "x264=1/2/3"):
        with pytest.raises(InputError, match="--rates"):
            parse_rates([word])


def test_a_job_says_what_it_codes_and_measures() -> None:
    half = Job("a", "x265", 30, "half", "s", start=True)
    assert half.variants == ("S", "S+side")
    assert list(half.keys) == [("a", "x265", v, 30, part) for v in ("S", "S+side") for part in ("clip", "start")]
    assert half.encoding == {"codec": "x265", "crf": 30, "scale": 2, "side_information": True, "model": "s"}
    full = Job("a", "x265", 30, "full")
    assert full.variants == ("full",) and full.encoding["scale"] == 1 and not full.encoding["side_information"]
    assert Job("a", "x264", 30, "x1", "m").variants == ("x1-M", "x1-M+side")
    assert Job("a", "x264", 30, "auto", "m").encoding["scale"] == "auto"
    assert list(Job("a", "x264", 30, "rival").keys) == [("a", "x264", "realesr", 30, "start")]


def test_jobs_are_all_parts_of_all_clips() -> None:
    rates = {"x264": ((30, 40, 50), (20, 30, 40))}
    made = jobs(["a", "b"], ["x264"], ["s", "m"], rates, ["rates", "auto", "x1", "rival"])
    ways = [job.way for job in made if job.clip == "a"]
    assert [ways.count(way) for way in ("full", "half", "auto", "x1", "rival")] == [3, 9, 6, 6, 1]
    assert len({key for job in made for key in job.keys}) == sum(len(list(job.keys)) for job in made)
    assert {job.crf for job in made if job.start} == {30}
    assert [job.way for job in jobs(["a"], ["x264"], ["s"], rates, ["rival"])] == ["rival"]
    alone = jobs(["a"], ["x264"], ["s", "m"], rates, ["side"])
    assert [key for job in alone for key in job.keys] == [
        ("a", "x264", variant, crf, "clip") for variant in ("S+side", "M+side") for crf in (20, 30, 40)
    ]
    assert all(job.encoding["scale"] == 2 and job.encoding["side_information"] for job in alone)
    assert jobs(["a"], ["x264"], ["s"], rates, ["rates", "side"]) == jobs(["a"], ["x264"], ["s"], rates, ["rates"])
    with pytest.raises(InputError, match="no rates for codec 'vp9'"):
        jobs(["a"], ["vp9"], [], rates, ["rates"])
