import math

import pytest
import torch

from expportrait.dit.head_conditions import source_motion
from expportrait.dit.ray_map import ray_map, relative_pose

from .still_head import HEAD, moved, still_proxy


@pytest.fixture(scope="module")
def proxy(model):
    return still_proxy(model)


def test_the_source_pose_moves_nothing(model, proxy):
    pose = relative_pose(proxy, source_motion(proxy), model, proxy.camera)
    assert torch.allclose(pose[0], torch.eye(3, 4), atol=1e-5)
    assert ray_map(pose, 12, 16).abs().max() < 1e-5


def test_a_shift_is_the_same_for_all_points(model, proxy):
    """With the homogeneous coordinate of the printed formula a shift would leave no trace."""
    motion = moved(proxy, shift=(0.02, 0.0, 0.0))
    pose = relative_pose(proxy, motion, model, proxy.camera)
    rays = ray_map(pose, 12, 16)
    distance = -float(model.joint_positions(proxy.identity[None], motion.expression)[0, HEAD, 2] + motion.translation[0, 2])
    assert torch.allclose(rays[0, 0], torch.full((12, 16), 0.02 * proxy.focal / distance / (192 / 2)), rtol=1e-3)
    assert rays[0, 1:].abs().max() < 1e-5


def test_a_nearer_head_grows_about_its_joint(model, proxy):
    pose = relative_pose(proxy, moved(proxy, shift=(0, 0, 0.2)), model, proxy.camera)
    scale = pose[0, :, :3].det() ** (1 / 3)
    assert 1.2 < float(scale) < 1.5 and torch.allclose(pose[0, :, :3], scale * torch.eye(3), atol=1e-5)


def test_a_roll_turns_the_plane(model, proxy):
    angle = 0.3
    pose = relative_pose(proxy, moved(proxy, turn=(0, 0, angle)), model, proxy.camera)
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    assert torch.allclose(pose[0, :2, :2], turn, atol=1e-4)


def test_it_runs_in_inference_mode_on_any_shape(model, proxy):
    with torch.inference_mode():
        assert ray_map(relative_pose(proxy, source_motion(proxy), model, proxy.camera), 7, 5).shape == (1, 3, 7, 5)
