"""Nodes of the portrait adapter: load it, attach it to a Wan model, tell it what the head does."""

from __future__ import annotations

import dataclasses

import comfy.model_management
import comfy.utils
import folder_paths
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dit.adapter.adapter import PortraitCondition
from ..dit.adapter.adapter_file import load_adapter, parse_adapter
from ..dit.conditioning import AttachedCondition, attach
from ..dit.face_crops import face_crops
from ..dit.framing import Framing, check_frames
from ..dit.head_conditions import control_video, explicit_numbers, reference_geometry
from ..proxy.camera import Camera
from ..proxy.frames import Frames
from ..proxy.head_track import HeadTrack
from ..proxy.posing import output_camera
from ..transfer.motion import HeadMotion
from .adapter_patch import LoadedAdapter, apply_adapter
from .runtime import compute_device, node_progress, result_device
from .types import ADAPTER, CATEGORY, FRAMING, HEAD_MOTION, HEAD_PROXY, HEAD_TRACK, BuiltProxy, FittedTrack

FOLDER = "model_patches"
STRONGEST, MOST_TRIMMED = 4.0, 64


class LoadAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitLoadAdapter",
            display_name="Load Portrait Adapter",
            category=CATEGORY,
            description="Loads a portrait adapter for a Wan model: ExpPortrait's own, UniAnimate-DiT's, or Fun-Control's.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=folder_paths.get_filename_list(FOLDER),
                    tooltip=f"A file in ComfyUI's models/{FOLDER} folder. It must belong to the Wan model that it is attached to.",
                )
            ],
            outputs=[ADAPTER.Output(display_name="adapter", tooltip="For Apply Portrait Adapter and Portrait Conditioning.")],
        )

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        path = folder_paths.get_full_path_or_raise(FOLDER, file)
        if path.endswith((".safetensors", ".sft")):
            return io.NodeOutput(LoadedAdapter.of(load_adapter(path)))
        # Other kinds are pickles: the core reads tensors from them and runs nothing.
        return io.NodeOutput(LoadedAdapter.of(parse_adapter(comfy.utils.load_torch_file(path, safe_load=True), {}, file)))


class ApplyAdapter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitApplyAdapter",
            display_name="Apply Portrait Adapter",
            category=CATEGORY,
            description="Attaches a portrait adapter to a Wan model. Without Portrait Conditioning the model works as before.",
            inputs=[
                io.Model.Input("model", tooltip="A Wan model, with whatever LoRAs and patches it has."),
                ADAPTER.Input("adapter", tooltip="Attach a second one with another of these nodes."),
                io.Float.Input(
                    "lora_strength",
                    default=1.0,
                    min=0.0,
                    max=STRONGEST,
                    step=0.05,
                    advanced=True,
                    tooltip="Strength of the LoRA that came with the adapter, if it has one.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model", tooltip="For any sampler.")],
        )

    @classmethod
    def execute(cls, model, adapter: LoadedAdapter, lora_strength: float = 1.0) -> io.NodeOutput:
        return io.NodeOutput(apply_adapter(model, adapter, lora_strength))


class PortraitConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitConditioning",
            display_name="Portrait Conditioning",
            category=CATEGORY,
            description="Tells an attached portrait adapter how the head moves: renders what the adapter reads, and encodes it once.",
            inputs=[
                io.Conditioning.Input("positive", tooltip="From Wan's own nodes, such as WanImageToVideo."),
                io.Conditioning.Input("negative", tooltip="Gets the same head, so that guidance does not push against it."),
                ADAPTER.Input("adapter", tooltip="The adapter that is attached to the model."),
                io.Latent.Input("latent", tooltip="The latent that is sampled: it tells size and length."),
                HEAD_PROXY.Input("head_proxy", tooltip="The person."),
                HEAD_MOTION.Input("head_motion", tooltip="How the head moves; the last frame is held if the video is longer."),
                _strength("control_strength", "How strongly the video follows the head's geometry."),
                _strength("reference_strength", "How strongly the source picture's own geometry counts.", advanced=True),
                _strength("expression_strength", "How strongly the expression code counts."),
                _percent("start", 0.0, "Share of the sampling after which the head begins to count."),
                _percent("end", 1.0, "Share of the sampling after which it no longer counts."),
                io.Image.Input(
                    "source_image",
                    optional=True,
                    tooltip="The picture that the proxy was built from; needed by adapters that read the warped reference.",
                ),
                io.Image.Input(
                    "control_images",
                    optional=True,
                    tooltip="Control frames from elsewhere instead of the rendered ones, such as DWPose lines for UniAnimate-DiT.",
                ),
                io.Vae.Input("vae", optional=True, tooltip="The model's VAE; needed by adapters that read latents, such as Fun-Control's."),
                FRAMING.Input("framing", optional=True, tooltip="From Prepare Clip, if the video shows a part of the source picture only."),
                io.Image.Input(
                    "performer_images",
                    optional=True,
                    tooltip="The performer's frames, for adapters that read the expression from a face; one for each frame of the motion.",
                ),
                HEAD_TRACK.Input("performer_track", optional=True, tooltip="The fit of these frames: it tells where the face is."),
                io.Int.Input(
                    "trim_latent",
                    default=0,
                    min=0,
                    max=MOST_TRIMMED,
                    optional=True,
                    advanced=True,
                    tooltip="Latent frames that stand before the video: connect trim_latent of WanVaceToVideo or WanAnimateToVideo.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive", tooltip="With the head."),
                io.Conditioning.Output(display_name="negative", tooltip="With the head."),
            ],
        )

    @classmethod
    def execute(
        cls,
        positive,
        negative,
        adapter: LoadedAdapter,
        latent: dict,
        head_proxy: BuiltProxy,
        head_motion: HeadMotion,
        control_strength: float = 1.0,
        reference_strength: float = 1.0,
        expression_strength: float = 1.0,
        start: float = 0.0,
        end: float = 1.0,
        source_image: Tensor | None = None,
        control_images: Tensor | None = None,
        vae=None,
        framing: Framing | None = None,
        performer_images: Tensor | None = None,
        performer_track: FittedTrack | None = None,
        trim_latent: int = 0,
    ) -> io.NodeOutput:
        if not start < end:
            raise ValueError(f"start is {start} and end is {end}; let the head begin to count before it ends")
        performer = None if performer_images is None or performer_track is None else (performer_images, performer_track.track)
        samples = latent["samples"]
        if samples.ndim != 5 or samples.shape[2] <= trim_latent:
            raise ValueError(
                f"the latent has shape {list(samples.shape)}, of which {trim_latent} frames are trimmed; give a video latent, such as that "
                f"of WanImageToVideo"
            )
        shown = _Shown(samples[:, :, trim_latent:], head_proxy, head_motion, source_image, control_images, vae, framing, performer)
        condition = _encode(adapter, shown)
        attached = AttachedCondition(condition, (control_strength, reference_strength, expression_strength))
        return io.NodeOutput(*(attach(entries, adapter.uid, attached, start, end) for entries in (positive, negative)))


def _strength(name: str, tooltip: str, advanced: bool = False) -> io.Float.Input:
    return io.Float.Input(name, default=1.0, min=0.0, max=STRONGEST, step=0.05, advanced=advanced, tooltip=tooltip)


def _percent(name: str, default: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, advanced=True, tooltip=tooltip)


@dataclasses.dataclass(frozen=True)
class _Shown:
    """What Portrait Conditioning was given."""

    samples: Tensor  # [B, C, T, h, w] latent
    built: BuiltProxy
    motion: HeadMotion
    source: Tensor | None
    images: Tensor | None
    vae: object
    framing: Framing | None
    performer: tuple[Tensor, HeadTrack] | None


def _encode(loaded: LoadedAdapter, shown: _Shown) -> PortraitCondition:
    """The head as the adapter reads it, for the latent's size and length."""
    config, samples = loaded.config, shown.samples
    frames, height, width = 4 * (samples.shape[2] - 1) + 1, config.spatial * samples.shape[3], config.spatial * samples.shape[4]
    device = compute_device()
    proxy, model = shown.built.proxy.to(device), shown.built.model.to(device)
    numbers, camera = _framed(shown, proxy.camera, frames, width, height)
    motion = shown.motion.select(numbers).to(device)
    picture = None if shown.source is None else Frames.from_images(shown.source).frame(0).to(device)
    control = None
    if shown.images is not None:
        control = _control_of(shown.images, config, frames, width, height)
    elif config.control != "none":
        control = control_video(proxy, motion, model, config, camera, picture, node_progress())
    if control is not None and config.control == "latent":
        control = _latent_of(control, config, shown.vae)
    reference = None if config.reference == "none" else reference_geometry(proxy, model, config, camera, picture)
    explicit = explicit_numbers(motion, model, config) if config.code == "explicit" else None
    return _run(loaded, control, reference, explicit, _faces(shown, numbers) if config.code == "face" else None)


def _framed(shown: _Shown, camera: Camera, frames: int, width: int, height: int) -> tuple[list[int], Camera]:
    """Which frames of the motion the video shows, the last one held, and the camera that sees them."""
    count, framing = len(shown.motion), shown.framing
    numbers, camera_now = list(range(count)), output_camera(camera, width, height)
    if framing is not None:
        check_frames(count, framing)
        if framing.size != (width, height):
            raise ValueError(
                f"the framing is {framing.size[0]} x {framing.size[1]} pixels, but the latent stands for {width} x {height}; give both "
                f"the size of Prepare Clip"
            )
        numbers, camera_now = framing.frame_numbers(), framing.camera(camera)
    if not numbers:
        raise ValueError("the motion has no frames; transfer at least one frame")
    return [numbers[min(k, len(numbers) - 1)] for k in range(frames)], camera_now


def _faces(shown: _Shown, numbers: list[int]) -> Tensor:
    if shown.performer is None:
        raise ValueError("this adapter reads the expression from a face; connect the performer's images and their fit")
    images, track = shown.performer
    if len(track) != len(shown.motion):
        raise ValueError(
            f"the performer's fit has {len(track)} frames, but the motion has {len(shown.motion)}; connect the motion that was made of it, "
            f"as long as it was"
        )
    return face_crops(Frames.from_images(images), track.landmarks, numbers)


def _control_of(images: Tensor, config, frames: int, width: int, height: int) -> Tensor:
    """Frames [F, H, W, 3] from elsewhere as a control video [1, C, F, H, W]; the last is held."""
    if config.control == "none" or (config.control == "pixel" and config.control_channels != 3):
        raise ValueError(
            f"the adapter reads {', '.join(config.inputs)}, which pictures cannot give; leave control_images unconnected"
        )
    picked = images[[min(k, len(images) - 1) for k in range(frames)], ..., :3].movedim(-1, 1)
    picked = comfy.utils.common_upscale(picked, width, height, "area", "center")
    video = picked.transpose(0, 1)[None]
    return 2 * video - 1 if config.range == "signed" else video


def _latent_of(control: Tensor, config, vae) -> Tensor:
    """Latent of a control video by the model's VAE, which takes colours in 0..1."""
    if vae is None:
        raise ValueError("this adapter reads latents of the control video; connect the model's VAE")
    pictures = (control + 1) / 2 if config.range == "signed" else control
    return vae.encode(pictures[0].expand(3, -1, -1, -1).permute(1, 2, 3, 0))


def _run(loaded: LoadedAdapter, *parts: Tensor | None) -> PortraitCondition:
    """Encodes control, reference, explicit numbers and faces, each of which may be None."""
    control, encoder = parts[0], loaded.adapter.control
    needed = encoder.memory(*control.shape[2:]) if control is not None and loaded.config.control == "pixel" else 0
    comfy.model_management.load_models_gpu([loaded.patcher], memory_required=needed)
    device, dtype = loaded.patcher.load_device, next(loaded.adapter.parameters()).dtype
    dtype = torch.float32 if dtype.itemsize < 2 else dtype  # nothing computes in 8 bits
    with torch.no_grad():
        found = loaded.adapter.encode(*(None if part is None else part.to(device, dtype) for part in parts))
    kept = (None if part is None else part.to(result_device()) for part in (found.control, found.reference, found.expression))
    return PortraitCondition(*kept)
