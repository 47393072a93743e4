"""Training state, written whole or not at all."""

import pytest
import torch
from torch import nn

from foveal.errors import InputError
from foveal.train import checkpoint
from foveal.train.losses import ImageModel


def test_load_inverts_save(tmp_path):
    first, second, path = nn.Linear(3, 2), nn.Linear(3, 2), tmp_path / "a.sft"
    checkpoint.save(path, first.state_dict(), {"steps": 7, "size": "m"})
    assert checkpoint.load(path, second) == {"steps": 7, "size": "m"}
    assert all((a == b).all() for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert checkpoint.size_of(path) == "m"
    assert [p.name for p in tmp_path.iterdir()] == ["a.sft"]


def test_the_folder_of_an_output_is_there_before_the_work_begins(tmp_path):
    checkpoint.ready(tmp_path / "runs" / "a.sft")
    assert (tmp_path / "runs").is_dir()
    with pytest.raises(InputError, match="is a folder"):
        checkpoint.ready(tmp_path / "runs")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        checkpoint.ready(tmp_path / "file" / "a.sft")


def test_half_precision_and_views_are_stored_whole(tmp_path):
    wide = torch.arange(12, dtype=torch.float16).view(3, 4)
    model = nn.Module()
    model.register_buffer("part", torch.zeros(4, 3))
    checkpoint.save(tmp_path / "a.sft", {"part": wide.t()}, {})
    checkpoint.load(tmp_path / "a.sft", model)
    assert (model.part == wide.t().float()).all()


def test_half_of_a_checkpoint_takes_the_gains_found_for_it(tmp_path, model):
    gain = torch.rand_like(model.gain)
    checkpoint.save(tmp_path / "a.sft", model.state_dict(), {"steps": 3})
    checkpoint.halve(tmp_path / "a.sft", tmp_path / "b.sft", gain=gain)
    other = ImageModel(model.size)
    assert checkpoint.load(tmp_path / "b.sft", other) == {"steps": 3}
    assert (other.gain == gain.half().float()).all()
    assert (other.prior.scale == model.prior.scale.half().float()).all()


def test_a_checkpoint_of_before_there_were_gains_has_none(tmp_path, model):
    state = {k: v for k, v in model.state_dict().items() if k != "gain"}
    checkpoint.save(tmp_path / "a.sft", state, {})
    other = ImageModel(model.size)
    checkpoint.load(tmp_path / "a.sft", other)
    assert (other.gain == 1).all() and (other.prior.scale == model.prior.scale).all()


def test_what_does_not_fit_is_named(tmp_path):
    checkpoint.save(tmp_path / "a.sft", nn.Linear(3, 2).state_dict(), {})
    (tmp_path / "b.sft").write_bytes(b"garbage")
    for path, model in ((tmp_path / "a.sft", nn.Linear(4, 2)), (tmp_path / "b.sft", nn.Linear(3, 2)),
                        (tmp_path / "c.sft", nn.Linear(3, 2))):  # fmt: skip
        with pytest.raises(InputError, match=path.name):
            checkpoint.load(path, model)


@pytest.mark.parametrize("facts", ["nonsense", "[1]", "5", "null", "[" * 200_000])
def test_facts_that_are_no_object_are_named(tmp_path, facts):
    model = nn.Linear(3, 2)
    checkpoint.write(tmp_path / "a.sft", model.state_dict(), {"facts": facts})
    for action in (checkpoint.size_of, lambda path: checkpoint.load(path, model)):
        with pytest.raises(InputError, match=r"a\.sft: not a training checkpoint"):
            action(tmp_path / "a.sft")
