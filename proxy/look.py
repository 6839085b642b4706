"""Pictures by which a fit or a proxy is judged at a glance."""

from __future__ import annotations

import torch
from torch import Tensor

from .camera import Camera
from .frames import Frames
from .head_model import HeadModel
from .head_proxy import HeadProxy
from .head_track import HeadTrack
from .overlay import check_frames, draw_clay
from .posing import Shot, SourcePose, Stage, camera_space, check_models
from .sheet import contact_sheet
from .source_picture import frame_source, one_source

CELL = 384  # pixels: most of the height of a picture of one head
SMALL = 192  # pixels: height of a picture on the sheets of this file


def fit_sheet(frames: Frames, track: HeadTrack, model: HeadModel, count: int = 5) -> Tensor:
    """Contact sheet [H, W, 3] in 0..1, on the CPU: `count` frames around the head, and the fitted head over each.

    Raises ValueError if the track is of another head model or of other frames, or no frame has a face.
    """
    check_models(model, track)
    check_frames(frames, track)
    chosen = spread(track.valid, count)
    points = camera_space(model, track.identity, track.at(torch.tensor(chosen)))
    photos, shot = _around(frames.pick(chosen), track.camera, points, model)
    return contact_sheet([list(photos), list(draw_clay(photos, shot))], height=SMALL)


def proxy_sheet(source: Tensor, proxy: HeadProxy, model: HeadModel) -> Tensor:
    """Contact sheet [H, W, 3] in 0..1, on the CPU: source [3, H, W], the head over it, its normals, its texture.

    Raises ValueError if the picture has not the size of the proxy's source, or for another head model.
    """
    check_models(model, proxy)
    points = camera_space(model, proxy, SourcePose.of(proxy))
    photos, shot = _around(one_source(source, proxy)[None], proxy.camera, points, model)
    texture = proxy.albedo.permute(1, 2, 0)
    row = [photos[0], draw_clay(photos, shot)[0], normal_colours(shot)[0], texture]
    return contact_sheet([row], ("photo", "fit", "normals", "texture"), SMALL)


def _around(photos: Tensor, camera: Camera, points: Tensor, model: HeadModel) -> tuple[Tensor, Shot]:
    """Photos [t, 3, H, W] cut out around the heads that points [t, V, 3] span -> [t, h, w, 3], and these heads as seen there."""
    stage = Stage(model, head_camera(camera, points[:, model.faces[model.visible_faces()].unique()]))
    photos = torch.cat([frame_source(photo.to(points.device), camera, stage.camera) for photo in photos])
    return photos.permute(0, 2, 3, 1), stage.shot(points)


def spread(valid: Tensor, count: int) -> list[int]:
    """At most `count` of the frames that are valid [T], from the first to the last; a single one from their middle."""
    found = valid.nonzero()[:, 0].tolist()
    if not found:
        raise ValueError("no frame of the track has a face; there is nothing to show")
    count = min(count, len(found))
    if count == 1:
        return [found[len(found) // 2]]
    return [found[round(i * (len(found) - 1) / (count - 1))] for i in range(count)]


def head_camera(camera: Camera, points: Tensor) -> Camera:
    """The camera of the part of the picture that holds all of points [..., 3], at most CELL pixels high."""
    pixels = camera.project(points).flatten(0, -2)
    size = pixels.new_tensor([camera.width, camera.height])
    low, high = pixels.amin(0).clamp(min=0), torch.minimum(pixels.amax(0), size)
    (left, top), (width, height) = low.tolist(), (high - low).clamp(min=1).tolist()
    out_height = max(1, min(CELL, round(height)))
    out_width = max(1, round(width * out_height / height))
    return camera.viewport(left, top, out_width * height / out_height, height, out_width, out_height)


def normal_colours(shot: Shot) -> Tensor:
    """Camera-space normals as colours [t, H, W, 3]."""
    (normals,) = shot.pixels(shot.normals)
    return shot.raster.scatter((torch.nn.functional.normalize(normals, dim=-1) + 1) / 2)
