"""Meshes and back-ends for the tests of the rasteriser."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from expportrait.proxy.camera import Camera

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
from bench_raster import area_slope_error, gpu_bars, harmonics, mask_fit_error, sphere  # noqa: F401

BACKENDS = ("warp", "torch", "warp on cuda", "nvdiffrast on cuda")
COARSE = ("nvdiffrast",)  # snap vertices to 1/16 pixel


def place(case: str) -> tuple[str, str]:
    """Back-end and device of one of BACKENDS; skips the test where this machine has not got them."""
    name, _, device = case.partition(" on ")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here: neither the warp back-end on CUDA nor the nvdiffrast back-end is tested")
    if name == "nvdiffrast" and importlib.util.find_spec("nvdiffrast") is None:
        pytest.skip("nvdiffrast is not installed: its back-end is not tested")
    return name, device or "cpu"


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


def edge_distance(clip: Tensor, faces: Tensor, ids: Tensor) -> Tensor:
    """Distance in pixels [B,H,W], float64, from each covered pixel's centre to the nearest edge line of its own triangle."""
    frame, row, column = ids.nonzero(as_tuple=True)
    half = torch.tensor([ids.shape[2] / 2, ids.shape[1] / 2], dtype=torch.float64, device=clip.device)
    corner = clip.double()[frame[:, None], faces[ids[frame, row, column].long() - 1]]  # [P,3,4]
    corner = corner[..., :2] / corner[..., 3:] * half + half - torch.stack([column, row], 1)[:, None] - 0.5
    side = corner.roll(-1, 1) - corner
    height = (side[..., 0] * corner[..., 1] - side[..., 1] * corner[..., 0]).abs() / side.norm(dim=-1)
    return torch.full(ids.shape, torch.inf, dtype=torch.float64, device=clip.device).index_put_(
        (frame, row, column), height.amin(1)
    )


def triangle_soup(count: int, frames: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unconnected random triangles in perspective, some partly outside the picture."""
    generator = torch.Generator().manual_seed(seed)
    centres = (torch.rand(frames, count, 1, 3, generator=generator) - 0.5) * torch.tensor([0.8, 0.8, 0.4])
    points = centres + 0.2 * (torch.rand(frames, count, 3, 3, generator=generator) - 0.5) + torch.tensor([0.0, 0.0, -1.0])
    clip = Camera.centred(100, 64, 48).clip(points.reshape(frames, -1, 3))
    return clip, torch.arange(3 * count).reshape(-1, 3)
