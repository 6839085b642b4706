"""From a fit to a person's head proxy with the person's own relief."""

from __future__ import annotations

from comfy_api.latest import Input, io
from torch import Tensor

from ..proxy.refine import QUALITIES, OutsideMaps, RefineSettings, refine_head
from ..proxy.refine.sheet import refine_sheet
from ..transfer.neutral import neutral_expression
from .pictures import fitted_frames, shown, source_frame
from .proxy import chosen_frame, fit_inputs, frame_input, neutral_input
from .runtime import compute_device, node_progress, result_device
from .types import CATEGORY, HEAD_PROXY, BuiltProxy, FittedTrack

CONVENTIONS = ["auto", "opengl", "directx"]
DEPTH_CONVENTIONS = ["auto", "inverse", "metric"]


class RefineHead(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitRefine",
            display_name="SMPL-X Refine",
            category=CATEGORY,
            description="Makes the person's head like Build Head Proxy and moves its surface to what the pictures show: a relief "
            "of the person, and details such as wrinkles that follow the expression.",
            inputs=[
                *fit_inputs(),
                io.Image.Input(
                    "normals",
                    optional=True,
                    tooltip="Camera-space normal maps of the same pictures by any estimator, one for each frame or a single one. "
                    "They give more relief than the skin's shading, which is used without them.",
                ),
                io.Combo.Input(
                    "quality",
                    options=list(QUALITIES),
                    default="standard",
                    tooltip="How long to work on it: draft for a first look, fine for the last bit of detail.",
                ),
                io.Float.Input(
                    "detail",
                    default=1.0,
                    min=0.0,
                    max=2.0,
                    step=0.05,
                    tooltip="Strength of what moves with the expression, such as wrinkles. 0 leaves the person's relief alone.",
                ),
                io.Combo.Input(
                    "normal_convention",
                    options=CONVENTIONS,
                    default=CONVENTIONS[0],
                    optional=True,
                    advanced=True,
                    tooltip="Which way green points in the normal maps: up (opengl) or down (directx). auto finds out by the fit.",
                ),
                frame_input(),
                io.Image.Input(
                    "depth",
                    optional=True,
                    tooltip="Depth maps of the same pictures by any estimator, grey, one for each frame or a single one.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Mask of the person, for the head's outline. Without it the person is found in the pictures.",
                ),
                io.Combo.Input(
                    "depth_convention",
                    options=DEPTH_CONVENTIONS,
                    default=DEPTH_CONVENTIONS[0],
                    optional=True,
                    advanced=True,
                    tooltip="Whether near is white (inverse) or dark (metric) in the depth maps. auto finds out by the fit.",
                ),
                neutral_input(),
            ],
            outputs=[
                HEAD_PROXY.Output(display_name="head_proxy", tooltip="The person, for Transfer Expression and rendering."),
                io.Image.Output(display_name="source_image", tooltip="The frame that gave the looks, for Portrait Preview."),
                io.Image.Output(
                    display_name="preview",
                    tooltip="Some frames beside the refined head, normals before and after, and the relief: red out, blue in.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor | Input.Video,
        head_track: FittedTrack,
        quality: str,
        detail: float,
        normals: Tensor | None = None,
        normal_convention: str = CONVENTIONS[0],
        frame: int = -1,
        depth: Tensor | None = None,
        mask: Tensor | None = None,
        depth_convention: str = DEPTH_CONVENTIONS[0],
        neutral_frame: int = -1,
    ) -> io.NodeOutput:
        device = compute_device()
        track, model = head_track.track.to(device), head_track.model.to(device)
        frames = fitted_frames(images, track)
        frame = source_frame(frame, track)
        refined = refine_head(
            frames,
            track,
            model,
            RefineSettings.of(quality, detail),
            OutsideMaps(normals, normal_convention, depth, depth_convention, mask),
            frame,
            neutral_expression(track, model, chosen_frame(neutral_frame)),
            node_progress(),
        )
        image = frames.frame(frame).permute(1, 2, 0)[None].to(result_device())
        sheet = refine_sheet(frames, track, model, refined).permute(1, 2, 0)[None].to(result_device())
        built = BuiltProxy(head_track.model, refined.proxy.to(result_device()))
        return io.NodeOutput(built, image, sheet, ui=shown(sheet[0].cpu()))
