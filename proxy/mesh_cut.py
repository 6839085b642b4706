"""Cutting a triangle mesh along the zero line of a function, with a straight rim instead of a jagged one."""

from __future__ import annotations

import dataclasses

import numpy as np

# Per number of kept corners: triangles as pairs (from, to) of corners, counted from the corner where the pattern starts.
# A pair of equal corners is that corner itself, other pairs are the point where the edge is cut; `from` is kept.
_PATTERNS = {
    1: [[(0, 0), (0, 1), (0, 2)]],
    2: [[(0, 0), (1, 1), (1, 2)], [(0, 0), (1, 2), (0, 2)]],
    3: [[(0, 0), (1, 1), (2, 2)]],
}


@dataclasses.dataclass(frozen=True)
class Cut:
    """What is left of a mesh: each new vertex lies on an edge of the old one or is one of its vertices.

    The old vertices that stay come first, in their old order, then the rim.
    """

    first: np.ndarray  # [C] int64 old vertex
    second: np.ndarray  # [C] int64 other end of the edge; `first` again for an old vertex
    share: np.ndarray  # [C] float64 weight of `second`; 0 for an old vertex
    faces: np.ndarray  # [F, 3] int64
    uv_first: np.ndarray  # [U] the same for the texture coordinates
    uv_second: np.ndarray  # [U]
    uv_share: np.ndarray  # [U]
    uv_faces: np.ndarray  # [F, 3]

    def vertices(self, values: np.ndarray) -> np.ndarray:
        """Per-vertex values of the old mesh [V, ...] to the new one [C, ...]."""
        return _mix(values, self.first, self.second, self.share)

    def texture(self, uv: np.ndarray) -> np.ndarray:
        """Texture coordinates of the old mesh to the new one [U, 2]."""
        return _mix(uv, self.uv_first, self.uv_second, self.uv_share)


def cut_mesh(field: np.ndarray, faces: np.ndarray, uv_faces: np.ndarray) -> Cut:
    """Keeps the part where `field` [V], linear over each triangle, is positive.

    `faces` [F, 3] and `uv_faces` [F, 3] index vertices and texture coordinates; orientation is kept.
    """
    kept = field[faces] > 0  # [F, 3]
    count = kept.sum(1)
    face, start, end = [], [], []
    for number, triangles in _PATTERNS.items():
        selected = np.flatnonzero(count == number)
        # The pattern starts at the first kept corner after one that is not kept.
        begin = (kept[selected] & ~np.roll(kept[selected], 1, axis=1)).argmax(1)[:, None]
        for triangle in triangles:
            a, b = np.array(triangle).T  # [3]
            face.append(np.broadcast_to(selected[:, None], (len(selected), 3)))
            start.append((begin + a) % 3)
            end.append((begin + b) % 3)
    face, start, end = (np.concatenate(parts) for parts in (face, start, end))  # [F', 3]
    order = np.argsort(face[:, 0], kind="stable")
    face, start, end = face[order], start[order], end[order]
    first, second = faces[face, start], faces[face, end]
    share = np.where(first == second, 0.0, field[first] / np.where(first == second, 1.0, field[first] - field[second]))
    return Cut(
        *_unique_points(first, second, share),
        *_unique_points(uv_faces[face, start], uv_faces[face, end], share),
    )


def _unique_points(first: np.ndarray, second: np.ndarray, share: np.ndarray):
    """Points (first, second, share) [F, 3] per corner to unique ones [C] and their index per corner [F, 3]."""
    keys = np.stack([first != second, first, second], -1).reshape(-1, 3)
    unique, where, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    return unique[:, 1], unique[:, 2], share.reshape(-1)[where], inverse.reshape(-1, 3)


def _mix(values: np.ndarray, first: np.ndarray, second: np.ndarray, share: np.ndarray) -> np.ndarray:
    share = share.reshape(-1, *[1] * (values.ndim - 1)).astype(values.dtype)
    return values[first] * (1 - share) + values[second] * share
