"""What a refinement did, to be judged by eye: some frames beside the refined head, its normals and its relief."""

from __future__ import annotations

import torch
from torch import Tensor

from ..frames import Frames
from ..head_model import HeadModel
from ..head_track import HeadTrack
from ..look import head_camera, normal_colours, spread
from ..overlay import check_frames, draw_clay
from ..posing import Stage, check_models
from ..sheet import contact_sheet
from ..source_picture import frame_source
from .refine import Refined

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
    chosen = spread(track.valid, count)
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
    stage = Stage(model, head_camera(track.camera, moved[:, model.faces[model.visible_faces()].unique()]))
    fitted, shot = stage.shot(plain), stage.shot(moved)
    photos = torch.cat([frame_source(photo.to(device), track.camera, stage.camera) for photo in frames.pick(chosen)])
    photos = photos.permute(0, 2, 3, 1)
    outward = model.vertex_normals(model.canonical(proxy.identity[None], expression))
    (height,) = shot.pixels((displacement * outward).sum(-1, keepdim=True))
    columns = (photos, draw_clay(photos, shot), normal_colours(fitted), normal_colours(shot), shot.raster.scatter(_signed(height)))
    return contact_sheet(list(zip(*columns)), COLUMNS, stage.camera.height).permute(2, 0, 1)


def _signed(height: Tensor) -> Tensor:
    """Displacements [P, 1] in metres as colours [P, 3]: blue, white, red from -RANGE to RANGE."""
    value = (height / RANGE).clamp(-1, 1)
    return torch.cat([1 - (-value).clamp(min=0), 1 - value.abs(), 1 - value.clamp(min=0)], -1)
