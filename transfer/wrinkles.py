"""The performer's own wrinkles on another head: displacement fields carried over in local frames of the skin.

Deformation transfer (Sumner and Popovic 2004) for a field that is a small displacement: at each vertex the map from the
performer's neutral surface to the target's is split into a rotation, which turns the displacement, and the change of edge
length, which scales it. Both heads share one topology, so nothing has to be matched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel

MOST_SCALE = 2.0  # local edge lengths of two heads differ by less; beyond it a triangle has collapsed


def transfer_fields(fields: Tensor, performer: Tensor, target: Tensor, model: HeadModel) -> Tensor:
    """Displacement fields [K, V, 3] of a performer's skin for the target's, metres, canonical space.

    `performer` and `target` are the vertices [V, 3] of both heads at rest. What lies off the soft face mask stays behind.
    """
    rotation, scale = surface_map(performer, target, model.faces)
    mask = model.regions["face"] * (1 - model.regions["eyes"]) * scale
    return torch.einsum("vxy,kvy->kvx", rotation * mask[:, None, None], fields)


def surface_map(start: Tensor, end: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """How each vertex's surroundings turn [V, 3, 3] and grow [V] from vertices `start` to `end` [V, 3] of one mesh.

    The rotation is the orthogonal Procrustes solution (Schoenemann 1966) of the triangles around, each given by two edges and
    its normal; the growth is the ratio of the edges' root mean squares, within 1 / MOST_SCALE .. MOST_SCALE.
    """
    edges = [torch.stack([v[faces[:, 1]] - v[faces[:, 0]], v[faces[:, 2]] - v[faces[:, 0]]], 1) for v in (start, end)]  # [F, 2, 3]
    frames = []
    for edge in edges:
        normal = torch.linalg.cross(edge[:, 0], edge[:, 1])
        length = normal.norm(dim=-1, keepdim=True).clamp(min=1e-20)
        frames.append(torch.cat([edge, (normal / length.sqrt())[:, None]], 1))  # [F, 3, 3], all of edge length
    products = (frames[1].mT @ frames[0]).flatten(1)  # [F, 9]
    sizes = torch.stack([edge.square().sum((1, 2)) for edge in edges], 1)  # [F, 2]
    around = torch.zeros(len(start), 11, dtype=start.dtype, device=start.device)
    for k in range(3):
        around = around.index_add(0, faces[:, k], torch.cat([products, sizes], 1))
    u, _, vh = torch.linalg.svd(around[:, :9].unflatten(1, (3, 3)))
    sign = torch.ones_like(u[:, 0])
    sign[:, 2] = torch.linalg.det(u @ vh)
    rotation = (u * sign[:, None]) @ vh
    ratio = (around[:, 10] / around[:, 9].clamp(min=1e-20)).sqrt()
    return rotation, ratio.clamp(1 / MOST_SCALE, MOST_SCALE)
