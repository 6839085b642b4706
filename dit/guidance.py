"""Progressive hybrid guidance (DeX-Portrait 3.4): pose alone decides the first steps, then the expression fades in.

v = v_0 + w (v_c' - v_0), where c' has no expression for the first `hold` of the steps, a linear blend for the next `fade`, and all of
it after. The same schedule can be written as ranges of steps with weighted conditions, since a sampler that averages conditions by their
strength computes just that blend.
"""

from __future__ import annotations

import dataclasses
import math

HOLD, FADE = 1 / 7, 1 / 7  # of the steps: 5 and 5 of the paper's 35


@dataclasses.dataclass(frozen=True)
class Range:
    """Steps `start` to `end` - 1, where conditions without and with expression count so much; together 1."""

    start: int
    end: int
    without: float
    full: float


@dataclasses.dataclass(frozen=True)
class Schedule:
    """How the expression comes in. Raises ValueError for shares outside 0..1, or of more than all steps."""

    hold: float = HOLD
    fade: float = FADE

    def __post_init__(self):
        for name in ("hold", "fade"):
            value = getattr(self, name)
            if not math.isfinite(value) or not 0 <= value <= 1:
                raise ValueError(f"{name} is {value}; give the share of the steps, from 0 to 1")
        if self.hold + self.fade > 1:
            raise ValueError(f"hold and fade together are {self.hold + self.fade:g} of the steps; leave some for the expression")

    def held(self, steps: int) -> tuple[int, int]:
        """Numbers of steps without expression and of steps that blend."""
        hold = round(self.hold * steps)
        return hold, min(round(self.fade * steps), steps - hold)

    def weight(self, step: int, steps: int) -> float:
        """What the expression counts at a step 0..steps - 1."""
        hold, fade = self.held(steps)
        if step < hold:
            return 0.0
        return (step - hold + 1) / (fade + 1) if step < hold + fade else 1.0

    def ranges(self, steps: int) -> list[Range]:
        """The same as ranges of steps; neighbours of equal weight are one. Raises ValueError for less than one step."""
        if steps < 1:
            raise ValueError(f"there are {steps} steps; sample at least one")
        found: list[Range] = []
        for step in range(steps):
            weight = self.weight(step, steps)
            if found and found[-1].full == weight:
                found[-1] = dataclasses.replace(found[-1], end=step + 1)
            else:
                found.append(Range(step, step + 1, 1 - weight, weight))
        return found
