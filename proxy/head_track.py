"""HeadTrack: what a fit knows about a clip, a few kilobytes per frame."""

from __future__ import annotations

import dataclasses
import os

import torch
from torch import Tensor

from .camera import Camera
from .files import load_dataclass, move_dataclass, save_dataclass

FORMAT, VERSION = "expportrait.head_track", 1


@dataclasses.dataclass(frozen=True)
class HeadTrack:
    """A fitted photo or clip of T frames; joints are `head_model.JOINTS` (J = 6), landmarks MediaPipe's 478 points."""

    model_id: str
    identity: Tensor  # [I]
    expression: Tensor  # [T, E]
    joints: Tensor  # [T, J, 3] rotation vectors, radians
    translation: Tensor  # [T, 3] metres, camera space
    focal: float  # pixels of the original image
    width: int
    height: int
    fps: float
    valid: Tensor  # [T] bool: a face was found in this frame
    confidence: Tensor  # [T] 0..1
    landmarks: Tensor  # [T, 478, 2] detected, pixels
    landmarks_fit: Tensor  # [T, 478, 2] projected, pixels

    def __len__(self) -> int:
        return self.expression.shape[0]

    @property
    def camera(self) -> Camera:
        return Camera.centred(self.focal, self.width, self.height)

    def to(self, device: torch.device | str) -> HeadTrack:
        """The same on another device."""
        return move_dataclass(self, device)

    def at(self, frames: Tensor) -> HeadTrack:
        """Some frames [N] (int64) of the track, in that order."""
        names = ("expression", "joints", "translation", "valid", "confidence", "landmarks", "landmarks_fit")
        return dataclasses.replace(self, **{name: getattr(self, name)[frames.to(self.valid.device)] for name in names})

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file."""
        save_dataclass(path, self, FORMAT, VERSION)

    @staticmethod
    def load(path: str | os.PathLike, model_id: str | None = None) -> HeadTrack:
        """Reads a file of `save`. Raises ValueError for a foreign file or another head model, FileNotFoundError."""
        return load_dataclass(path, HeadTrack, FORMAT, VERSION, model_id)
