"""What a photo says about the light on a face, measured at the vertices of the fitted head."""

from __future__ import annotations

import torch
from torch import Tensor

from .head_model import HeadModel
from .lighting import fit_light
from .posing import Shot
from .render_interior import part_vertices
from .warp2d import sample_pixels

PERSON = (0.6, 0.95)  # segmentation: surely background .. surely the person
FEWEST = 50  # visible vertices of skin below which no light is measured


def skin_light(photo: Tensor, person: Tensor, shot: Shot) -> Tensor:
    """Light [9, 3] of the photo [1, 3, H, W], as it falls on the face's skin; its mean over the face is 1.

    `person` [1, 1, H, W] masks the person in the photo.
    """
    model = shot.stage.model
    weight = face_skin(model) * shot.visibility[0] * on_person(person, shot)
    normals, colour = shot.normals[0], vertex_colours(photo, shot)
    used = weight > 0.05
    if int(used.sum()) < FEWEST:
        light = torch.zeros(9, 3, dtype=photo.dtype, device=photo.device)
        light[0] = 1
        return light
    normals, colour, weight = normals[used], colour[used], weight[used]
    base = (colour * weight[:, None]).sum(0) / weight.sum()
    return fit_light(colour, base.clamp(min=0.02).expand_as(colour), normals, weight)


def face_skin(model: HeadModel) -> Tensor:
    """Vertices [V] 0..1 of plain skin on the face: no lips, brows or lids."""
    other = torch.stack([model.regions[name] for name in ("lips", "brows", "lids")]).amax(0)
    return (model.regions["face"] * (1 - other)).clamp(0, 1) * part_vertices(model, "skin")


def on_person(person: Tensor, shot: Shot) -> Tensor:
    """How surely each vertex of a shot's first frame lies on the person [1, 1, H, W] and not on the background, [V] 0..1."""
    mask = sample_at(person, shot.stage.camera.project(shot.vertices[0]))[:, 0]
    return ((mask - PERSON[0]) / (PERSON[1] - PERSON[0])).clamp(0, 1)


def vertex_colours(photo: Tensor, shot: Shot) -> Tensor:
    """Photo [1, 3, H, W] at the projected vertices of a shot's first frame, [V, 3]."""
    return sample_at(photo, shot.stage.camera.project(shot.vertices[0]))


def sample_at(photo: Tensor, pixels: Tensor) -> Tensor:
    """Picture [1, C, H, W] at pixels [P, 2] -> [P, C]."""
    return sample_pixels(photo, pixels.mT[None, :, :, None])[0, :, :, 0].mT
