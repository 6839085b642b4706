"""Clips for video models, and their results back in the full picture."""

from __future__ import annotations

from typing import get_args

import torch
from comfy_api.latest import io
from torch import Tensor

from ..dit.families import FAMILIES, LONGEST_SIDE, family_named
from ..dit.framing import Framing, LengthPolicy, crop_images, crop_mask, make_framing
from ..dit.paste_back import paste_back
from .runtime import gather
from .types import CATEGORY, FRAMING

MOST_FRAMES = 100_000
MOST_FEATHER = 1024.0
MOST_MARGIN = 8.0


class PrepareClip(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitPrepareClip",
            display_name="Prepare Clip",
            category=CATEGORY,
            description="Cuts a clip or a portrait to what a video model wants: the head in all frames, a size in its steps, 4n+1 "
            "frames. The framing lets maps follow the same cut, and results go back to their place.",
            inputs=[
                io.Image.Input("images", tooltip="A clip, or the one picture of a portrait."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The head, in one frame or in all: the mask of Render Conditions. Left open, the whole picture is taken. One "
                    "picture with a mask of many frames is framed for all of them.",
                ),
                FRAMING.Input(
                    "framing",
                    optional=True,
                    tooltip="Cuts these images as another Prepare Clip did; what is chosen below is not used then.",
                ),
                io.Combo.Input(
                    "family", options=list(FAMILIES), default="Wan VACE", optional=True, tooltip="The model that the clip is for."
                ),
                _side("width"),
                _side("height"),
                io.Float.Input(
                    "margin",
                    default=0.35,
                    min=0.0,
                    max=MOST_MARGIN,
                    step=0.05,
                    optional=True,
                    tooltip="Room around the head on all sides, as a share of its longer side. 8 takes as much of the picture as there is.",
                ),
                io.Combo.Input(
                    "length_policy",
                    options=list(get_args(LengthPolicy)),
                    default="hold",
                    optional=True,
                    advanced=True,
                    tooltip="How the clip gets 4n+1 frames: hold repeats the last one, ping-pong goes back from it, trim drops up to 3.",
                ),
                io.Int.Input(
                    "max_frames",
                    default=0,
                    min=0,
                    max=MOST_FRAMES,
                    optional=True,
                    tooltip="At most so many frames are kept, from the first on. 0 is what the model is usually given: 81, for "
                    "Wan-Animate 77, for TI2V-5B 121.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="images", tooltip="What was framed, at the model's size and length; one picture stays one."),
                io.Mask.Output(display_name="mask", tooltip="The mask in the same frame; 1 everywhere if there was none."),
                FRAMING.Output(display_name="framing", tooltip="For Render Conditions, another Prepare Clip, and Paste Back."),
                io.Int.Output(display_name="width", tooltip="For the model's conditioning node."),
                io.Int.Output(display_name="height", tooltip="For the model's conditioning node."),
                io.Int.Output(display_name="length", tooltip="Number of frames, 4n+1, for the model's conditioning node."),
            ],
        )

    @classmethod
    def execute(
        cls,
        images: Tensor,
        mask: Tensor | None = None,
        framing: Framing | None = None,
        family: str = "Wan VACE",
        width: int = 0,
        height: int = 0,
        margin: float = 0.35,
        length_policy: LengthPolicy = "hold",
        max_frames: int = 0,
    ) -> io.NodeOutput:
        mask = _batch(mask)
        if framing is None:
            framing = make_framing(family_named(family), images, mask, width, height, margin, length_policy, max_frames)
        cut = gather(crop_images(images, framing), 1 if len(images) == 1 else framing.length)
        width, height = framing.size
        if mask is None:
            head = torch.ones(1, height, width, device=cut.device)
        else:
            head = gather(crop_mask(mask, framing), 1 if len(mask) == 1 else framing.length)
        return io.NodeOutput(cut, head, framing, width, height, framing.length)


def _batch(mask: Tensor | None) -> Tensor | None:
    """A mask as [T, H, W]; some nodes give a single one as [H, W]."""
    return mask[None] if mask is not None and mask.ndim == 2 else mask


def _side(name: str) -> io.Int.Input:
    return io.Int.Input(
        name,
        default=0,
        min=0,
        max=LONGEST_SIDE,
        step=16,
        optional=True,
        tooltip=f"The {name} in pixels, in steps of 16 (TI2V-5B: 32). 0 follows from the head's shape and the model's usual size.",
    )


class PasteBack(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitPasteBack",
            display_name="Paste Back",
            category=CATEGORY,
            description="Puts what a model made of a prepared clip back into the full picture, in the source's colours.",
            inputs=[
                io.Image.Input("source_images", tooltip="What Prepare Clip was given: the portrait, or the clip."),
                io.Image.Input("result_images", tooltip="The model's decoded frames."),
                FRAMING.Input("framing", tooltip="From the Prepare Clip that the result was made with."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What is taken from the result, drawn over the source or over the framed part; nothing else changes. Left "
                    "open: all that was framed.",
                ),
                io.Float.Input(
                    "feather",
                    default=24.0,
                    min=0.0,
                    max=MOST_FEATHER,
                    step=1.0,
                    optional=True,
                    tooltip="Over how many pixels of the source the result fades in, from the edge inwards.",
                ),
                io.Float.Input(
                    "colour_match",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    optional=True,
                    tooltip="How far the result gets the colours of the source. They are compared where both meet. 0 is off.",
                ),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="Full pictures, one for each frame that the source or motion has.")],
        )

    @classmethod
    def execute(
        cls,
        source_images: Tensor,
        result_images: Tensor,
        framing: Framing,
        mask: Tensor | None = None,
        feather: float = 24.0,
        colour_match: float = 1.0,
    ) -> io.NodeOutput:
        chunks = paste_back(source_images, result_images, framing, _batch(mask), feather, colour_match)
        return io.NodeOutput(gather(chunks, min(len(result_images), framing.kept)))
