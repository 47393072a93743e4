"""Training state, written whole or not at all."""

import pytest
import torch
from torch import nn

from foveal.errors import InputError
from foveal.train import checkpoint


def test_load_inverts_save(tmp_path):
    first, second, path = nn.Linear(3, 2), nn.Linear(3, 2), tmp_path / "a.sft"
    checkpoint.save(path, first.state_dict(), {"steps": 7, "size": "m"})
    assert checkpoint.load(path, second) == {"steps": 7, "size": "m"}
    assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert checkpoint.size_of(path) == "m"
    assert [p.name for p in tmp_path.iterdir()] == ["a.sft"]


def test_half_precision_and_views_are_stored_whole(tmp_path):
    wide = torch.arange(12, dtype=torch.float16).view(3, 4)
    model = nn.Module()
    model.register_buffer("part", torch.zeros(4, 3))
    checkpoint.save(tmp_path / "a.sft", {"part": wide.t()}, {})
    checkpoint.load(tmp_path / "a.sft", model)
    assert (model.part == wide.t().float()).all()


def test_what_does_not_fit_is_named(tmp_path):
    checkpoint.save(tmp_path / "a.sft", nn.Linear(3, 2).state_dict(), {})
    (tmp_path / "b.sft").write_bytes(b"garbage")
    for path, model in ((tmp_path / "a.sft", nn.Linear(4, 2)), (tmp_path / "b.sft", nn.Linear(3, 2)),
                        (tmp_path / "c.sft", nn.Linear(3, 2))):  # fmt: skip
        with pytest.raises(InputError, match=path.name):
            checkpoint.load(path, model)
