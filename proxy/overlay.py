"""The fitted head over the frames it was fitted to, to judge a fit by eye."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from .frames import Frames
from .head_model import HeadModel
from .head_track import HeadTrack
from .posing import Shot, Stage, camera_space, check_models

OPACITY = 0.62
LIGHT = (0.25, 0.45, 0.86)  # camera space, towards the light
CLAY = (0.78, 0.80, 0.86)


def render_overlay(
    frames: Frames, track: HeadTrack, model: HeadModel, chunk: int = 8, progress: Callable[[int, int], None] | None = None
) -> Iterator[Tensor]:
    """Yields float32 [t, H, W, 3] in 0..1: every frame with the shaded head over it; frames without a face as they are.

    Raises ValueError if the track is of another head model or of other frames.
    """
    check_models(model, track)
    check_frames(frames, track)
    stage, start = Stage(model, track.camera), 0
    for images in frames.chunks(chunk):
        stop = start + len(images)
        shown = track.valid[start:stop].to(model.template.device)
        pictures = images.to(model.template).permute(0, 2, 3, 1).contiguous()  # [t, H, W, 3]
        if shown.any():
            pictures[shown] = _paint(stage, track, pictures[shown], start + shown.nonzero()[:, 0])
        yield pictures
        start = stop
        if progress:
            progress(start, len(track))


def check_frames(frames: Frames, track: HeadTrack) -> None:
    """Raises ValueError if the frames are not as many and as large as those that were fitted."""
    if (len(frames), frames.width, frames.height) != (len(track), track.width, track.height):
        raise ValueError(
            f"the track has {len(track)} frames of {track.width} x {track.height}, the images {len(frames)} of "
            f"{frames.width} x {frames.height}; give the images that the track was fitted to"
        )


def draw_clay(pictures: Tensor, shot: Shot) -> Tensor:
    """Pictures [t, H, W, 3] with the shaded mesh of a shot of t frames over them."""
    (normals,) = shot.pixels(shot.normals)
    light = torch.nn.functional.normalize(normals.new_tensor(LIGHT), dim=0)
    shade = 0.25 + 0.75 * (torch.nn.functional.normalize(normals, dim=-1) @ light).clamp(min=0)
    flat = pictures.reshape(-1, 3).clone()
    pixels = shot.raster.pixels
    flat[pixels] = (1 - OPACITY) * flat[pixels] + OPACITY * shade[:, None] * shade.new_tensor(CLAY)
    return flat.view_as(pictures)


def _paint(stage: Stage, track: HeadTrack, pictures: Tensor, index: Tensor) -> Tensor:
    index = index.to(track.expression.device)
    vertices = camera_space(stage.model, track.identity, _Poses(track, index))
    return draw_clay(pictures, stage.shot(vertices))


class _Poses:
    """The poses of some frames of a track."""

    def __init__(self, track: HeadTrack, index: Tensor):
        self.expression, self.joints, self.translation = (
            value[index] for value in (track.expression, track.joints, track.translation)
        )
