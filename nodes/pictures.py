"""IMAGE batches and VIDEO values as the library's frames, and pictures that a node shows on itself."""

from __future__ import annotations

import torch
from comfy_api.latest import Input, InputImpl, ui
from torch import Tensor

from ..proxy.build import best_frame
from ..proxy.frames import Frames
from ..proxy.head_model import HeadModel, load_head_model
from ..proxy.head_proxy import HeadProxy
from ..proxy.head_track import HeadTrack
from ..transfer.motion import HeadMotion
from ..transfer.motion_strip import motion_strip


def to_frames(images: Tensor | Input.Video, fps: float) -> Frames:
    """Frames of an IMAGE batch at `fps`, or of a VIDEO at its own rate.

    A whole video file is read in chunks as it is needed. A video that is cut (its duration is not the file's) or lies in
    memory is taken as ComfyUI decodes it.
    """
    if isinstance(images, Tensor):
        return Frames.from_images(images, fps)
    if isinstance(images, InputImpl.VideoFromFile) and isinstance(images.get_stream_source(), str):
        frames = Frames.open(images.get_stream_source())
        if abs(len(frames) / frames.fps - images.get_duration()) < 0.5:
            return frames
    components = images.get_components()
    return Frames.from_images(components.images, float(components.frame_rate))


def fitted_frames(images: Tensor | Input.Video, track: HeadTrack) -> Frames:
    """The frames of a fit. Raises ValueError if there are not as many as were fitted."""
    frames = to_frames(images, track.fps)
    if len(frames) != len(track):
        raise ValueError(f"there are {len(frames)} pictures, but the fit has {len(track)} frames; connect those that were fitted")
    return frames


def source_frame(frame: int, track: HeadTrack) -> int:
    """The frame that gives the looks: the one asked for, or the best one for -1. Raises ValueError if it is not there."""
    frame = best_frame(track) if frame < 0 else frame
    if frame >= len(track):
        raise ValueError(f"frame {frame} is not there, the fit has {len(track)} frames; choose 0 to {len(track) - 1}, or -1")
    return frame


def shown(*pictures: Tensor) -> ui.PreviewImage:
    """Pictures [H, W, 3], one below the other on the node itself."""
    width = max(picture.shape[1] for picture in pictures)
    padded = [torch.nn.functional.pad(picture, (0, 0, 0, width - picture.shape[1])) for picture in pictures]
    return ui.PreviewImage(torch.cat(padded)[None])


def motion_shown(motion: HeadMotion, model: HeadModel | None = None, proxy: HeadProxy | None = None) -> ui.PreviewImage:
    """Heads, if there is a proxy, and curves of a motion. Without its model it is read by the embedded head if it belongs to that."""
    if model is None and motion.model_id == load_head_model().model_id:
        model = load_head_model()
    return shown(motion_strip(motion, model, proxy))
