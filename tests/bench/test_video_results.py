"""The video benchmark's file: one line a measurement, resumed, and not mixed with others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from foveal.bench import video_results as results
from foveal.errors import InputError

RUN = {"options": {"frames": 8, "threads": 1}, "encoders": {"av": "1"}, "date": "today"}
SPEED = results.Speed("lanczos", 1280, 720, 24, 1, 2.0, 1.5, 90.0, None, "")


def test_what_is_written_is_read_back(tmp_path: Path, video_point) -> None:
    output, point = tmp_path / "new" / "video.jsonl", video_point("a", "full", 30, 100, 35)
    assert results.open_output(output, RUN, [], True, {}).items == []
    for item in (RUN, point, SPEED, point):
        results.append(output, item)
    found = results.open_output(output, RUN, [], True, {})
    assert (found.runs, found.items) == ((RUN,), [point, SPEED])
    assert (SPEED.fps, SPEED.cpu_fps) == (12, 16)
    assert [json.loads(line)["kind"] for line in output.read_text().splitlines()] == [
        "video run",
        "point",
        "speed",
        "point",
    ]


def test_an_unfinished_line_is_cut_and_afresh_begins_anew(tmp_path: Path, video_point) -> None:
    output = tmp_path / "video.jsonl"
    results.append(output, SPEED)
    with output.open("a") as file:
        file.write('{"kind": "poi')
    assert results.open_output(output, RUN, [], True, {}).items == [SPEED]
    assert output.read_text().endswith("}\n")
    assert results.open_output(output, RUN, [], False, {}).items == []


@pytest.mark.parametrize("name", ["options", "encoders"])
def test_other_options_and_encoders_are_refused(tmp_path: Path, name: str) -> None:
    output = tmp_path / "video.jsonl"
    results.append(output, RUN)
    with pytest.raises(InputError, match=f"made with {name}"):
        results.open_output(output, {**RUN, name: {"av": "2"}}, [], True, {})


def test_other_weights_are_refused(tmp_path: Path, video_point, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "video.jsonl"
    monkeypatch.setattr(results, "weights_of", lambda variant: "1111" if "S" in variant else "2222")
    results.append(output, RUN)
    results.append(output, video_point("a", "S+side", 30, 100, 35, weights="1111"))
    results.append(output, video_point("a", "auto-S", 30, 100, 35, weights="1111"))
    results.append(output, video_point("a", "x1-M", 30, 100, 35, weights="old"))
    assert len(results.open_output(output, RUN, ["s"], True, {}).points) == 3
    with pytest.raises(InputError, match="x1-M with weights old, they are 2222"):
        results.open_output(output, RUN, ["s", "m"], True, {})


@pytest.mark.parametrize(
    ("variant", "model"),
    [
        ("full", ""),
        ("lanczos", ""),
        ("realesr", ""),
        ("S", "s"),
        ("M+side", "m"),
        ("x1-L", "l"),
        ("x1-S+side", "s"),
        ("auto-M", "m"),
    ],
)
def test_a_variants_name_tells_its_model(variant: str, model: str) -> None:
    assert results.model_of(variant) == model


@pytest.mark.parametrize(("name", "value"), [("clip", ["a"]), ("bytes", "many"), ("vmaf", None), ("why", 3)])
def test_values_of_another_type_are_refused(tmp_path: Path, video_point, name: str, value: object) -> None:
    file = tmp_path / "x.jsonl"
    results.append(file, video_point("a", "full", 30, 100, 30))
    assert len(results.read(file).points) == 1
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}) + "\n")
    with pytest.raises(InputError, match="line 1"):
        results.read(file)


@pytest.mark.parametrize("line", ["[]", "{", '{"kind": "point"}', '{"kind": "loss run"}', '{"kind": ["speed"]}'])
def test_other_files_are_not_taken_for_results(tmp_path: Path, line: str) -> None:
    (tmp_path / "x.jsonl").write_text(line + "\n")
    with pytest.raises(InputError, match="line 1"):
        results.read(tmp_path / "x.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        results.read(tmp_path / "none.jsonl")


def test_a_hash_is_of_the_tensors_of_the_mode_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(results, "files", lambda package: tmp_path)

    def hashes(**tensors: float) -> list[str]:
        results.weights_of.cache_clear()
        arrays = {name.replace("_", "."): np.full(3, value, np.float16) for name, value in tensors.items()}
        save_file(arrays, tmp_path / "weights" / "video-z.safetensors")
        return [results.weights_of(variant) for variant in ("Z", "x1-Z+side", "auto-Z")]

    before = hashes(x2_a=1, x1_a=2)
    after = hashes(x2_a=1, x1_a=3)
    assert before[0] == after[0] == hashes(x2_a=1)[0]
    assert before[1] != after[1] and before[2] != after[2]
    assert len({*before, *after}) == 5
    results.weights_of.cache_clear()


def test_weights_that_are_not_there_are_an_input_error() -> None:
    assert results.weights_of("lanczos") == ""
    with pytest.raises(InputError, match="'q'"):
        results.weights_of("Q+side")


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize("data", [b"notes", b"\x89PNG\r\n\x1a\n\0", b'{"my":"config"}', b'{"kind": "run"}\n'])
def test_what_is_not_ours_is_left_alone(tmp_path: Path, data: bytes, resume: bool) -> None:
    output = tmp_path / "notes.txt"
    output.write_bytes(data)
    with pytest.raises(InputError, match="left as it is; name another"):
        results.open_output(output, RUN, [], resume, {})
    assert output.read_bytes() == data


def test_a_refused_file_keeps_its_unfinished_line_and_a_folder_is_no_output(tmp_path: Path) -> None:
    output = tmp_path / "video.jsonl"
    results.append(output, RUN)
    with output.open("a") as file:
        file.write('{"kind": "poi')
    before = output.read_bytes()
    with pytest.raises(InputError, match="made with options"):
        results.open_output(output, {**RUN, "options": {}}, [], True, {})
    assert output.read_bytes() == before
    for place in (tmp_path, output / "video.jsonl"):
        with pytest.raises(InputError, match="; name a"):
            results.open_output(place, RUN, [], True, {})
