"""For the tests of this folder: ``video_clips`` can be imported, and there are weights to restore with."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def weights(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with weights of model "s", untrained but not idle, in place of the shipped ones; no other model."""
    from foveal.video import attention_sr

    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        networks = {mode: attention_sr.AttentionSR(attention_sr.SIZES["s"], mode).eval() for mode in attention_sr.MODES}
        for network in networks.values():
            network.end.weight.normal_(0, 0.01)
    attention_sr.save_weights(folder / "video-s.safetensors", networks, {})
    monkeypatch.setattr(attention_sr, "WEIGHTS", folder)
    attention_sr.load_weights.cache_clear()
    yield folder
    attention_sr.load_weights.cache_clear()
