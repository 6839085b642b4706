"""Adapter files: our own safetensors, and the layouts of others that hold the same thing.

- ours: the adapter's tensors under `adapter.`, a LoRA for the base under `lora.` in ComfyUI's names, the config as JSON in the header.
- UniAnimate-DiT (2025): `dwpose_embedding.*` is a pixel encoder of face and body lines, `randomref_embedding_pose.*` a reference encoder
  into the image condition; the rest is a LoRA.
- Fun-Control: a `patch_embedding.weight` with more input channels than its base; 16 of the further ones see the control's latent.
"""

from __future__ import annotations

import dataclasses
import os
import re

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...proxy.files import read_safetensors, whole_file
from .adapter import PortraitAdapter
from .config import AdapterConfig

HEADER = "expportrait_adapter"
OURS, LORA = "adapter.", "lora."
LINES, REFERENCE = "dwpose_embedding.", "randomref_embedding_pose."
UNIANIMATE_LAYERS = 40
GROWN = "patch_embedding.weight"
GROWN_CONTROL = slice(16, 32)  # input channels of Fun-Control's embedding that see the control's latent


@dataclasses.dataclass(frozen=True)
class AdapterFile:
    """What a file holds: config, the adapter's tensors by their names in PortraitAdapter, and LoRA tensors for the base."""

    config: AdapterConfig
    tensors: dict[str, Tensor]
    lora: dict[str, Tensor]

    def build(self, operations=nn) -> PortraitAdapter:
        """The adapter with the file's weights, on the CPU. Raises ValueError if tensors are missing, unknown or of other shapes."""
        adapter = PortraitAdapter(self.config, operations)
        wanted = {name: tuple(value.shape) for name, value in adapter.state_dict().items()}
        found = {name: tuple(value.shape) for name, value in self.tensors.items()}
        if wanted != found:
            missing, unknown = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
            other = [name for name in wanted.keys() & found.keys() if wanted[name] != found[name]]
            what = f"misses {missing[0]}" if missing else f"has the unknown {unknown[0]}" if unknown else f"has another shape of {other[0]}"
            raise ValueError(f"the adapter file {what}; it does not fit its own header, so download or export it again")
        dtype = next((value.dtype for value in self.tensors.values()), torch.float32)
        adapter.to(dtype).load_state_dict(self.tensors)
        return adapter.eval().requires_grad_(False)


def save_adapter(path: str | os.PathLike, adapter: PortraitAdapter, lora: dict[str, Tensor] | None = None) -> None:
    """Writes an adapter, and a LoRA for its base if there is one, as one safetensors file."""
    tensors = {OURS + name: value for name, value in adapter.state_dict().items()}
    tensors |= {LORA + name: value for name, value in (lora or {}).items()}
    tensors = {name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={HEADER: adapter.config.to_json()})


def load_adapter(path: str | os.PathLike) -> AdapterFile:
    """Reads a safetensors file of any known layout. Raises FileNotFoundError or ValueError, in one sentence."""
    metadata, tensors = read_safetensors(path)
    return parse_adapter(tensors, metadata, str(path))


def parse_adapter(tensors: dict[str, Tensor], metadata: dict[str, str], name: str) -> AdapterFile:
    """The adapter in a file's tensors and header; `name` is for what is said. Raises ValueError if there is none."""
    if HEADER in metadata:
        return AdapterFile(AdapterConfig.from_json(metadata[HEADER]), _below(tensors, OURS), _below(tensors, LORA))
    if any(LINES in key for key in tensors):
        return _from_unianimate(tensors, name)
    grown = [key for key in tensors if key.endswith(GROWN)]
    if grown and tensors[grown[0]].ndim == 5 and tensors[grown[0]].shape[1] in (48, 52):
        return _from_grown(tensors, grown[0], name)
    raise ValueError(
        f"{name} holds no portrait adapter: it has neither ExpPortrait's header nor the tensors of UniAnimate-DiT or Fun-Control; "
        f"choose an adapter file"
    )


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Tensors whose names have `prefix` somewhere, by what follows it."""
    return {key.split(prefix, 1)[1]: value for key, value in tensors.items() if prefix in key}


def _from_unianimate(tensors: dict[str, Tensor], name: str) -> AdapterFile:
    control, reference = _below(tensors, LINES), _below(tensors, REFERENCE)
    last = max((int(key.split(".")[0]) for key in control), default=-1)
    ends = {key: tuple(control[key].shape[2:]) if key in control else () for key in ("0.weight", f"{last}.weight")}
    if list(ends.values()) != [(3, 3, 3), (1, 2, 2)]:
        raise ValueError(f"{name} has only a part of UniAnimate-DiT's pose encoder; it is damaged, so download it again")
    # ComfyUI's names for a LoRA: without the adapter's name that peft puts in, below the model's diffusion_model.
    lora = {key for key in tensors if "lora_" in key and "blocks." in key}
    lora = {"diffusion_model." + key[key.index("blocks.") :].replace(".default.", "."): tensors[key] for key in lora}
    config = AdapterConfig(
        width=control[f"{last}.weight"].shape[0],
        layers=1 + max((int(n) for key in lora for n in re.findall(r"blocks\.(\d+)\.", key)), default=UNIANIMATE_LAYERS - 1),
        inputs=("lines",),
        control_width=control["0.weight"].shape[0],
        reference="condition" if reference else "none",
        reference_inputs=("lines",),
        reference_width=reference["0.weight"].shape[0] if reference else 16,
        code="none",
        range="unit",
        trained_on="Wan2.1 I2V 14B (UniAnimate-DiT)",
    )
    named = {("control.project." if key.startswith(f"{last}.") else "control.stack.") + key: v for key, v in control.items()}
    named = {key.replace(f"project.{last}.", "project."): value for key, value in named.items()}
    named |= {"reference.stack." + key: value for key, value in reference.items()}
    return AdapterFile(config, named, lora)


def _from_grown(tensors: dict[str, Tensor], key: str, name: str) -> AdapterFile:
    weight = tensors[key][:, GROWN_CONTROL]
    blocks = [int(n) for other in tensors for n in re.findall(r"blocks\.(\d+)\.", other)]
    if not blocks:
        raise ValueError(f"{name} holds a patch embedding without its transformer's blocks; give the whole Fun-Control model file")
    config = AdapterConfig(
        width=weight.shape[0],
        layers=1 + max(blocks),
        control="latent",
        inputs=("depth",),
        reference="none",
        code="none",
        trained_on="Fun-Control",
    )
    tensors = {"control.project.weight": weight.contiguous(), "control.project.bias": torch.zeros_like(weight[:, 0, 0, 0, 0])}
    return AdapterFile(config, tensors, {})
