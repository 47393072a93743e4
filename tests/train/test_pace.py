"""Schedules and slices, on a clock of the test's own."""

import pytest
import torch

from foveal.train import pace
from foveal.train.pace import Pace
from foveal.train.parallel import Group

ALONE = Group(torch.device("cpu"))


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    return now


def walk(made, clock, seconds):
    """Steps until it ends; each takes what ``seconds`` (a function of its number) says."""
    while made.goes_on():
        clock[0] += seconds(made.step)
        made.advance()
    return made


def test_a_schedule_counts_steps_or_minutes(clock):
    by_steps = walk(Pace(ALONE, 7, 1.0), clock, lambda n: 100)
    assert by_steps.step == 7 and by_steps.done == 1
    by_minutes = walk(Pace(ALONE, None, 2.0), clock, lambda n: 10)
    assert by_minutes.step == 12 and by_minutes.done == 1 and by_minutes.seconds == 120


def test_a_slice_ends_before_its_limit_and_the_next_goes_on(clock):
    places, steps = [0.0], 0
    while places[-1] < 1:
        began = clock[0]
        clock[0] += 20  # pictures are loaded
        made = walk(Pace(ALONE, None, 25.0, places[-1], 9.0, began), clock, lambda n: 30 if n == 0 else 5)
        assert clock[0] - began < 9 * 60 and (made.done >= 1 or clock[0] - began > 8.5 * 60)
        places.append(made.done)
        steps += made.step
    assert len(places) == 4 and steps > 250


def test_an_interruption_by_an_evaluation_is_reckoned_with(clock):
    made = walk(Pace(ALONE, 10_000, 1.0, 0.0, 5.0), clock, lambda n: 60 if n == 10 else 1)
    assert 60 < made.seconds < 5 * 60 - 60  # another such step would still fit


def test_processes_follow_the_first_ones_clock(clock, monkeypatch):
    asked = []
    monkeypatch.setattr(
        Group, "first_says", lambda self, value: asked.append(value) or (value if value > 1e9 else len(asked) * 7.0)
    )
    made = Pace(Group(torch.device("cpu"), 1, 2), None, 1.0)
    walk(made, clock, lambda n: 1000)
    assert made.step == 70 and made.done == pytest.approx(63 / 60)  # asked for its limit, then every ten steps
