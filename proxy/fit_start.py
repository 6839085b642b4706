"""Where a fit starts: rotation, size and place of the head in closed form, from the detected points' x, y and rough z."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import rotation
from .fit_settings import FitSettings
from .head_model import JOINTS

NECK_SHARE = 0.35  # of a head's rotation; about (neck sigma)^2 / (neck sigma^2 + head sigma^2)


class Similarity(NamedTuple):
    """Closest similarity transforms of T frames: detected = scale * rotation @ neutral + offset, y up, z to the viewer."""

    rotation: Tensor  # [T, 3, 3]
    scale: Tensor  # [T] pixels per metre
    offset: Tensor  # [T, 3] pixels


def similarity(neutral: Tensor, detected: Tensor, weight: Tensor) -> Similarity:
    """Umeyama's closed form. neutral [L, 3] metres, detected [T, L, 3] pixels (y down, z away), weight [L]."""
    target = detected * detected.new_tensor([1.0, -1.0, -1.0])
    w = (weight / weight.sum())[:, None]
    centre, target_centre = (w * neutral).sum(0), (w * target).sum(1)
    a, b = neutral - centre, target - target_centre[:, None]
    u, s, vh = torch.linalg.svd(torch.einsum("tlx,ly->txy", b, w * a))
    sign = torch.ones_like(s)
    sign[:, 2] = torch.linalg.det(u @ vh).sign()
    rotations = u * sign[:, None] @ vh
    scale = (s * sign).sum(1) / (w * a * a).sum()
    return Similarity(rotations, scale, target_centre - scale[:, None] * (rotations @ centre))


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
