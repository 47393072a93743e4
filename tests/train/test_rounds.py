"""Batches that come round again, their latents moved to where the decoded pictures want them."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch

from foveal.image.prior import BaseIndex
from foveal.image.quantize import CARE
from foveal.image.transform import BASE
from foveal.train import data, loop
from foveal.train.batch import make_batch
from foveal.train.losses import loss, rate_weight
from foveal.train.rounds import ROUNDS, Rounds, Turn


@pytest.fixture(scope="module")
def batch(images):
    draw = data.draw(7, torch.device("cpu"))
    return make_batch(data.Pictures(images).crops(6, 128, draw), draw)


def coded(model, turn):
    """Result and loss of a turn, and the gradient of its decoded latents."""
    nudge = torch.zeros(*turn.batch.coded.shape, model.size.latent, requires_grad=True)
    result = model(turn.batch, BaseIndex(8, 8), False, True, bf16=False, wanted=turn.wanted, nudge=nudge)
    value = loss(result, turn.batch)
    torch.autograd.backward(value)
    return result, value.item(), nudge.grad


def test_each_round_lowers_the_loss(model, batch):
    """By bits and errors of what was sent, with the weights as they are."""
    own, turn, found = copy.deepcopy(model).requires_grad_(True), Turn(batch), []
    rounds = Rounds(lambda: Turn(batch))
    for _ in range(4):
        result, value, slope = coded(own, turn)
        found.append(value)
        rounds.give_back(turn, result, slope)
        turn = rounds.waiting.pop()
    assert found == sorted(found, reverse=True) and found[3] < 0.99 * found[0]


def test_latents_told_or_made_are_the_same_step(model, batch):
    """What a compiled step is given in a batch's first turn is what it would make itself."""
    told = Turn(batch, model.latents(batch, BaseIndex(8, 8)))
    made, own = coded(model, Turn(batch)), coded(model, told)
    assert made[1] == own[1] and torch.equal(made[2], own[2]) and torch.equal(made[0]["wanted"], told.wanted)


def test_only_what_is_sent_moves(model, batch):
    own, rounds = copy.deepcopy(model).requires_grad_(True), Rounds(lambda: Turn(batch))
    result, _, slope = coded(own, Turn(batch))
    assert (~result["sent"]).any() and (slope[result["sent"]] != 0).any()
    rounds.give_back(Turn(batch), result, slope)
    moved = (rounds.waiting[0].wanted != result["wanted"]).any(-1)
    assert (moved == result["sent"]).all()


def test_a_batch_serves_one_step_more_than_rounds_and_others_come_between(model, batch):
    drawn, served = [], []

    def draw():
        drawn.append(copy.copy(batch))
        return Turn(drawn[-1])

    rounds = Rounds(draw)
    sent = torch.ones_like(batch.coded)
    latents = torch.zeros(*sent.shape, 4)
    for _ in range(3 * (ROUNDS + 1) ** 2):
        turn = rounds.take()
        served.append((next(n for n, b in enumerate(drawn) if b is turn.batch), turn.had, turn.wanted is None))
        rounds.give_back(turn, {"wanted": latents, "latents": latents, "sent": sent}, latents)
    assert all((had == 0) == new for _, had, new in served)
    first = [had for number, had, _ in served if number == 0]
    assert first == list(range(ROUNDS + 1))
    assert all(a[0] != b[0] for a, b in itertools.pairwise(served))
    shares = [sum(had == n for _, had, _ in served) for n in range(ROUNDS + 1)]
    assert min(shares) > 0 and max(shares) <= 2 * min(shares)


def test_what_is_given_is_rounded_in_place_of_the_analysis(model, batch):
    """The same result when it is what the analysis makes, thumbnail included; another when it is not."""
    with torch.no_grad():
        before = model(batch, BaseIndex(8, 8), False, True, bf16=False)
        again = model(batch, BaseIndex(8, 8), False, True, bf16=False, wanted=before["wanted"])
        other = model(batch, BaseIndex(8, 8), False, True, bf16=False, wanted=0.5 * before["wanted"])
    torch.testing.assert_close(again["bpp"], before["bpp"])
    torch.testing.assert_close(again["image"], before["image"])
    assert (other["base_bpp"] < before["base_bpp"]).all() and (other["bpp"] < before["bpp"]).all()


def test_training_sees_latents_as_the_encoder_sends_them(model, batch, monkeypatch):
    """Times the gain, but for the thumbnail, and rounded with errors counted CARE times."""
    own, seen = copy.deepcopy(model), []
    slices = own.prior.slices

    def see(v, base, context, ln_step, weight, *rest):
        seen.append((v, ln_step, weight))
        return slices(v, base, context, ln_step, weight, *rest)

    monkeypatch.setattr(own.prior, "slices", see)
    whole = replace(batch, auto=torch.zeros_like(batch.auto))
    with torch.no_grad():
        own(whole, BaseIndex(8, 8), False, True, bf16=False)
        own.gain[:, BASE:] = 0.7
        own(whole, BaseIndex(8, 8), False, True, bf16=False)
    (v, ln_step, weight), (after, _, _) = seen
    torch.testing.assert_close(after[..., BASE:], 0.7 * v[..., BASE:])
    torch.testing.assert_close(after[..., :BASE], v[..., :BASE])
    worth = rate_weight(batch.level[:, None, None] + batch.finer).flatten(1)[..., None] * (2 * ln_step).exp()
    torch.testing.assert_close(weight, CARE * worth)


def test_hard_steps_come_in_rounds(folder, tmp_path, monkeypatch):
    """As many new batches as are in hand, and one for each that has had its rounds; the soft phase draws for every step."""
    drawn = []
    make = loop.make_batch
    monkeypatch.setattr(loop, "make_batch", lambda *a: drawn.append(1) or make(*a))
    steps = 2 * (ROUNDS + 1)
    for hard_from, expected in ((1.0, steps), (0.0, ROUNDS + 1)):
        drawn.clear()
        options = {"batch": 1, "crop": 128, "threads": 1, "device": "cpu", "hard_from": hard_from}
        loop.train(folder, tmp_path / "a.sft", steps=steps, **options)
        assert len(drawn) == expected + 1  # one more to count operations
