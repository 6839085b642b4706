"""Scalar fields on a head's skin: gradients, and one sparse system that is factored once and solved for many frames.

The system is the screened Poisson equation with a thin-plate term,

    min_d  sum_f w_f a_f |grad d - g|_f^2  +  bend^2 |Laplace d|^2  +  |d|^2 / reach^2,

in linear finite elements (weights w_f and areas a_f of the triangles). It depends on the mesh and the weights alone, not on the target
gradients g, so any number of frames share one factorisation.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from ..head_model import PARTS, HeadModel


@dataclasses.dataclass(frozen=True)
class Skin:
    """The skin of one head at rest: S of the model's vertices, F triangles among them."""

    vertices: Tensor  # [S] indices into the model's dense vertices
    faces: Tensor  # [F, 3] indices below S
    hats: Tensor  # [F, 3, 3] gradients of the three corners' hat functions, 1 / metre
    area: Tensor  # [F] square metres
    normals: Tensor  # [S, 3] unit normals at rest

    @staticmethod
    def of(model: HeadModel, points: Tensor) -> Skin:
        """The skin of canonical dense vertices [V, 3]."""
        faces = model.faces[model.parts == PARTS.index("skin")]
        vertices, faces = torch.unique(faces, return_inverse=True)
        corners = points[vertices][faces]  # [F, 3, 3]
        across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        double = across.norm(dim=-1).clamp(min=1e-12)
        opposite = corners.roll(-2, 1) - corners.roll(-1, 1)  # the edge that faces each corner
        hats = torch.linalg.cross((across / double[:, None])[:, None].expand(-1, 3, -1), opposite) / double[:, None, None]
        return Skin(vertices, faces, hats, double / 2, model.vertex_normals(points[None])[0][vertices])

    def patch(self, chosen: Tensor) -> tuple[Skin, Tensor]:
        """What lies within some vertices [S] bool, and the indices [N] of its vertices among these."""
        within = chosen[self.faces].all(1)
        among, faces = torch.unique(self.faces[within], return_inverse=True)
        return Skin(self.vertices[among], faces, self.hats[within], self.area[within], self.normals[among]), among

    def border(self) -> Tensor:
        """Vertices [S] bool at edges that belong to one triangle only."""
        ends = torch.stack([self.faces, self.faces.roll(-1, 1)], -1).flatten(0, 1).sort(1).values
        edges, count = torch.unique(ends, dim=0, return_counts=True)
        found = torch.zeros(len(self.vertices), dtype=torch.bool, device=ends.device)
        found[edges[count == 1].flatten()] = True
        return found

    def at_faces(self, values: Tensor) -> Tensor:
        """Means [..., F, C] over the corners of vertex values [..., S, C]."""
        return values[..., self.faces, :].mean(-2)

    def divergence(self, gradients: Tensor) -> Tensor:
        """What target gradients [T, F, 3], weighted and times the area, contribute to the right side of the system: [T, S]."""
        parts = (self.hats * gradients[:, :, None]).sum(-1).flatten(1)  # [T, F * 3]
        return torch.zeros(len(gradients), len(self.vertices)).to(parts).index_add_(1, self.faces.flatten(), parts)

    def stiffness(self, weight: Tensor) -> sparse.csc_matrix:
        """Stiffness matrix [S, S] of the Laplacian with weights [F] of the triangles."""
        return self.assemble(torch.einsum("f,fax,fbx->fab", weight * self.area, self.hats, self.hats))

    def assemble(self, local: Tensor) -> sparse.csc_matrix:
        """Matrix [S, S] of the sum of matrices [F, 3, 3] that couple the corners of each triangle."""
        rows = self.faces[:, :, None].expand_as(local)
        columns = self.faces[:, None].expand_as(local)
        count = len(self.vertices)
        entries = (local.flatten().double().cpu().numpy(), (rows.flatten().cpu().numpy(), columns.flatten().cpu().numpy()))
        return sparse.coo_matrix(entries, (count, count)).tocsc()

    def gather(self, corners: Tensor) -> np.ndarray:
        """Sums [S] of values [F, 3] at the corners of the triangles."""
        return np.bincount(self.faces.flatten().cpu().numpy(), corners.flatten().double().cpu().numpy(), len(self.vertices))

    def mass(self) -> np.ndarray:
        """Area [S] that belongs to each vertex."""
        return self.gather(self.area[:, None].expand(-1, 3) / 3)


def control_basis(model: HeadModel, skin: Skin) -> sparse.csr_matrix:
    """The skin's vertices as sums of the model's C control vertices that lie near any: [S, C].

    Smooth fields are told by a quarter as many numbers, and a field of this basis has the smoothness of the head's own subdivision.
    """
    stencil = model.stencil.coalesce().cpu()
    entries = stencil.values().double().numpy(), stencil.indices().numpy()
    basis = sparse.csr_matrix(entries, stencil.shape)[skin.vertices.cpu().numpy()]
    basis.eliminate_zeros()
    return basis[:, np.unique(basis.indices)]


def field_precision(skin: Skin, sigma: float, length: float, pull: float = 1.0) -> sparse.spmatrix:
    """Precision [S, S] of a random field of standard deviation `sigma` on the skin, alike over `length` metres.

    A Matern field with alpha = 2 (Lindgren, Rue and Lindstrom, An Explicit Link between Gaussian Fields and Gaussian Markov Random
    Fields, JRSS B 2011); what is stiffer than its bending has wavelengths below 2 pi length. A `pull` of more than 1 holds it as many
    times as strongly to 0, which takes most from long waves.
    """
    mass, stiffness = skin.mass(), skin.stiffness(torch.ones_like(skin.area))
    bending = stiffness @ sparse.diags(1 / mass) @ stiffness
    return (pull * sparse.diags(mass) + 2 * length**2 * stiffness + length**4 * bending) / (4 * np.pi * (sigma * length) ** 2)


def mirror_precision(skin: Skin, pairs: Tensor, weight: np.ndarray) -> sparse.spmatrix:
    """Precision [S, S] of sum_v weight_v (d_v - d_pairs(v))^2 with the vertices `pairs` [S] on the other side."""
    count = len(pairs)
    uneven = sparse.identity(count) - sparse.csr_matrix((np.ones(count), (np.arange(count), pairs.cpu().numpy())), (count, count))
    return uneven.T @ sparse.diags(weight) @ uneven


def factor(system: sparse.spmatrix) -> scipy.sparse.linalg.SuperLU:
    """Factors a symmetric positive definite matrix, so that it can be solved for many right sides."""
    return scipy.sparse.linalg.splu(
        system.tocsc(), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options={"SymmetricMode": True}
    )


class Integrator:
    """The factored system. `weight` [F] 0..1, `bend` metres, `reach` metres or one length per vertex [S]."""

    def __init__(self, skin: Skin, weight: Tensor, bend: float, reach: float | Tensor):
        self.skin, self.weight = skin, weight
        mass = skin.mass()
        plain = skin.stiffness(torch.ones_like(weight))
        reach = np.broadcast_to(np.asarray(reach.cpu() if isinstance(reach, Tensor) else reach, np.float64), mass.shape)
        bending = plain @ sparse.diags(bend**2 / mass) @ plain
        system = skin.stiffness(weight) + bending + sparse.diags(mass / reach**2)
        self._solver = factor(system)
        self._bending, self._pull = bending.tocsr(), mass / reach**2

    def solve(self, gradients: Tensor, present: Tensor | None = None) -> Tensor:
        """Fields [T, S] (metres) with gradients close to [T, F, 3] in all frames at once.

        `present` [T, S]: these are changes to such a field, whose sum with them is to be smooth and small.
        """
        right = self.skin.divergence(gradients * (self.weight * self.skin.area)[:, None]).double().cpu().numpy().T
        if present is not None:
            now = present.double().cpu().numpy().T
            right = right - self._bending @ now - self._pull[:, None] * now
        return torch.from_numpy(np.ascontiguousarray(self._solver.solve(np.ascontiguousarray(right)).T)).to(gradients)
