"""Optional back-end: triangle ids by nvdiffrast on CUDA. Only on request; nothing of nvdiffrast is needed or imported before.

nvdiffrast (NVIDIA, 0.4 or newer) is non-commercial and installed by the user. Facts about it that matter here, from its
documentation: `rasterize` takes float32 clip positions [B,V,4] and int32 triangles [F,3], refuses zero B, V or F, and returns
(u, v, z/w, triangle + 1) per pixel, all zero where empty; row 0 lies at y = -1 and z/w grows away from the camera, as here; the
number is a float, exact up to 2^24; triangles are drawn from both sides and clipped to the view frustum.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .projection import DROPPED, SUBPIXELS
from .torch_backend import DEPTH_STEPS, EMPTY

DEVICES = ("cuda",)
MOST_TRIANGLES = 1 << 24  # numbers beyond are not exact in float32
NOWHERE = (0.0, 0.0, 2.0, 1.0)  # a clip position beyond the far plane


def load():
    """The module nvdiffrast.torch. Raises ValueError where it cannot be imported."""
    try:
        import nvdiffrast.torch as module
    except ImportError as error:
        raise ValueError(
            f"the nvdiffrast back-end needs the package nvdiffrast, which you install yourself ({error}); "
            'without it use backend="auto"'
        ) from error
    return module


@functools.cache
def _context(device: torch.device):
    """nvdiffrast's buffers, kept for the next call: making them is slow."""
    return load().RasterizeCudaContext(device=device)


def draw(position: Tensor, depth: Tensor, faces: Tensor, cull: bool, packed: Tensor) -> None:
    """As torch_backend.draw. Raises ValueError for more than 2^24 triangles.

    nvdiffrast snaps vertices to 1/16 pixel instead of 1/256 for coverage, so that pixels within about 1/16 pixel of an edge may
    see the other side of it (antialias, which follows the exact edges, passes over a part of those at outlines); which triangle
    wins at equal depth is not defined.
    """
    frames, height, width = packed.shape
    if len(faces) > MOST_TRIANGLES:
        raise ValueError(f'the nvdiffrast back-end numbers at most 2^24 triangles, not {len(faces)}; use backend="auto"')
    if not frames or not len(faces):
        return
    rast, _ = load().rasterize(
        _context(position.device),
        _corners(position, depth, faces, cull, (height, width)),
        torch.arange(3 * len(faces), dtype=torch.int32, device=position.device).view(-1, 3),
        (height, width),
        grad_db=False,
    )
    zw, number = rast[..., 2], rast[..., 3].long()
    steps = ((zw + 1) * DEPTH_STEPS).long().clamp(0, 2**31 - 2)
    packed.copy_(torch.where(number > 0, (steps << 32) | number, EMPTY))


def _corners(position: Tensor, depth: Tensor, faces: Tensor, cull: bool, size: tuple[int, int]) -> Tensor:
    """Clip positions [B,3F,4] of the triangles' corners, with w = 1 (ids and z/w are the same with and without perspective).

    Every triangle has corners of its own, so that each frame can send the triangles it must not draw out of sight.
    """
    points = position[:, faces.long()]  # [B,F,3,2]
    z = depth[:, faces.long()]  # [B,F,3]
    side, other = (points[:, :, 1:] - points[:, :, :1]).long().unbind(2)
    area = side[..., 0] * other[..., 1] - side[..., 1] * other[..., 0]  # as the other back-ends: negative towards the camera
    drawn = ((area < 0) if cull else (area != 0)) & (z < DROPPED).all(2)
    half = z.new_tensor([size[1] / 2, size[0] / 2])
    x, y = ((points.to(z.dtype) / SUBPIXELS + 0.5) / half - 1).unbind(-1)
    clip = torch.stack([x, y, z, torch.ones_like(z)], dim=-1)  # [B,F,3,4]
    return torch.where(drawn[..., None, None], clip, z.new_tensor(NOWHERE)).view(len(position), -1, 4)
