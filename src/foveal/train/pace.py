"""How far a run is: one schedule, walked through in as many slices as a scheduler's time limit asks for."""

import math
import time

from foveal.train.parallel import Group

LOOK = 10  # steps between looks at the first process's clock, where there are several


def rate(done: float, step: int, peak: float, warm_up: int, floor: float = 0.01) -> float:
    """Learning rate: warm-up over ``warm_up`` steps, then a cosine over the schedule down to ``floor`` of the peak."""
    falling = floor + (1 - floor) * (0.5 + 0.5 * math.cos(math.pi * min(done, 1.0)))
    return peak * min(1.0, (step + 1) / warm_up) * falling


class Pace:
    """Share ``done`` of the schedule, the same in every process."""

    def __init__(
        self,
        group: Group,
        steps: int | None,
        minutes: float,
        done: float = 0.0,
        slice_minutes: float | None = None,
        began: float | None = None,
    ) -> None:
        """The schedule is ``steps`` long, or ``minutes`` where that is None. This slice of it starts at the share ``done``
        and stops before ``slice_minutes`` are over, counted from ``began`` (time.monotonic())."""
        self.group, self.steps, self.minutes, self.done, self.step = group, steps, minutes, done, 0
        self._start, self._from = time.monotonic(), done
        limit = math.inf if slice_minutes is None else 60 * slice_minutes - self._start + (began or self._start)
        self._limit, self._every = group.first_says(limit), LOOK if group.world > 1 else 1
        self._seen = self._longest = 0.0  # seconds: the last look at the clock, the longest time between two

    @property
    def seconds(self) -> float:
        """Since training began."""
        return time.monotonic() - self._start

    def advance(self) -> None:
        """After a step."""
        self.step += 1
        if self.steps is not None:
            self.done = self._from + self.step / self.steps

    def goes_on(self) -> bool:
        """Whether the schedule and the slice have room for another step. A slice stops when the longest time between two
        looks at the clock so far (a step, or the steps and the evaluation between them) might no longer fit."""
        if (self.steps is None or self._limit < math.inf) and self.step % self._every == 0:
            now = self.group.first_says(self.seconds)
            if self.step > self._every:  # the first step may compile
                self._longest = max(self._longest, now - self._seen)
            self._seen = now
            if self.steps is None:
                self.done = self._from + now / 60 / self.minutes
        return self.done < 1 - 1e-9 and self._seen + 2 * self._longest < self._limit
