"""Images from a proxy in motion: condition maps and the preview."""

from __future__ import annotations

import torch
from comfy_api.latest import io
from torch import Tensor

from ..dit.framing import Framing, check_frames
from ..proxy.frames import Frames
from ..proxy.preview import render_preview
from ..proxy.render import MAPS, render_maps
from ..transfer.motion import HeadMotion
from .runtime import compute_device, gather
from .types import CATEGORY, FRAMING, HEAD_MOTION, HEAD_PROXY, BuiltProxy

LARGEST = 8192


class RenderConditions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitRender",
            display_name="Render Conditions",
            category=CATEGORY,
            description="Renders one condition map of the moving head for a video model. Add a node for each map that you need.",
            inputs=[
                *moving_head(),
                io.Combo.Input("map", options=list(MAPS), default=MAPS[0], tooltip="What to draw; see the help page for a list."),
                size_input("width"),
                size_input("height"),
                io.Boolean.Input(
                    "directx_normals",
                    default=False,
                    optional=True,
                    advanced=True,
                    tooltip="Normals with green pointing down, as DirectX tools want them. Off: green points up (OpenGL).",
                ),
                FRAMING.Input(
                    "framing",
                    optional=True,
                    tooltip="From Prepare Clip: draws only what it frames, sharp, at its size and length. Width and height above are "
                    "not used then.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="One image for each frame of the motion."),
                io.Mask.Output(display_name="mask", tooltip="1 where the head is."),
            ],
        )

    @classmethod
    def execute(
        cls,
        head_proxy: BuiltProxy,
        head_motion: HeadMotion,
        map: str,
        width: int = 0,
        height: int = 0,
        directx_normals: bool = False,
        framing: Framing | None = None,
    ) -> io.NodeOutput:
        device = compute_device()
        proxy, motion, model = head_proxy.proxy.to(device), head_motion.to(device), head_proxy.model.to(device)
        camera = None
        if framing is not None:
            check_frames(len(motion), framing)
            motion, camera = motion.select(framing.frame_numbers()), framing.camera(proxy.camera)
        size = (width or None, height or None)
        chunks = render_maps(proxy, motion, model, (map, "mask"), *size, directx=directx_normals, camera=camera)
        both = gather((torch.cat([chunk[map].expand(-1, -1, -1, 3), chunk["mask"]], -1) for chunk in chunks), len(motion))
        return io.NodeOutput(both[..., :3], both[..., 3])


def moving_head() -> list[io.Input]:
    """Who moves, and how."""
    return [HEAD_PROXY.Input("head_proxy", tooltip="The person."), HEAD_MOTION.Input("head_motion", tooltip="How the head moves.")]


def size_input(name: str) -> io.Int.Input:
    return io.Int.Input(
        name, default=0, min=0, max=LARGEST, optional=True, tooltip=f"The {name} of the result in pixels. 0 is that of the source picture."
    )


class PortraitPreview(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitPreview",
            display_name="Portrait Preview",
            category=CATEGORY,
            description="Animates the portrait at once, without a diffusion model: the moving head over its own picture.",
            inputs=[
                io.Image.Input("source_image", tooltip="The picture that the proxy was built from."),
                *moving_head(),
                size_input("width"),
                size_input("height"),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="One image for each frame of the motion.")],
        )

    @classmethod
    def execute(
        cls, source_image: Tensor, head_proxy: BuiltProxy, head_motion: HeadMotion, width: int = 0, height: int = 0
    ) -> io.NodeOutput:
        device = compute_device()
        source = Frames.from_images(source_image).frame(0).to(device)
        proxy, motion, model = head_proxy.proxy.to(device), head_motion.to(device), head_proxy.model.to(device)
        size = (width or None, height or None)
        return io.NodeOutput(gather(render_preview(source, proxy, motion, model, size=size), len(motion)))
