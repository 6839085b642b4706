"""From a fit to a person's head proxy."""

from __future__ import annotations

from comfy_api.latest import Input, io
from torch import Tensor

from ..proxy.build import build_proxy
from ..proxy.look import proxy_sheet
from ..transfer.neutral import neutral_expression
from .pictures import fitted_frames, shown, source_frame
from .runtime import compute_device, node_progress, result_device
from .types import CATEGORY, HEAD_PROXY, HEAD_TRACK, BuiltProxy, FittedTrack


class BuildProxy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitBuildProxy",
            display_name="Build Head Proxy",
            category=CATEGORY,
            description="Makes the person's head, ready to move: identity and resting face from the fit, skin and hair from the picture.",
            inputs=[*fit_inputs(), frame_input(), neutral_input()],
            outputs=[
                HEAD_PROXY.Output(display_name="head_proxy", tooltip="The person, for Transfer Expression and rendering."),
                io.Image.Output(display_name="source_image", tooltip="The frame that was taken, for Portrait Preview."),
            ],
        )

    @classmethod
    def execute(
        cls, images: Tensor | Input.Video, head_track: FittedTrack, frame: int = -1, neutral_frame: int = -1
    ) -> io.NodeOutput:
        device = compute_device()
        track, model = head_track.track.to(device), head_track.model.to(device)
        frames = fitted_frames(images, track)
        frame = source_frame(frame, track)
        source = frames.frame(frame).to(device)
        neutral = neutral_expression(track, model, chosen_frame(neutral_frame))
        proxy = build_proxy(source, track, model, frame, neutral, progress=node_progress())
        image = source.permute(1, 2, 0)[None].to(result_device())
        built = BuiltProxy(head_track.model, proxy.to(result_device()))
        return io.NodeOutput(built, image, ui=shown(proxy_sheet(source, proxy, model)))


def fit_inputs() -> list[io.Input]:
    """Pictures and their fit."""
    return [
        io.MultiType.Input("images", types=[io.Image, io.Video], tooltip="The pictures that were fitted: a photo or a clip."),
        HEAD_TRACK.Input("head_track", tooltip="The fit of these pictures."),
    ]


def frame_input() -> io.Int.Input:
    """The frame that gives a proxy its looks."""
    return io.Int.Input(
        "frame",
        default=-1,
        min=-1,
        max=1000000,
        optional=True,
        tooltip="The frame that gives the looks, counted from 0. -1 chooses the best one: frontal, calm, surely found.",
    )


def neutral_input() -> io.Int.Input:
    """The frame in which the person's face is at rest."""
    return io.Int.Input(
        "neutral_frame",
        default=-1,
        min=-1,
        max=1000000,
        optional=True,
        advanced=True,
        tooltip="The frame in which this person's face is at rest, counted from 0. -1 finds the calmest ones and believes little of a "
        "smile. 0 says that a photo shows the face at rest.",
    )


def chosen_frame(frame: int) -> int | None:
    """A frame number, None for -1."""
    return None if frame < 0 else frame
