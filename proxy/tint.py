"""Colours of eyes, teeth and tongue for one picture: the model's own, tinted by what the picture shows of the eyes and skin."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .head_model import HeadModel
from .lighting import shade
from .photo_light import face_skin, vertex_colours
from .posing import Shot
from .render_interior import part_vertices
from .render_regions import IRIS_ANGLE, eye_angle

ENOUGH = 0.6  # mean visibility of a vertex that counts as seen
FEW = 12  # vertices below which a colour is not measured
PUPIL_ANGLE = 0.22
LUMINANCE = (0.299, 0.587, 0.114)
DEFAULT_SKIN = 0.55  # luminance of the skin's albedo that the model's own colours were made for
GAIN_LIMITS = (0.2, 1.35)


@dataclasses.dataclass(frozen=True)
class Tint:
    """Albedo of the white of the eye [3], of the left and right iris [2, 3] (NaN where unseen)."""

    white: Tensor
    iris: Tensor


def measure_tint(photo: Tensor, shot: Shot, light: Tensor) -> Tint:
    """Measures a photo [1, 3, H, W] at the visible vertices of the source pose; light [9, 3] is taken out."""
    model = shot.stage.model
    colours = vertex_colours(photo, shot) / shade(light, shot.normals[0])
    seen = shot.visibility[0] > ENOUGH
    luminance = colours.new_tensor(LUMINANCE)
    skin = face_skin(model) * seen
    skin_colour = (colours * skin[:, None]).sum(0) / skin.sum().clamp(min=1e-6)
    skin_level = skin_colour @ luminance
    grey = skin_level.clamp(min=0.05) / DEFAULT_SKIN * 0.8
    # Unseen eyes: white under the same light as the skin, warmed a little by it.
    white = grey * (0.7 + 0.3 * skin_colour / skin_level.clamp(min=1e-3))
    angle = eye_angle(model)
    sclera = seen & (angle > IRIS_ANGLE * 1.25) & (angle < 1.3)
    if int(sclera.sum()) >= FEW:
        found = colours[sclera]
        level = found @ luminance
        white = found[level >= level.quantile(0.5)].mean(0)
        lowest, highest = 0.75 * skin_level, 1.7 * skin_level + 0.1
        white = white * ((white @ luminance).clamp(lowest, highest) / (white @ luminance).clamp(min=1e-3))
    iris = torch.stack([_iris_colour(model, name, colours, seen, angle) for name in ("left_eye", "right_eye")])
    other = iris.flip(0)
    return Tint(white, torch.where(iris.isnan(), other, iris))


def _iris_colour(model: HeadModel, name: str, colours: Tensor, seen: Tensor, angle: Tensor) -> Tensor:
    ring = part_vertices(model, name) & seen & (angle > PUPIL_ANGLE) & (angle < 0.85 * IRIS_ANGLE)
    if int(ring.sum()) < FEW:
        return torch.full((3,), torch.nan, dtype=colours.dtype, device=colours.device)
    return colours[ring].median(0).values


def interior_albedo(model: HeadModel, tint: Tint) -> Tensor:
    """Albedo [V, 3] of the parts that are no skin; on skin the model's default."""
    angle = eye_angle(model)
    own = model.albedo
    eyes = part_vertices(model, "left_eye", "right_eye")
    sclera = eyes & (angle > IRIS_ANGLE * 1.25)
    model_white = own[sclera].mean(0) if bool(sclera.any()) else own.new_full((3,), 0.85)
    gain = (tint.white / model_white.clamp(min=0.05)).clamp(*GAIN_LIMITS)
    albedo = own * gain
    for side, name in enumerate(("left_eye", "right_eye")):
        iris = part_vertices(model, name) & (angle <= IRIS_ANGLE)
        ring = iris & (angle > PUPIL_ANGLE) & (angle < 0.85 * IRIS_ANGLE)
        if bool(tint.iris[side].isnan().any()) or not bool(ring.any()):
            continue
        ratio = tint.iris[side] / albedo[ring].mean(0).clamp(min=0.02)
        albedo = torch.where(iris[:, None], albedo * ratio, albedo)
    return albedo.clamp(0, 1)

