"""HeadMotion: how one head moves over time, seen by its own camera. It holds no identity."""

from __future__ import annotations

import dataclasses
import os

import torch
from torch import Tensor

from ..proxy.files import load_dataclass, move_dataclass, save_dataclass

FORMAT, VERSION, OLDEST = "expportrait.head_motion", 2, 1  # version 1 had no detail_basis


@dataclasses.dataclass(frozen=True)
class HeadMotion:
    """T frames of expression and pose for a target head; joints are `head_model.JOINTS` (J = 6).

    `detail` may say how the skin of one proxy is displaced in each frame, by fields of the motion's own or of that proxy;
    rendered with any other proxy it is ignored, and the detail follows the expression. Raises ValueError if it does not fit
    the motion.
    """

    model_id: str
    expression: Tensor  # [T, E]
    joints: Tensor  # [T, J, 3] rotation vectors, radians
    translation: Tensor  # [T, 3] metres, camera space of the target's source picture
    valid: Tensor  # [T] bool: False where the driver had no face and the frame was filled in
    fps: float
    detail: Tensor | None = None  # [T, K] coefficients on the motion's basis, or on that of the proxy that they were made for
    detail_id: str | None = None  # `HeadProxy.detail_id` of that proxy
    detail_basis: Tensor | None = None  # [K, V, 3] fields in canonical space, metres

    def __post_init__(self):
        if (self.detail is None) != (self.detail_id is None):
            raise ValueError("a motion needs both detail and detail_id, or neither; give the detail_id of the proxy it belongs to")
        if self.detail is not None and (self.detail.ndim != 2 or len(self.detail) != len(self)):
            raise ValueError(f"the motion's detail has shape {list(self.detail.shape)}; expected [T, K] with T = {len(self)}")
        if self.detail_basis is not None:
            count = None if self.detail is None else self.detail.shape[1]
            if self.detail_basis.ndim != 3 or self.detail_basis.shape[2] != 3 or len(self.detail_basis) != count:
                shape = list(self.detail_basis.shape)
                raise ValueError(f"the motion's detail_basis has shape {shape}; expected [K, V, 3] with K = {count} as its detail")

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
        """Writes a safetensors file; displacements are stored in 16 bits."""
        basis = None if self.detail_basis is None else self.detail_basis.half()
        save_dataclass(path, dataclasses.replace(self, detail_basis=basis), FORMAT, VERSION)

    @staticmethod
    def load(path: str | os.PathLike, model_id: str | None = None) -> HeadMotion:
        """Reads a file of `save`. Raises ValueError for a foreign file or another head model, FileNotFoundError."""
        motion = load_dataclass(path, HeadMotion, FORMAT, VERSION, model_id, OLDEST)
        basis = None if motion.detail_basis is None else motion.detail_basis.float()
        return dataclasses.replace(motion, detail_basis=basis)
