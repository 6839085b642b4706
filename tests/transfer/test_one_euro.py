import math

import pytest
import torch

from expportrait.proxy import rotation
from expportrait.transfer.one_euro import one_euro_rotations, one_euro_values


def step_by_step(values, fps, min_cutoff, beta):
    """The paper's algorithm 1, one channel and one frame at a time."""
    out, speed, previous = [values[0]], 0.0, values[0]
    for value in values[1:]:
        share = 1 / (1 + fps / (2 * math.pi))
        speed = share * (value - previous) * fps + (1 - share) * speed
        share = 1 / (1 + fps / (2 * math.pi * (min_cutoff + beta * abs(speed))))
        out.append(share * value + (1 - share) * out[-1])
        previous = value
    return out


def test_values_follow_the_paper(generator):
    values = torch.randn(50, 3, 2, generator=generator, dtype=torch.float64)
    filtered = one_euro_values(values, 30.0, 1.2, 0.7)
    for i in range(3):
        for j in range(2):
            expected = step_by_step(values[:, i, j].tolist(), 30.0, 1.2, 0.7)
            assert torch.allclose(filtered[:, i, j], torch.tensor(expected, dtype=torch.float64), atol=1e-12)


def test_infinite_cutoff_and_single_frames_change_nothing(generator):
    values = torch.randn(9, 4, 3, generator=generator)
    for one_euro in (one_euro_values, one_euro_rotations):
        assert torch.equal(one_euro(values, 25.0, math.inf, 1.0), values)
        assert torch.equal(one_euro(values[:1], 25.0, 1.0, 1.0), values[:1])


def test_it_is_causal(generator):
    values = 0.3 * torch.randn(40, 2, 3, generator=generator)
    changed = torch.cat([values[:25], values[25:] + 1])
    for one_euro in (one_euro_values, one_euro_rotations):
        assert torch.equal(one_euro(values, 25.0, 1.0, 1.0)[:25], one_euro(changed, 25.0, 1.0, 1.0)[:25])


def test_noise_at_rest_shrinks_and_a_blink_comes_through(generator):
    noise = 0.02 * torch.randn(500, 1, generator=generator)
    calm = one_euro_values(noise, 25.0, 1.6, 2.0)
    assert calm[20:].std() < 0.6 * noise.std()
    blink = torch.zeros(60, 1)
    blink[30:36, 0] = torch.tensor([0.4, 0.9, 1.0, 0.8, 0.4, 0.1])
    slow, quick = one_euro_values(blink, 25.0, 1.6, 0.0), one_euro_values(blink, 25.0, 1.6, 2.0)
    assert quick.max() > 0.8 > slow.max()


def test_rotations_turn_as_values_about_one_axis(generator):
    angle = 0.2 * torch.randn(80, 1, generator=generator, dtype=torch.float64)
    axis = torch.nn.functional.normalize(torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64))
    filtered = one_euro_rotations(angle * axis, 25.0, 0.8, 1.5)
    assert torch.allclose(filtered, one_euro_values(angle, 25.0, 0.8, 1.5) * axis, atol=1e-9)


def test_rotations_cross_half_a_turn_and_commute_with_a_change_of_frame(generator):
    turning = torch.zeros(60, 1, 3)
    turning[:, 0, 1] = torch.linspace(2.6, 3.7, 60)
    wrapped = rotation.to_rotvec(rotation.to_matrix(turning))  # jumps from +pi to -pi on the way
    filtered = rotation.to_matrix(one_euro_rotations(wrapped, 25.0, 1.0, 0.5))
    straight = torch.zeros(60, 1, 3)
    straight[:, 0, 1] = one_euro_values(turning[:, 0, 1:2], 25.0, 1.0, 0.5)[:, 0]
    assert torch.allclose(filtered, rotation.to_matrix(straight), atol=1e-5)

    rotvec = 0.4 * torch.randn(30, 3, generator=generator)
    frame = rotation.to_matrix(torch.randn(3, generator=generator))
    there = rotation.to_rotvec(frame @ rotation.to_matrix(rotvec))
    both = [rotation.to_matrix(one_euro_rotations(r, 25.0, 1.0, 0.5)) for r in (there, rotvec)]
    assert torch.allclose(both[0], frame @ both[1], atol=1e-5)


@pytest.mark.parametrize("fps, min_cutoff, beta, word", [(0.0, 1, 1, "fps"), (25.0, 0, 1, "min_cutoff"), (25.0, 1, -1, "beta")])
def test_bad_parameters(fps, min_cutoff, beta, word):
    with pytest.raises(ValueError, match=word):
        one_euro_values(torch.zeros(4, 2), fps, min_cutoff, beta)
