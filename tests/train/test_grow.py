"""A larger model that starts as the smaller one."""

from dataclasses import replace

import pytest
import torch

from foveal.errors import InputError
from foveal.image.prior import BaseIndex
from foveal.image.transform import SIZES, Size
from foveal.train import checkpoint, data, loop
from foveal.train.batch import make_batch
from foveal.train.grow import fits, grown
from foveal.train.losses import ImageModel

LARGE = Size(
    width=384, encoder_width=384, heads=12, mlp=3, encoder_blocks=3, decoder_blocks=4, detail=64, detail_blocks=3,
    context=160, cuts=(6, 24, 40, 64, 96, 128, 224, 384),
)  # fmt: skip


@pytest.fixture(scope="module")
def busy(model):
    """The model of these tests with no end at zero: every layer matters."""
    made = ImageModel(SIZES["s"])
    made.load_state_dict(model.state_dict())
    torch.manual_seed(3)
    with torch.no_grad():
        for name, tensor in made.named_parameters():
            if tensor.abs().max() == 0:
                tensor.normal_(std=0.02)
            elif "norm" in name:
                tensor += 0.1 * torch.randn_like(tensor)
        made.gain.uniform_(0.5, 1)
    return made.eval()


def outputs(model, images):
    draw = data.draw(5, torch.device("cpu"))
    batch = make_batch(data.Pictures(images).crops(2, 128, draw), draw)
    batch.coded[0, 0, :3] = False
    with torch.no_grad():
        return model.eval()(batch, BaseIndex(8, 8), noise=False, fake=True, bf16=False)


@pytest.mark.parametrize("size", [LARGE, SIZES["m"]], ids=["all parts", "m"])
def test_a_grown_model_computes_what_the_small_one_does(busy, images, size):
    before, after = outputs(busy, images), outputs(grown(busy, size), images)
    torch.testing.assert_close(after["image"], before["image"], atol=0.05, rtol=0)
    torch.testing.assert_close(after["bpp"], before["bpp"], atol=1e-3, rtol=1e-3)


def test_what_is_new_gets_gradients(busy, images):
    """Idle is not dead: after two steps all new numbers but those behind two zeros have moved."""
    large = grown(busy, LARGE)
    optimiser = torch.optim.Adam(large.parameters(), lr=1e-4)
    before = {k: v.clone() for k, v in large.named_parameters()}
    for _ in range(2):
        draw = data.draw(5, torch.device("cpu"))
        batch = make_batch(data.Pictures(images).crops(2, 128, draw), draw)
        out = large(batch, BaseIndex(8, 8), noise=True, fake=False, bf16=False)
        (out["bpp"].mean() + out["error"].mean()).backward()
        optimiser.step()
        optimiser.zero_grad()
    moved = {k: (v != before[k]).float().mean().item() for k, v in large.named_parameters()}
    assert moved["synthesis.blocks.0.fc1.weight"] > 0.9 and moved["prior.s1.2.weight"] > 0.5
    assert moved["synthesis.blocks.3.fc2.weight"] > 0.9 and moved["synthesis.convs.2.weight"] > 0.9
    copies = large.synthesis.embed.weight.chunk(2)
    assert not torch.equal(*copies)  # they part


def test_sizes_that_do_not_fit_are_refused(busy):
    for wrong in (
        replace(LARGE, width=512, heads=16),
        replace(LARGE, heads=8),
        replace(LARGE, cuts=(6, 32, 64, 128, 224, 384)),
        replace(LARGE, detail=32),
        replace(LARGE, decoder_blocks=2),
    ):
        assert not fits(busy.size, wrong)
        with pytest.raises(InputError, match="same size, or none"):
            grown(busy, wrong)


def test_training_m_from_a_checkpoint_of_s_grows_it(busy, folder, tmp_path):
    small = tmp_path / "s.safetensors"
    checkpoint.save(small, busy.state_dict(), {"steps": 70, "pixels": 9, "seconds": 1.0, "size": "s"})
    out = loop.train(folder, tmp_path / "m.safetensors", size="m", weights=small, steps=1, crop=128, batch=1, threads=1)
    model = ImageModel(SIZES["m"])
    facts = checkpoint.load(out, model)
    assert facts["size"] == "m" and facts["steps"] == 1
    assert facts["grown_from"] == {"size": "s", "steps": 70, "pixels": 9, "seconds": 1.0}
    start = grown(busy, SIZES["m"])
    assert (model.synthesis.out.weight[:, :192] - start.synthesis.out.weight[:, :192]).abs().max() > 0
    assert (model.prior.linear[1] - busy.prior.linear[1]).abs().max() < 0.1
