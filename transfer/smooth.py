"""Gaussian smoothing of motion parameters over time; rotations are smoothed on the rotation group."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.rotation import to_matrix, to_quaternion

TRUNCATION = 4.0  # kernel radius in standard deviations


def smoothing_matrix(length: int, sigma: float, like: Tensor) -> Tensor:
    """Row-stochastic banded matrix [T, T] of a Gaussian with `sigma` frames; near the ends the kernel is renormalised."""
    time = torch.arange(length, dtype=like.dtype, device=like.device)
    distance = (time[:, None] - time[None]) / sigma
    weight = torch.where(distance.abs() <= TRUNCATION, torch.exp(-0.5 * distance * distance), torch.zeros_like(distance))
    return weight / weight.sum(1, keepdim=True)


def smooth_values(values: Tensor, sigma: float) -> Tensor:
    """Smooths [T, ...] over time with a Gaussian of `sigma` frames; 0 returns the values unchanged."""
    return values if sigma <= 0 else _convolve(values.flatten(1), sigma).view_as(values)


def smooth_rotations(rotvec: Tensor, sigma: float) -> Tensor:
    """Smooths rotation vectors [T, ..., 3] (radians) with a Gaussian of `sigma` frames; 0 returns them unchanged.

    The weighted mean of unit quaternions on one hemisphere, which is the chordal mean on SO(3) to second order in the
    spread inside one kernel.
    """
    if sigma <= 0:
        return rotvec
    q = to_quaternion(to_matrix(rotvec))  # [T, ..., 4]
    flips = torch.sign((q[1:] * q[:-1]).sum(-1, keepdim=True))
    sign = torch.cat([torch.ones_like(q[:1, ..., :1]), torch.where(flips == 0, torch.ones_like(flips), flips)]).cumprod(0)
    q = torch.nn.functional.normalize(_convolve((q * sign).flatten(1), sigma).view_as(q), dim=-1)
    q = torch.where(q[..., :1] < 0, -q, q)
    sine = q[..., 1:].norm(dim=-1, keepdim=True)
    scale = torch.where(sine < 1e-6, torch.full_like(sine, 2.0), 2 * torch.atan2(sine, q[..., :1]) / sine.clamp(min=1e-6))
    return q[..., 1:] * scale


def _convolve(values: Tensor, sigma: float) -> Tensor:
    """[T, D] smoothed in blocks, so that a long clip never needs a [T, T] matrix."""
    length, radius = values.shape[0], int(TRUNCATION * sigma) + 1
    block = max(256, radius)
    out = torch.empty_like(values)
    for start in range(0, length, block):
        low, high = max(0, start - radius), min(length, start + block + radius)
        matrix = smoothing_matrix(high - low, sigma, values)[start - low : min(start + block, length) - low]
        out[start : start + block] = matrix @ values[low:high]
    return out
