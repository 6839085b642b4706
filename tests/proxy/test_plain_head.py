import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.plain_head import plain_head
from expportrait.proxy.posing import SourcePose, camera_space


def test_the_plain_head_stands_in_the_middle_and_looks_into_the_camera(model):
    head = plain_head(model)
    posed = camera_space(model, head, SourcePose.of(head))[0]
    skull = torch.maximum(model.regions["face"], model.regions["scalp"]) > 0.5
    x, y = head.camera.project(posed[skull]).unbind(-1)
    assert abs(float(x.amin() + x.amax()) / 2 - head.width / 2) < 3 and abs(float(y.amin() + y.amax()) / 2 - head.height / 2) < 12
    left, top, width, height = head.crop
    assert left < x.amin() and x.amax() < left + width and top < y.amin() and y.amax() < top + height
    assert head.albedo.shape == (3, 512, 512) and 0.05 < head.albedo.mean() < 0.95
    assert not bool(head.source_joints[JOINTS.index("head")].any())
    assert head.albedo_confidence.max() == 0
