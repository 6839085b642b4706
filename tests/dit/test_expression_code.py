import torch

from expportrait.dit.expression_code import code_size, expression_code
from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.posing import SourcePose


def test_the_code_holds_expression_jaw_and_eyes(model):
    joints = torch.zeros(1, len(JOINTS), 3)
    joints[0, JOINTS.index("right_eye"), 1] = 0.25
    pose = SourcePose(torch.rand(1, len(model.expression_names)), joints, torch.zeros(1, 3))
    code = expression_code(pose)
    assert code.shape == (1, code_size(model)) and torch.equal(code[:, : len(model.expression_names)], pose.expression)
    assert code[0, -2] == 1 and code[0, len(model.expression_names) :].count_nonzero() == 1
