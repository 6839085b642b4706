"""One level of subdivision of a quad or triangle mesh, written as sparse matrices from old to new vertices.

Catmull and Clark, "Recursively generated B-spline surfaces on arbitrary topological meshes", 1978; open borders follow the
cubic B-spline curve rule (1/8, 3/4, 1/8). New vertices come in the order: old vertices, face points, edge points.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse


def catmull_clark(quads: np.ndarray, vertex_count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Smooth subdivision: stencil [V, C] (rows sum to 1) and new quads [4 Q, 4] of quads [Q, 4] over C vertices.

    Vertices that no quad uses keep their place. An edge with one quad, or with more than two, counts as border; a vertex
    with other than two border edges on a border stays where it is.
    """
    edges, edge_of, per_edge = _edges(quads, vertex_count)
    faces = _incidence(np.arange(len(quads)).repeat(4), quads.ravel(), 0.25, (len(quads), vertex_count))
    ends = _incidence(np.arange(len(edges)).repeat(2), edges.ravel(), 0.5, (len(edges), vertex_count))
    smooth = per_edge == 2
    around = _incidence(edge_of.ravel(), np.arange(len(quads)).repeat(4), 0.5, (len(edges), len(quads)))
    edge_points = sparse.diags(np.where(smooth, 0.5, 1.0)) @ ends + sparse.diags(np.where(smooth, 0.5, 0.0)) @ (around @ faces)

    valence = np.bincount(edges.ravel(), minlength=vertex_count)
    borders = np.bincount(edges[~smooth].ravel(), minlength=vertex_count)
    inner, border = (borders == 0) & (valence > 0), borders == 2
    inverse = np.divide(1.0, valence, out=np.zeros(vertex_count), where=inner)
    own = np.where(inner, 1 - 2 * inverse, np.where(border, 0.75, 1.0))
    neighbours = _neighbours(edges, vertex_count)
    touching = _incidence(quads.ravel(), np.arange(len(quads)).repeat(4), 1.0, (vertex_count, len(quads)))
    vertex_points = (
        sparse.diags(own)
        + sparse.diags(inverse**2) @ (neighbours + touching @ faces)
        + sparse.diags(np.where(border, 0.125, 0.0)) @ _neighbours(edges[~smooth], vertex_count)
    )
    stencil = sparse.vstack([vertex_points, faces, edge_points]).tocsr()
    stencil.eliminate_zeros()
    return stencil, _split(quads, edge_of, vertex_count)


def midpoint(quads: np.ndarray, vertex_count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Linear subdivision with the same order of vertices and quads as `catmull_clark`; used for texture coordinates."""
    edges, edge_of, _ = _edges(quads, vertex_count)
    faces = _incidence(np.arange(len(quads)).repeat(4), quads.ravel(), 0.25, (len(quads), vertex_count))
    ends = _incidence(np.arange(len(edges)).repeat(2), edges.ravel(), 0.5, (len(edges), vertex_count))
    return sparse.vstack([sparse.identity(vertex_count), faces, ends]).tocsr(), _split(quads, edge_of, vertex_count)


def midpoint_triangles(triangles: np.ndarray, vertex_count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Linear subdivision of triangles [F, 3]: stencil [V, C], old vertices first, then the middle of each edge; [4 F, 3].

    Four triangles per triangle, in its order: one at each corner, then the middle one.
    """
    edges, edge_of, _ = _edges(triangles, vertex_count)
    ends = _incidence(np.arange(len(edges)).repeat(2), edges.ravel(), 0.5, (len(edges), vertex_count))
    ahead = vertex_count + edge_of  # [F, 3]
    corners = np.stack([triangles, ahead, np.roll(ahead, 1, axis=1)], axis=2)  # [F, 3, 3]
    split = np.concatenate([corners, ahead[:, None]], axis=1).reshape(-1, 3)
    return sparse.vstack([sparse.identity(vertex_count), ends]).tocsr(), split


def border_edges(quads: np.ndarray, vertex_count: int) -> np.ndarray:
    """Edges [N, 2] that belong to exactly one quad."""
    edges, _, per_edge = _edges(quads, vertex_count)
    return edges[per_edge == 1]


def _edges(quads: np.ndarray, vertex_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unique edges [E, 2], the edge of each side [Q, 4 or 3] (side k joins corners k and k + 1), faces per edge [E]."""
    quads = quads.astype(np.int64)
    following = np.roll(quads, -1, axis=1)
    key = np.minimum(quads, following) * vertex_count + np.maximum(quads, following)
    unique, edge_of, per_edge = np.unique(key.ravel(), return_inverse=True, return_counts=True)
    return np.stack([unique // vertex_count, unique % vertex_count], axis=1), edge_of.reshape(quads.shape), per_edge


def _split(quads: np.ndarray, edge_of: np.ndarray, vertex_count: int) -> np.ndarray:
    """Four quads per quad: corner, edge point ahead, face point, edge point behind."""
    quads = quads.astype(np.int64)
    face = np.broadcast_to(vertex_count + np.arange(len(quads))[:, None], quads.shape)
    ahead = vertex_count + len(quads) + edge_of
    return np.stack([quads, ahead, face, np.roll(ahead, 1, axis=1)], axis=2).reshape(-1, 4)


def _incidence(rows: np.ndarray, columns: np.ndarray, value: float, shape: tuple[int, int]) -> sparse.csr_matrix:
    return sparse.csr_matrix((np.full(len(rows), value), (rows, columns)), shape=shape)


def _neighbours(edges: np.ndarray, vertex_count: int) -> sparse.csr_matrix:
    rows, columns = np.concatenate([edges, edges[:, ::-1]]).T
    return _incidence(rows, columns, 1.0, (vertex_count, vertex_count))
