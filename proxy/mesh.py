"""Small things that any triangle mesh needs."""

from __future__ import annotations

import torch
from torch import Tensor


def triangulate(quads: Tensor) -> Tensor:
    """Quads [Q, 4] to triangles [2 Q, 3]; triangles 2 q and 2 q + 1 come from quad q."""
    return quads[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Smooth unit normals [B, V, 3] of vertices [B, V, 3] and triangles [F, 3]: the area-weighted mean of those around."""
    batch = vertices.shape[0]
    points = vertices.transpose(0, 1).flatten(1)  # [V, B * 3]: gathers and sums then move whole rows
    a, b, c = (points[faces[:, k]].unflatten(1, (batch, 3)) for k in range(3))
    face_normals = torch.linalg.cross(b - a, c - a, dim=-1).flatten(1)  # [F, B * 3], length is twice the area
    sums = torch.zeros_like(points)
    for k in range(3):
        sums = sums.index_add(0, faces[:, k], face_normals)
    return torch.nn.functional.normalize(sums.unflatten(1, (batch, 3)), dim=-1, eps=1e-20).transpose(0, 1)
