"""HeadMotion: how one head moves over time, seen by its own camera. It holds no identity."""

from __future__ import annotations

import dataclasses
import os

import torch
from torch import Tensor

from ..proxy.files import load_dataclass, move_dataclass, save_dataclass

FORMAT, VERSION = "expportrait.head_motion", 1


@dataclasses.dataclass(frozen=True)
class HeadMotion:
    """T frames of expression and pose for a target head; joints are `head_model.JOINTS` (J = 6)."""

    model_id: str
    expression: Tensor  # [T, E]
    joints: Tensor  # [T, J, 3] rotation vectors, radians
    translation: Tensor  # [T, 3] metres, camera space of the target's source picture
    valid: Tensor  # [T] bool: False where the driver had no face and the frame was filled in
    fps: float

    def __len__(self) -> int:
        return self.expression.shape[0]

    def select(self, frames: list[int]) -> HeadMotion:
        """The motion of some frames only, in the given order."""
        picked = {name: getattr(self, name)[frames] for name in ("expression", "joints", "translation", "valid")}
        return dataclasses.replace(self, **picked)

    def to(self, device: torch.device | str) -> HeadMotion:
        """The same on another device."""
        return move_dataclass(self, device)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file."""
        save_dataclass(path, self, FORMAT, VERSION)

    @staticmethod
    def load(path: str | os.PathLike, model_id: str | None = None) -> HeadMotion:
        """Reads a file of `save`. Raises ValueError for a foreign file or another head model, FileNotFoundError."""
        return load_dataclass(path, HeadMotion, FORMAT, VERSION, model_id)
