import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.closure import closure
from expportrait.transfer.contact_rims import COLUMNS


def blinks(model, steps):
    """A clip [T, E] that shuts the left eye and opens the jaw."""
    out = torch.zeros(len(steps), len(model.expression_names))
    out[:, model.expression_index("eyeBlinkLeft")] = steps
    out[:, model.expression_index("jawOpen")] = 0.5 * steps
    return out


def told(model, expression, rest=None, **person):
    still = torch.zeros(len(JOINTS), 3)
    rest = torch.zeros(len(model.expression_names)) if rest is None else rest
    return closure(model, expression, still.expand(len(expression), -1, -1), rest, still, **person)


def test_lids_shut_and_lips_open_one_by_one(model, generator):
    identity = 0.8 * torch.randn(model.identity_basis.shape[0], generator=generator)
    lids, lips = told(model, blinks(model, torch.linspace(0, 1, 21)), identity=identity)
    assert lids.shape == (21, 2) and lips.shape == (21, COLUMNS)
    assert lids[0, 0] == 0 and lids[-1, 0] == 1 and (lids[:, 1] == 0).all()
    assert (lids[:, 0].diff() >= 0).all() and lids[:, 0].diff().max() < 0.9
    assert (lips[0] > 0.9).all() and (lips[-1, 1:-1] == 0).all()


def test_a_sleeper_is_asleep(model):
    expression = blinks(model, torch.ones(3))
    assert (told(model, expression, rest=expression[0])[0][:, 0] == 1).all()


def test_a_head_that_moves_as_one_tells_the_same(model, generator):
    expression = blinks(model, torch.linspace(0, 1, 5))
    joints = torch.zeros(5, len(JOINTS), 3)
    joints[:, :3] = 0.3 * torch.randn(5, 3, 3, generator=generator)
    rest = torch.zeros(len(model.expression_names))
    turned = closure(model, expression, joints, rest, joints[0])
    for one, two in zip(turned, told(model, expression)):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=0)
