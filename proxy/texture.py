"""The albedo texture of one person: unwrapped from the source picture, freed of much of its light, and filled in.

What the source does not see comes from the other side of the head, then from around; eyes, teeth, tongue and gums are the
model's own, tinted to the picture.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from .head_model import HeadModel
from .inpaint import pull_push
from .lighting import shade
from .photo_light import face_skin, on_person, sample_at, skin_light
from .posing import Shot, Stage
from .raster import Rasterizer
from .render_interior import dense_template, part_vertices
from .render_regions import eye_surround
from .tint import interior_albedo, measure_tint

RELIGHT = 0.6  # share of the fitted light that is taken out of the texture
GAIN = (0.6, 1.7)  # limits of what taking the light out may do to a texel
MIRROR_TRUST = 0.7
DARK = (0.8, 0.95)  # luminance against the face's mean: surely no bare skin .. surely skin


@dataclasses.dataclass(frozen=True)
class Atlas:
    """Which texels of a square texture show which surface points."""

    rasterizer: Rasterizer
    raster: object
    clip: Tensor  # [1, U, 4]
    faces: Tensor  # [F, 3] mesh corners of the triangles drawn in the texture

    @staticmethod
    def of(stage: Stage, size: int) -> Atlas:
        """Draws the mesh flat into its own texture space; row 0 is v = 1."""
        uv = stage.model.uv
        ones = torch.ones_like(uv[:, :1])
        clip = torch.cat([2 * uv[:, :1] - 1, 1 - 2 * uv[:, 1:], 0 * ones, ones], dim=-1)[None]
        rasterizer = Rasterizer(stage.uv_faces, len(uv))
        return Atlas(rasterizer, rasterizer.rasterize(clip, (size, size)), clip, stage.faces)

    def pixels(self, *attributes: Tensor) -> list[Tensor]:
        """Per-vertex attributes [V, C] at the covered texels, [P, C] each."""
        values = self.rasterizer.interpolate_pixels(torch.cat(attributes, -1)[None], self.raster, self.clip, self.faces)
        return list(values.split([a.shape[-1] for a in attributes], dim=-1))

    def corners(self) -> tuple[Tensor, Tensor]:
        """Triangle [P] (index into `faces`) and barycentric weights [P, 3] of the covered texels."""
        triangle = self.raster.ids.flatten()[self.raster.pixels].long() - 1
        return triangle, self.rasterizer.barycentric(self.raster, self.clip)

    def image(self, values: Tensor) -> Tensor:
        """Texel values [P, C] as [1, C, size, size], zero outside the atlas."""
        return self.raster.scatter(values).permute(0, 3, 1, 2)


def unwrap_albedo(photo: Tensor, person: Tensor, shot: Shot, size: int) -> tuple[Tensor, Tensor]:
    """Albedo [3, size, size] and its confidence [1, size, size] from a photo [1, 3, H, W].

    `person` [1, 1, H, W] masks the person in it, `shot` is the source pose drawn over it.
    """
    model, camera = shot.stage.model, shot.stage.camera
    light = skin_light(photo, person, shot)
    mirror = mirror_vertices(model)
    normals, points = shot.normals[0], shot.vertices[0]
    atlas = Atlas.of(shot.stage, size)
    seen = shot.visibility[0][:, None] * on_person(person, shot)[:, None]
    skin = part_vertices(model, "skin").float()[:, None]
    attributes = [points, points[mirror], normals, normals[mirror], seen, seen[mirror], skin]
    here, there, normal, mirror_normal, sight, mirror_sight, skin = atlas.pixels(*attributes)
    colour = _unlit(sample_at(photo, camera.project(here)), normal, light)
    mirrored = _unlit(sample_at(photo, camera.project(there)), mirror_normal, light)
    confidence = (sight * skin).square()
    (inside,) = atlas.pixels(interior_albedo(model, measure_tint(photo, shot, light)))
    texture = complete_albedo(atlas, model, colour, confidence, mirrored, (mirror_sight * skin).square(), inside)
    return texture, atlas.image(confidence)[0].clamp(0, 1)


def complete_albedo(
    atlas: Atlas, model: HeadModel, colour: Tensor, confidence: Tensor, mirrored: Tensor, mirror_confidence: Tensor, inside: Tensor
) -> Tensor:
    """Whole texture [3, size, size] from what is known of the skin at the covered texels.

    Args:
        colour: [P, 3] skin's albedo, with confidence [P, 1] 0..1.
        mirrored: [P, 3] albedo of the same place on the other side of the head, with confidence [P, 1].
        inside: [P, 3] albedo of the parts that are no skin.
    """
    skin = part_vertices(model, "skin").float()[:, None]
    plain = (face_skin(model) > 0.5).float()[:, None]
    skin, plain, lids = atlas.pixels(skin, plain, eye_surround(model)[:, None])
    second = MIRROR_TRUST * mirror_confidence * (1 - confidence)
    total = confidence + second
    known = (confidence * colour + second * mirrored) / total.clamp(min=1e-6)
    filled = pull_push(atlas.image(known), atlas.image(total.clamp(max=1)))
    # An open lid is folded up and dark with lashes: closed, it shows skin like that around it.
    bare = pull_push(atlas.image(known), atlas.image(total.clamp(max=1) * plain.square() * _bright(known, total * plain)))
    filled = filled + atlas.image(lids.clamp(0, 1)) * (bare - filled)
    skin_image = atlas.image(skin)
    texture = filled * skin_image + atlas.image(inside) * (1 - skin_image)
    covered = atlas.image(torch.ones_like(skin))
    return pull_push(texture, (covered > 0).float())[0].clamp(0, 1)


def _bright(colour: Tensor, weight: Tensor) -> Tensor:
    """Weight [P, 1], 0 for texels [P, 3] much darker than the weighted mean: brows, lashes and hair on what should be skin."""
    luminance = colour.mean(-1, keepdim=True)
    usual = (luminance * weight).sum() / weight.sum().clamp(min=1e-6)
    return ((luminance / usual.clamp(min=1e-3) - DARK[0]) / (DARK[1] - DARK[0])).clamp(0, 1)


def mirror_vertices(model: HeadModel) -> Tensor:
    """Index [V] of the vertex on the other side of the head: the nearest to the mirrored position on the mean head."""
    points = dense_template(model).detach().cpu().double().numpy()
    part = model.vertex_parts().cpu()
    # Parts are set apart by a metre each, so that an eye's mirror is an eye and never a lid.
    part[part == 2] = 1
    apart = part.numpy()[:, None].astype(float)
    flipped = points * [-1.0, 1.0, 1.0]
    tree = cKDTree(np.concatenate([points, apart], 1))
    return torch.from_numpy(tree.query(np.concatenate([flipped, apart], 1))[1]).to(model.faces.device)


def _unlit(colour: Tensor, normals: Tensor, light: Tensor) -> Tensor:
    return without_light(colour, shade(light, torch.nn.functional.normalize(normals, dim=-1))).clamp(0, 1)


def without_light(colour: Tensor, shading: Tensor) -> Tensor:
    """Colours [P, 3] without the share RELIGHT of a shading [P, 3] whose mean over the face is 1."""
    return colour * shading.pow(-RELIGHT).clamp(*GAIN)
