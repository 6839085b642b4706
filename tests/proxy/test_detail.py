import math

import pytest
import torch

from expportrait.proxy.detail import COLUMNS, expression_map, low_rank


def planted(generator, frames=30, vertices=200, rank=3):
    """A field of known rank in metres, its fields ten times weaker from one to the next."""
    strength = 0.003 * 10.0 ** -torch.arange(rank)
    return torch.einsum(
        "tk,k,kvx->tvx",
        torch.randn(frames, rank, generator=generator),
        strength,
        torch.randn(rank, vertices, 3, generator=generator),
    )


@pytest.mark.parametrize(("frames", "vertices"), [(30, 200), (200, 20)])
def test_a_field_of_low_rank_is_found_again(generator, frames, vertices):
    field = planted(generator, frames, vertices)
    basis, coefficients, kept = low_rank(field, energy=1.0)
    assert basis.shape == (3, vertices, 3) and coefficients.shape == (frames, 3) and kept == pytest.approx(1)
    assert torch.allclose(torch.einsum("tk,kvx->tvx", coefficients, basis), field, atol=1e-7)
    assert torch.allclose(coefficients.square().mean(0), torch.ones(3), atol=1e-4)
    sizes = basis.flatten(1).norm(dim=1)
    assert (sizes[:-1] > sizes[1:]).all()
    assert torch.allclose(coefficients.mT @ coefficients / frames, torch.eye(3), atol=1e-3)


def test_both_ways_agree_with_the_svd(generator):
    """One coordinate more or fewer than frames takes the one way or the other; the last field is summed in pieces."""
    for frames, vertices in ((29, 10), (31, 10), (12, COLUMNS // 3 + 100)):
        field = 0.001 * torch.randn(frames, vertices, 3, generator=generator)
        basis, coefficients, kept = low_rank(field, energy=0.6, most=30)
        left, size, right = torch.linalg.svd(field.flatten(1).double(), full_matrices=False)
        share = size.square().cumsum(0) / size.square().sum()
        count = int((share < 0.6).sum()) + 1
        assert len(basis) == count and kept == pytest.approx(float(share[count - 1]))
        best = (left[:, :count] * size[:count]) @ right[:count]
        assert torch.allclose(coefficients @ basis.flatten(1), best.float(), atol=1e-8)


def test_kept_is_the_share_of_the_energy(generator):
    field = 0.002 * torch.randn(40, 50, 3, generator=generator)
    basis, coefficients, kept = low_rank(field, energy=0.999, most=8)
    rest = field - torch.einsum("tk,kvx->tvx", coefficients, basis)
    assert len(basis) == 8
    assert 1 - kept == pytest.approx(float(rest.square().sum() / field.square().sum()), rel=1e-4)


def test_signs_are_settled(generator):
    field = planted(generator)
    (first, strength, _), (second, other, _) = low_rank(field), low_rank(-field)
    assert torch.allclose(first, second, atol=1e-8) and torch.allclose(strength, -other, atol=1e-4)
    largest = first.flatten(1).gather(1, first.flatten(1).abs().argmax(1, keepdim=True))
    assert (largest > 0).all()


def test_one_frame_no_frame_and_zeros(generator):
    field = 0.002 * torch.randn(1, 50, 3, generator=generator)
    basis, coefficients, kept = low_rank(field)
    assert basis.shape == (1, 50, 3) and coefficients.abs() == pytest.approx(1) and kept == pytest.approx(1)
    assert torch.allclose(coefficients[0, 0] * basis[0], field[0], atol=1e-8)
    for frames in (0, 1, 7, 200):
        basis, coefficients, kept = low_rank(torch.zeros(frames, 50, 3))
        assert basis.shape == (0, 50, 3) and coefficients.shape == (frames, 0) and kept == 1


def test_bad_fields_are_named(generator):
    field = planted(generator)
    for wrong, message in (
        (dict(dynamic=field[0]), "has shape \\[200, 3\\]; expected \\[T, V, 3\\]"),
        (dict(dynamic=field * math.nan), "no numbers"),
        (dict(dynamic=field, energy=0.0), "energy is 0.0"),
        (dict(dynamic=field, energy=99.9), "energy is 99.9"),
        (dict(dynamic=field, most=0), "most is 0"),
    ):
        with pytest.raises(ValueError, match=message):
            low_rank(**wrong)


def test_the_map_from_expression_is_found_again(generator):
    neutral = 0.1 * torch.rand(6, generator=generator)
    expression = torch.rand(400, 6, generator=generator)
    truth = torch.randn(6, 3, generator=generator)
    found = expression_map(expression, neutral, (expression - neutral) @ truth, 1e-6)
    assert torch.allclose(found, truth, atol=1e-3)


def test_what_the_clip_never_showed_gets_no_detail(generator):
    """Noise in a coefficient that stood still, and in the detail, must not become a wrinkle at full strength."""
    noise = 1e-3
    expression = torch.cat([torch.rand(2000, 2, generator=generator), noise * torch.randn(2000, 2, generator=generator)], 1)
    expression[:, 3] = 0
    truth = torch.tensor([[1.0, 0.0], [0.0, -1.0]])
    coefficients = expression[:, :2] @ truth + 0.3 * torch.randn(2000, 2, generator=generator) + 0.3 * expression[:, 2:3] / noise
    found = expression_map(expression, torch.zeros(4), coefficients, 1e-4)
    assert torch.allclose(found[:2], truth, atol=0.1)
    assert found[2].abs().max() < 1e-3  # 300 by least squares
    assert not found[3].any()


def test_half_is_believed_at_the_fourth_root_of_the_ridge():
    ridge = 1e-4
    amplitude = ridge**0.25
    expression = amplitude * torch.tensor([[1.0], [-1.0], [1.0], [-1.0]])
    found = expression_map(expression, torch.zeros(1), 5 * expression, ridge)
    assert found.item() == pytest.approx(2.5, rel=1e-5)


def test_the_neutral_face_has_no_detail_and_a_constant_is_no_wrinkle(generator):
    neutral = torch.rand(5, generator=generator)
    still = neutral.expand(20, 5)
    assert not expression_map(still, neutral, torch.ones(20, 2), 1e-4).any()
    assert expression_map(still, neutral, torch.ones(20, 0), 1e-4).shape == (5, 0)
    assert not expression_map(still[:0], neutral, torch.ones(0, 2), 1e-4).any()


def test_bad_maps_are_named(generator):
    expression, neutral, coefficients = torch.rand(20, 5), torch.rand(5), torch.rand(20, 2)
    for wrong in ((expression[0], neutral, coefficients), (expression, neutral[1:], coefficients), (expression, neutral, coefficients[1:])):
        with pytest.raises(ValueError, match="expected \\[T, E\\], \\[E\\] and \\[T, K\\]"):
            expression_map(*wrong, 1e-4)
    for ridge in (0.0, math.nan):
        with pytest.raises(ValueError, match="ridge is"):
            expression_map(expression, neutral, coefficients, ridge)
    with pytest.raises(ValueError, match="no numbers"):
        expression_map(expression * math.inf, neutral, coefficients, 1e-4)


def test_in_inference_mode(generator):
    with torch.inference_mode():
        field = planted(generator)
        basis, coefficients, _ = low_rank(field)
        found = expression_map(torch.rand(30, 4, generator=generator), torch.zeros(4), coefficients, 1e-4)
    assert found.shape == (4, len(basis)) and found.isfinite().all()
