"""What the preview knows of its source picture before the first frame: who is where, what is behind, which light falls."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from .head_model import HeadModel
from .head_proxy import HeadProxy
from .inpaint import box_blur, dilate, pull_push
from .lighting import shade
from .photo_light import skin_light
from .posing import Shot, SourcePose, Stage, camera_space
from .preview_eyes import PreviewEyes
from .preview_lids import PreviewLids
from .render_interior import INNER, interior_light, part_vertices
from .render_regions import eye_surround
from .source_picture import frame_source, person_mask
from .texture import RELIGHT

PERSON = 0.25  # segmentation above this belongs to the person
RIM, FADE, FEATHER = 0.045, 0.045, 0.012  # in heights of the head: rim of background that moves along, its fade, the seam
NECK_DRIVE, EAR_DRIVE, SKULL_DRIVE = 0.0006, 0.008, 0.003  # against 1 for the face
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
    area: Tensor  # [1, V] visible square pixels
    light: Tensor  # [9, 3]
    overlay: Tensor  # [V] 0..1 where the mesh itself carries the photo
    drive: Tensor  # [V] 0..1 how strongly the surface drives the flow around it
    fold: Tensor  # [V] 0..1 what is drawn where the source did not show it: eyes, mouth, lids and lips
    interior: Tensor  # [V] light inside the mouth
    mouth: Tensor  # [V] bool: teeth, gums, tongue and the mouth's lining
    head: Tensor  # [V] 0..1 rigid skull, whose motion hair follows
    head_height: float  # pixels
    feather: int  # pixels
    texture_light: float  # exponent: the share of the light that was taken out of the texture
    eyes: PreviewEyes | None
    lids: PreviewLids | None

    @staticmethod
    def of(source: Tensor, proxy: HeadProxy, stage: Stage, person: Tensor | None) -> PreviewSource:
        """Prepares source [3, H, W] for the camera of `stage`."""
        model, camera = stage.model, stage.camera
        source = source.to(model.template.device).float()
        photo = frame_source(source, proxy.camera, camera)
        shot = stage.shot(camera_space(model, proxy, SourcePose.of(proxy)))
        person = frame_source(person_mask(source, person), proxy.camera, camera)
        person = torch.maximum((person > PERSON).float(), shot.raster.mask[:, None].float())

        rows = camera.project(shot.vertices[0])[_head(model) > 0.5, 1]
        height = float((rows.max() - rows.min()).clamp(min=8))
        rim, fade = max(2, round(RIM * height)), max(2, round(FADE * height))
        core = dilate(person, rim)
        scale = GRID_SIDE / max(camera.width, camera.height)
        cells = (max(4, round(camera.height * scale)), max(4, round(camera.width * scale)))
        light = skin_light(photo, person, shot)
        on_texture = shade(light, shot.normals[0]).pow(RELIGHT)
        drawn = (shot.texture(proxy.albedo) * shot.pixels(on_texture[None])[0]).clamp(0, 1)
        return PreviewSource(
            photo=photo,
            background=pull_push(photo, 1 - core),
            matte=box_blur(dilate(core, fade), fade),
            person=F.interpolate(person, size=cells, mode="area"),
            albedo=proxy.albedo,
            vertices=shot.vertices,
            normals=shot.normals,
            area=seen_area(shot),
            light=light,
            overlay=_overlay(model),
            drive=_drive(model),
            fold=_fold(model),
            interior=interior_light(model),
            mouth=part_vertices(model, *INNER),
            head=_head(model),
            head_height=height,
            feather=max(1, round(FEATHER * height)),
            texture_light=RELIGHT,
            eyes=PreviewEyes.of(photo, proxy.albedo, on_texture, shot),
            lids=PreviewLids.of(photo, drawn, shot),
        )


def seen_area(shot: Shot) -> Tensor:
    """Square pixels [t, V] of the visible triangles around each vertex.

    Now against then, it says in one figure how much of a point the source showed: covered, turned away or folded up.
    """
    faces = shot.stage.faces
    corners = shot.stage.camera.project(shot.vertices)[:, faces]  # [t, F, 3, 2]
    first, second = corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0]
    area = (first[..., 1] * second[..., 0] - first[..., 0] * second[..., 1]).clamp(min=0)  # y down: front faces turn left
    area = area * shot.visibility[:, faces].mean(-1)
    sums = torch.zeros_like(shot.visibility)
    for corner in range(3):
        sums = sums.index_add(1, faces[:, corner], area)
    return sums


def _overlay(model: HeadModel) -> Tensor:
    regions = model.regions
    mask = torch.stack([regions[name] for name in ("face", "lips", "lids", "brows", "nose")]).amax(0)
    return torch.where(part_vertices(model, "skin"), mask, torch.ones_like(mask)).clamp(0, 1)


def _fold(model: HeadModel) -> Tensor:
    folded = torch.maximum(eye_surround(model), model.regions["lips"])
    return torch.where(part_vertices(model, "skin"), folded, torch.ones_like(folded)).clamp(0, 1)


def _drive(model: HeadModel) -> Tensor:
    """The face drives the flow around it; ears, skull and neck only bend it, the less the more hair or cloth covers them."""
    weak = NECK_DRIVE + (EAR_DRIVE - NECK_DRIVE) * model.regions["ears"] + (SKULL_DRIVE - NECK_DRIVE) * model.regions["scalp"]
    return torch.maximum(_overlay(model), weak)


def _head(model: HeadModel) -> Tensor:
    return model.weights[:, model.pivot] * part_vertices(model, "skin")
