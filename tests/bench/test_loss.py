"""The loss benchmark: links, senders, resuming, the report."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foveal.bench import links, loss, loss_report
from foveal.errors import InputError


@pytest.mark.parametrize("channel", links.CHANNELS)
@pytest.mark.parametrize("rate", [0.01, 0.1, 0.3, 0.5])
def test_links_lose_their_share(channel: str, rate: float) -> None:
    lost = links.losses(channel, rate, 200_000, np.random.default_rng(0))
    assert abs(lost.mean() - rate) < 0.02
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost, [0]])))
    bursts = edges[1::2] - edges[::2]
    expected = 1 / (1 - rate) if channel == "bernoulli" else links.BURST
    assert abs(bursts.mean() - expected) < 0.1 * expected


def test_parity_brings_back_as_many_datagrams_as_it_has() -> None:
    data = np.random.default_rng(0).integers(0, 256, 1000, dtype=np.uint8).tobytes()
    sent = links.with_parity(data, 100)
    assert len(sent) == 13 and {len(m) for m in sent} == {100}
    for gone in ([0, 1, 2], [9, 10, 12], [4]):
        arrived = [None if i in gone else m for i, m in enumerate(sent)]
        assert links.rebuild(arrived, 10) == data
    assert links.rebuild([None] * 4 + list(sent[4:]), 10) is None


@pytest.mark.parametrize("name", links.SENDERS)
def test_senders_keep_to_the_budget_and_show_what_arrives(name: str, picture) -> None:
    image = Image.fromarray(picture(128, 192))
    sent = links.send(name, image, 3 * 1500, links.Cut(300, 2.5))
    assert sent.bytes <= 4500
    count = len(sent.datagrams)
    whole = links.receive(sent, np.zeros(count, bool))
    assert whole is not None and whole.shape == (128, 192, 3)
    nothing = links.receive(sent, np.ones(count, bool))
    assert nothing is None
    last = links.receive(sent, np.arange(count) == count - 1)
    assert last is None or last.shape == whole.shape


def test_foveal_and_parity_outlive_a_lost_first_datagram_and_jpeg_does_not(picture) -> None:
    image = Image.fromarray(picture(128, 192))
    shown = {}
    for name in ("foveal", "avif-rs", "jpeg-prog"):
        sent = links.send(name, image, 4500, links.Cut(300, 2.5))
        shown[name] = links.receive(sent, np.arange(len(sent.datagrams)) == 0)
    assert shown["foveal"] is not None and shown["avif-rs"] is not None
    assert shown["jpeg-prog"] is None


def test_unknown_senders_and_tiny_budgets_are_refused(picture) -> None:
    image = Image.fromarray(picture(64, 64))
    with pytest.raises(InputError, match="unknown sender"):
        links.send("pigeon", image, 1000, links.Cut(300, 2))
    with pytest.raises(InputError, match="are allowed"):
        links.send("webp", image, 20, links.Cut(300, 2))


def test_a_run_is_written_line_by_line_resumed_and_reported(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "loss.jsonl"
    options = {"output": output, "bpp": 8.0, "mtu": 200, "senders": ("foveal", "jpeg-rst"), "rates": (0.0, 0.3)}
    table = loss.bench_loss(folder, seeds=1, limit=1, report=tmp_path / "report", **options)
    lines = output.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["loss run"] + ["trial"] * 6
    assert "foveal" in table and len(table.splitlines()) == 1 + 2 * 2 * 2
    for name in ("loss.png", "loss-strip.png", "loss.txt"):
        assert (tmp_path / "report" / name).stat().st_size > 100
    output.write_text("\n".join(lines[:4]) + "\n{unfinished")
    assert loss.bench_loss(folder, seeds=1, limit=1, **options) == table
    assert sorted(output.read_text().splitlines()) == sorted(lines)
    with pytest.raises(InputError, match="was made with"):
        loss.bench_loss(folder, seeds=1, limit=1, **{**options, "mtu": 300})


def test_other_files_are_not_taken_for_results(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"kind": "point"}\n[1]\n')
    with pytest.raises(InputError, match="no results"):
        loss.read(tmp_path / "x.jsonl")
    with pytest.raises(InputError):
        loss.read(tmp_path / "none.jsonl")


def test_means_percentiles_and_broken_pictures() -> None:
    def trial(channel: str, rate: float, seed: int, psnr_db: float, decoded: bool = True) -> loss.Trial:
        return loss.Trial("a", "foveal", channel, rate, seed, 50, 100, 1.0, 10, 10, decoded, psnr_db, psnr_db / 100)

    trials = [trial("none", 0.0, 0, 40.0)]
    trials += [trial("bernoulli", 0.3, seed, value) for seed, value in enumerate([38.0, 36.0, 29.0])]
    trials += [trial("bernoulli", 0.3, 3, 12.0, decoded=False)]
    cells = {(c.channel, c.rate): c for c in loss_report.summary(trials)}
    assert set(cells) == {("bernoulli", 0.0), ("gilbert-elliott", 0.0), ("bernoulli", 0.3)}
    cell = cells["bernoulli", 0.3]
    assert (cell.trials, cell.psnr_db, cell.undecoded, cell.broken) == (4, 28.75, 0.25, 0.5)
    assert cell.psnr_db_p5 == pytest.approx(np.percentile([38, 36, 29, 12], 5))


def test_other_files_and_other_pictures_are_refused_and_left_alone(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "loss.jsonl"
    options = {"output": output, "bpp": 16.0, "mtu": 200, "senders": ("jpeg-rst",), "rates": (0.0,), "seeds": 1}
    for data in (b"notes", b"\x89PNG\r\n\x1a\n\0", b'{"my":"config"}', b'{"kind": "run", "date": "today"}\n'):
        output.write_bytes(data)
        with pytest.raises(InputError, match="left as it is; name another"):
            loss.bench_loss(folder, **options)
        assert output.read_bytes() == data
    for place in (tmp_path, folder / "a.png" / "loss.jsonl"):
        with pytest.raises(InputError, match="; name a"):
            loss.bench_loss(folder, **{**options, "output": place})

    output.write_text('{"kind": "loss run", "date": "2026')  # a run that was killed at once
    loss.bench_loss(folder, **options)
    with output.open("a") as file:
        file.write("{unfinished")
    before = output.read_bytes()
    assert all(trial.source for trial in loss.read(output)[1]) and str(tmp_path).encode() not in before
    with pytest.raises(InputError, match="was made with"):
        loss.bench_loss(folder, **{**options, "mtu": 300})
    (folder / "b.png").rename(folder / "a.png")
    with pytest.raises(InputError, match=r"another a\.png .*; name another output file"):
        loss.bench_loss(folder, **options)
    assert output.read_bytes() == before


def test_trials_of_old_know_no_source() -> None:
    committed = Path(__file__).parents[2] / "benchmarks" / "results" / "kodak-loss.jsonl"
    assert {trial.source for trial in loss.read(committed)[1]} == {""}
