import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.jaw import JAW, KNEE, jaw_range, limit_jaw


def held(model, limits, rotations, opened=0.0):
    """Total jaw rotations [T, 3] after the limit, for given ones beside a weight of jawOpen."""
    expression = torch.zeros(len(rotations), len(model.expression_names))
    expression[:, model.expression_index("jawOpen")] = opened
    joints = torch.zeros(len(rotations), len(JOINTS), 3)
    joints[:, JAW] = rotations
    out = limit_jaw(model, expression, joints, limits)
    assert torch.equal(out[:, :JAW], joints[:, :JAW]) and torch.equal(out[:, JAW + 1 :], joints[:, JAW + 1 :])
    return model.joint_rotations(expression, out)[:, JAW]


def test_the_jaw_is_free_inside_its_range_and_stays_inside_it(model):
    limits = jaw_range(model, torch.zeros(model.identity_basis.shape[0]))
    inside = KNEE * 0.99 * torch.stack([limits[:, 0], limits.mean(1), limits[:, 1]])
    torch.testing.assert_close(held(model, limits, inside), inside)
    for opened in (0.0, 1.0):
        far = held(model, limits, torch.linspace(-2, 2, 400)[:, None].expand(-1, 3), opened)
        assert (far >= limits[:, 0] - 1e-6).all() and (far <= limits[:, 1] + 1e-6).all()
        assert (far.diff(dim=0) >= -1e-6).all()


def test_jaw_open_counts(model):
    limits = jaw_range(model, torch.zeros(model.identity_basis.shape[0]))
    assert held(model, limits, torch.tensor([[0.4, 0.0, 0.0]]), opened=1.0)[0, 0] < 0.5


def test_lower_teeth_stop_at_the_upper_ones(model, generator):
    for scale in (0.0, 0.8, 0.8):
        identity = scale * torch.randn(model.identity_basis.shape[0], generator=generator)
        closing = jaw_range(model, identity)[0, 0]
        assert -0.03 <= closing < 0
