"""What a training clip is kept as: everything that does not change while an adapter learns, a few megabytes each."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from ...proxy.files import read_safetensors, whole_file
from ..adapter.config import AdapterConfig

HEADER = "expportrait_shard"
LEVELS = 127  # of signed inputs in a byte


@dataclasses.dataclass(frozen=True)
class Shard:
    """One clip of F = 4n + 1 frames, T = n + 1 latent ones, with K variants of the reference picture: cut and coloured otherwise."""

    latents: Tensor  # [C, T, h, w] normalised
    references: Tensor  # [K, 20 or C, T or 1, h, w] image condition of each variant, or its latent for text-to-video bases
    control: Tensor  # [c, F, H, W] int8, LEVELS times -1..1
    geometry: Tensor  # [K, c, H, W] int8, the same of each variant's own head
    numbers: Tensor  # [F, N] of the explicit expression code
    faces: Tensor  # [F, 3, s, s] uint8 crops with room around, s = 0 where the adapter reads no faces
    weight: Tensor  # [T, h, w] of the loss

    def save(self, path: str | os.PathLike, config: AdapterConfig) -> None:
        """Writes a safetensors file."""
        tensors = {field.name: getattr(self, field.name).contiguous() for field in dataclasses.fields(self)}
        with whole_file(path) as temporary:
            save_file(tensors, temporary, metadata={HEADER: config.to_json()})

    @staticmethod
    def load(path: str | os.PathLike) -> tuple[Shard, AdapterConfig]:
        """Raises ValueError if the file is no shard."""
        metadata, tensors = read_safetensors(path)
        names = [field.name for field in dataclasses.fields(Shard)]
        if HEADER not in metadata or any(name not in tensors for name in names):
            raise ValueError(f"{path} is no shard of training data; make it with expportrait train-dit cache")
        return Shard(*(tensors[name] for name in names)), AdapterConfig.from_json(metadata[HEADER])


def find_shards(folder: str | os.PathLike) -> tuple[list[Path], AdapterConfig]:
    """Shards in a folder, and the adapter config that they were all made for. Raises ValueError if there are none, or of several kinds."""
    paths = sorted(Path(folder).glob("*.safetensors"))
    if not paths:
        raise ValueError(f"there are no shards in {folder}; make them with expportrait train-dit cache")
    headers = {read_safetensors(path, tensors=False)[0].get(HEADER, "") for path in paths}
    if len(headers) > 1 or "" in headers:
        raise ValueError(f"the shards in {folder} were made for different adapters, or are none; keep one kind in one folder")
    return paths, AdapterConfig.from_json(headers.pop())


def to_bytes(values: Tensor) -> Tensor:
    """Signed inputs, -1..1, as int8."""
    return (values.clamp(-1, 1) * LEVELS).round().to(torch.int8)


def from_bytes(values: Tensor, like: Tensor) -> Tensor:
    return values.to(like.device, like.dtype) / LEVELS
