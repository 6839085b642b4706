"""What a neutral face looks like around each vertex, seen from the template of the same topology."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ..proxy.head_model import HeadModel
from ..proxy.mesh import vertex_normals

LENGTH = 0.1  # metres: unit of positions
OFFSET = 0.01  # metres: unit of the difference from the template
SCALE_RANGE = (0.4, 2.5)
FEATURES = 3 + 3 + 9 + 3  # position, difference from the template, turn of the frame, stretch


@dataclasses.dataclass(frozen=True)
class LocalGeometry:
    """Of each vertex of a neutral: frame and scale against the template, and the numbers that a network reads."""

    frame: Tensor  # [V, 3, 3] columns tangent, bitangent, normal
    scale: Tensor  # [V] local edge length as a multiple of the template's
    features: Tensor  # [V, FEATURES]

    def at(self, index: Tensor) -> LocalGeometry:
        """The same of the vertices `index` [N] only."""
        return LocalGeometry(self.frame[index], self.scale[index], self.features[index])


class TemplateGeometry:
    """Tangent frames [V, 3, 3] of the template, and how to find the same directions on any neutral of its mesh.

    The tangent is horizontal on the template. On a neutral it is the image of that direction under the least-squares
    deformation gradient of the surrounding edges, made orthogonal to the normal.
    """

    def __init__(self, model: HeadModel):
        self.faces, self.pivot = model.faces, model.joint_template[model.pivot]
        self.points = torch.sparse.mm(model.stencil, model.template)  # [V, 3]
        ends = torch.cat([self.faces[:, [k, (k + 1) % 3]] for k in range(3)])
        ends = torch.cat([ends, ends.flip(1)])
        edges = (ends[:, 0] * len(self.points) + ends[:, 1]).unique()
        self._start, self._end = edges // len(self.points), edges % len(self.points)
        normal = vertex_normals(self.points[None], self.faces)[0]
        up = torch.tensor([0.0, 1.0, 0.0]).to(normal).expand_as(normal)
        forward = torch.tensor([0.0, 0.0, 1.0]).to(normal).expand_as(normal)
        across = torch.where(normal[:, 1:2].abs() > 0.9, torch.linalg.cross(forward, normal), torch.linalg.cross(up, normal))
        self.frame = _frame(across, normal)
        edge = self.points[self._end] - self.points[self._start]
        flat = torch.einsum("eji,ej->ei", self.frame[self._start], edge)[:, :2]  # [N, 2] in the tangent plane
        gram = self._sum(flat[:, :, None] * flat[:, None])
        gram = gram + 1e-4 * gram.diagonal(dim1=1, dim2=2).sum(1)[:, None, None] * torch.eye(2).to(gram) + 1e-12 * torch.eye(2).to(gram)
        self._weight = torch.linalg.solve(gram[self._start], flat)  # [N, 2]

    def describe(self, neutral: Tensor) -> LocalGeometry:
        """Local geometry of a neutral [V, 3] in canonical space. Raises ValueError if it has another number of vertices."""
        if neutral.shape != self.points.shape:
            raise ValueError(
                f"the neutral has shape {list(neutral.shape)}, expected {list(self.points.shape)}; take it from the same head model"
            )
        edge = neutral[self._end] - neutral[self._start]
        image = self._sum(edge[:, :, None] * self._weight[:, None])  # [V, 3, 2]: where the template's two tangents go
        normal = vertex_normals(neutral[None], self.faces)[0]
        frame = _frame(image[..., 0], normal)
        stretch = frame[..., :2].mT @ image  # [V, 2, 2], upper triangular
        area = stretch[:, 0, 0] * stretch[:, 1, 1] - stretch[:, 0, 1] * stretch[:, 1, 0]
        scale = area.clamp(min=1e-6).sqrt().clamp(*SCALE_RANGE)
        turn = frame.mT @ self.frame
        features = [
            (neutral - self.pivot) / LENGTH,
            (neutral - self.points) / OFFSET,
            3 * (turn - torch.eye(3).to(turn)).flatten(1),
            3 * torch.stack([stretch[:, 0, 0] - 1, stretch[:, 0, 1], stretch[:, 1, 1] - 1], dim=1).clamp(-1, 2),
        ]
        return LocalGeometry(frame, scale, torch.cat(features, dim=1))

    def _sum(self, values: Tensor) -> Tensor:
        """Sums values [N, ...] of directed edges at the vertex where they start."""
        total = values.new_zeros(len(self.points), *values.shape[1:])
        return total.index_add(0, self._start, values)


def _frame(tangent: Tensor, normal: Tensor) -> Tensor:
    """Right-handed orthonormal columns [V, 3, 3] from a tangent and a unit normal [V, 3]."""
    tangent = normalize(tangent - (tangent * normal).sum(-1, keepdim=True) * normal, dim=-1, eps=1e-12)
    return torch.stack([tangent, torch.linalg.cross(normal, tangent), normal], dim=-1)
