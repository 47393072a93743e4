"""What can be said without coding: a file's facts, the installed models, the self-test."""

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import foveal
from foveal import container, registry
from foveal.errors import CorruptError, FormatError, InputError, NotFovealError, UnknownModelError
from foveal.image.network import Network

KEYS = {
    "width", "height", "bytes", "bpp", "model", "level", "quality", "mode", "alpha_channel",
    "patches", "dropped", "alpha", "packets", "chunks", "layers",
}  # fmt: skip


@pytest.fixture(scope="module")
def data():
    y, x = np.mgrid[:50, :70]
    rgba = np.stack([x * 3, y * 4, x + y, 255 - y], -1).astype(np.uint8)
    return foveal.compress(rgba, quality=50, packets=2, keep=0.5, xmp=b"<x/>")


def test_inspect(data):
    info = foveal.inspect(data)
    assert set(info.as_dict()) == KEYS and json.loads(json.dumps(info.as_dict()))["width"] == 70
    assert (info.width, info.height, info.mode, info.alpha_channel) == (70, 50, "RGB", True)
    assert (info.patches, info.dropped, info.alpha, info.packets) == (20, 10, 2.0, 2)
    assert info.bytes == len(data) and info.bpp == pytest.approx(8 * len(data) / 3500)
    assert info.level == 39.5 and info.quality == 50 and info.model == "s"
    kinds = ["HEAD", "CLAS", "BASE", "BAS2", "BAS3", "fILT", "PCKT", "PCKT", "ALPH", "xMP_", "IEND"]
    assert [c["type"] for c in info.chunks] == kinds and all(c["crc_ok"] for c in info.chunks)
    assert sum(c["bytes"] + 12 for c in info.chunks) + 8 == len(data)


def test_inspect_names_damage_and_verify_raises(data):
    damaged = bytearray(data)
    damaged[container.list_chunks(data)[6].offset + 12] ^= 1
    assert [c["crc_ok"] for c in foveal.inspect(bytes(damaged)).chunks].count(False) == 1
    with pytest.raises(CorruptError, match="PCKT"):
        foveal.inspect(bytes(damaged), verify=True)
    assert foveal.inspect(data, verify=True) == foveal.inspect(data)
    cut = foveal.inspect(data[:-20])
    assert cut.packets == 2 and cut.bytes == len(data) - 20


def test_inspect_refuses_what_is_no_file():
    with pytest.raises(NotFovealError):
        foveal.inspect(b"\x89PNG\r\n\x1a\n and so on")
    with pytest.raises(InputError):
        foveal.inspect("photo.fov")  # type: ignore[arg-type]


def test_inspect_of_a_file_from_another_installation(data):
    contents = container.read(data)
    other = container.write(replace(contents, header=replace(contents.header, model=7)))
    assert foveal.inspect(other).model == "unknown (7)"


def test_a_class_map_that_is_no_stream(data):
    contents = container.read(data)
    with pytest.raises(FormatError):
        foveal.inspect(container.write(replace(contents, classes=b"\xff" * 40)))


def test_everything_dropped_or_kept():
    picture = np.zeros((40, 40), np.uint8)
    assert foveal.inspect(foveal.compress(picture, threshold=1e9)).alpha == float("inf")
    assert foveal.inspect(foveal.compress(picture, keep="all")).dropped == 0


def test_inspect_needs_no_torch(data, tmp_path):
    (tmp_path / "a.fov").write_bytes(data)
    code = "import sys, foveal; foveal.inspect(open(sys.argv[1], 'rb').read()); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code, str(tmp_path / "a.fov")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_models():
    found = foveal.models()
    assert [m.name for m in found] == sorted(registry.IDS, key=registry.IDS.__getitem__)
    assert [m.name for m in found if m.default] == [registry.DEFAULT]
    for model in found:
        assert (
            bytes.fromhex(model.weights_hash) == registry.digest_of(model.name) and model.id == registry.IDS[model.name]
        )
        assert model.parameters > 100_000 and model.file_bytes < 32 << 20
        assert 0 < model.kmac_encode < 20 and 0 < model.kmac_decode <= {"s": 8, "m": 60}[model.name]
        assert model.name != "m" or model.file_bytes <= 16 << 20


def test_selftest_holds():
    checks = foveal.selftest()
    assert {"python", "torch", "weights s", "golden stream s", "golden stream m"} <= {c.name for c in checks}
    assert [c for c in checks if not c.ok] == []


def forget():
    for cache in (registry.load, registry.digest_of, Network.load):
        cache.cache_clear()


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """The installed weights, copied to where they may be damaged."""
    folder = tmp_path / "weights"
    shutil.copytree(registry.WEIGHTS, folder)
    monkeypatch.setattr(registry, "WEIGHTS", folder)
    forget()
    yield folder
    forget()


def failed():
    return {c.name: c.detail for c in foveal.selftest() if not c.ok}


@pytest.mark.parametrize("fault", [KeyError("tables.silent"), AttributeError("no such thing"), OSError("no DLL")])
def test_selftest_survives_whatever_is_broken(fault, monkeypatch):
    def refuse(model):
        raise fault

    monkeypatch.setattr("foveal.image.codec.golden_digest", refuse)
    told = failed()
    assert set(told) == {"golden stream s", "golden stream m"}
    assert all(detail == f"{type(fault).__name__}: {fault}" for detail in told.values())


def test_weights_that_lack_a_part_are_a_typed_error(monkeypatch):
    whole = registry.load("s")
    lacking = replace(whole, tensors={k: v for k, v in whole.tensors.items() if not k.startswith("synthesis.")})
    monkeypatch.setattr(registry, "load", lambda name: lacking)
    Network.load.cache_clear()
    with pytest.raises(UnknownModelError, match="'s' do not fit"):
        foveal.compress(np.zeros((16, 16), np.uint8))
    Network.load.cache_clear()


def test_weights_without_their_facts_are_named(monkeypatch):
    bare = replace(registry.load("s"), facts={})
    monkeypatch.setattr(registry, "load", lambda name: bare)
    with pytest.raises(UnknownModelError, match="'s' lack the fact 'kmac_encode'"):
        foveal.models()


def test_selftest_reports_integers_that_differ(monkeypatch):
    monkeypatch.setattr("foveal.image.codec.golden_digest", lambda model: "0" * 16)
    told = failed()
    assert set(told) == {"golden stream s", "golden stream m"}
    assert all("hash to 0000000000000000, expected" in detail for detail in told.values())


def test_selftest_reports_missing_and_unlisted_weights(weights):
    (weights / "image-s.safetensors").unlink()
    (weights / "video-xs.safetensors").write_bytes(b"new")
    told = failed()
    assert set(told) == {"weights s", "golden stream s", "file image-s.safetensors", "file video-xs.safetensors"}
    assert "reinstall foveal" in told["weights s"] and "does not list" in told["file video-xs.safetensors"]
    (weights / registry.SUMS).unlink()
    assert "reinstall foveal" in failed()["list of weights"]


def test_selftest_sees_one_byte_that_changed(weights):
    """Of the synthesis, which the golden streams of integers do not reach."""
    for name, tensor in (("image-s", "synthesis.blocks.0.fc1.weight"), ("video-l", "x2.head.weight")):
        file = weights / f"{name}.safetensors"
        data = bytearray(file.read_bytes())
        length = int.from_bytes(data[:8], "little")
        data[8 + length + json.loads(data[8 : 8 + length])[tensor]["data_offsets"][0]] ^= 1
        file.write_bytes(data)
    assert set(failed()) == {"file image-s.safetensors", "file video-l.safetensors"}


@pytest.mark.parametrize("damaged", [b"", b"version https://git-lfs.github.com/spec/v1\n", None])
def test_damaged_weights_are_a_typed_error(weights, damaged):
    file = weights / "image-s.safetensors"
    file.write_bytes(file.read_bytes()[:1_000_000] if damaged is None else damaged)
    for action in (foveal.models, lambda: foveal.compress(np.zeros((16, 16), np.uint8))):
        with pytest.raises(UnknownModelError, match=r"weights of model 's' are damaged .*; reinstall foveal"):
            action()
    assert {"weights s", "golden stream s", "file image-s.safetensors"} == set(failed())


def test_the_list_of_weights_is_that_of_the_installed_ones():
    there = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in registry.WEIGHTS.glob("*.safetensors")
    }
    assert registry.sums() == there and len(there) == 5


def test_the_list_is_read_as_sha256sum_writes_it(weights):
    lines = (weights / registry.SUMS).read_text().splitlines()
    (weights / registry.SUMS).write_text("\n".join(line.replace("  ", " *") for line in lines) + "\n\n")
    (weights / "._image-s.safetensors").write_bytes(b"what macOS leaves")
    assert failed() == {}


def test_new_weights_are_noted_beside_the_others(tmp_path):
    (tmp_path / registry.SUMS).write_text(f"{'0' * 64}  a.safetensors\n{'1' * 64}  c.safetensors\n")
    (tmp_path / "a.safetensors").write_bytes(b"a")
    (tmp_path / "b.safetensors").write_bytes(b"b")
    for name in ("a", "b"):
        registry.note_sum(tmp_path / f"{name}.safetensors")
    lines = [f"{hashlib.sha256(name.encode()).hexdigest()}  {name}.safetensors" for name in ("a", "b")]
    assert (tmp_path / registry.SUMS).read_text().splitlines() == [*lines, f"{'1' * 64}  c.safetensors"]


def test_registry_names_and_hashes(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'xxl'"):
        registry.path_of("xxl")
    with pytest.raises(UnknownModelError, match="upgrade"):
        registry.name_of(999)
    with pytest.raises(UnknownModelError, match="0000"):
        registry.name_of(registry.IDS["s"], b"\0" * 8)
    assert registry.name_of(registry.IDS["s"], registry.digest_of("s")) == "s"
    monkeypatch.setattr(registry, "WEIGHTS", tmp_path)
    registry.digest_of.cache_clear()
    try:
        with pytest.raises(UnknownModelError, match="reinstall"):
            registry.digest_of("s")
    finally:
        registry.digest_of.cache_clear()
