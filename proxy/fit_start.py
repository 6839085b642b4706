"""Where a fit starts: rotation, size and place of the head in closed form, from the detected points' x, y and rough z."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from . import rotation
from .camera import Camera
from .fit_problem import NECK_SHARE
from .fit_settings import FitSettings
from .head_model import JOINTS
from .landmark_points import IRISES, LandmarkPoints

# What undoes the landmarker's errors about a turned head; tools/measure_turn.py measures it on heads with known rotation.
DEPTH_SHARE = 0.9  # its faces are too deep
TILT = math.radians(-2.7)  # pitch about the camera's axis: it sees all heads tilted
REST_TILT = math.radians(1.5)  # pitch about the head's own axis, with which a head that faces the camera stays where it was
CROSS = 0.3  # yaw per radian of yaw and radian of pitch, which it misses

STILL = 0.001  # metres; a point that expressions move so far counts half in a head's rotation


class Placement(NamedTuple):
    """Where a rigid head stands in T frames."""

    rotation: Tensor  # [T, 3, 3] from the model's space to the camera's
    scale: Tensor  # [T] pixels per metre at the head's distance


def still_weight(points: LandmarkPoints, bounds: Tensor, sigma: float) -> Tensor:
    """Weight [L] of all 478 landmarks in a head's rotation: less for what expressions within their `bounds` [E, 2] move.

    `sigma` is that of an expression, share of the larger of its bounds. The irises have weight 0.
    """
    moved = points.expression.sum(1) * (sigma * bounds.abs().amax(1)).to(points.expression)  # [L, 3, E]
    weight = 1 / (1 + moved.square().sum((1, 2)) / STILL**2)
    weight[IRISES] = 0
    return weight


def place(neutral: Tensor, detected: Tensor, weight: Tensor, camera: Camera) -> Placement:
    """`seen_place` without what the landmarker is known to get wrong."""
    seen = seen_place(neutral, detected, weight, camera)
    return Placement(upright(seen.rotation, TILT, REST_TILT, CROSS), seen.scale)


def seen_place(neutral: Tensor, detected: Tensor, weight: Tensor, camera: Camera, depth_share: float = DEPTH_SHARE) -> Placement:
    """The rigid head closest to the detected points, in closed form, as the camera sees it.

    neutral [L, 3] metres, detected [T, L, 3] pixels and rough depth (y down, z away), weight [L]. The points' own depth takes
    them out of perspective, which else looks like a turn.
    """
    share = (weight / weight.sum())[:, None]
    depth = depth_share * detected[..., 2:]
    depth = depth - (share * depth).sum(1, keepdim=True)
    offset = detected[..., :2] - detected.new_tensor([camera.cx, camera.cy])
    return Placement(*_similarity(neutral, torch.cat([offset * (1 + depth / camera.focal), depth], 2), share))


def upright(rotations: Tensor, tilt: float, rest_tilt: float, cross: float) -> Tensor:
    """Rotations [T, 3, 3] as they were seen, turned back by the constants above."""
    found = _about(0, rotations.new_tensor([tilt])) @ rotations
    pitch, yaw = -found[:, 1, 2].clamp(-1, 1).asin(), torch.atan2(found[:, 0, 2], found[:, 2, 2])
    return found @ _about(1, cross * pitch * yaw) @ _about(0, rotations.new_tensor([rest_tilt]))


def _similarity(neutral: Tensor, detected: Tensor, share: Tensor) -> tuple[Tensor, Tensor]:
    """Rotation [T, 3, 3] and scale [T] of the closest similarity transforms (Umeyama 1991); share [L, 1] of each point."""
    target = detected * detected.new_tensor([1.0, -1.0, -1.0])
    centre, target_centre = (share * neutral).sum(0), (share * target).sum(1)
    a, b = neutral - centre, target - target_centre[:, None]
    u, s, vh = torch.linalg.svd(b.mT @ (share * a))
    sign = torch.ones_like(s)
    sign[:, 2] = torch.linalg.det(u @ vh).sign()
    return u * sign[:, None] @ vh, (s * sign).sum(1) / (share * a * a).sum()


def _about(axis: int, angle: Tensor) -> Tensor:
    """Rotations [N, 3, 3] about a coordinate axis by angles [N]."""
    return rotation.to_matrix(angle[:, None] * torch.eye(3)[axis].to(angle))


def torso(rotations: Tensor, weight: Tensor, settings: FitSettings) -> Tensor:
    """Rotation vector [3] of the root: what the clip's mean head rotation has beyond what neck and head take alone.

    A head held upright leaves the torso at rest; a lying person or a profile turns it.
    """
    mean = rotation.mean(rotation.to_rotvec(rotations), weight)
    angle = mean.norm()
    return mean * ((angle - settings.torso_free).clamp(min=0) / angle.clamp(min=1e-6))


def start_joints(rotations: Tensor, root: Tensor) -> Tensor:
    """Joint rotations [T, J, 3] that turn the head by `rotations` [T, 3, 3], shared between neck and head."""
    above = rotation.to_rotvec(rotation.to_matrix(root).mT @ rotations)
    joints = above.new_zeros(above.shape[0], len(JOINTS), 3)
    joints[:, 0] = root
    joints[:, JOINTS.index("neck")] = NECK_SHARE * above
    joints[:, JOINTS.index("head")] = (1 - NECK_SHARE) * above
    return joints


def start_translation(posed_centre: Tensor, pixel_centre: Tensor, scale: Tensor, focal: float, centre: Tensor) -> Tensor:
    """Translation [T, 3] that brings posed points' centres [T, 3] to pixels [T, 2] at `scale` [T] pixels per metre."""
    depth = focal / scale
    place = (pixel_centre - centre) * centre.new_tensor([1.0, -1.0]) / scale[:, None]
    return torch.cat([place, -depth[:, None]], 1) - posed_centre
