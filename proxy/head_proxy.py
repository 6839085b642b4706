"""HeadProxy: one person's head, ready to be posed and rendered. Nothing in it ever comes from a driver."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os

import torch
from torch import Tensor

from .camera import Camera
from .files import load_dataclass, move_dataclass, save_dataclass

FORMAT, VERSION = "expportrait.head_proxy", 1
TEXTURES = ("albedo", "albedo_confidence")
# float16 rounds a coordinate below 16 mm by at most 0.004 mm, one below 31 mm by 0.008 mm.
HALVES = ("displacement", "detail_basis")
SHAPES = {"displacement": "V3", "detail_basis": "KV3", "detail": "TK", "detail_by_expression": "EK"}


@dataclasses.dataclass(frozen=True)
class HeadProxy:
    """Identity and look of one person, and how that person stands in the source picture.

    A refined proxy also has displacements of the V dense vertices in canonical space (before skinning): a static one, and
    a dynamic one of K fields, the detail, with coefficients for the T frames that it was refined on and for any expression.
    Raises ValueError if their shapes do not belong together.
    """

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
    displacement: Tensor | None = None  # [V, 3] static, metres
    detail_basis: Tensor | None = None  # [K, V, 3] fields of the dynamic displacement, metres
    detail: Tensor | None = None  # [T, K] coefficients of the frames that the proxy was refined on
    detail_by_expression: Tensor | None = None  # [E, K] coefficients per unit of expression away from neutral
    detail_kept: float | None = None  # 0..1 share of the dynamic displacement's energy that the basis keeps

    def __post_init__(self):
        if self.detail_basis is None and not (self.detail is None and self.detail_by_expression is None):
            raise ValueError("the head proxy has coefficients of detail but no detail_basis; give both or neither")
        sizes = {"E": self.neutral.shape[-1], "3": 3}
        for name, letters in SHAPES.items():
            value = getattr(self, name)
            if value is None:
                continue
            if value.ndim != len(letters) or any(sizes.setdefault(k, n) != n for k, n in zip(letters, value.shape)):
                expected = ", ".join(f"{k} = {sizes[k]}" if k in sizes and k != "3" else k for k in letters)
                raise ValueError(
                    f"{name} of the head proxy has shape {list(value.shape)}, expected [{expected}]; refine the head again"
                )

    @property
    def camera(self) -> Camera:
        return Camera.centred(self.focal, self.width, self.height)

    @functools.cached_property
    def detail_id(self) -> str:
        """Short hash of what a motion's detail depends on: the detail's basis, or without one the head's own shape.

        Taken from the rounded tensors that a file holds, so that saving and loading do not change it.
        """
        if self.detail_basis is not None and len(self.detail_basis):
            shape = [self.detail_basis.half()]
        else:
            shape = [self.identity] + ([] if self.displacement is None else [self.displacement.half()])
        stored = b"".join(value.detach().cpu().contiguous().numpy().tobytes() for value in shape)
        return hashlib.sha256(stored).hexdigest()[:16]

    def displaced(self, expression: Tensor, detail: Tensor | None = None, basis: Tensor | None = None) -> Tensor | None:
        """Displacement [t or 1, V, 3] of the dense vertices in canonical space, metres; None if the proxy has none.

        static + detail @ basis, with detail [t, K] on `basis` [K, V, 3], that of the proxy if not given; where detail is not
        given it follows expression [t, E] by `detail_by_expression`, being zero at the neutral face. Raises ValueError for a
        wrong number of coefficients.
        """
        basis = self.detail_basis if basis is None else basis
        if basis is None and detail is not None:
            raise ValueError("coefficients of detail were given, but the head proxy has no detail; leave them out")
        if detail is None and self.detail_by_expression is not None:
            detail = (expression - self.neutral) @ self.detail_by_expression
        if detail is None:
            return None if self.displacement is None else self.displacement[None]
        if detail.ndim != 2 or detail.shape[1] != len(basis):
            raise ValueError(
                f"the detail has shape {list(detail.shape)}, but the head proxy's basis has {len(basis)} fields; "
                f"expected [t, {len(basis)}]"
            )
        dynamic = (detail @ basis.flatten(1)).unflatten(1, (-1, 3))
        return dynamic if self.displacement is None else self.displacement + dynamic

    def to(self, device: torch.device | str) -> HeadProxy:
        """The same on another device."""
        return move_dataclass(self, device)

    def save(self, path: str | os.PathLike) -> None:
        """Writes a safetensors file; textures are stored in 8 bits per channel, displacements in 16."""
        stored = {name: getattr(self, name).mul(255).round().to(torch.uint8) for name in TEXTURES}
        stored |= {name: getattr(self, name).half() for name in HALVES if getattr(self, name) is not None}
        save_dataclass(path, dataclasses.replace(self, **stored), FORMAT, VERSION)

    @staticmethod
    def load(path: str | os.PathLike, model_id: str | None = None) -> HeadProxy:
        """Reads a file of `save`. Raises ValueError for a foreign file or another head model, FileNotFoundError."""
        proxy = load_dataclass(path, HeadProxy, FORMAT, VERSION, model_id)
        read = {name: getattr(proxy, name).float() / 255 for name in TEXTURES}
        read |= {name: getattr(proxy, name).float() for name in HALVES if getattr(proxy, name) is not None}
        return dataclasses.replace(proxy, **read)
