"""Displacement fields that move lids and lips: one bump per column of a rim, fading over the skin around it."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import PARTS, HeadModel
from .contact_rims import Rim, Rims

FULL = 0.0028  # metres around a rim that move as one
LIDS_FADE, LIPS_FADE = (0.009, 0.006), (0.011, 0.013)  # metres from the rim at which upper and lower skin stays still
PULLED = ("skin", "mouth")


def bumps(model: HeadModel, rims: Rims, rim: Rim) -> Tensor:
    """Weights [2, N, V] of the dense vertices: how much each follows column n of the upper and the lower rim.

    Linear between the columns, down to 0 one column beyond the last, 1 on the rim itself (exactly so at the columns: the
    bumps are cardinal there), fading smoothly with the distance from it.
    """
    fade = LIPS_FADE if rim is rims.lips else LIDS_FADE
    parts = model.vertex_parts()
    pulled = torch.isin(parts, torch.tensor([PARTS.index(name) for name in PULLED], device=parts.device)).to(rims.parted)
    raw = _raw(rim, rims.parted, fade) * pulled
    at_rim = torch.stack([_raw(rim, rim.edge[k], fade)[k] for k in range(2)])  # [2, column, point]
    return torch.linalg.solve(at_rim.mT, raw)


def _raw(rim: Rim, points: Tensor, fade: tuple[float, float]) -> Tensor:
    """Bumps [2, N, P] at points [P, 3] of the parted mean head, not yet cardinal."""
    count, step = len(rim.share), rim.share[1] - rim.share[0]
    place = (rim.shares_of(points) - rim.share[0]) / step  # 0 .. N - 1 on the columns
    hats = (1 - (place - torch.arange(count).to(place)[:, None]).abs()).clamp(min=0)  # [N, P]
    inner = place.clamp(0, count - 1)
    before = inner.floor().long().clamp(max=count - 2)
    line = torch.lerp(rim.edge[:, before], rim.edge[:, before + 1], (inner - before)[:, None])  # [2, P, 3]
    distance = (points - line).norm(dim=-1)  # [2, P]
    side = smoothstep((distance.flip(0) / (distance.sum(0) + 1e-9) - 0.35) / 0.3)  # 1 nearer to this rim than to the other
    limit = distance.new_tensor(fade)[:, None]
    return hats * (side * smoothstep((limit - distance) / (limit - FULL)))[:, None]


def smoothstep(x: Tensor) -> Tensor:
    """0 below 0, 1 above 1, 3 x^2 - 2 x^3 between."""
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
