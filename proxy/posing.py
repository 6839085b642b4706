"""A proxy's mesh posed frame by frame in the camera of an output picture: what every renderer starts from."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from .camera import Camera
from .head_model import HeadModel
from .head_proxy import HeadProxy
from .raster import Raster, Rasterizer

MIN_SIDE, DEFAULT_SIDE, MAX_SIDE = 16, 2048, 8192
PIXELS_AT_ONCE = 2**22  # of all frames of a chunk together: bounds the memory of large pictures
HIDDEN_PARTS = ("cornea",)
DEPTH_TOLERANCE = 0.002  # metres: how far behind the nearest surface a vertex still counts as seen
FACING_RANGE = 0.25  # cosine at which a surface counts as fully facing the camera


def check_models(model: HeadModel, *parts) -> None:
    """Raises ValueError if a proxy, track or motion was made with another head model, or displaces another mesh."""
    for part in parts:
        if part.model_id != model.model_id:
            raise ValueError(
                f"this {type(part).__name__} was made with head model {part.model_id}, but {model.model_id} is loaded; "
                f"load the matching head model"
            )
        for name in ("displacement", "detail_basis"):
            field = getattr(part, name, None)
            if field is not None and field.shape[-2] != model.vertex_count:
                raise ValueError(
                    f"{name} of this {type(part).__name__} has {field.shape[-2]} vertices, but {model.model_id} has "
                    f"{model.vertex_count}; load the head model that it was refined with"
                )


def output_camera(camera: Camera, width: int | None = None, height: int | None = None) -> Camera:
    """The source's camera for an output picture: the whole source frame fits inside, centred, the rest lies around it.

    With one side given the other keeps the source's aspect, to an even number of pixels, as video files want it; with none the
    output has the source's size, its longer side no more than DEFAULT_SIDE. Raises ValueError for a side outside MIN_SIDE..MAX_SIDE.
    """
    if width is None and height is None:
        shrink = min(1.0, DEFAULT_SIDE / max(camera.width, camera.height))
        width, height = round(camera.width * shrink), round(camera.height * shrink)
    width = 2 * round(height * camera.width / camera.height / 2) if width is None else width
    height = 2 * round(width * camera.height / camera.width / 2) if height is None else height
    if not (MIN_SIDE <= width <= MAX_SIDE and MIN_SIDE <= height <= MAX_SIDE):
        raise ValueError(f"cannot render {width} x {height} pixels; choose sides of {MIN_SIDE} to {MAX_SIDE} pixels")
    scale = min(width / camera.width, height / camera.height)
    left, top = (camera.width - width / scale) / 2, (camera.height - height / scale) / 2
    return camera.viewport(left, top, width / scale, height / scale, width, height)


def frames_at_once(camera: Camera, chunk: int) -> int:
    """Frames to render together: `chunk`, or fewer for large pictures."""
    return max(1, min(chunk, PIXELS_AT_ONCE // (camera.width * camera.height)))


def camera_space(model: HeadModel, who: HeadProxy | Tensor, pose, start: int = 0, stop: int | None = None) -> Tensor:
    """Dense vertices [t, V, 3] in camera space of frames start..stop of anything with expression, joints, translation.

    `who` is a proxy, with its displacement if it has one, or an identity [I]. The detail is that of the pose if it was made
    for this very proxy (equal `detail_id`), else it follows the expression.
    """
    device = model.template.device
    expression, joints, translation = (
        value[start:stop].to(device) for value in (pose.expression, pose.joints, pose.translation)
    )
    if isinstance(who, Tensor):
        identity, displacement = who.to(device), None
    else:
        own = getattr(pose, "detail_id", None) is not None and pose.detail_id == who.detail_id
        detail = pose.detail[start:stop].to(device) if own else None
        basis = pose.detail_basis.to(device) if own and pose.detail_basis is not None else None
        proxy = who.to(device)
        identity, displacement = proxy.identity, proxy.displaced(expression, detail, basis)
    return model.forward(identity[None], expression, joints, displacement) + translation[:, None]


@dataclasses.dataclass(frozen=True)
class SourcePose:
    """The source picture's pose as a motion of one frame."""

    expression: Tensor  # [1, E]
    joints: Tensor  # [1, J, 3]
    translation: Tensor  # [1, 3]

    @staticmethod
    def of(proxy: HeadProxy) -> SourcePose:
        return SourcePose(proxy.source_expression[None], proxy.source_joints[None], proxy.source_translation[None])


class Stage:
    """What stays the same over a clip: the model's drawn triangles and the output's camera."""

    def __init__(self, model: HeadModel, camera: Camera):
        self.model, self.camera = model, camera
        shown = model.visible_faces(HIDDEN_PARTS)
        self.faces, self.uv_faces, self.parts = model.faces[shown], model.uv_faces[shown], model.parts[shown]
        self.rasterizer = Rasterizer(self.faces, model.weights.shape[0])
        self.parts_and_empty = torch.cat([self.parts.new_full((1,), -1), self.parts])  # part of a raster's ids
        self.vertex_parts = model.vertex_parts()

    def shot(self, vertices: Tensor) -> Shot:
        """Rasterises vertices [t, V, 3] in camera space."""
        clip = self.camera.clip(vertices).float()
        raster = self.rasterizer.rasterize(clip, (self.camera.height, self.camera.width))
        return Shot(self, vertices, clip, raster)


@dataclasses.dataclass(frozen=True)
class Shot:
    """t posed and rasterised frames."""

    stage: Stage
    vertices: Tensor  # [t, V, 3] camera space
    clip: Tensor  # [t, V, 4]
    raster: Raster

    @functools.cached_property
    def normals(self) -> Tensor:
        """Unit normals [t, V, 3] in camera space."""
        return self.stage.model.vertex_normals(self.vertices)

    @functools.cached_property
    def facing(self) -> Tensor:
        """Cosine [t, V] between normal and direction to the camera."""
        return -(self.normals * torch.nn.functional.normalize(self.vertices, dim=-1)).sum(-1)

    @functools.cached_property
    def visibility(self) -> Tensor:
        """How well the camera sees each vertex [t, V], 0..1: facing it, inside the picture and not covered.

        A vertex is seen if one of the nine pixels around it shows its own part of the head (an eye lies too close under
        its lid for a test of depth alone) at a depth no more than the tolerance in front of it.
        """
        camera, stage = self.stage.camera, self.stage
        facing = (self.facing / FACING_RANGE).clamp(0, 1)
        frame, vertex = facing.nonzero().unbind(1)  # [N] of all frames
        points, part = self.vertices[frame, vertex], stage.vertex_parts[vertex]
        depth, ids = self.raster.zw.flatten(), self.raster.ids.flatten()
        column, row = camera.project(points).floor().long().unbind(-1)
        first = frame * (camera.width * camera.height)
        farthest = torch.full_like(points[:, 0], -torch.inf)  # depth of what covers it least
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                x, y = column + dx, row + dy
                inside = (x >= 0) & (x < camera.width) & (y >= 0) & (y < camera.height)
                index = torch.where(inside, first + y * camera.width + x, 0)
                same = inside & (stage.parts_and_empty.index_select(0, ids.index_select(0, index)) == part)
                farthest = torch.where(same, torch.maximum(farthest, depth.index_select(0, index)), farthest)
        distance = -points[:, 2]
        tolerance = DEPTH_TOLERANCE + 2 * distance / camera.focal  # two pixels of a surface at 45 degrees
        behind = distance - 1 / camera.inverse_depth(farthest).clamp(min=1e-3)  # metres
        seen = torch.where(farthest > -torch.inf, (2 - behind / tolerance).clamp(0, 1), 0)
        visibility = torch.zeros_like(facing)
        visibility[frame, vertex] = seen * facing[frame, vertex]
        return visibility

    def pixels(self, *attributes: Tensor) -> list[Tensor]:
        """Per-vertex attributes [1 or t, V, C] at the covered pixels: [P, C] each, interpolated in one go."""
        batch = max(len(a) for a in attributes)
        joined = torch.cat([a.expand(batch, -1, -1) for a in attributes], dim=-1)
        values = self.stage.rasterizer.interpolate_pixels(joined, self.raster, self.clip)
        return list(values.split([a.shape[-1] for a in attributes], dim=-1))

    def texture(self, texture: Tensor) -> Tensor:
        """Texture [C, h, w] at the covered pixels [P, C]."""
        uv = self.stage.rasterizer.interpolate_pixels(
            self.stage.model.uv[None], self.raster, self.clip, self.stage.uv_faces
        )
        return self.stage.rasterizer.texture(texture[None], uv)
