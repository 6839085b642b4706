"""What a refinement makes small, one function each; weights are those of `RefineSettings`. Masked means over vertices and frames."""

from __future__ import annotations

import torch
from torch import Tensor


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def photometric(expected: Tensor, found: Tensor, weight: Tensor) -> Tensor:
    """Root mean square of colour differences [t, S, 3], weight [t, S]."""
    return weighted_mean((expected - found).square().mean(-1), weight).sqrt()


def normals(expected: Tensor, found: Tensor, weight: Tensor) -> Tensor:
    """Mean angle in degrees between unit normals [t, S, 3], weight [t, S]."""
    angle = torch.atan2(torch.linalg.cross(expected, found).norm(dim=-1), (expected * found).sum(-1))
    return torch.rad2deg(weighted_mean(angle, weight))


def magnitude(displacement: Tensor, weight: Tensor) -> Tensor:
    """Root mean square length in metres of displacements [t, S, 3], weight [S]."""
    return weighted_mean(displacement.square().sum(-1), weight.expand(displacement.shape[:-1])).sqrt()
