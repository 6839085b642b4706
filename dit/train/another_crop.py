"""Another crop for the expression (DeX-Portrait, anti-leak): a face encoder that sees each face exactly as the target shows it also
learns how the head stands and how the light falls. So in training it is shown the face cut and coloured otherwise."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from ..adapter.face_encoder import SIZE

CACHED = SIZE * 5 // 4  # pixels of cached crops: what lies around a face belongs to its other crops
SCALED, SHIFTED, TURNED = 0.12, 0.06, 8.0  # at most: share of the size, of the side, degrees
TINTED, LIT = 0.2, 0.25  # at most: of each colour, of the contrast and of the brightness


def another_crop(faces: Tensor, generator: torch.Generator) -> Tensor:
    """Crops [F, 3, SIZE, SIZE] in -1..1 of cached faces [F, 3, CACHED, CACHED] in bytes, all of a clip cut and coloured alike."""
    scale, right, down, turn, light, contrast, *tint = (2 * torch.rand(9, generator=generator) - 1).tolist()
    size, angle = (1 + SCALED * scale) * SIZE / CACHED, math.radians(TURNED * turn)
    cos, sin = size * math.cos(angle), size * math.sin(angle)
    places = torch.tensor([[cos, -sin, 2 * SHIFTED * right], [sin, cos, 2 * SHIFTED * down]], device=faces.device)
    grid = F.affine_grid(places.expand(len(faces), -1, -1), [len(faces), 3, SIZE, SIZE], align_corners=False)
    crops = F.grid_sample(faces.float() / 127.5 - 1, grid, padding_mode="border", align_corners=False)
    gain = (1 + LIT * contrast) * (1 + TINTED * torch.tensor(tint, device=faces.device))[:, None, None]
    return (gain * crops + LIT * light).clamp(-1, 1)


def centre_crop(faces: Tensor) -> Tensor:
    """The crops as they are outside of training."""
    start = (faces.shape[2] - SIZE) // 2
    return faces[:, :, start : start + SIZE, start : start + SIZE].float() / 127.5 - 1
