"""Smooth dense 2D flow from partial, weighted flow, and sampling of pictures by pixel coordinates."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

COARSEST = 4


def complete_flow(flow: Tensor, weight: Tensor, smoothness: float = 0.02, sweeps: int = 8) -> Tensor:
    """Membrane through weighted samples: minimises sum weight |u - flow|^2 + smoothness |grad u|^2 over the grid.

    Args:
        flow: [B, 2, h, w], read only where weight is above zero.
        weight: [B, 1, h, w], not negative.
        smoothness: larger values follow the samples less closely.
        sweeps: damped Jacobi sweeps per level.

    Solved from coarse to fine: each level starts at the upsampled solution of the coarser one (cascadic multigrid,
    Bornemann and Deuflhard 1996), so values travel over the whole grid although each level sweeps only a few times.
    """
    levels = [(flow * weight, weight)]
    while min(levels[-1][1].shape[-2:]) >= 2 * COARSEST:
        value, known = levels[-1]
        pad = (0, value.shape[-1] % 2, 0, value.shape[-2] % 2)
        # Sums, not means: in two dimensions a membrane's stiffness is the same on every level, its data adds up.
        levels.append((4 * F.avg_pool2d(F.pad(value, pad), 2), 4 * F.avg_pool2d(F.pad(known, pad), 2)))
    value, known = levels[-1]
    solution = (value.sum((-2, -1), keepdim=True) / known.sum((-2, -1), keepdim=True).clamp(min=1e-9)).expand_as(value)
    for value, known in reversed(levels):
        solution = F.interpolate(solution, size=value.shape[-2:], mode="bilinear", align_corners=False)
        for _ in range(sweeps):
            padded = F.pad(solution, (1, 1, 1, 1), mode="replicate")
            around = padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:] + padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1]
            step = (value + smoothness * around) / (known + 4 * smoothness)
            solution = solution + 0.8 * (step - solution)
    return solution


def pixel_grid(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Coordinates x, y of the pixel centres [1, 2, H, W], in pixels."""
    y = torch.arange(height, device=device, dtype=torch.float32) + 0.5
    x = torch.arange(width, device=device, dtype=torch.float32) + 0.5
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])[None]


def sample_pixels(image: Tensor, pixels: Tensor, mode: str = "bilinear") -> Tensor:
    """Image [1 or B, C, h, w] at pixel coordinates [B, 2, H, W] (centres at +0.5), the border repeated -> [B, C, H, W]."""
    size = pixels.new_tensor([image.shape[-1], image.shape[-2]])[None, :, None, None]
    grid = (2 * pixels / size - 1).permute(0, 2, 3, 1)
    image = image.expand(pixels.shape[0], -1, -1, -1)
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=False)


def upsample(grid: Tensor, height: int, width: int) -> Tensor:
    """Coarse grid [B, C, h, w] to full size by bicubic interpolation, which keeps a flow's gradient continuous."""
    return F.interpolate(grid, size=(height, width), mode="bicubic", align_corners=False)
