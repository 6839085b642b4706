"""Nodes of the pocket model: load it, tell it what the head does, put its heads back into the picture."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dit.pocket.render import SIDE, Cut, HeadClip, check_head, paste_heads
from ..dit.pocket.weights import SHIPPED
from ..proxy.frames import Frames
from ..transfer.motion import HeadMotion
from .pocket_model import KEY, HeadCondition, load_pocket, pocket_config
from .render import moving_head, size_input
from .runtime import compute_device, gather, gather_all, result_device
from .types import CATEGORY, POCKET_HEADS, BuiltProxy

FOLDER = "diffusion_models"
OWN = "shipped"
CHUNK = 4
LARGEST = 1024


@dataclasses.dataclass(frozen=True)
class PocketHeads:
    """The preview that drawn heads go into."""

    cut: Cut
    preview: Tensor  # [T, 3, H, W] 0..1
    covered: Tensor  # [T, 1, S, S] boolean


class LoadPocketModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [name for name in folder_paths.get_filename_list(FOLDER) if name.lower().endswith(".safetensors")]
        return io.Schema(
            node_id="ExpPortraitLoadPocket",
            display_name="Load Pocket Model",
            category=CATEGORY,
            description="Loads the small diffusion model that draws a moving head anew, on any CPU.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[OWN, *files],
                    default=OWN,
                    tooltip=f"The one inside this pack, or one that you trained, in ComfyUI's models/{FOLDER} folder.",
                )
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For KSampler: euler, simple, 4 steps, cfg 1.")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(load_pocket(SHIPPED if file == OWN else folder_paths.get_full_path_or_raise(FOLDER, file)))


class PocketConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitPocketConditioning",
            display_name="Pocket Conditioning",
            category=CATEGORY,
            description="Tells a pocket model how the head moves: renders what the model is shown, around the head, and the preview.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Pocket Model."),
                io.Image.Input("source_image", tooltip="The picture that the proxy was built from."),
                *moving_head(),
                io.Int.Input(
                    "side",
                    default=SIDE,
                    min=64,
                    max=LARGEST,
                    step=16,
                    tooltip="Side of the square in pixels that the model draws; it was trained on the default.",
                ),
                size_input("width"),
                size_input("height"),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="What the head does, for KSampler."),
                io.Conditioning.Output(display_name="negative", tooltip="The same without the expression; it counts if cfg is above 1."),
                io.Latent.Output(display_name="latent", tooltip="Empty, one for each frame, all to be drawn from the same noise."),
                POCKET_HEADS.Output(display_name="heads", tooltip="The preview and where its heads are, for Pocket Paste."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        source_image: Tensor,
        head_proxy: BuiltProxy,
        head_motion: HeadMotion,
        side: int = SIDE,
        width: int = 0,
        height: int = 0,
    ) -> io.NodeOutput:
        check_head(pocket_config(model), head_proxy.model.model_id)
        device = compute_device()
        source = Frames.from_images(source_image).frame(0).to(device)
        proxy, motion, head = head_proxy.proxy.to(device), head_motion.to(device), head_proxy.model.to(device)
        clip = HeadClip(source, proxy, motion, head, side, (width or None, height or None))
        chunks = ((seen.control, seen.code, seen.preview, seen.covered) for seen in clip.chunks(CHUNK))
        control, code, preview, covered = gather_all(chunks, len(clip))
        told = HeadCondition(head.model_id, control, clip.reference().to(result_device()))
        positive = [[code[None], {KEY: told}]]
        negative = [[torch.zeros_like(code)[None], {KEY: dataclasses.replace(told, regions=False)}]]
        # KSampler draws one noise for all that have one index.
        latent = {"samples": torch.zeros(len(clip), 3, side, side, device=result_device()), "batch_index": [0] * len(clip)}
        return io.NodeOutput(positive, negative, latent, PocketHeads(clip.cut, preview, covered))


class PocketPaste(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitPocketPaste",
            display_name="Pocket Paste",
            category=CATEGORY,
            description="Puts the heads that a pocket model drew into the preview, at full size.",
            inputs=[
                io.Latent.Input("samples", tooltip="From KSampler. They are pictures already and need no VAE."),
                POCKET_HEADS.Input("heads", tooltip="From Pocket Conditioning."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="One image for each frame of the motion.")],
        )

    @classmethod
    def execute(cls, samples: dict, heads: PocketHeads) -> io.NodeOutput:
        drawn, count = samples["samples"], len(heads.preview)
        if drawn.ndim != 4 or tuple(drawn.shape[:2]) != (count, 3):
            raise ValueError(
                f"the samples have shape {list(drawn.shape)}, but there are {count} heads of 3 channels; connect what KSampler made of "
                f"the latent of this Pocket Conditioning"
            )
        return io.NodeOutput(gather(_pasted(drawn, heads), count))


def _pasted(drawn: Tensor, heads: PocketHeads) -> Iterator[Tensor]:
    device = compute_device()
    for start in range(0, len(drawn), CHUNK):
        parts = (value[start : start + CHUNK].to(device) for value in (drawn, heads.preview, heads.covered))
        yield paste_heads(*parts, heads.cut).permute(0, 2, 3, 1)
