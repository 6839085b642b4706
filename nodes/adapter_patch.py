"""A portrait adapter on a native Wan MODEL: in a patcher of its own, added by hooks that ComfyUI offers, no base weight touched."""

from __future__ import annotations

import dataclasses
import hashlib

import comfy.conds
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import torch
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ..dit.adapter.adapter import PortraitAdapter
from ..dit.adapter.adapter_file import AdapterFile
from ..dit.adapter.config import AdapterConfig, check_base
from ..dit.conditioning import KEY, PARTS, AttachedCondition

OTHERS = ("WAN22_S2V", "WAN21_HuMo")  # Wan models that put references behind the video in ways of their own


@dataclasses.dataclass(frozen=True)
class LoadedAdapter:
    """An adapter that ComfyUI loads, offloads and frees like any model; `uid` tells its conditions from another's."""

    config: AdapterConfig
    patcher: comfy.model_patcher.ModelPatcher
    lora: dict[str, Tensor]
    uid: str

    @staticmethod
    def of(file: AdapterFile) -> LoadedAdapter:
        load, offload = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
        adapter = file.build(comfy.ops.manual_cast).to(offload)
        patcher = comfy.model_patcher.CoreModelPatcher(adapter, load_device=load, offload_device=offload)
        return LoadedAdapter(file.config, patcher, file.lora, _content(file))

    @property
    def adapter(self) -> PortraitAdapter:
        return self.patcher.model


def _content(file: AdapterFile) -> str:
    """The same for a file that is loaded twice: what two loaders give belongs together."""
    digest = hashlib.sha256(file.config.to_json().encode())
    for name in sorted(file.tensors):
        value = file.tensors[name]
        digest.update(name.encode() + value.flatten()[:256].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:12]


@dataclasses.dataclass(frozen=True)
class _Step:
    """The same within one call of the model, for a batch of B."""

    control: Tensor | None
    reference: Tensor | None
    expression: Tensor | None
    strengths: Tensor  # [B, 3]
    frames: int  # latent frames
    grid: int  # tokens of a latent frame
    behind: int  # tokens that the base puts behind the video's


def apply_adapter(model: comfy.model_patcher.ModelPatcher, loaded: LoadedAdapter, lora_strength: float):
    """A clone of the model with the adapter attached, and its LoRA if it has one.

    Raises ValueError if the model is no Wan model, of another size than the adapter's base, or has this adapter already.
    """
    base = model.model
    transformer = getattr(base, "diffusion_model", None)
    kind = type(base).__name__
    if kind in OTHERS or not all(hasattr(transformer, name) for name in ("blocks", "patch_embedding", "dim")):
        raise ValueError(f"portrait adapters belong to Wan's video models, but this model is of the class {kind}; load another Wan model")
    # Another clone may have put a grown embedding in its place for now.
    embedding = model.get_model_object("diffusion_model.patch_embedding").weight
    check_base(loaded.config, transformer.dim, len(transformer.blocks), base.latent_format.latent_channels, embedding.shape[1])
    if loaded.lora and lora_strength != 0:
        model, _ = comfy.sd.load_lora_for_models(model, None, loaded.lora, lora_strength, 0)
    patched, key = model.clone(), f"{KEY}_{loaded.uid}"
    if patched.get_additional_models_with_key(key):
        raise ValueError("this adapter is attached to the model already; attach it once, or load another one")
    patched.set_additional_models(key, [loaded.patcher])
    patched.add_object_patch("extra_conds", _extra_conds(patched.get_model_object("extra_conds"), loaded, key, base))
    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, key, _call(key))
    replaced = patched.model_options["transformer_options"].get("patches_replace", {}).get("dit", {})
    for index in sorted({0, *loaded.config.expression_blocks}):
        block = _Block(loaded.adapter, key, index, replaced.get(("double_block", index)))
        patched.set_model_patch_replace(block, "dit", "double_block", index)
    return patched


def _extra_conds(previous, loaded: LoadedAdapter, key: str, base):
    """`extra_conds` that hands the adapter's part of a condition to the model, which batches and windows it along the frames."""

    def extra_conds(**kwargs):
        out = previous(**kwargs)
        attached: AttachedCondition | None = kwargs.get(KEY, {}).get(loaded.uid)
        if attached is None:
            return out
        noise, found = kwargs["noise"], attached.condition
        control, reference = found.control, found.reference
        if control is not None:
            _check_size(control, noise)
            control = base.process_latent_in(control) if loaded.config.control == "latent" else control
        if reference is not None and loaded.config.reference == "condition":
            out["c_concat"] = comfy.conds.CONDNoiseShape(_with_reference(out.get("c_concat"), reference * attached.strengths[1]))
            reference = None
        for part, value in zip(PARTS, (control, reference, found.expression)):
            if value is not None:
                # As it is: the core brings it to the model's device when it is used, so that many entries share one tensor.
                out[f"{key}_{part}"] = comfy.conds.CONDRegular(value)
        out[f"{key}_strengths"] = comfy.conds.CONDRegular(torch.tensor([attached.strengths]))
        return out

    return extra_conds


def _check_size(control: Tensor, noise: Tensor) -> None:
    frames, size = control.shape[2], tuple(control.shape[3:])
    if size[0] % 2 or size[1] % 2:
        raise ValueError(f"the latent is {size[1]} x {size[0]}; portrait adapters want even sides, pictures of multiples of 16")
    if size != tuple(noise.shape[3:]) or frames > noise.shape[2]:
        raise ValueError(
            f"the portrait's control was made for a latent of {frames} frames, {size[1]} x {size[0]}, but the latent has "
            f"{noise.shape[2]} frames, {noise.shape[4]} x {noise.shape[3]}; give Portrait Conditioning the latent that is sampled"
        )


def _with_reference(concat, reference: Tensor) -> Tensor:
    """The image condition [B, 20, T, h, w] with the reference's code on every frame."""
    if concat is None or concat.cond.shape[1] != reference.shape[1] or concat.cond.shape[3:] != reference.shape[3:]:
        found = "none" if concat is None else list(concat.cond.shape)
        raise ValueError(
            f"the adapter's reference ({list(reference.shape)}) does not fit the model's image condition ({found}); use an "
            f"image-to-video model, and one size for the latent and the reference"
        )
    return concat.cond + reference.to(concat.cond)


def _call(key: str):
    """Wrapper around the transformer: takes the adapter's inputs out of its arguments and lays them where the blocks find them."""

    def call(executor, x, timestep, context, clip_fea=None, time_dim_concat=None, transformer_options={}, **kwargs):
        found = {part: kwargs.pop(f"{key}_{part}", None) for part in (*PARTS, "strengths")}
        if found["strengths"] is not None:
            height, width = ((side + 1) // 2 for side in x.shape[3:])
            behind = 0 if time_dim_concat is None else time_dim_concat.shape[2] * height * width
            step = _Step(**found, frames=x.shape[2], grid=height * width, behind=behind)
            transformer_options = {**transformer_options, key: step}
        return executor(x, timestep, context, clip_fea, time_dim_concat, transformer_options, **kwargs)

    return call


class _Block:
    """Stands in for a block, around what stood in for it before, or around the block itself."""

    def __init__(self, adapter: PortraitAdapter, key: str, index: int, previous):
        self._adapter, self._key, self._index, self._previous = adapter, key, index, previous

    def __call__(self, args: dict, extra: dict) -> dict:
        step: _Step | None = args["transformer_options"].get(self._key)
        if step is not None and self._index == 0:
            args = {**args, "img": self._before(args["img"], step)}
        out = extra["original_block"](args) if self._previous is None else self._previous(args, extra)
        if step is not None and step.expression is not None:
            tokens, behind = _split(out["img"], step.behind)
            tokens = self._adapter.add_expression(self._index, tokens, step.expression, step.grid, step.strengths[:, 2])
            out["img"] = tokens if behind is None else torch.cat([tokens, behind], 1)
        return out

    def _before(self, tokens: Tensor, step: _Step) -> Tensor:
        tokens, behind = _split(tokens, step.behind)
        if step.control is not None:
            tokens = self._adapter.add_control(tokens, step.control, step.strengths[:, 0])
        if step.reference is not None:
            tokens = self._adapter.add_reference(tokens, step.reference, step.frames, step.strengths[:, 1])
        return tokens if behind is None else torch.cat([tokens, behind], 1)

    def to(self, *args) -> _Block:
        """The core moves patches that hold tensors: the one inside may."""
        if not hasattr(self._previous, "to"):
            return self
        return _Block(self._adapter, self._key, self._index, self._previous.to(*args))

    def models(self) -> list:
        """Models that the core is to load with this patch: those of the patch inside it."""
        return [] if self._previous is None or not hasattr(self._previous, "models") else self._previous.models()


def _split(tokens: Tensor, behind: int) -> tuple[Tensor, Tensor | None]:
    """Tokens of the video, and those that the base put behind them."""
    return (tokens[:, : tokens.shape[1] - behind], tokens[:, tokens.shape[1] - behind :]) if behind else (tokens, None)
