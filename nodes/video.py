"""The preview or a condition map straight into a video file: a long clip needs no more memory than a short one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import folder_paths
from comfy_api.latest import Input, InputImpl, io
from torch import Tensor

from ..proxy.frames import Frames, VideoWriter, read_audio
from ..proxy.preview import render_preview
from ..proxy.render import MAPS, render_maps
from ..transfer.motion import HeadMotion
from .render import moving_head, size_input
from .runtime import compute_device, node_progress
from .types import CATEGORY, BuiltProxy

PREVIEW = "preview"


class RenderVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitRenderVideo",
            display_name="Render Video",
            category=CATEGORY,
            description="Draws the preview or a condition map of the moving head straight into a video, of any length in little memory.",
            inputs=[
                *moving_head(),
                io.Combo.Input(
                    "map", options=[PREVIEW, *MAPS], default=PREVIEW, tooltip="preview animates the picture; the others are condition maps."
                ),
                io.Image.Input("source_image", optional=True, tooltip="The picture that the proxy was built from; the preview needs it."),
                io.MultiType.Input(
                    "audio",
                    types=[io.Audio, io.Video],
                    optional=True,
                    tooltip="Sound of the video: audio, or the clip of the performer, whose sound is taken.",
                ),
                size_input("width"),
                size_input("height"),
            ],
            outputs=[io.Video.Output(display_name="video", tooltip="For Save Video, which keeps it as it is, without a second loss.")],
        )

    @classmethod
    def execute(
        cls,
        head_proxy: BuiltProxy,
        head_motion: HeadMotion,
        map: str,
        source_image: Tensor | None = None,
        audio: dict | Input.Video | None = None,
        width: int = 0,
        height: int = 0,
    ) -> io.NodeOutput:
        if map == PREVIEW and source_image is None:
            raise ValueError("the preview animates a picture; connect source_image of Build Head Proxy, or choose a map")
        device, size = compute_device(), (width or None, height or None)
        parts = head_proxy.proxy.to(device), head_motion.to(device), head_proxy.model.to(device)
        chunks = _maps(*parts, map, size) if map != PREVIEW else render_preview(
            Frames.from_images(source_image).frame(0).to(device), *parts, size=size
        )
        path = os.path.join(folder_paths.get_temp_directory(), f"expportrait_{uuid.uuid4().hex}.mp4")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        progress, done = node_progress(), 0
        with VideoWriter(path, head_motion.fps, _sound(audio)) as writer:
            for chunk in chunks:
                writer.write(chunk)
                done += len(chunk)
                progress(done, len(head_motion))
        return io.NodeOutput(InputImpl.VideoFromFile(path))


def _maps(proxy, motion: HeadMotion, model, name: str, size: tuple[int | None, int | None]) -> Iterator[Tensor]:
    for chunk in render_maps(proxy, motion, model, (name,), *size):
        yield chunk[name].expand(-1, -1, -1, 3)


def _sound(audio: dict | Input.Video | None) -> tuple[Tensor, int] | None:
    """Waveform [1 or 2, N] and rate of an AUDIO or of the sound of a VIDEO, if it has one; of more than two channels their mean."""
    if isinstance(audio, InputImpl.VideoFromFile):
        source = audio.get_stream_source()
        if not isinstance(source, str):
            source.seek(0)
        return read_audio(source)
    audio = audio if isinstance(audio, dict) or audio is None else audio.get_components().audio
    if audio is None:
        return None
    waveform = audio["waveform"][0]
    return (waveform if len(waveform) <= 2 else waveform.mean(0, keepdim=True)), int(audio["sample_rate"])
