"""IMAGE batches and VIDEO values as the library's frames."""

from __future__ import annotations

from comfy_api.latest import Input, InputImpl
from torch import Tensor

from ..proxy.frames import Frames


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
