"""The commands that train: what they refuse is one line and status 2, before any work and with nothing left behind."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import tarfile
import threading

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from typer.testing import CliRunner

from foveal import registry
from foveal.cli import app
from foveal.errors import InputError
from foveal.image.network import Network
from foveal.image.transform import SIZES
from foveal.train import checkpoint, data, finish, loop, video_clips, video_export, video_workers
from foveal.train.losses import ImageModel
from foveal.train.stopping import as_on_ctrl_c
from foveal.train.video_loop import averaged
from foveal.video import attention_sr

IMAGE = ("train", "image", "--data", "pictures", "-o", "a.sft")
VIDEO = ("train", "video", "--data", "pictures", "-o", "a.sft", "--pool", "pool.sft", "--pairs", "4")


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="foveal")


@pytest.fixture
def here(tmp_path, monkeypatch, folder):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").symlink_to(folder)
    (tmp_path / "file").touch()
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "a.png").write_bytes((folder / "p0.png").read_bytes())
    checkpoint.save(tmp_path / "small.sft", {}, {"size": "s"})
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ((*IMAGE, "--lr", "nan"), "lr nan"),
        ((*IMAGE, "--lr", "-1"), "lr -1"),
        ((*IMAGE, "--seed", "-1"), "seed -1"),
        ((*IMAGE, "--seed", str(10**20)), "seed 1"),
        ((*IMAGE, "--slice-minutes", "inf"), "slice_minutes inf"),
        ((*IMAGE, "--log", "pictures"), "pictures is a folder"),
        ((*IMAGE, "--log", "file/a.jsonl"), "its folder cannot be made"),
        ((*IMAGE, "--preview", "a.xyz"), "of no kind that is written"),
        ((*IMAGE, "--preview", "a.xbm"), "of no kind that is written"),
        ((*IMAGE, "--preview", "pictures/"), "preview pictures"),
        (("train", "image", "--data", "few", "-o", "a.sft", "--preview", "a.png"), "no held-out picture"),
        pytest.param(
            ("train", "image", "--data", "pictures", "-o", "/proc/a.sft"),
            "/proc/a.sft cannot be written",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="a folder in which nothing can be made"),
        ),
        (
            ("train", "image", "--data", "pictures", "-o", "small.sft", "--size", "m", "--resume"),
            "holds a model of size",
        ),
        ((*VIDEO, "--lr", "0"), "lr 0"),
        ((*VIDEO, "--seed", "-1"), "seed -1"),
        ((*VIDEO, "--log", "pictures"), "pictures is a folder"),
        (("train", "export", "small.sft", "--data", "pictures", "--keep", "file/k.sft"), "its folder cannot be made"),
        (("train", "export", "small.sft", "--data", "few"), "add larger pictures"),
        (("train", "export", "file", "--data", "pictures"), "not a training checkpoint"),
        (("train", "export-video", "small.sft"), "not a checkpoint of a restoration network"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(here, monkeypatch, arguments, told):
    monkeypatch.setattr(finish, "SIDE", 512 if "few" in arguments else 128)
    monkeypatch.setattr(loop.Run, "go", lambda self: pytest.fail("it began"))
    before = sorted(here.iterdir())
    result = run(*arguments)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1), result.stderr
    assert result.stderr.startswith("foveal: ") and told in result.stderr
    assert sorted(here.iterdir()) == before


def test_a_checkpoint_is_for_others_to_read_and_leaves_no_trace_before(tmp_path):
    checkpoint.ready(tmp_path / "a.sft")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "a.sft.part").write_text("of somebody else")
    (tmp_path / "log").write_text("begun\n")
    checkpoint.ready(tmp_path / "a.sft", added=[tmp_path / "log", tmp_path / "new"])
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a.sft.part": "of somebody else",
        "log": "begun\n",
    }
    checkpoint.save(tmp_path / "a.sft", {"x": torch.zeros(1)}, {})
    assert (tmp_path / "a.sft").stat().st_mode & 0o777 == 0o644


def write_tar(path):
    path.write_bytes(b"not a tar at all" * 100)


def cut(path):
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(file, "PNG")
    path.write_bytes(file.getvalue()[:2000])


def write_shard(path):
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("inside/a.png")
        info.size = 5
        tar.addfile(info, io.BytesIO(b"no pi"))


def cut_shard(path):
    write_shard(path)
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("member.tar", write_shard),
        ("gzip.tar", cut_shard),
        ("manifest.csv", lambda path: path.write_text("file,source\na.png\n")),
        ("cut.png", cut),
        ("text.png", lambda path: path.write_text("no picture")),
        ("shard.tar", write_tar),
        ("manifest.csv", lambda path: path.write_text("name,from\na.png,b\n")),
    ],
)
def test_a_damaged_file_is_named(here, name, write):
    write(here / "few" / name)
    with pytest.raises(InputError, match=rf"(?s){name}(:|, a.png:| cannot be read) .*; mend or remove it$"):
        data.load(here / "few", 32, torch.device("cpu"))


def test_what_only_looks_like_a_picture_is_passed_over(here):
    (here / "few" / "folder.png").mkdir()
    (here / "few" / "._a.png").write_bytes(b"what macOS leaves")
    with tarfile.open(here / "few" / "shard.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("inside/._b.png"), io.BytesIO())
    train, held = data.load(here / "few", 32, torch.device("cpu"))
    assert len(train) + len(held) == 1


def test_16_bits_are_trained_on_as_they_are_coded(tmp_path):
    deep = np.linspace(0, 65_535, 64 * 64).astype(np.uint16).reshape(64, 64)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    with pytest.warns(UserWarning, match="8 bits"):
        train, held = data.load(tmp_path, 32, torch.device("cpu"))
    (picture,) = train + held
    assert picture.shape == (3, 64, 64)
    assert abs(picture[0].numpy().astype(float) - deep / 257).max() <= 1


def test_what_no_file_of_ours_holds_is_trained_on_all_the_same(tmp_path):
    pages = [Image.new("CMYK", (40, 40), (0, 200, 0, 0)), Image.new("CMYK", (40, 40))]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    Image.fromarray(np.full((40, 40), 70_000, np.int32)).save(tmp_path / "deep.tif")
    train, held = data.load(tmp_path, 32, torch.device("cpu"))
    assert sorted(int(p[1, 0, 0]) for p in train + held) == [55, 255]


def test_without_a_large_held_out_picture_there_are_no_points(model, images):
    assert loop.large([images[0][:, :200, :200]]) == []
    assert loop.Average(model).points(model, [images[0][:, :200, :200]], False) == []


def test_a_damaged_clip_is_named(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"no clip" * 100)
    with pytest.raises(InputError, match=r"a\.mp4: not a clip to train on .*; mend or remove it"):
        video_clips.read_clips(tmp_path, "")


def test_no_more_workers_than_pairs(monkeypatch, tmp_path):
    orders = []
    monkeypatch.setattr(video_workers, "_make", lambda order: orders.append(order) or {})
    video_workers.produce(tmp_path, None, "", 1, 0, workers=5)
    assert [order.share for order in orders] == [(0, 1)]


def test_processes_without_a_master_are_a_typed_error(monkeypatch, here):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    result = run(*IMAGE, "--device", "cpu")
    assert result.exit_code == 2 and "start them with torchrun" in result.stderr
    monkeypatch.setenv("RANK", "first")
    assert "start the processes with torchrun" in run(*IMAGE, "--device", "cpu").stderr


def test_sigterm_is_as_ctrl_c_in_the_body_alone():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), as_on_ctrl_c():
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait(5)
    assert signal.getsignal(signal.SIGTERM) == before
    saved = False
    with as_on_ctrl_c():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            threading.Event().wait(5)
        except KeyboardInterrupt:
            os.kill(os.getpid(), signal.SIGTERM)  # while what was learned is saved
            saved = True
    assert saved
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.fixture
def installed(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "image-s.safetensors").write_bytes(b"what was installed")
    monkeypatch.setattr(registry, "WEIGHTS", folder)
    monkeypatch.setattr(finish, "kmac_per_pixel", lambda network: (1.0, 2.0))
    monkeypatch.setattr(finish, "golden_digest", lambda name: "1234")
    monkeypatch.setattr(finish, "SIDE", 128)
    yield folder / "image-s.safetensors"
    for cache in (registry.load, registry.digest_of, Network.load):
        cache.cache_clear()


def test_an_export_that_is_broken_off_leaves_what_was_installed(installed, tmp_path, model, folder, monkeypatch):
    checkpoint.save(tmp_path / "a.sft", model.state_dict(), {"size": "s"})

    def stop(network, examples):
        assert installed.read_bytes() == b"what was installed"
        raise KeyboardInterrupt

    monkeypatch.setattr(finish, "fitted_gain", stop)
    with pytest.raises(KeyboardInterrupt):
        finish.publish(tmp_path / "a.sft", folder)
    assert installed.read_bytes() == b"what was installed"
    assert [path.name for path in installed.parent.iterdir()] == [installed.name]
    assert installed.parent == registry.WEIGHTS


def test_an_export_is_installed_noted_and_kept(installed, tmp_path, model, folder, monkeypatch):
    checkpoint.save(tmp_path / "a.sft", model.state_dict(), {"size": "s", "steps": 7})
    monkeypatch.setattr(finish, "fitted_gain", lambda network, examples: torch.full_like(model.gain, 0.75))
    mask = os.umask(0o077)
    try:
        assert finish.publish(tmp_path / "a.sft", folder, tmp_path / "kept" / "k.sft") == installed
    finally:
        os.umask(mask)
    assert (installed.parent / registry.SUMS).stat().st_mode & 0o777 == 0o644
    assert registry.check_sum(installed.name, registry.sums()[installed.name])
    assert installed.stat().st_mode & 0o777 == 0o644
    facts = registry.load("s").facts
    assert (facts["golden"], facts["kmac_encode"], facts["kmac_decode"]) == ("1234", 1.0, 2.0)
    kept = ImageModel(SIZES["s"])
    assert checkpoint.load(tmp_path / "kept" / "k.sft", kept)["steps"] == 7
    assert (kept.gain == 0.75).all()


def video_checkpoint(path, size="s", mode="x2"):
    network = attention_sr.AttentionSR(attention_sr.SIZES[size], mode)
    checkpoint.save(path, network.state_dict(), {"size": size, "mode": mode, "steps": 3})
    return averaged(network.state_dict(), attention_sr.SIZES[size], mode)


def test_a_network_does_not_replace_one_of_another_size(tmp_path):
    for size in ("s", "m"):
        video_checkpoint(tmp_path / f"{size}.sft", size)
    video_export.publish([tmp_path / "m.sft"], tmp_path / "out.sft")
    before = (tmp_path / "out.sft").read_bytes()
    with pytest.raises(InputError, match=r"out\.sft holds a model of size 'm', not 's'; name another"):
        video_export.publish([tmp_path / "s.sft"], tmp_path / "out.sft")
    assert (tmp_path / "out.sft").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.sft", "out.sft", "s.sft"]


def test_networks_that_are_installed_are_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(attention_sr, "WEIGHTS", tmp_path)
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    video_checkpoint(tmp_path / "a.sft")
    video_export.publish([tmp_path / "a.sft"], tmp_path / "video-s.safetensors")
    assert list(registry.sums()) == ["video-s.safetensors"]
    assert registry.check_sum("video-s.safetensors", registry.sums()["video-s.safetensors"])
    with safe_open(tmp_path / "video-s.safetensors", "pt") as f:
        assert set(json.loads(f.metadata()["facts"])) == {"size", "x2"}
    attention_sr.load_weights.cache_clear()
