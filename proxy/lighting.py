"""Distant light as nine spherical-harmonic coefficients per colour channel, fitted in closed form.

Basis and order: Ramamoorthi and Hanrahan, An Efficient Representation for Irradiance Environment Maps, SIGGRAPH 2001.
"""

from __future__ import annotations

import torch
from torch import Tensor

MIN_SHADING = 0.15  # keeps a ratio of two shadings finite where the fitted light is dark


def sh_basis(normals: Tensor) -> Tensor:
    """First nine real spherical harmonics, without their constants, of unit vectors [..., 3] -> [..., 9]."""
    x, y, z = normals.unbind(-1)
    return torch.stack([torch.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], dim=-1)


def fit_light(colour: Tensor, albedo: Tensor, normals: Tensor, weight: Tensor, steps: int = 4, ridge: float = 0.02) -> Tensor:
    """Light [9, 3] with colour [P, 3] ~ albedo [P, 3] * shade(light, normals [P, 3]), weighted by [P].

    Robust least squares (reweighted by a Cauchy loss). The ridge pulls all but the constant term to zero, so that a face
    seen from one side does not light its other side wildly.
    """
    basis = sh_basis(normals)  # [P, 9]
    light = torch.zeros(9, 3, dtype=colour.dtype, device=colour.device)
    penalty = torch.full((9,), ridge, dtype=colour.dtype, device=colour.device)
    penalty[0] = 1e-6
    for channel in range(3):
        rows = basis * albedo[:, channel, None]
        robust = weight
        for _ in range(steps):
            weighted = rows * robust[:, None]
            normal = weighted.mT @ rows
            scale = normal[0, 0].clamp(min=1e-6)
            light[:, channel] = torch.linalg.solve(normal / scale + torch.diag(penalty), weighted.mT @ colour[:, channel] / scale)
            error = rows @ light[:, channel] - colour[:, channel]
            spread = (robust * error * error).sum() / robust.sum().clamp(min=1e-6)
            robust = weight / (1 + error * error / spread.clamp(min=1e-6))
    return light


def shade(light: Tensor, normals: Tensor) -> Tensor:
    """Shading [..., 3] of unit normals [..., 3] under light [9, 3], never below MIN_SHADING of its constant term."""
    return torch.maximum(sh_basis(normals) @ light, MIN_SHADING * light[0].abs().clamp(min=1e-3))
