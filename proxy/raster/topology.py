"""Edges of a triangle mesh and the triangles beside them."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Edges:
    """Unique edges of a mesh.

    vertices [E,2] int64, in the direction in which the first triangle runs through them; triangles [E,2] int64: the one or two
    triangles beside each edge, with F (the number of triangles) for "none". An edge of three or more triangles counts as a border.
    """

    vertices: Tensor
    triangles: Tensor


def find_edges(faces: Tensor) -> Edges:
    """Edges of faces [F,3]. Winding is taken to be consistent: two neighbours run through their edge in opposite directions."""
    faces = faces.long()
    count = len(faces)
    directed = torch.stack([faces, faces.roll(-1, 1)], dim=-1).reshape(-1, 2)  # [3F,2]
    owner = torch.arange(count, device=faces.device).repeat_interleave(3)
    low, high = directed.min(1).values, directed.max(1).values
    key = low * (int(high.max()) + 1 if count else 1) + high
    order = key.argsort(stable=True)
    _, copies = torch.unique_consecutive(key[order], return_counts=True)
    start = copies.cumsum(0) - copies
    first = order[start]
    second = order[torch.where(copies == 2, start + 1, start)]
    neighbour = torch.where(copies == 2, owner[second], count)
    return Edges(directed[first], torch.stack([owner[first], neighbour], dim=1))
