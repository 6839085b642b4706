import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.camera import Camera
from expportrait.proxy.fit_jacobian import Jacobian, left_jacobian, projection_rows
from expportrait.proxy.landmark_points import LandmarkPoints, model_landmarks
from expportrait.proxy.rotation import to_matrix

sys.path.insert(0, str(Path(__file__).parent))
from toy_head import make_model


def _pose(model, generator, batch=3):
    identity = torch.randn(1, model.identity_basis.shape[0], generator=generator)
    expression = torch.rand(batch, model.expression_basis.shape[0], generator=generator)
    joints = 0.3 * torch.randn(batch, 6, 3, generator=generator)
    return identity, expression, joints


@pytest.mark.parametrize("correctives", [False, True])
def test_points_are_those_of_the_posed_mesh(generator, correctives):
    model = make_model(generator, correctives=correctives)
    pose = _pose(model, generator)
    expected = model.landmarks.points(model.forward(*pose), model.faces)
    assert (model_landmarks(model, *pose) - expected).abs().max() < 1e-6


def test_points_of_the_embedded_head(model, generator):
    if model.landmarks is None:
        pytest.skip("the embedded head has no landmark table")
    pose = _pose(model, generator)
    expected = model.landmarks.points(model.forward(*pose), model.faces)
    assert (model_landmarks(model, *pose) - expected).abs().max() < 2e-6


@pytest.mark.parametrize("correctives", [False, True])
def test_jacobian_is_the_derivative_that_autograd_finds(generator, correctives):
    model = make_model(generator, correctives=correctives)
    points = LandmarkPoints.of(model).take(torch.arange(20)).to(torch.float64)
    identity, expression, joints = (x.double() for x in _pose(model, generator, batch=1))
    translation = torch.tensor([0.02, 0.05, -0.9], dtype=torch.float64)
    camera = Camera.centred(700.0, 512, 400)

    def pixels(identity, expression, joints):
        return camera.project(points.posed(identity, expression, joints).points + translation)

    expected = torch.autograd.functional.jacobian(pixels, (identity, expression, joints))
    pose = points.posed(identity, expression, joints)
    rows = projection_rows(camera, pose.points + translation)
    turns = torch.randn(15, 12, generator=generator, dtype=torch.float64)
    found = Jacobian(points, turns, with_identity=True)(pose, rows)
    sizes = [expression.shape[1], 12, 3, identity.shape[1]]
    by_expression, by_joint, by_translation, by_identity = found.split(sizes, -1)
    assert torch.allclose(by_identity, expected[0][..., 0, :], atol=1e-8)
    assert torch.allclose(by_expression, expected[1][..., 0, :], atol=1e-8)
    assert torch.allclose(by_joint, expected[2][..., 0, 1:, :].flatten(3) @ turns, atol=1e-8)
    assert torch.equal(by_translation, rows)
    bare = Jacobian(points, turns, with_identity=False, further=1)(pose, 2 * rows, 3 * rows[..., :1])
    assert torch.allclose(bare, torch.cat([2 * found[..., : sum(sizes[:3])], 3 * rows[..., :1]], -1), atol=1e-8)


def test_left_jacobian_near_zero_and_far(generator):
    for size in (1e-4, 1e-2, 2.0):
        r = size * torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
        columns = torch.autograd.functional.jacobian(to_matrix, r)  # [3, 3, 3]
        turns = torch.einsum("xya,zy->axz", columns, to_matrix(r))  # dR R^T = skew
        expected = torch.stack([turns[:, 2, 1], turns[:, 0, 2], turns[:, 1, 0]], 0)
        assert torch.allclose(left_jacobian(r), expected, atol=1e-7)
