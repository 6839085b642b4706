"""The smooth flow that carries hair, neck and shoulders along with the face, and leaves the rest of the picture at rest."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .posing import Shot
from .preview_source import PreviewSource
from .warp2d import complete_flow, pixel_grid, upsample

SMOOTHNESS = 0.02
HAIR_REACH, BODY_REACH = 9.0, 3.0  # cells over which the face's own flow fades to the head's or to rest
CHIN_TO_REST = (0.1, 0.9)  # heights of the head below the chin: where the body begins to rest, and where it fully does


def backward_flow(known: PreviewSource, shot: Shot, flow: Tensor, trust: Tensor) -> Tensor:
    """Displacement [t, 2, H, W] from each output pixel to its source pixel.

    `flow` [t, 2, H, W] is the mesh's own displacement times `trust` [t, 1, H, W]. The person above the chin follows the skull as
    a flat picture would (shift, turn, scale), the body below comes to rest, and a membrane joins them to the mesh.
    """
    camera = shot.stage.camera
    cells = known.person.shape[-2:]
    scale_x, scale_y = camera.width / cells[1], camera.height / cells[0]
    trust_cells = F.interpolate(trust, size=cells, mode="area")
    flow_cells = F.interpolate(flow, size=cells, mode="area")
    grid = pixel_grid(*cells, device=flow.device) * flow.new_tensor([scale_x, scale_y])[None, :, None, None]

    now, before = camera.project(shot.vertices), camera.project(known.vertices)
    turn, shift = fit_similarity(now, before.expand_as(now), known.head)
    hair = torch.einsum("txy,yhw->txhw", turn, grid[0]) + shift[:, :, None, None] - grid  # [t, 2, h, w]

    chin = torch.maximum(_lowest(now, known.head), _lowest(before, known.head))  # [t]
    below = (grid[:, 1:] - chin[:, None, None, None]) / known.head_height
    rest = ((below - CHIN_TO_REST[0]) / (CHIN_TO_REST[1] - CHIN_TO_REST[0])).clamp(0, 1)
    free = (1 - trust_cells).clamp(0, 1)
    hair_weight = free * (below < 0) * SMOOTHNESS / HAIR_REACH**2
    rest_weight = free * rest * SMOOTHNESS / BODY_REACH**2
    weight = trust_cells + hair_weight + rest_weight
    target = (flow_cells + hair_weight * hair) / weight.clamp(min=1e-9)
    return upsample(complete_flow(target, weight, SMOOTHNESS), camera.height, camera.width)


def _lowest(pixels: Tensor, weight: Tensor) -> Tensor:
    """Row [t] of the lowest point of the weighted vertices, pixels [t, V, 2]."""
    return pixels[:, weight > 0.5, 1].amax(1)


def fit_similarity(start: Tensor, end: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Turn and scale [t, 2, 2] and shift [t, 2] that best take points [t, V, 2] to others, weighted by [V] (Umeyama 1991)."""
    weight = (weight / weight.sum())[None, :, None]
    mean_start, mean_end = (start * weight).sum(1), (end * weight).sum(1)
    a, b = start - mean_start[:, None], end - mean_end[:, None]
    real = (weight * a * b).sum((1, 2))
    imaginary = (weight[..., 0] * (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0])).sum(1)
    size = (weight * a * a).sum((1, 2)).clamp(min=1e-9)
    c, s = real / size, imaginary / size
    turn = torch.stack([torch.stack([c, -s], -1), torch.stack([s, c], -1)], -2)
    return turn, mean_end - (turn @ mean_start[..., None])[..., 0]
