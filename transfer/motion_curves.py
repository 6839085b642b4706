"""What a motion does, in curves that people can read: mouth, lids and head pose."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.rotation import to_matrix
from .face_motion import FaceMotion

# MediaPipe's landmarks: both inner lips, both corners of the mouth, and upper and lower lid of the subject's left and right eye.
PAIRS = {"open": (13, 14), "width": (61, 291), "left": (386, 374), "right": (159, 145)}
GROUPS = {"mouth": ("open", "width"), "lids": ("left", "right")}


def motion_curves(motion, model: HeadModel | None) -> dict[str, dict[str, Tensor]]:
    """Curves [T] of anything with expression [T, E] and joints [T, J, 3], float64 on the CPU, by group.

    "mouth": "open" and "width", in outer-eye distances. "lids": how far "left" and "right" are open, 1 as at rest. "pose": "pitch"
    (positive nods down), "yaw" (positive turns to the right of the picture) and "roll" (positive tilts to the left of the picture)
    of the head against the camera, in degrees. Without a head model there is "pose" alone.
    """
    joints = motion.joints.detach().cpu().double()
    curves = {} if model is None else _face(motion.expression.detach().cpu().double(), joints, model)
    return curves | {"pose": _angles(joints)}


def _face(expression: Tensor, joints: Tensor, model: HeadModel) -> dict[str, dict[str, Tensor]]:
    face = FaceMotion.of(model, torch.tensor([index for pair in PAIRS.values() for index in pair]))
    rest = face.rest @ face.frame.mT
    places = rest + face.displacements(expression, joints[:, JOINTS.index("jaw")])
    across, still = (points[..., 0::2, :] - points[..., 1::2, :] for points in (places, rest))
    size = still.norm(dim=-1)
    # Along the direction at rest, as lids and lips of an expression may cross when they shut.
    spans, size = dict(zip(PAIRS, ((across * still).sum(-1) / size).unbind(-1))), dict(zip(PAIRS, size))
    curves = {group: {name: spans[name] for name in names} for group, names in GROUPS.items()}
    curves["lids"] = {name: value / size[name] for name, value in curves["lids"].items()}
    return curves


def _angles(joints: Tensor) -> dict[str, Tensor]:
    root, neck, head = (to_matrix(joints[:, JOINTS.index(name)]) for name in ("root", "neck", "head"))
    turn = root @ neck @ head  # rows and columns: x to the right of the picture, y up, z to the viewer
    pitch, yaw = -turn[:, 1, 2].clamp(-1, 1).asin(), torch.atan2(turn[:, 0, 2], turn[:, 2, 2])
    roll = torch.atan2(turn[:, 1, 0], turn[:, 1, 1])
    return {name: torch.rad2deg(value) for name, value in (("pitch", pitch), ("yaw", yaw), ("roll", roll))}
