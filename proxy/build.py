"""HeadProxy from a fitted picture: who it is, how it looks and how it stands in the source."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor

from .head_model import HeadModel
from .head_proxy import HeadProxy
from .head_track import HeadTrack
from .posing import MIN_SIDE, SourcePose, Stage, camera_space, check_models, output_camera
from .source_picture import frame_source, person_mask
from .texture import unwrap_albedo

CROP_MARGIN = 1.7  # side of the crop square, in heights of the face


def best_frame(track: HeadTrack) -> int:
    """The frame to build a proxy from: found with confidence, seen from the front, at rest, eyes open.

    Raises ValueError if no frame has a face.
    """
    if not bool(track.valid.any()):
        raise ValueError("no frame of the track has a face; give a picture in which a face is seen")
    turn = track.joints[:, :3].sum(1).norm(dim=-1)  # radians, root, neck and head together
    effort = track.expression.abs().mean(-1)
    usual = effort[track.valid].median().clamp(min=1e-3)
    score = track.confidence - turn - 0.3 * effort / usual
    return int(torch.where(track.valid, score, -torch.inf).argmax())


def build_proxy(
    source: Tensor,
    track: HeadTrack,
    model: HeadModel,
    frame: int = 0,
    neutral: Tensor | None = None,
    texture_size: int = 1024,
    person: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HeadProxy:
    """Builds the proxy of the person in `source` [3, H, W] or [1, 3, H, W] (0..1), which is frame `frame` of `track`.

    `neutral` [E] is the person's expression at rest (default: all zero); the texture has texture_size^2 texels; `person`
    [H, W] is a mask 0..1 of the person (default: found by segmentation). Runs on the
    device of `model`. Raises ValueError if the picture is not the size of the track or too small, the frame is not in the
    track or has no face, or the track was made with another head model.
    """
    source = source[0] if source.ndim == 4 and len(source) == 1 else source
    proxy = source_proxy(track, model, frame, neutral)
    _check(source, track)
    camera = output_camera(proxy.camera)
    source = source.to(proxy.albedo.device).float()
    photo = frame_source(source, proxy.camera, camera)
    person = frame_source(person_mask(source, person), proxy.camera, camera)
    shot = Stage(model, camera).shot(camera_space(model, proxy, SourcePose.of(proxy)))
    albedo, confidence = unwrap_albedo(photo, person, shot, texture_size)
    if progress is not None:
        progress(1, 1)
    return dataclasses.replace(proxy, albedo=albedo, albedo_confidence=confidence)


def source_proxy(track: HeadTrack, model: HeadModel, frame: int = 0, neutral: Tensor | None = None) -> HeadProxy:
    """`build_proxy` without a picture: its albedo is one black texel of confidence 0, to be replaced.

    Raises ValueError if the frame is not in the track or has no face, the track's pictures are too small, or the track was made with
    another head model.
    """
    check_models(model, track)
    if min(track.width, track.height) < MIN_SIDE:
        raise ValueError(f"the source picture has {track.width} x {track.height} pixels; it needs at least {MIN_SIDE} on each side")
    if not 0 <= frame < len(track):
        raise ValueError(f"frame {frame} is not in the track, which has {len(track)} frames")
    if not bool(track.valid[frame]):
        raise ValueError(f"no face was found in frame {frame}; choose a frame in which a face is seen")
    return HeadProxy(
        model_id=model.model_id,
        identity=track.identity,
        albedo=torch.zeros(3, 1, 1),
        albedo_confidence=torch.zeros(1, 1, 1),
        neutral=torch.zeros_like(track.expression[frame]) if neutral is None else neutral,
        source_expression=track.expression[frame],
        source_joints=track.joints[frame],
        source_translation=track.translation[frame],
        focal=track.focal,
        width=track.width,
        height=track.height,
        crop=_crop(track.landmarks_fit[frame]),
    ).to(model.template.device)


def _check(source: Tensor, track: HeadTrack) -> None:
    if source.ndim != 3 or source.shape[0] != 3:
        raise ValueError(f"the source picture has shape {list(source.shape)}; expected [3, H, W]")
    height, width = source.shape[1:]
    if (width, height) != (track.width, track.height):
        raise ValueError(
            f"the source picture has {width} x {height} pixels, but the track was fitted to {track.width} x {track.height}; "
            f"give the picture or frame that was fitted"
        )


def _crop(landmarks: Tensor) -> tuple[float, float, float, float]:
    """Square [x, y, width, height] around the head from fitted landmarks [478, 2], in pixels."""
    low, high = landmarks.amin(0), landmarks.amax(0)
    side = CROP_MARGIN * float((high - low).max())
    # The face ends at the brow line's forehead points; hair and skull need more room above than below.
    centre_x, centre_y = float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2 - 0.1 * side
    return centre_x - side / 2, centre_y - side / 2, side, side
