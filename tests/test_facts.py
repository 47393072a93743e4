"""What can be said without coding: a file's facts, the installed models, the self-test."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import foveal
from foveal import container, facts, registry
from foveal.errors import CorruptError, FormatError, InputError, NotFovealError, UnknownModelError

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


def test_selftest_reports_what_does_not_hold(monkeypatch):
    monkeypatch.setattr("foveal.image.codec.golden_digest", lambda model: "0" * 16)

    def missing(name):
        raise UnknownModelError("weights of model 's' are missing")

    monkeypatch.setattr(facts.registry, "digest_of", missing)
    failed = {c.name: c.detail for c in foveal.selftest() if not c.ok}
    assert "expected" in failed.get("golden stream s", "")


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
