"""From clip coordinates to the fixed-point screen positions that decide coverage; shared by all back-ends."""

from __future__ import annotations

import torch
from torch import Tensor

SUBPIXELS = 256  # vertices are snapped to 1/256 pixel, so edge functions are exact integers
MIN_W = 1e-6  # triangles with a corner at or behind this w are dropped: a head never crosses the near plane
MAX_PIXELS = 2.0**20  # triangles with a corner farther outside are dropped: keeps edge functions within 64 bits
DROPPED = 2.0**30  # depth that marks a vertex whose triangles are dropped


def screen(clip: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Clip [B,V,4] to pixel positions [B,V,2] (centre of pixel i is i + 0.5) and z/w [B,V]."""
    half = clip.new_tensor([size[1] / 2, size[0] / 2])
    inverse_w = clip[..., 3:].reciprocal()
    return torch.addcmul(half, clip[..., :2] * inverse_w, half), clip[..., 2] * inverse_w[..., 0]


def usable(clip: Tensor, position: Tensor, depth: Tensor) -> Tensor:
    """Vertices [B,V] that are finite, in front of the camera and not absurdly far outside the image."""
    inside = (position.abs() < MAX_PIXELS).all(-1)  # False for NaN and infinity
    return inside & (clip[..., 3] > MIN_W) & depth.isfinite()


def snap(clip: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Clip [B,V,4] to positions in 1/256 pixel relative to the centre of pixel 0, int32 [B,V,2], and z/w float32 [B,V].

    z/w is DROPPED at vertices whose triangles must not be drawn.
    """
    position, depth = screen(clip, size)
    keep = usable(clip, position, depth)
    fixed = torch.round((position - 0.5) * SUBPIXELS)
    fixed = torch.where(keep[..., None], fixed, 0).to(torch.int32)
    return fixed, torch.where(keep, depth, DROPPED).float()
