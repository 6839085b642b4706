"""The command `expportrait generate`: a portrait video by a diffusers folder."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from ..proxy.frames import VideoWriter, read_image
from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..transfer.remap import load_motion_for
from .adapter.adapter_file import load_adapter
from .generate import GenerateSettings, generate, load_pipeline
from .guidance import FADE, HOLD, Schedule

Bar = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what `run_generate` reads, besides the device and the head model."""
    defaults = GenerateSettings()
    parser.add_argument("--pipeline", required=True, help="folder of a diffusers Wan pipeline (image-to-video, text-to-video or VACE)")
    parser.add_argument("--adapter", help="portrait adapter (.safetensors); VACE works without one")
    parser.add_argument("--source", required=True, help="the picture that the proxy was built from")
    parser.add_argument("--proxy", required=True, help="proxy file")
    parser.add_argument("--motion", required=True, help="motion file")
    parser.add_argument("--out", required=True, help="video file (.mp4)")
    parser.add_argument("--prompt", default="", help="what the video shows")
    parser.add_argument("--negative-prompt", default="", help="what it should not show")
    for name in ("width", "height", "frames", "steps", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(defaults, name), help="(default: %(default)s)")
    parser.add_argument("--guidance", type=float, default=defaults.guidance, help="scale of guidance (default: %(default)s)")
    parser.add_argument("--hold", type=float, default=HOLD, help="share of the steps without expression (default: 1/7)")
    parser.add_argument("--fade", type=float, default=FADE, help="share of the steps in which it comes in (default: 1/7)")
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16", help="of the weights (default: %(default)s)")


def run_generate(options: argparse.Namespace, model: HeadModel, bar: Bar) -> None:
    """Reads everything, makes the video and writes it."""
    settings = GenerateSettings(
        options.width,
        options.height,
        options.frames,
        options.steps,
        options.guidance,
        options.seed,
        options.prompt,
        options.negative_prompt,
        schedule=Schedule(options.hold, options.fade),
    )
    proxy = HeadProxy.load(options.proxy, model.model_id).to(options.device)
    motion = load_motion_for(options.motion, model).to(options.device)
    source = read_image(options.source).permute(2, 0, 1).to(options.device)
    file = None if options.adapter is None else load_adapter(options.adapter)
    pipeline = load_pipeline(options.pipeline, options.device, DTYPES[options.dtype])
    with bar("generate") as progress:
        frames = generate(pipeline, source, proxy, motion, model, file, settings, progress)
    with VideoWriter(options.out, motion.fps) as writer:
        writer.write(frames)
