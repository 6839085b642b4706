import pytest
import torch

from expportrait.dit.adapter.adapter import PortraitCondition
from expportrait.dit.conditioning import KEY, AttachedCondition, attach, during, even_bounds, has, progressive, without
from expportrait.dit.guidance import Schedule

TEXT = [["text", {"pooled_output": None}]]
ATTACHED = AttachedCondition(PortraitCondition(torch.zeros(1), torch.zeros(1), torch.zeros(1)), (1.0, 1.0, 1.0))


def active(entries, percent):
    """Entries that a sampler uses at a time, with their strengths."""
    inside = [values for _, values in entries if values.get("start_percent", 0) <= percent <= values.get("end_percent", 1)]
    return [(values, values.get("strength", 1.0)) for values in inside]


def test_attaching_changes_copies_only():
    entries = attach(TEXT, "a", ATTACHED, 0.0, 1.0)
    assert KEY not in TEXT[0][1] and entries[0][1][KEY] == {"a": ATTACHED} and "start_percent" not in entries[0][1]
    both = attach(entries, "b", ATTACHED, 0.0, 1.0)
    assert set(both[0][1][KEY]) == {"a", "b"} and set(entries[0][1][KEY]) == {"a"}


@pytest.mark.parametrize("percent", (0.0, 0.1, 0.2, 0.5, 0.8, 0.9, 1.0))
def test_outside_its_time_a_condition_is_as_it_was(percent):
    for rounding in (-1e-5, 0.0, 1e-5):
        found = active(attach(TEXT, "a", ATTACHED, 0.2, 0.8), min(max(percent + rounding, 0.0), 1.0))
        assert len(found) == 1 and (KEY in found[0][0]) == (0.2 <= percent <= 0.8)


def test_entries_keep_to_the_time_they_had():
    early = [["text", {"start_percent": 0.0, "end_percent": 0.3}]]
    assert during(early, 0.5, 1.0) == []
    assert during(early, 0.1, 1.0)[0][1]["end_percent"] == 0.3


def test_parts_are_dropped_one_by_one():
    entries = attach(TEXT, "a", ATTACHED, 0.0, 1.0)
    assert has(entries, "expression") and not has(without(entries, "expression"), "expression")
    assert has(without(entries, "expression"), "control") and not has(TEXT, "control")


@pytest.mark.parametrize("steps", (1, 4, 7, 10, 35))
def test_every_step_sees_the_schedules_blend(steps):
    schedule, entries = Schedule(), attach(TEXT, "a", ATTACHED, 0.0, 1.0)
    progressed = progressive(entries, schedule, even_bounds(steps))
    for step in range(steps):
        for shift in (-0.3, 0.0, 0.3):  # samplers round the time of a step
            found = active(progressed, min(max((step + shift) / steps, 0.0), 1.0))
            full = sum(strength for values, strength in found if has([["", values]], "expression"))
            assert sum(strength for _, strength in found) == pytest.approx(1)
            assert full == pytest.approx(schedule.weight(step, steps))


def test_what_has_no_expression_stays_as_it_is():
    assert progressive(TEXT, Schedule(), even_bounds(7)) is TEXT


def test_an_entrys_own_strength_stays():
    entries = [["text", {**attach(TEXT, "a", ATTACHED, 0.0, 1.0)[0][1], "strength": 0.5}]]
    assert all(values["strength"] <= 0.5 for _, values in progressive(entries, Schedule(), even_bounds(7)))
