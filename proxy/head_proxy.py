"""HeadProxy: one person's head, ready to be posed and rendered. Nothing in it ever comes from a driver."""

from __future__ import annotations

import dataclasses
import os

import torch
from torch import Tensor

from .camera import Camera
from .files import load_dataclass, move_dataclass, save_dataclass

FORMAT, VERSION = "expportrait.head_proxy", 1
TEXTURES = ("albedo", "albedo_confidence")


@dataclasses.dataclass(frozen=True)
class HeadProxy:
    """Identity and look of one person, and how that person stands in the source picture."""

    model_id: str
    identity: Tensor  # [I]
    albedo: Tensor  # [3, H, W] texture in 0..1, row 0 is v = 1
    albedo_confidence: Tensor  # [1, H, W] 0..1: 1 where the source saw the surface, 0 where it was filled in
    neutral: Tensor  # [E] expression of this person's face at rest
    source_expression: Tensor  # [E] expression in the source picture
    source_joints: Tensor  # [J, 3] rotation vectors in the source picture, radians
    source_translation: Tensor  # [3] metres, camera space
    focal: float  # pixels of the source picture
    width: int
    height: int
    crop: tuple[float, float, float, float]  # x, y, width, height of a square around the head, source pixels

    @property
    def camera(self) -> Camera:
        return Camera.centred(self.focal, self.width, self.height)

    def to(self, device: torch.device | str) -> HeadProxy:
        """The same on another device."""
        return move_dataclass(self, device)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file; the texture is stored in 8 bits per channel."""
        stored = {name: getattr(self, name).mul(255).round().to(torch.uint8) for name in TEXTURES}
        save_dataclass(path, dataclasses.replace(self, **stored), FORMAT, VERSION)

    @staticmethod
    def load(path: str | os.PathLike, model_id: str | None = None) -> HeadProxy:
        """Reads a file of `save`. Raises ValueError for a foreign file or another head model, FileNotFoundError."""
        proxy = load_dataclass(path, HeadProxy, FORMAT, VERSION, model_id)
        return dataclasses.replace(proxy, **{name: getattr(proxy, name).float() / 255 for name in TEXTURES})
