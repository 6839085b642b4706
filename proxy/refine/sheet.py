"""What a refinement did, to be judged by eye: some frames beside the refined head, its normals and its relief."""

from __future__ import annotations

import torch
from torch import Tensor

from ..camera import Camera
from ..frames import Frames
from ..head_model import HeadModel
from ..head_track import HeadTrack
from ..overlay import check_frames, draw_clay
from ..posing import Shot, Stage, check_models
from ..sheet import contact_sheet
from ..source_picture import frame_source
from .refine import Refined

CELL = 384  # pixels: most of a cell's height
RANGE = 0.003  # metres: displacement along the normal of full red (out) and full blue (in)
COLUMNS = ("photo", "refined", "fit normals", "refined normals", "in/out 3 mm")


def refine_sheet(frames: Frames, track: HeadTrack, model: HeadModel, refined: Refined, count: int = 4) -> Tensor:
    """Contact sheet [3, H, W] in 0..1, on the CPU, of `count` frames spread over those with a face, cut out around the head.

    Columns: the frame; the refined head over it; camera-space normals (OpenGL colours) of the fitted and of the refined head;
    the displacement along the fitted head's normal, from -3 mm (blue) over 0 (white) to 3 mm (red).

    Raises ValueError if the parts are of different head models or frames, count is below 1, or no frame has a face.
    """
    check_models(model, track, refined.proxy)
    check_frames(frames, track)
    if count < 1:
        raise ValueError(f"the sheet was asked to show {count} frames; give at least 1")
    chosen = _spread(track.valid, count)
    device, proxy = model.template.device, refined.proxy.to(model.template.device)
    expression, joints, translation = (
        value[chosen].to(device) for value in (track.expression, track.joints, track.translation)
    )
    detail = None if proxy.detail is None else proxy.detail[chosen]
    displacement = proxy.displaced(expression, detail)
    if displacement is None:
        raise ValueError("this head proxy has no displacement to show; refine it first")
    displacement = displacement.expand(len(chosen), -1, -1)
    plain, moved = (
        model.forward(proxy.identity[None], expression, joints, field) + translation[:, None] for field in (None, displacement)
    )
    stage = Stage(model, _head_camera(track.camera, moved[:, model.faces[model.visible_faces()].unique()]))
    fitted, shot = stage.shot(plain), stage.shot(moved)
    photos = torch.cat([frame_source(photo.to(device), track.camera, stage.camera) for photo in frames.pick(chosen)])
    photos = photos.permute(0, 2, 3, 1)
    outward = model.vertex_normals(model.canonical(proxy.identity[None], expression))
    (height,) = shot.pixels((displacement * outward).sum(-1, keepdim=True))
    columns = (photos, draw_clay(photos, shot), _normals(fitted), _normals(shot), shot.raster.scatter(_signed(height)))
    return contact_sheet(list(zip(*columns)), COLUMNS, stage.camera.height).permute(2, 0, 1)


def _spread(valid: Tensor, count: int) -> list[int]:
    """At most `count` of the frames that are valid [T], from the first to the last; a single one from their middle."""
    found = valid.nonzero()[:, 0].tolist()
    if not found:
        raise ValueError("no frame of the track has a face; there is nothing to show")
    count = min(count, len(found))
    if count == 1:
        return [found[len(found) // 2]]
    return [found[round(i * (len(found) - 1) / (count - 1))] for i in range(count)]


def _head_camera(camera: Camera, points: Tensor) -> Camera:
    """The camera of the part of the picture that holds all of points [..., 3], at most CELL pixels high."""
    pixels = camera.project(points).flatten(0, -2)
    size = pixels.new_tensor([camera.width, camera.height])
    low, high = pixels.amin(0).clamp(min=0), torch.minimum(pixels.amax(0), size)
    (left, top), (width, height) = low.tolist(), (high - low).clamp(min=1).tolist()
    out_height = max(1, min(CELL, round(height)))
    out_width = max(1, round(width * out_height / height))
    return camera.viewport(left, top, out_width * height / out_height, height, out_width, out_height)


def _normals(shot: Shot) -> Tensor:
    """Camera-space normals as colours [t, H, W, 3]."""
    (normals,) = shot.pixels(shot.normals)
    return shot.raster.scatter((torch.nn.functional.normalize(normals, dim=-1) + 1) / 2)


def _signed(height: Tensor) -> Tensor:
    """Displacements [P, 1] in metres as colours [P, 3]: blue, white, red from -RANGE to RANGE."""
    value = (height / RANGE).clamp(-1, 1)
    return torch.cat([1 - (-value).clamp(min=0), 1 - value.abs(), 1 - value.clamp(min=0)], -1)
