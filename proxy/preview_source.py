"""What the preview knows of its source picture before the first frame: who is where, what is behind, which light falls."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from .head_model import HeadModel
from .head_proxy import HeadProxy
from .inpaint import box_blur, dilate, pull_push
from .landmarks import load_landmarker
from .photo_light import skin_light
from .posing import SourcePose, Stage, camera_space
from .render_interior import interior_light, part_vertices
from .source_picture import frame_source
from .texture import RELIGHT

PERSON = 0.25  # segmentation above this belongs to the person
RIM, FADE, FEATHER = 0.045, 0.045, 0.012  # in heights of the head: rim of background that moves along, its fade, the seam
GRID_SIDE = 128  # cells of the flow along the longer side


@dataclasses.dataclass(frozen=True)
class PreviewSource:
    """The source picture in the output's frame (H x W pixels), and its pose on the mesh (V vertices)."""

    photo: Tensor  # [1, 3, H, W]
    background: Tensor  # [1, 3, H, W] the photo with the person painted over
    matte: Tensor  # [1, 1, H, W] what moves with the person: 1 on it, fading out around it
    person: Tensor  # [1, 1, h, w] the person on the flow's grid
    albedo: Tensor  # [3, h, w] texture
    vertices: Tensor  # [1, V, 3] camera space
    normals: Tensor  # [1, V, 3]
    visible: Tensor  # [1, V] 0..1
    light: Tensor  # [9, 3]
    overlay: Tensor  # [V] 0..1 where the mesh itself carries the photo
    drive: Tensor  # [V] 0..1 how strongly the surface drives the flow around it
    skin: Tensor  # [V] 1 on skin, 0 on eyes, teeth, tongue and gums
    interior: Tensor  # [V] light inside the mouth
    head: Tensor  # [V] 0..1 rigid skull, whose motion hair follows
    head_height: float  # pixels
    feather: int  # pixels
    texture_light: float  # exponent: the share of the light that was taken out of the texture

    @staticmethod
    def of(source: Tensor, proxy: HeadProxy, stage: Stage, person: Tensor | None) -> PreviewSource:
        """Prepares source [3, H, W] for the camera of `stage`."""
        model, camera = stage.model, stage.camera
        source = source.to(model.template.device).float()
        photo = frame_source(source, proxy.camera, camera)
        shot = stage.shot(camera_space(model, proxy.identity, SourcePose.of(proxy)))
        if person is None:
            person = load_landmarker(source.device).segment(source[None])[0]
        person = frame_source(person.to(source).expand(3, -1, -1), proxy.camera, camera)[:, :1]
        person = torch.maximum((person > PERSON).float(), shot.raster.mask[:, None].float())

        rows = camera.project(shot.vertices[0])[_head(model) > 0.5, 1]
        height = float((rows.max() - rows.min()).clamp(min=8))
        rim, fade = max(2, round(RIM * height)), max(2, round(FADE * height))
        core = dilate(person, rim)
        scale = GRID_SIDE / max(camera.width, camera.height)
        cells = (max(4, round(camera.height * scale)), max(4, round(camera.width * scale)))
        return PreviewSource(
            photo=photo,
            background=pull_push(photo, 1 - core),
            matte=box_blur(dilate(core, fade), fade),
            person=F.interpolate(person, size=cells, mode="area"),
            albedo=proxy.albedo,
            vertices=shot.vertices,
            normals=shot.normals,
            visible=soften(model, shot.visibility),
            light=skin_light(photo, shot),
            overlay=_overlay(model),
            drive=_drive(model),
            skin=part_vertices(model, "skin").float(),
            interior=interior_light(model),
            head=_head(model),
            head_height=height,
            feather=max(1, round(FEATHER * height)),
            texture_light=RELIGHT,
        )


def soften(model: HeadModel, visibility: Tensor) -> Tensor:
    """Visibility [t, V] averaged over each vertex's triangles, so that its borders are as soft as a triangle is wide."""
    sums = torch.zeros_like(visibility)
    count = torch.zeros_like(visibility[:1])
    per_face = visibility[:, model.faces].mean(-1)  # [t, F]
    for corner in range(3):
        sums = sums.index_add(1, model.faces[:, corner], per_face)
        count = count.index_add(1, model.faces[:, corner], torch.ones_like(per_face[:1]))
    return sums / count.clamp(min=1)


def _overlay(model: HeadModel) -> Tensor:
    regions = model.regions
    mask = torch.stack([regions[name] for name in ("face", "lips", "lids", "brows", "nose")]).amax(0)
    return torch.where(part_vertices(model, "skin"), mask, torch.ones_like(mask)).clamp(0, 1)


def _drive(model: HeadModel) -> Tensor:
    """The face drives the flow around it; skull and neck lie under hair and clothes and only bend it softly."""
    return _overlay(model).clamp(min=0.02)


def _head(model: HeadModel) -> Tensor:
    return model.weights[:, model.pivot] * part_vertices(model, "skin")
