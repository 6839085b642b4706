"""The head's rigid movement as a picture: where each point of the source's image plane is carried (DeX-Portrait 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.camera import Camera
from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.posing import SourcePose


def relative_pose(proxy: HeadProxy, motion, model: HeadModel, camera: Camera) -> Tensor:
    """Movement [F, 3, 4] of the head since its source picture, [sR | t]: rotation R in camera space, scale s by its distance, and the
    shift t of the image plane, whose shorter side goes from -1 to 1 (right, up, out of the picture)."""
    rotation, centre = _head(proxy, motion, model)
    source_rotation, source_centre = _head(proxy, SourcePose.of(proxy), model)
    scale = source_centre[:, 2] / centre[:, 2]
    turn = scale[:, None, None] * (rotation @ source_rotation.mT)
    there, here = (_plane(camera, points) for points in (centre, source_centre))
    shift = there - (turn @ here[..., None])[..., 0]
    return torch.cat([turn, shift[..., None]], 2)


def ray_map(pose: Tensor, height: int, width: int) -> Tensor:
    """Displacement [F, 3, H, W] of the image plane's points (u, v, 0) by poses [F, 3, 4].

    The paper prints P [u, v, 0, 0], which leaves out the shift; the homogeneous coordinate is 1 here.
    """
    grid = _grid(height, width, pose)  # [3, H, W]
    moved = torch.einsum("fxy,yhw->fxhw", pose[..., :3], grid) + pose[..., 3, None, None]
    return moved - grid


def _head(proxy: HeadProxy, pose, model: HeadModel) -> tuple[Tensor, Tensor]:
    """World rotation [F, 3, 3] of the skull and its joint's place [F, 3] in camera space."""
    device = model.template.device
    identity = proxy.identity[None].to(device)
    expression, joints, translation = (value.to(device) for value in (pose.expression, pose.joints, pose.translation))
    transform = model.joint_transforms(identity, expression, joints)[:, model.pivot]
    resting = model.joint_positions(identity, expression)[:, model.pivot]
    return transform[:, :3, :3], (transform[:, :3, :3] @ resting[..., None])[..., 0] + transform[:, :3, 3] + translation


def _plane(camera: Camera, points: Tensor) -> Tensor:
    """Points [F, 3] on the image plane, (u, v, 0)."""
    half = min(camera.width, camera.height) / 2
    pixels = camera.project(points)
    flat = torch.stack([(pixels[:, 0] - camera.width / 2) / half, (camera.height / 2 - pixels[:, 1]) / half], -1)
    return torch.nn.functional.pad(flat, (0, 1))


def _grid(height: int, width: int, like: Tensor) -> Tensor:
    half = min(height, width) / 2
    across = (torch.arange(width, device=like.device) + 0.5 - width / 2) / half
    up = (height / 2 - torch.arange(height, device=like.device) - 0.5) / half
    up, across = torch.meshgrid(up, across, indexing="ij")
    return torch.stack([across, up, torch.zeros_like(up)]).to(like)
