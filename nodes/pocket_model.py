"""The pocket model as a native MODEL: ComfyUI samples it, casts, offloads and frees it like any of its own."""

from __future__ import annotations

import dataclasses
import math
import os

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models_base
import torch
from torch import Tensor

from ..dit.pocket.conditions import CHANNELS
from ..dit.pocket.flow import SHIFT, velocity
from ..dit.pocket.model import PocketConfig, PocketModel
from ..dit.pocket.render import check_head
from ..dit.pocket.weights import load_model

KEY = "expportrait_pocket"  # of the conditioning's value that holds a HeadCondition
PARTS = ("head_control", "head_reference", "head_code", "head_regions")  # as the network takes them
AT_ONCE = 4  # frames of 256 x 256 pixels that are drawn together, so that a long clip needs no more memory than a short one
CELLS = 256 * 256
COPIES = 10  # of the clip, that samplers hold
WIDTHS, INPUTS = 8, 240  # channels that are held while a picture is drawn: times those of the first level, and beside them
CONNECT = "connect Pocket Conditioning to the sampler's positive, negative and latent_image"


@dataclasses.dataclass(frozen=True)
class HeadCondition:
    """What conditioning carries for a pocket model, beside the expression code [1, T, K] in the place of a text."""

    model_id: str  # of the head model
    control: Tensor  # [T, CONTROL, H, W] 0..1
    reference: Tensor  # [1, REFERENCE, h, w] 0..1
    regions: bool = True  # whether the map of lips, mouth and eyes is shown


class PixelSpace(comfy.latent_formats.LatentFormat):
    """A latent that is the picture itself, in -1..1."""

    latent_channels = 3
    spacial_downscale_ratio = 1
    latent_rgb_factors = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]


class PocketSettings(comfy.supported_models_base.BASE):
    """What the core asks of a model's kind."""

    unet_extra_config = {}
    sampling_settings = {"shift": SHIFT, "multiplier": 1.0}
    latent_format = PixelSpace
    # Half precision would save some megabytes and cost the last bits of colours.
    supported_inference_dtypes = [torch.float32]

    def __init__(self, config: PocketConfig):
        super().__init__({"config": config})


class PocketNetwork(PocketModel):
    """The pocket model as the core calls it: it answers with the direction from picture to noise, a few frames at a time."""

    def __init__(self, config: PocketConfig, dtype: torch.dtype, device, operations):
        super().__init__(config, operations, dtype, device)
        self.dtype = dtype

    def forward(self, x: Tensor, sigma: Tensor, head_control, head_reference, head_code, head_regions, **_) -> Tensor:
        """Velocities of pictures x [N * T, 3, H, W] at levels sigma [N * T]; what it is shown are tuples of N (see `PerFrame`)."""
        out, frames = torch.empty(x.shape, device=x.device), len(x) // len(head_control)
        together = AT_ONCE if self.config.temporal else max(1, AT_ONCE * CELLS // math.prod(x.shape[2:]))
        for clip, (shown, picture, numbers, marked) in enumerate(zip(head_control, head_reference, head_code, head_regions)):
            for start in range(0, frames, together):
                comfy.model_management.throw_exception_if_processing_interrupted()
                part = slice(start, min(start + together, frames))
                here = slice(clip * frames + part.start, clip * frames + part.stop)
                count = part.stop - part.start
                answer = super().forward(
                    x[here],
                    sigma[here],
                    _marked(shown[part].to(x), marked.to(x)),
                    picture.to(x).expand(count, -1, -1, -1),
                    numbers[part].to(x),
                    count if self.config.temporal else 1,
                )
                out[here] = velocity(x[here].float(), answer.float(), sigma[here, None, None, None])
        return out


def _marked(control: Tensor, share: Tensor) -> Tensor:
    """A control picture with its regions as far as `share` (0 or 1) says."""
    names, parts = list(CHANNELS), control.split(list(CHANNELS.values()), dim=1)
    return torch.cat([part * share if name == "regions" else part for name, part in zip(names, parts)], dim=1)


class PerFrame(comfy.conds.CONDRegular):
    """Of a clip, or of each of its frames. It stays where it is until its frames are drawn, and is never copied for a batch."""

    def process_cond(self, batch_size, **kwargs):
        return self

    def concat(self, others):
        return (self.cond, *(other.cond for other in others))


class PerPixel(PerFrame):
    """Of each pixel of each frame: areas cut it along."""

    def process_cond(self, batch_size, area, **kwargs):
        return self._copy_with(comfy.conds.CONDNoiseShape(self.cond).process_cond(len(self.cond), area).cond)


class PocketBase(comfy.model_base.BaseModel):
    """The pocket model among the core's models."""

    def __init__(self, settings: PocketSettings, device=None):
        super().__init__(settings, comfy.model_base.ModelType.FLOW, device=device, unet_model=PocketNetwork)

    @property
    def config(self) -> PocketConfig:
        return self.diffusion_model.config

    def process_timestep(self, timestep: Tensor, **kwargs) -> Tensor:
        """Noise levels, whatever nodes that change the shift count in."""
        return timestep / getattr(self.model_sampling, "multiplier", 1.0)

    def extra_conds(self, **kwargs) -> dict:
        """What the network is shown. Raises ValueError if there is no head, or that of another model, size or length."""
        noise, head, code = kwargs["noise"], kwargs.get(KEY), kwargs.get("cross_attn")
        if noise.ndim != 4 or noise.shape[1] != PixelSpace.latent_channels:
            raise ValueError(
                f"the latent has shape {list(noise.shape)}, but the pocket model draws pictures of {PixelSpace.latent_channels} "
                f"channels; connect the latent of Pocket Conditioning"
            )
        if head is None:
            raise ValueError(f"the pocket model was not told what the head does; {CONNECT}")
        check_head(self.config, head.model_id)
        frames, height, width = len(noise), *noise.shape[2:]
        if (frames, height, width) != (len(head.control), *head.control.shape[2:]):
            raise ValueError(
                f"the head was prepared for {len(head.control)} pictures of {head.control.shape[3]} x {head.control.shape[2]} pixels, but "
                f"the latent has {frames} of {width} x {height}; connect the latent of Pocket Conditioning"
            )
        if code is None or tuple(code.shape) != (1, frames, self.config.code):
            raise ValueError(
                f"the expression code has shape {None if code is None else list(code.shape)}, but the pocket model reads "
                f"{[1, frames, self.config.code]}; {CONNECT}"
            )
        conds = (PerPixel(head.control), PerFrame(head.reference), PerFrame(code[0]), PerFrame(torch.tensor([float(head.regions)])))
        return dict(zip(PARTS, conds))

    def memory_required(self, input_shape, cond_shapes={}) -> float:
        """Bytes beside the weights: what samplers hold of the whole clip, and layers of the frames that are drawn together."""
        size = comfy.model_management.dtype_size(self.get_dtype())
        pixels = math.prod(input_shape) / input_shape[1]
        drawn = min(pixels, max(AT_ONCE * CELLS, math.prod(input_shape[2:])))
        return size * (COPIES * math.prod(input_shape) + (WIDTHS * self.config.levels[0] + INPUTS) * drawn)


def load_pocket(path: str | os.PathLike) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of a file of `expportrait train-pocket export`. Raises FileNotFoundError, or ValueError for another file."""
    model = load_model(path)
    weights, settings = model.state_dict(), PocketSettings(model.config)
    load, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    count, dtypes = sum(value.numel() for value in weights.values()), settings.supported_inference_dtypes
    dtype = comfy.model_management.unet_dtype(model_params=count, supported_dtypes=dtypes)
    settings.set_inference_dtype(dtype, comfy.model_management.unet_manual_cast(dtype, load, dtypes))
    base = PocketBase(settings, offload)
    patcher = comfy.model_patcher.CoreModelPatcher(base, load_device=load, offload_device=offload)
    base.load_model_weights(weights, assign=patcher.is_dynamic())
    return patcher


def pocket_config(model: comfy.model_patcher.ModelPatcher) -> PocketConfig:
    """Raises ValueError if a MODEL is no pocket model."""
    if not isinstance(model.model, PocketBase):
        raise ValueError(f"this model is of the class {type(model.model).__name__}; connect Load Pocket Model")
    return model.model.config
