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
    """T frames of expression and pose for a target head; joints are `head_model.JOINTS` (J = 6).

    `detail` may say how the skin of one refined proxy is displaced in each frame; rendered with any other proxy it is
    ignored, and the detail follows the expression. Raises ValueError if it does not fit the motion.
    """

    model_id: str
    expression: Tensor  # [T, E]
    joints: Tensor  # [T, J, 3] rotation vectors, radians
    translation: Tensor  # [T, 3] metres, camera space of the target's source picture
    valid: Tensor  # [T] bool: False where the driver had no face and the frame was filled in
    fps: float
    detail: Tensor | None = None  # [T, K] coefficients on the basis of the proxy that they were made for
    detail_id: str | None = None  # `HeadProxy.detail_id` of that proxy

    def __post_init__(self):
        if (self.detail is None) != (self.detail_id is None):
            raise ValueError("a motion needs both detail and detail_id, or neither; give the detail_id of the proxy it belongs to")
        if self.detail is not None and (self.detail.ndim != 2 or len(self.detail) != len(self)):
            raise ValueError(f"the motion's detail has shape {list(self.detail.shape)}; expected [T, K] with T = {len(self)}")

    def __len__(self) -> int:
        return self.expression.shape[0]

    def select(self, frames: list[int]) -> HeadMotion:
        """The motion of some frames only, in the given order."""
        names = ("expression", "joints", "translation", "valid") + (() if self.detail is None else ("detail",))
        picked = {name: getattr(self, name)[frames] for name in names}
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
