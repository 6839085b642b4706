"""Portrait conditions on a sampler's conditioning, which is a list of [text, dict of values] as in ComfyUI, by parts of the steps."""

from __future__ import annotations

import dataclasses

from .adapter.adapter import PortraitCondition
from .guidance import Schedule

KEY = "expportrait"  # of the values that hold portrait conditions, by the adapter's uid
PARTS = ("control", "reference", "expression")
BESIDE = 5e-5  # by which a range's bounds lie beside the given ones: a step that falls on those is inside, however it is rounded

Entries = list


@dataclasses.dataclass(frozen=True)
class AttachedCondition:
    """What conditioning carries for one adapter."""

    condition: PortraitCondition
    strengths: tuple[float, float, float]  # of PARTS

    def without(self, part: str) -> AttachedCondition:
        return dataclasses.replace(self, condition=dataclasses.replace(self.condition, **{part: None}))


def during(entries: Entries, start: float, end: float) -> Entries:
    """Entries that only count from `start` to `end` of the sampling (0..1), within the time that each had before."""
    out = []
    for text, old in entries:
        first, last = max(start, old.get("start_percent", 0.0)), min(end, old.get("end_percent", 1.0))
        if first < last or (start, end) == (0.0, 1.0):
            out.append([text, {**old, "start_percent": first, "end_percent": last}])
    return out


def attach(entries: Entries, uid: str, attached: AttachedCondition, start: float, end: float) -> Entries:
    """Entries with the condition of adapter `uid` from `start` to `end` of the sampling, and as they were before and after."""
    own = [[text, {**old, KEY: {**old.get(KEY, {}), uid: attached}}] for text, old in entries]
    if (start, end) == (0.0, 1.0):
        return own
    first, last = max(start - BESIDE, 0.0), min(end + BESIDE, 1.0)
    parts = during(own, first, last)
    parts += during(entries, 0.0, first) if first > 0 else []
    return parts + (during(entries, last, 1.0) if last < 1 else [])


def without(entries: Entries, part: str) -> Entries:
    """Entries whose portrait conditions lack one of PARTS."""
    return [[text, {**old, KEY: {uid: each.without(part) for uid, each in old.get(KEY, {}).items()}}] for text, old in entries]


def has(entries: Entries, part: str) -> bool:
    """Whether any entry's portrait condition has that part."""
    return any(getattr(each.condition, part) is not None for _, old in entries for each in old.get(KEY, {}).values())


def progressive(entries: Entries, schedule: Schedule, bounds: list[float]) -> Entries:
    """Entries that hold the expression back and fade it in (`guidance.Schedule`), for N steps that begin between N + 1 `bounds`,
    shares of the sampling. A sampler averages entries of one time by their strength. Entries without expression stay as they are."""
    if not has(entries, "expression"):
        return entries
    out, bare = [], without(entries, "expression")
    for span in schedule.ranges(len(bounds) - 1):
        start, end = bounds[span.start], bounds[span.end]
        for part, weight in ((bare, span.without), (entries, span.full)):
            if weight > 0:
                weighted = [[text, {**old, "strength": weight * old.get("strength", 1.0)}] for text, old in part]
                out += during(weighted, start, end)
    return out


def even_bounds(steps: int) -> list[float]:
    """Bounds halfway between the steps of an even schedule: a sampler's rounding then never takes a step to its neighbour's range."""
    return [0.0, *((step - 0.5) / steps for step in range(1, steps)), 1.0]
