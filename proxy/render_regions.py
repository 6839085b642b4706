"""Region labels of the head for the region map, from the model's soft masks and parts."""

from __future__ import annotations

import torch
from torch import Tensor

from .head_model import JOINTS, HeadModel
from .render_interior import dense_template, part_vertices

# Later entries win over earlier ones where their masks overlap.
REGION_COLOURS = {
    "neck": (190, 110, 70),
    "shoulders": (120, 80, 150),
    "scalp": (110, 60, 30),
    "face": (240, 190, 140),
    "ears": (230, 120, 160),
    "nose": (250, 230, 90),
    "lids": (140, 210, 240),
    "brows": (60, 160, 60),
    "lips": (220, 40, 60),
    "mouth": (70, 0, 30),
    "gums": (250, 110, 130),
    "tongue": (250, 60, 200),
    "teeth": (255, 255, 255),
    "eyes": (200, 240, 255),
    "iris": (30, 60, 230),
}
IRIS_ANGLE = 0.48  # radians from the eye's axis: 5.9 mm of iris on a 12.5 mm ball
SURROUND = (1.3, 1.75)  # radii of the eyeball from its centre: lid for sure .. no lid any more
HARD = ("mouth", "gums", "tongue", "teeth", "eyes", "iris")  # whole parts, not soft masks on the skin


def region_scores(model: HeadModel) -> Tensor:
    """Scores [V, R] in the order of REGION_COLOURS; the largest interpolated score of a pixel is its region."""
    masks = dict(model.regions)
    masks |= {name: part_vertices(model, name).float() for name in ("mouth", "gums", "tongue")}
    masks["teeth"] = part_vertices(model, "upper_teeth", "lower_teeth").float()
    masks["eyes"] = part_vertices(model, "left_eye", "right_eye").float()
    masks["iris"] = (eye_angle(model) < IRIS_ANGLE).float()
    skin = part_vertices(model, "skin").float()
    scores = torch.zeros(model.weights.shape[0], len(REGION_COLOURS), device=model.weights.device)
    for rank, name in enumerate(REGION_COLOURS):
        mask = masks[name].to(scores) * (1 if name in HARD else skin)
        scores[:, rank] = torch.where(mask > 0, mask + 0.02 * rank, mask)
        scores[:, :rank] = scores[:, :rank] * (1 - mask)[:, None]
    return scores


def eye_angle(model: HeadModel) -> Tensor:
    """Angle [V] in radians from each eyeball's axis, which looks along +z at rest; infinite off the eyeballs."""
    points = dense_template(model)
    angle = torch.full_like(points[:, 0], torch.inf)
    for name in ("left_eye", "right_eye"):
        direction = torch.nn.functional.normalize(points - model.joint_template[JOINTS.index(name)], dim=-1)
        angle = torch.where(part_vertices(model, name), direction[:, 2].clamp(-1, 1).acos(), angle)
    return angle


def eye_surround(model: HeadModel) -> Tensor:
    """Soft mask [V] of the skin around each eyeball: lids and what folds when they open."""
    points = dense_template(model)
    mask = torch.zeros_like(points[:, 0])
    for name in ("left_eye", "right_eye"):
        centre = model.joint_template[JOINTS.index(name)]
        ball = part_vertices(model, name)
        if not bool(ball.any()):
            continue
        radius = (points[ball] - centre).norm(dim=-1).median()
        distance = (points - centre).norm(dim=-1) / radius
        mask = torch.maximum(mask, ((SURROUND[1] - distance) / (SURROUND[1] - SURROUND[0])).clamp(0, 1))
    return mask * part_vertices(model, "skin")
