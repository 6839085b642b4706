"""How dark it is inside the mouth: a fixed darkness per vertex that grows with the way from the lips."""

from __future__ import annotations

import torch
from torch import Tensor

from .head_model import PARTS, HeadModel

NEAR = 0.008  # metres from the lips that are still fully lit
OPEN = 0.015  # the same straight behind their foremost point
REACH = 0.018  # metres further on at which light has fallen to 1/e
DARKEST = 0.25  # share of light at the back of the mouth
INNER = ("upper_teeth", "lower_teeth", "gums", "tongue", "mouth")


def interior_light(model: HeadModel) -> Tensor:
    """Share of light [V] that reaches each vertex of the mouth's inside past the lips at rest; 1 everywhere else.

    It falls with the distance from the nearest lip, so that teeth next to a corner of the mouth are lit through that corner.
    """
    points, light = dense_template(model), torch.ones_like(model.albedo[:, 0])
    inner = part_vertices(model, *INNER)
    lips = points[(model.regions["lips"] > 0.5) & part_vertices(model, "skin")]
    if len(lips):
        light[inner] = _fallen(torch.cdist(points[inner], lips).amin(1) - NEAR)
    return light


def posed_interior_light(model: HeadModel, rest: Tensor, vertices: Tensor) -> Tensor:
    """Interior light [t, V] of posed vertices [t, V, 3] in camera space: that at rest [V], or more for a tongue put out.

    A posed vertex counts by its way back from the foremost point of the lips, along z.
    """
    lips = model.regions["lips"] > 0.5
    front = (vertices[:, lips, 2] if bool(lips.any()) else vertices[..., 2]).amax(1, keepdim=True)
    return torch.where(rest < 1, torch.maximum(rest, _fallen(front - OPEN - vertices[..., 2])), rest)


def _fallen(way: Tensor) -> Tensor:
    return DARKEST + (1 - DARKEST) * torch.exp(-way.clamp(min=0) / REACH)


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
