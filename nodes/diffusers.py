"""The diffusers back-end as one node, for people who keep Wan as a diffusers folder."""

from __future__ import annotations

import os

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dit.adapter.adapter_file import load_adapter
from ..dit.generate import GenerateSettings, generate, load_pipeline
from ..dit.guidance import FADE, HOLD, Schedule
from ..proxy.frames import Frames
from ..transfer.motion import HeadMotion
from .adapter import FOLDER as ADAPTERS
from .runtime import compute_device, node_progress, result_device
from .types import CATEGORY, HEAD_MOTION, HEAD_PROXY, BuiltProxy

FOLDER, NONE = "diffusers", "none"
LARGEST, MOST_FRAMES, MOST_STEPS, MOST_SEED = 2048, 1025, 1000, 2**63 - 1


def _folders() -> list[str]:
    """Pipelines below ComfyUI's models/diffusers, by their names there."""
    found = []
    for root in folder_paths.get_folder_paths(FOLDER):
        for place, _, files in os.walk(root, followlinks=True):
            if "model_index.json" in files:
                found.append(os.path.relpath(place, root).replace(os.sep, "/"))
    return sorted(found)


class GenerateWithDiffusers(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        defaults = GenerateSettings()
        return io.Schema(
            node_id="ExpPortraitDiffusers",
            display_name="Portrait Video (diffusers)",
            category=CATEGORY,
            description="Makes the video with a diffusers Wan pipeline from a folder. The native nodes are better where they can be used.",
            inputs=[
                io.Combo.Input("pipeline", options=_folders(), tooltip="A Wan pipeline below ComfyUI's models/diffusers."),
                io.Combo.Input(
                    "adapter",
                    options=[NONE, *folder_paths.get_filename_list(ADAPTERS)],
                    default=NONE,
                    tooltip="A portrait adapter in models/model_patches; VACE works without one.",
                ),
                io.Image.Input("source_image", tooltip="The picture that the proxy was built from."),
                HEAD_PROXY.Input("head_proxy", tooltip="The person."),
                HEAD_MOTION.Input("head_motion", tooltip="How the head moves; the last frame is held if the video is longer."),
                io.String.Input("prompt", default="", multiline=True, tooltip="What the video shows."),
                io.String.Input("negative_prompt", default="", multiline=True, tooltip="What it should not show."),
                _number("width", defaults.width, 16, LARGEST, 16, "Of the video, a multiple of 16."),
                _number("height", defaults.height, 16, LARGEST, 16, "Of the video, a multiple of 16."),
                _number("frames", defaults.frames, 1, MOST_FRAMES, 4, "Of the video, 4n + 1."),
                _number("steps", defaults.steps, 1, MOST_STEPS, 1, "Steps of the sampler."),
                io.Float.Input("cfg", default=defaults.guidance, min=0.0, max=30.0, step=0.1, tooltip="Scale of guidance."),
                io.Int.Input("seed", default=0, min=0, max=MOST_SEED, control_after_generate=True, tooltip="Of the noise."),
                _share("hold", HOLD, "Share of the steps without expression."),
                _share("fade", FADE, "Share of the steps in which it comes in."),
            ],
            outputs=[io.Image.Output(display_name="images", tooltip="The video's frames.")],
        )

    @classmethod
    def execute(
        cls,
        pipeline: str,
        adapter: str,
        source_image: Tensor,
        head_proxy: BuiltProxy,
        head_motion: HeadMotion,
        prompt: str,
        negative_prompt: str,
        width: int,
        height: int,
        frames: int,
        steps: int,
        cfg: float,
        seed: int,
        hold: float,
        fade: float,
    ) -> io.NodeOutput:
        settings = GenerateSettings(width, height, frames, steps, cfg, seed, prompt, negative_prompt, schedule=Schedule(hold, fade))
        file = None if adapter == NONE else load_adapter(folder_paths.get_full_path_or_raise(ADAPTERS, adapter))
        device = compute_device()
        # Two owners of the same memory would run out of it: what ComfyUI holds goes first.
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        loaded = load_pipeline(_folder(pipeline), device, dtype)
        model, proxy, motion = head_proxy.model.to(device), head_proxy.proxy.to(device), head_motion.to(device)
        source = Frames.from_images(source_image).frame(0).to(device)
        video = generate(loaded, source, proxy, motion, model, file, settings, node_progress())
        return io.NodeOutput(video.to(result_device()))


def _number(name: str, default: int, low: int, high: int, step: int, tooltip: str) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=low, max=high, step=step, tooltip=tooltip)


def _share(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=round(default, 2), min=0.0, max=1.0, step=0.01, advanced=True, tooltip=tooltip)


def _folder(name: str) -> str:
    """The folder of a name in the list. Raises ValueError if the list has no such name."""
    if name in _folders():
        roots = folder_paths.get_folder_paths(FOLDER)
        return next(os.path.join(root, name) for root in roots if os.path.isfile(os.path.join(root, name, "model_index.json")))
    raise ValueError(f"there is no pipeline {name!r} below models/diffusers; choose one from the list (press R to refresh it)")
