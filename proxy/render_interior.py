"""How dark it is inside the mouth: a fixed darkness per vertex that grows with the way back from the lips."""

from __future__ import annotations

import torch
from torch import Tensor

from .head_model import PARTS, HeadModel

REACH = 0.02  # metres behind the lips at which light has fallen to 1/e
OPEN = 0.015  # metres behind the lips that are still fully lit
DARKEST = 0.25  # share of light at the back of the mouth
INNER = ("upper_teeth", "lower_teeth", "gums", "tongue", "mouth")


def interior_light(model: HeadModel) -> Tensor:
    """Share of light [V] that reaches each vertex of the mouth's inside past the lips at rest; 1 everywhere else."""
    points = dense_template(model)
    inner = part_vertices(model, *INNER)
    return torch.where(inner, _light_behind(model, points[None])[0], torch.ones_like(points[:, 0]))


def posed_interior_light(model: HeadModel, rest: Tensor, vertices: Tensor) -> Tensor:
    """Interior light [t, V] of posed vertices [t, V, 3] in camera space: that at rest [V], or more for a tongue put out."""
    return torch.where(rest < 1, torch.maximum(rest, _light_behind(model, vertices)), rest)


def _light_behind(model: HeadModel, points: Tensor) -> Tensor:
    """Light [t, V] by the way back from the foremost point of the lips, along z."""
    lips = model.regions["lips"] > 0.5
    front = points[:, lips, 2].amax(1, keepdim=True) if bool(lips.any()) else points[..., 2].amax(1, keepdim=True)
    depth = (front - OPEN - points[..., 2]).clamp(min=0)
    return DARKEST + (1 - DARKEST) * torch.exp(-depth / REACH)


def dense_template(model: HeadModel) -> Tensor:
    """The model's mean head at rest, [V, 3]."""
    zeros = model.template.new_zeros
    return model.canonical(zeros(1, model.identity_basis.shape[0]), zeros(1, model.expression_basis.shape[0]))[0]


def part_vertices(model: HeadModel, *names: str) -> Tensor:
    """Vertices [V] bool that belong to triangles of the named parts."""
    chosen = torch.zeros(model.weights.shape[0], dtype=torch.bool, device=model.faces.device)
    wanted = torch.tensor([PARTS.index(name) for name in names], device=model.parts.device)
    chosen[model.faces[torch.isin(model.parts, wanted)].flatten()] = True
    return chosen
