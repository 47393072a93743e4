from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import foveal
from foveal.bench import rivals, vvc
from foveal.bench.metrics import psnr_db
from foveal.bench.rivals import Spec, build
from foveal.errors import InputError, MissingExtraError
from foveal.registry import IDS

Picture = Callable[..., NDArray[np.uint8]]


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif6", "jxl"])
def test_a_rival_there_and_back(name: str, picture: Picture) -> None:
    if name == "jxl":
        pytest.importorskip("imagecodecs")
    codec, pixels = build(Spec(name)), picture(33, 49)
    coarse, fine = (codec.compress(Image.fromarray(pixels), codec.settings[i]) for i in (1, -1))
    assert len(coarse) < len(fine)
    assert codec.decompress(fine).shape == (33, 49, 3)
    assert psnr_db(pixels, codec.decompress(coarse)) < psnr_db(pixels, codec.decompress(fine))
    assert codec.version and codec.options


def test_vvc_there_and_back_at_odd_size(picture: Picture) -> None:
    pytest.importorskip("imageio_ffmpeg")
    codec, pixels = build(Spec("vvc")), picture(33, 49)
    data = codec.compress(Image.fromarray(pixels), 22)
    assert codec.decompress(data).shape == (33, 49, 3)
    assert psnr_db(pixels, codec.decompress(data)) > 30


def test_vvc_colour_conversion_is_reversible_in_grey(picture: Picture) -> None:
    grey = np.repeat(picture(32, 48)[..., :1], 3, axis=2)
    planes = vvc._unpack(vvc._pack(vvc._split(grey)), 48, 32)
    assert [plane.shape for plane in planes] == [(32, 48), (16, 24), (16, 24)]
    assert np.array_equal(vvc._join(planes), grey)


def test_foveal_is_called_through_its_door(monkeypatch: pytest.MonkeyPatch, picture: Picture) -> None:
    calls: list[dict[str, Any]] = []
    image = Image.fromarray(picture(8, 9))

    def compress(_: Image.Image, **options: Any) -> bytes:
        calls.append(options)
        return b"file"

    monkeypatch.setattr(foveal, "compress", compress, raising=False)
    monkeypatch.setattr(foveal, "decompress", lambda _: image.convert("L"), raising=False)
    monkeypatch.setattr(foveal, "models", lambda: [SimpleNamespace(name="s", weights_hash="ab" * 8)], raising=False)
    codec = build(Spec("foveal", effort=7, keep=0.4))
    assert codec.compress(image, 60) == b"file"
    assert calls == [{"model": "s", "effort": 7, "keep": 0.4, "quality": 60}]
    assert codec.decompress(b"file").shape == (8, 9, 3)
    assert codec.options == "model s, keep 0.4, effort 7"
    assert codec.version.endswith("weights " + "ab" * 8)
    with pytest.raises(InputError, match="unknown model 'x'; choose from s"):
        build(Spec("foveal", model="x"))


def test_foveal_at_an_effort_of_its_own(monkeypatch: pytest.MonkeyPatch, picture: Picture) -> None:
    image, seen = Image.fromarray(picture(8, 9)), list[int]()

    def compress(_: Image.Image, **options: Any) -> bytes:
        seen.append(options["effort"])
        return b"file"

    monkeypatch.setattr(foveal, "compress", compress, raising=False)
    for name, effort in (("foveal3", 3), ("foveal9", 9), ("foveal10", 10)):
        codec = build(Spec(name, effort=4))
        codec.compress(image, 60)
        assert (codec.name, f"effort {effort}" in codec.options) == (name, True)
    assert seen == [3, 9, 10]
    usual, sparse = (build(Spec(name)).settings for name in ("foveal9", "foveal10"))
    assert sparse == usual[::2] and (sparse[0], sparse[-1]) == (usual[0], usual[-1])
    assert "foveal3" not in rivals.RIVALS


def test_foveal_tuned_is_another_measurement(monkeypatch: pytest.MonkeyPatch, picture: Picture) -> None:
    image, seen = Image.fromarray(picture(8, 9)), list[str]()
    monkeypatch.setattr(foveal, "compress", lambda _, **options: seen.append(options["tune"]) or b"file", raising=False)
    codec = build(Spec("foveal-m9-msssim"))
    codec.compress(image, 60)
    assert (codec.options, seen) == ("model m, keep auto, effort 9, tune msssim", ["msssim"])


def test_every_rival_is_named_in_the_table_of_the_docstring() -> None:
    assert rivals.__doc__ is not None
    assert all(f"| {name} " in rivals.__doc__ for name in ("foveal", "foveal1", *rivals.RIVALS))
    models, efforts, tunes = ("", *(f"-{name}" for name in IDS)), ("", *range(1, 11)), ("", "-msssim")
    own = {f"foveal{model}{effort}{tune}" for model in models for effort in efforts for tune in tunes}
    assert own == set(rivals.BUILDERS) - set(rivals.RIVALS)


def test_an_unknown_rival_is_refused() -> None:
    with pytest.raises(InputError, match="unknown codec 'gif'; choose from foveal, jpeg, webp, avif"):
        build(Spec("gif"))


def test_an_absent_package_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingExtraError, match=r"imagecodecs .* pip install '.\[bench\]'"):
        build(Spec("jxl"))


def test_a_pillow_without_the_codec_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rivals.features, "check", lambda _: False)
    with pytest.raises(MissingExtraError, match="without avif"):
        build(Spec("avif"))
