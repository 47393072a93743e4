"""Frames that wait for those after them, so that the filter of the side information can look at both sides in time.

A frame sees the two before and the two after it in its group of 64, and nothing beyond: what a group is shown as does not
depend on the groups around it, and a receiver may begin at any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Generic, Protocol, Self, TypeVar

from torch import Tensor

from foveal.video.types import GROUP, MOMENTS

AHEAD, BEHIND = max(MOMENTS), -min(MOMENTS)


class Shown(Protocol):
    """A frame's parts, see ``restorer.Parts``."""

    @property
    def shown(self) -> Tensor: ...
    def kept(self) -> Self: ...
    def amid(self, own: Tensor, around: Sequence[Tensor | None], /) -> Self: ...


P = TypeVar("P", bound=Shown)
T = TypeVar("T")


class Moments(Generic[P, T]):
    """Takes the parts of every frame in order, from the first of a group on, each with anything that belongs to it, and
    gives them back ``amid`` the frames around them: two frames later, those at the end of a group with its last."""

    def __init__(self) -> None:
        self._count = 0  # in the group
        self._shown: dict[int, Tensor] = {}
        self._waiting: deque[tuple[int, P, T]] = deque()

    def push(self, parts: P, own: T) -> list[tuple[P, T]]:
        """The next frame; returns those whose time has come."""
        kept = parts.kept()
        self._shown[self._count] = kept.shown
        self._waiting.append((self._count, kept, own))
        self._count += 1
        if self._count == GROUP:
            return self.end()
        return [self._next()] if len(self._waiting) > AHEAD else []

    def end(self) -> list[tuple[P, T]]:
        """Those that still wait, for nothing comes after them; the next frame begins a group."""
        out = [self._next() for _ in range(len(self._waiting))]
        self._shown.clear()
        self._count = 0
        return out

    def _next(self) -> tuple[P, T]:
        number, parts, own = self._waiting.popleft()
        around = [self._shown.get(number + moment) for moment in MOMENTS]
        self._shown.pop(number - BEHIND, None)
        return parts.amid(self._shown[number], around), own
