"""A portrait video by a diffusers pipeline: Wan image-to-video, text-to-video or VACE from a folder, with a portrait adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..proxy.camera import Camera
from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.posing import output_camera
from ..proxy.render import render_maps
from ..proxy.source_picture import frame_source, one_source
from ..transfer.motion import HeadMotion
from .adapter.adapter import PortraitCondition
from .adapter.adapter_file import AdapterFile
from .diffusers_adapter import DiffusersAdapter
from .guidance import Schedule
from .head_conditions import control_video, explicit_numbers, held_motion, reference_geometry

PIPELINES = ("WanImageToVideoPipeline", "WanPipeline", "WanVACEPipeline")
VACE, TEXT_TO_VIDEO = "WanVACEPipeline", "WanPipeline"
LORA = "portrait"
TOKENS = 512  # of a prompt: a shorter one mixes with the image's tokens
ROOM = 0.9  # of the machine's memory that a model may take on the CPU
LARGE = 2e10  # bytes of weights from which a run without a GPU takes hours

Progress = Callable[[int, int], None]
logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class GenerateSettings:
    """Raises ValueError for values that no pipeline takes."""

    width: int = 512
    height: int = 512
    frames: int = 81
    steps: int = 30
    guidance: float = 2.5
    seed: int = 0
    prompt: str = ""
    negative_prompt: str = ""
    strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)  # of control, reference and expression
    schedule: Schedule = Schedule()

    def __post_init__(self):
        if self.frames < 1 or self.frames % 4 != 1:
            raise ValueError(f"frames is {self.frames}; Wan makes 4n + 1 frames, such as {4 * max(self.frames // 4, 1) + 1}")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; sample at least one step")
        for name in ("width", "height"):
            if getattr(self, name) < 16 or getattr(self, name) % 16:
                raise ValueError(f"{name} is {getattr(self, name)}; give a multiple of 16")


def load_pipeline(folder: str | os.PathLike, device: torch.device | str, dtype: torch.dtype = torch.bfloat16):
    """A Wan pipeline from a diffusers folder, on `device` (on a GPU its models take turns there).

    Raises ValueError if diffusers is not installed, the folder holds no such pipeline, or a CPU's memory cannot hold it.
    """
    kind = _kind(Path(folder))
    try:
        import diffusers
    except ImportError:
        raise ValueError("the diffusers package is not installed; install it with: pip install diffusers transformers ftfy") from None
    check_memory(Path(folder), torch.device(device))
    # A folder may leave out the large text encoder: the prompt is empty then.
    left_out = {name: None for name in ("text_encoder", "tokenizer") if not (Path(folder) / name).is_dir()}
    pipeline = getattr(diffusers, kind).from_pretrained(str(folder), dtype=dtype, local_files_only=True, **left_out)
    if torch.device(device).type == "cuda":
        pipeline.enable_model_cpu_offload(device=device)
        return pipeline
    return pipeline.to(device)


def _kind(folder: Path) -> str:
    index = folder / "model_index.json"
    if not index.is_file():
        raise ValueError(f"{folder} is no diffusers folder: it has no model_index.json; give the folder of a Wan pipeline")
    try:
        kind = json.loads(index.read_text(encoding="utf-8")).get("_class_name")
    except (json.JSONDecodeError, AttributeError):
        raise ValueError(f"{index} cannot be read; download the pipeline again") from None
    if kind not in PIPELINES:
        raise ValueError(f"{folder} holds a {kind}; portrait adapters work on {', '.join(PIPELINES)}")
    return kind


def check_memory(folder: Path, device: torch.device) -> None:
    """Raises ValueError, before anything is read, if weights in `folder` would not fit a CPU's memory; warns of very long runs."""
    if device.type != "cpu":
        return
    needed = sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in folder.rglob(pattern))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else float("inf")
    if needed > ROOM * memory:
        raise ValueError(
            f"the pipeline's weights take {needed / 1e9:.0f} GB, but this machine has {memory / 1e9:.0f} GB of memory and no GPU; use a "
            f"smaller model or another machine"
        )
    if needed > LARGE:
        logger.warning("the pipeline's weights take %.0f GB and run on the CPU: expect hours for a few seconds of video", needed / 1e9)


def generate(
    pipeline,
    source: Tensor,
    proxy: HeadProxy,
    motion: HeadMotion,
    model: HeadModel,
    file: AdapterFile | None,
    settings: GenerateSettings = GenerateSettings(),
    progress: Progress | None = None,
) -> Tensor:
    """Frames [F, H, W, 3] in 0..1 of the source picture [3, H, W] acting the motion, whose last frame is held.

    `file` is a portrait adapter; a VACE pipeline works without one, by the head's depth and face lines. `progress(done, total)`
    counts steps; what it raises ends the run. Raises ValueError for parts that do not go together.
    """
    kind = type(pipeline).__name__
    if file is None and kind != VACE:
        raise ValueError(f"a {kind} cannot follow a head by itself; give a portrait adapter, or use a VACE pipeline")
    source, motion = one_source(source, proxy), held_motion(motion, settings.frames)
    camera = output_camera(proxy.camera, settings.width, settings.height)
    inputs = {}
    if kind != TEXT_TO_VIDEO:
        picture = _pictures(frame_source(source, proxy.camera, camera))
        inputs = {"image": picture[0]}
    if kind == VACE:
        inputs = {"video": _vace_video(proxy, motion, model, camera), "reference_images": picture}
    with contextlib.ExitStack() as stack:
        attached = None if file is None else stack.enter_context(_attached(pipeline, file))
        if attached is not None:
            attached.set(_encode(attached, source, proxy, motion, model, camera), settings.strengths)
            attached.fade(settings.schedule, 0, settings.steps)

        def after_step(pipe, step: int, timestep, values: dict) -> dict:
            if attached is not None and step + 1 < settings.steps:
                attached.fade(settings.schedule, step + 1, settings.steps)
            if progress is not None:
                progress(step + 1, settings.steps)
            return values

        result = pipeline(
            **inputs,
            **_prompts(pipeline, settings),
            height=settings.height,
            width=settings.width,
            num_frames=settings.frames,
            num_inference_steps=settings.steps,
            guidance_scale=settings.guidance,
            generator=torch.Generator().manual_seed(settings.seed),
            output_type="pt",
            callback_on_step_end=after_step,
        )
    return result.frames[0].permute(0, 2, 3, 1).float().clamp(0, 1).cpu()


@contextlib.contextmanager
def _attached(pipeline, file: AdapterFile) -> Iterator[DiffusersAdapter]:
    """The adapter and its LoRA on the pipeline's transformers, as long as the context lasts."""
    experts = [part for part in (pipeline.transformer, getattr(pipeline, "transformer_2", None)) if part is not None]
    device = getattr(pipeline, "_execution_device", pipeline.device)
    try:
        if file.lora:
            pipeline.load_lora_weights(dict(file.lora), adapter_name=LORA)
            if len(experts) > 1:
                pipeline.load_lora_weights(dict(file.lora), adapter_name=LORA, load_into_transformer_2=True)
        with DiffusersAdapter(experts, file.build().to(device, experts[0].dtype)) as attached:
            yield attached
    finally:
        if file.lora:
            pipeline.unload_lora_weights()
        pipeline.maybe_free_model_hooks()


def _encode(
    attached: DiffusersAdapter, source: Tensor, proxy: HeadProxy, motion: HeadMotion, model: HeadModel, camera: Camera
) -> PortraitCondition:
    adapter = attached.adapter
    config, like = adapter.config, next(adapter.parameters())
    if config.control == "latent":
        raise ValueError("this adapter reads latents of the control video, which the diffusers back-end does not make; use it in ComfyUI")
    if config.code == "face":
        raise ValueError("this adapter reads the performer's face, which the diffusers back-end is not given; use it in ComfyUI")
    control = None if config.control == "none" else control_video(proxy, motion, model, config, camera, source).to(like)
    reference = None if config.reference == "none" else reference_geometry(proxy, model, config, camera, source).to(like)
    numbers = explicit_numbers(motion, model, config).to(like) if config.code == "explicit" else None
    with torch.no_grad():
        return adapter.encode(control, reference, numbers)


def _prompts(pipeline, settings: GenerateSettings) -> dict:
    if pipeline.text_encoder is not None:
        return {"prompt": settings.prompt, "negative_prompt": settings.negative_prompt, "max_sequence_length": TOKENS}
    if settings.prompt or settings.negative_prompt:
        raise ValueError("a prompt is given, but the pipeline has no text encoder; leave the prompt empty, or add the text encoder")
    empty = torch.zeros(1, TOKENS, pipeline.transformer.config.text_dim, device=pipeline.device, dtype=pipeline.transformer.dtype)
    return {"prompt_embeds": empty, "negative_prompt_embeds": empty}


def _vace_video(proxy: HeadProxy, motion: HeadMotion, model: HeadModel, camera: Camera) -> list:
    """Control for VACE: the head's depth with the face's lines drawn over it."""
    chunks = render_maps(proxy, motion, model, ("depth", "landmarks"), camera=camera)
    frames = torch.cat([torch.maximum(chunk["depth"], chunk["landmarks"]) for chunk in chunks])
    return _pictures(frames.permute(0, 3, 1, 2))


def _pictures(frames: Tensor) -> list:
    """Frames [T, 3, H, W] in 0..1 as a list of images for a pipeline."""
    from PIL import Image

    levels = (frames.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(frame) for frame in levels]
