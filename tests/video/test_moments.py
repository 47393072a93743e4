"""Frames wait for those after them, and see those around them in their group alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from foveal.video import moments
from foveal.video.moments import Moments


class Still(NamedTuple):
    """Parts of a frame all of whose samples are its number."""

    number: int
    around: Sequence[Tensor | None] = ()

    @property
    def shown(self) -> Tensor:
        return torch.tensor(float(self.number))

    def kept(self) -> Still:
        return self

    def amid(self, own: Tensor, around: Sequence[Tensor | None]) -> Still:
        assert int(own) == self.number
        return self._replace(around=around)


def seen(count: int) -> tuple[list[tuple[int, list[int | None]]], list[int]]:
    """Of every frame its number and those it sees; and how many were out after each push."""
    waiting, out, after = Moments[Still, str](), [], []
    for number in range(count):
        out += waiting.push(Still(number), str(number))
        after.append(len(out))
    out += waiting.end()
    assert [own for _, own in out] == [str(parts.number) for parts, _ in out]
    return [(p.number, [None if x is None else int(x) for x in p.around]) for p, _ in out], after


def test_a_frame_sees_two_before_and_two_after() -> None:
    found, after = seen(6)
    assert [number for number, _ in found] == list(range(6))
    assert after == [0, 0, 1, 2, 3, 4]
    assert found[0][1] == [None, 1, None, 2]
    assert found[1][1] == [0, 2, None, 3]
    assert found[3][1] == [2, 4, 1, 5]
    assert found[5][1] == [4, None, 3, None]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9, 12])
def test_nothing_beyond_the_group_is_seen(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "GROUP", 4)
    found, after = seen(count)
    assert [number for number, _ in found] == list(range(count))
    assert after[3::4] == list(range(4, count + 1, 4))  # a group is out with its last frame
    for number, around in found:
        group = range(number // 4 * 4, min(number // 4 * 4 + 4, count))
        assert around == [number + k if number + k in group else None for k in (-1, 1, -2, 2)]
