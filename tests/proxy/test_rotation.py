import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from expportrait.proxy.rotation import compose, mean, skew, to_matrix, to_quaternion, to_rotvec

ANGLES = [0.0, 1e-9, 1e-7, 1e-5, 1e-4, 1.1e-4, 1e-3, 0.3, 1.5, 3.0, math.pi - 1e-3, math.pi - 1e-6, math.pi]


def vectors(generator: torch.Generator, angle: float, count: int = 50) -> torch.Tensor:
    """Rotation vectors [count, 3] of one angle, along the axes, the diagonals and at random; double precision."""
    axes = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    axes[:6] = torch.cat([torch.eye(3), -torch.eye(3)])
    axes[6:8] = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    return torch.nn.functional.normalize(axes, dim=-1) * angle


@pytest.mark.parametrize("angle", ANGLES)
def test_matrix_agrees_with_scipy(generator, angle):
    rotvec = vectors(generator, angle)
    wanted = torch.from_numpy(Rotation.from_rotvec(rotvec.numpy()).as_matrix())
    torch.testing.assert_close(to_matrix(rotvec), wanted, atol=1e-12, rtol=0)
    torch.testing.assert_close(to_matrix(rotvec.float()).double(), wanted, atol=1e-6, rtol=0)


@pytest.mark.parametrize("angle", ANGLES)
def test_quaternion_agrees_with_scipy(generator, angle):
    matrix = Rotation.from_rotvec(vectors(generator, angle).numpy()).as_matrix()
    found = to_quaternion(torch.from_numpy(matrix))
    wanted = torch.from_numpy(Rotation.from_matrix(matrix).as_quat()[:, [3, 0, 1, 2]])
    assert (found[:, 0] >= 0).all()
    torch.testing.assert_close((found * wanted).sum(1).abs(), torch.ones(len(wanted), dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(found[:, 1:].norm(dim=1), wanted[:, 1:].norm(dim=1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-7), (torch.float32, 2e-3)])
@pytest.mark.parametrize("angle", ANGLES)
def test_round_trip(generator, angle, dtype, tolerance):
    rotvec = vectors(generator, angle).to(dtype)
    found = to_rotvec(to_matrix(rotvec))
    assert (found.norm(dim=-1) <= math.pi + 1e-6).all()
    if angle < math.pi - 1e-2:
        torch.testing.assert_close(found, rotvec, atol=1e-6 if dtype == torch.float32 else 1e-9, rtol=1e-5)
    # At half a turn the axis may flip; the rotation is the same.
    torch.testing.assert_close(to_matrix(found), to_matrix(rotvec), atol=tolerance, rtol=0)


def test_more_than_half_a_turn_comes_back_shorter():
    found = to_rotvec(to_matrix(torch.tensor([[0.0, 1.5 * math.pi, 0.0]], dtype=torch.float64)))
    torch.testing.assert_close(found, torch.tensor([[0.0, -0.5 * math.pi, 0.0]], dtype=torch.float64))


def test_order_of_composition(generator):
    first, second = vectors(generator, 1.2), vectors(generator, 0.7).flip(0)
    wanted = (Rotation.from_rotvec(second.numpy()) * Rotation.from_rotvec(first.numpy())).as_rotvec()
    torch.testing.assert_close(compose(first, second), torch.from_numpy(wanted))


@pytest.mark.parametrize("angle", ANGLES)
def test_gradients_exist_everywhere(generator, angle):
    for function in (to_matrix, lambda v: to_rotvec(to_matrix(v)), lambda v: to_quaternion(to_matrix(v))):
        rotvec = vectors(generator, angle).float().requires_grad_()
        function(rotvec).sum().backward()
        assert torch.isfinite(rotvec.grad).all() and rotvec.grad.abs().max() < 100


@pytest.mark.parametrize("angle", [0.0, 1e-5, 1e-2, 1.0, 3.0])
def test_gradient_of_the_matrix(generator, angle):
    rotvec = vectors(generator, angle, 8).requires_grad_()
    assert torch.autograd.gradcheck(to_matrix, rotvec, atol=1e-6)


def test_gradient_at_rest_is_the_cross_product():
    rows = torch.autograd.functional.jacobian(to_matrix, torch.zeros(3))  # [3, 3, 3]
    torch.testing.assert_close(rows, torch.stack([skew(axis) for axis in torch.eye(3)], dim=-1))


@pytest.mark.parametrize("angle", [1e-2, 1.0, 2.5])
def test_round_trip_has_unit_gradient(generator, angle):
    for rotvec in vectors(generator, angle, 8):
        jacobian = torch.autograd.functional.jacobian(lambda v: to_rotvec(to_matrix(v)), rotvec)
        torch.testing.assert_close(jacobian, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_round_trip_has_unit_gradient_at_rest():
    jacobian = torch.autograd.functional.jacobian(lambda v: to_rotvec(to_matrix(v)), torch.zeros(3, dtype=torch.float64))
    torch.testing.assert_close(jacobian, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)


def test_mean_agrees_with_scipy(generator):
    rotvec = vectors(generator, 0.6) + torch.tensor([1.0, -2.0, 0.5])
    weight = torch.rand(len(rotvec), generator=generator, dtype=torch.float64)
    rotations = Rotation.from_rotvec(rotvec.numpy())
    torch.testing.assert_close(mean(rotvec), torch.from_numpy(rotations.mean().as_rotvec()))
    torch.testing.assert_close(mean(rotvec, weight), torch.from_numpy(rotations.mean(weight.numpy()).as_rotvec()))


def test_skew_is_the_cross_product(generator):
    a, b = torch.randn(2, 4, 5, 3, generator=generator)
    torch.testing.assert_close((skew(a) @ b[..., None])[..., 0], torch.linalg.cross(a, b))


def test_inference_mode(generator):
    rotvec = vectors(generator, 0.4)
    with torch.inference_mode():
        assert np.allclose(to_rotvec(to_matrix(rotvec)), rotvec)
