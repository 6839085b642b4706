import pytest

from expportrait.dit.guidance import Schedule


def test_the_papers_schedule():
    """35 steps: 5 without expression, 5 that blend, 25 with all of it."""
    schedule = Schedule()
    weights = [schedule.weight(step, 35) for step in range(35)]
    assert weights[:5] == [0] * 5 and weights[10:] == [1] * 25
    assert weights[5:10] == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])


@pytest.mark.parametrize("steps", (1, 2, 4, 7, 20, 35))
def test_ranges_cover_every_step_once_and_weigh_as_the_schedule(steps):
    for schedule in (Schedule(), Schedule(0, 0), Schedule(0.5, 0.5), Schedule(1, 0)):
        ranges = schedule.ranges(steps)
        assert ranges[0].start == 0 and ranges[-1].end == steps
        assert all(a.end == b.start for a, b in zip(ranges, ranges[1:]))
        for step in range(steps):
            inside = [r for r in ranges if r.start <= step < r.end]
            assert len(inside) == 1 and inside[0].full == schedule.weight(step, steps)
            assert inside[0].full + inside[0].without == pytest.approx(1)


def test_nothing_to_hold_is_one_range():
    assert [(r.without, r.full) for r in Schedule(0, 0).ranges(20)] == [(0, 1)]


def test_wrong_shares_are_told():
    for shares in ((-0.1, 0), (0, 1.5), (float("nan"), 0), (0.7, 0.7)):
        with pytest.raises(ValueError, match="hold|fade"):
            Schedule(*shares)
    with pytest.raises(ValueError, match="at least one"):
        Schedule().ranges(0)
