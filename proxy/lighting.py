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


def sh_slopes(normals: Tensor) -> Tensor:
    """Derivatives [..., 9, 3] of `sh_basis` by the normals [..., 3]."""
    x, y, z = normals.unbind(-1)
    none, one = torch.zeros_like(x), torch.ones_like(x)
    by_x = [none, none, none, one, y, none, none, z, 2 * x]
    by_y = [none, one, none, none, x, z, none, none, -2 * y]
    by_z = [none, none, one, none, none, y, 6 * z, x, none]
    return torch.stack([torch.stack(parts, -1) for parts in (by_x, by_y, by_z)], -1)


def fit_light(
    colour: Tensor, albedo: Tensor, normals: Tensor, weight: Tensor, steps: int = 4, ridge: float = 0.02, bent: float | None = None
) -> Tensor:
    """Light [..., 9, C]: colour [..., P, C] ~ albedo [... or none, P, C] * shade(light, normals [..., P, 3]), weighted by [..., P].

    Channels are fitted one by one; leading dimensions are separate lights. Robust least squares (reweighted by a Cauchy loss). The
    ridge pulls all but the constant term to zero, so that a face seen from one side does not light its other side wildly; `bent` is
    that of the five quadratic terms, where it differs.
    """
    basis = sh_basis(normals)  # [..., P, 9]
    light = colour.new_zeros(*colour.shape[:-2], 9, colour.shape[-1])
    penalty = colour.new_full((9,), ridge)
    penalty[0] = 1e-6
    penalty[4:] = ridge if bent is None else bent
    for channel in range(colour.shape[-1]):
        rows, target = basis * albedo[..., channel, None], colour[..., channel]
        robust = weight
        for step in range(steps):
            weighted = (rows * robust[..., None]).mT
            normal = weighted @ rows
            scale = normal[..., :1, :1].clamp(min=1e-6)
            right = weighted @ target[..., None] / scale
            found = torch.linalg.solve(normal / scale + torch.diag(penalty), right)  # [..., 9, 1]
            if step < steps - 1:
                error = (rows @ found)[..., 0] - target
                spread = (robust * error * error).sum(-1, keepdim=True) / robust.sum(-1, keepdim=True).clamp(min=1e-6)
                robust = weight / (1 + error * error / spread.clamp(min=1e-6))
        light[..., channel] = found[..., 0]
    return light


def shade(light: Tensor, normals: Tensor) -> Tensor:
    """Shading [..., P, 3] of unit normals [..., P, 3] under light [..., 9, 3], never below MIN_SHADING of its constant term."""
    return torch.maximum(sh_basis(normals) @ light, MIN_SHADING * light[..., :1, :].abs().clamp(min=1e-3))
