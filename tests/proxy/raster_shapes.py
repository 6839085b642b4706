"""Meshes for the tests of the rasteriser."""

import sys
from pathlib import Path

import torch
from torch import Tensor

from expportrait.proxy.camera import Camera

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from bench_raster import area_slope_error, harmonics, mask_fit_error, sphere  # noqa: F401


def bumpy_head(levels: int, size: int, frames: int = 2, bumps: float = 0.08) -> tuple[Tensor, Tensor]:
    """Clip coordinates [B,V,4] of a bumpy, self-occluding sphere in perspective that covers about half of the picture; faces."""
    vertices, faces = sphere(levels)
    generator = torch.Generator().manual_seed(5)
    coefficients = bumps * torch.randn(frames, 16, generator=generator)
    radius = 0.1 * (
        1 + coefficients @ harmonics(vertices).T + 0.08 * torch.sin(17 * vertices[:, 0]) * torch.cos(13 * vertices[:, 1])
    )
    points = radius[..., None] * vertices + torch.tensor([0.0, 0.0, -0.5])
    return Camera.centred(1.5 * size, size, size).clip(points), faces


def triangle_soup(count: int, frames: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unconnected random triangles in perspective, some partly outside the picture."""
    generator = torch.Generator().manual_seed(seed)
    centres = (torch.rand(frames, count, 1, 3, generator=generator) - 0.5) * torch.tensor([0.8, 0.8, 0.4])
    points = centres + 0.2 * (torch.rand(frames, count, 3, 3, generator=generator) - 0.5) + torch.tensor([0.0, 0.0, -1.0])
    clip = Camera.centred(100, 64, 48).clip(points.reshape(frames, -1, 3))
    return clip, torch.arange(3 * count).reshape(-1, 3)
