"""Colours of eyes, teeth and tongue for one picture: the model's own, tinted by what the picture shows of the eyes and skin."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .head_model import PARTS, HeadModel
from .lighting import shade
from .photo_light import face_skin, vertex_colours
from .posing import Shot
from .render_interior import INNER, interior_light, part_vertices
from .render_regions import IRIS_ANGLE, eye_angle

ENOUGH = 0.6  # mean visibility of a vertex that counts as seen
FEW, FEW_INNER = 12, 60  # vertices below which a colour is not measured: of an eye, of the inside of the mouth
PUPIL_ANGLE = 0.22
LUMINANCE = (0.299, 0.587, 0.114)
IVORY = 0.45  # how far whites lean to the hue of the skin
WHITE, WHITE_LIMITS = 1.15, (0.75, 1.7)  # luminance of the white of the eye in that of the skin: usual, lowest and highest
ENAMEL = 1.3  # least luminance of the brightest teeth in that of the skin (1.25 to 1.55 in photos); lids shadow the white of the eye
TEETH, SOFT = 0.6, 2.4  # measured luminance against the expected: least of teeth, most of tongue and gums
RED = 1.25  # most that measured teeth may lean to red
MOUTH = (("upper_teeth", "lower_teeth"), ("tongue", "gums", "mouth"))
GAIN_LIMITS, INNER_LIMITS = (0.2, 1.35), (0.3, 2.5)
DARKEST = (0.5, 0.0)  # of MOUTH: teeth are measured where they are bright, between dark gaps


@dataclasses.dataclass(frozen=True)
class Tint:
    """Colours without light. NaN where the picture does not show the thing."""

    white: Tensor  # [3] of the eye
    iris: Tensor  # [2, 3] left and right
    mouth: Tensor  # [3] gain on the model's teeth, tongue, gums and mouth where the picture shows none of them
    inner: Tensor  # [len(MOUTH), 3] gain on each of MOUTH's groups, measured where they are seen


def measure_tint(photo: Tensor, shot: Shot, light: Tensor) -> Tint:
    """Measures a photo [1, 3, H, W] at the visible vertices of the source pose; light [9, 3] is taken out."""
    model = shot.stage.model
    inside = interior_light(model)[:, None]
    in_mouth = part_vertices(model, *INNER)[:, None]
    colours = vertex_colours(photo, shot) / torch.where(in_mouth, torch.ones_like(inside), shade(light, shot.normals[0]))
    seen = shot.visibility[0] > ENOUGH
    luminance = colours.new_tensor(LUMINANCE)
    skin = face_skin(model) * seen
    skin_colour = (colours * skin[:, None]).sum(0) / skin.sum().clamp(min=1e-6)
    level = (skin_colour @ luminance).clamp(min=0.05)
    # Eyes and teeth look white between neutral and the skin's own hue, whatever the light: bluer or greener looks wrong.
    ivory = 1 + IVORY * (skin_colour / level - 1)
    angle = eye_angle(model)
    white = WHITE * level * ivory
    sclera = seen & _front_sclera(angle)
    if int(sclera.sum()) >= FEW:
        found = colours[sclera] @ luminance
        bright = colours[sclera][found >= found.quantile(0.5)].mean(0)
        hue = (bright / (bright @ luminance).clamp(min=1e-3) + ivory) / 2
        white = hue * (bright @ luminance).clamp(WHITE_LIMITS[0] * level, WHITE_LIMITS[1] * level)
    iris = torch.stack([_iris_colour(model, name, colours, seen, angle) for name in ("left_eye", "right_eye")])
    own_enamel = model.part_colour[PARTS.index("upper_teeth")].to(white) @ luminance
    mouth = ((white @ luminance).clamp(min=ENAMEL * level) / own_enamel * ivory).clamp(*GAIN_LIMITS)
    expected = model.albedo * inside
    teeth, soft = (
        _gain(colours, expected, seen & part_vertices(model, *parts), darkest) for parts, darkest in zip(MOUTH, DARKEST)
    )
    # What is dark or red where teeth are expected is the mouth or a lip, and what is bright in the mouth is teeth.
    usual = mouth @ luminance
    teeth = torch.where(((teeth @ luminance) > TEETH * usual) & (teeth[0] < RED * teeth[1]), teeth, torch.nan)
    soft = torch.where((soft @ luminance) < SOFT * usual, soft, torch.nan)
    inner = torch.stack([teeth, soft])
    return Tint(white, torch.where(iris.isnan(), iris.flip(0), iris), mouth, inner)


def _gain(found: Tensor, expected: Tensor, chosen: Tensor, darkest: float) -> Tensor:
    """Ratio [3] of the mean colours of chosen vertices, without the share `darkest` of them; NaN for few of them."""
    if int(chosen.sum()) < FEW_INNER:
        return torch.full((3,), torch.nan, dtype=found.dtype, device=found.device)
    level = found[chosen].mean(-1)
    kept = level >= level.quantile(darkest)
    return (found[chosen][kept].mean(0) / expected[chosen][kept].mean(0).clamp(min=0.02)).clamp(*INNER_LIMITS)


def _front_sclera(angle: Tensor) -> Tensor:
    return (angle > IRIS_ANGLE * 1.2) & (angle < 1.0)


def _iris_colour(model: HeadModel, name: str, colours: Tensor, seen: Tensor, angle: Tensor) -> Tensor:
    ring = part_vertices(model, name) & seen & (angle > PUPIL_ANGLE) & (angle < 0.85 * IRIS_ANGLE)
    if int(ring.sum()) < FEW:
        return torch.full((3,), torch.nan, dtype=colours.dtype, device=colours.device)
    return colours[ring].median(0).values


def interior_albedo(model: HeadModel, tint: Tint) -> Tensor:
    """Albedo [V, 3] of the parts that are no skin; on skin the model's default."""
    angle, albedo = eye_angle(model), model.albedo
    eyes = part_vertices(model, "left_eye", "right_eye")
    own_white = albedo[_front_sclera(angle)].mean(0).clamp(min=0.05)
    albedo = torch.where(eyes[:, None], albedo * (tint.white / own_white), albedo)
    for side, name in enumerate(("left_eye", "right_eye")):
        iris = part_vertices(model, name) & (angle <= IRIS_ANGLE)
        ring = iris & (angle > PUPIL_ANGLE) & (angle < 0.85 * IRIS_ANGLE)
        if not bool(tint.iris[side].isnan().any()) and bool(ring.any()):
            albedo = torch.where(iris[:, None], albedo * (tint.iris[side] / albedo[ring].mean(0).clamp(min=0.02)), albedo)
    for gain, parts in zip(tint.inner, MOUTH):
        gain = torch.where(gain.isnan(), tint.mouth, gain)
        albedo = torch.where(part_vertices(model, *parts)[:, None], albedo * gain, albedo)
    return albedo.clamp(0, 1)
