"""Writes a synthetic SMPL-X model file: the full schema of the real one, none of its content.

The body is made of closed surfaces of revolution (trunk with neck and head, two arms, two eyeballs) with 10,475
vertices and 55 joints at plausible heights; all bases are random, smooth and not zero.
"""

from __future__ import annotations

import os

import numpy as np

VERTICES = 10475
PARENTS = np.array(
    [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 15, 15, 15]
    + [20, 25, 26, 20, 28, 29, 20, 31, 32, 20, 34, 35, 20, 37, 38]
    + [21, 40, 41, 21, 43, 44, 21, 46, 47, 21, 49, 50, 21, 52, 53]
)
EYE_RADIUS = 0.0125
LEFT_EYE = np.array([0.032, 0.33, 0.077])
# Height above the chest and half width of the trunk, from the feet to the crown; depth follows from it.
PROFILE = np.array(
    [(-1.25, 0.06), (-0.5, 0.15), (-0.3, 0.17), (-0.1, 0.14), (0.05, 0.19), (0.1, 0.16), (0.14, 0.07), (0.2, 0.055)]
    + [(0.24, 0.06), (0.28, 0.07), (0.33, 0.076), (0.38, 0.075), (0.42, 0.06), (0.445, 0.03), (0.45, 0.008)]
)


def write_smplx_file(path: str | os.PathLike, seed: int = 0, uv: bool = False, **changes: np.ndarray | None) -> None:
    """Writes the file; `changes` replaces arrays by name, None leaves one out, unknown names are added."""
    arrays = smplx_arrays(seed, uv) | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})


def smplx_arrays(seed: int = 0, uv: bool = False) -> dict[str, np.ndarray]:
    """The arrays of the file by their official names."""
    random = np.random.default_rng(seed)
    vertices, faces, texture, texture_faces = _body()
    joints = _joints()
    waves = np.cos(vertices @ random.normal(0, 9, (3, 40)) + random.uniform(0, 6, 40)).astype(np.float32)  # [V, 40]

    def smooth_basis(columns: int, scale: np.ndarray | float) -> np.ndarray:
        mix = random.normal(0, 1, (40, 3 * columns)).astype(np.float32)
        return (waves @ mix).reshape(VERTICES, 3, columns) * np.float32(scale / np.sqrt(40))

    scale = np.concatenate([0.008 / (1 + 0.1 * np.arange(300)), 0.004 / (1 + 0.1 * np.arange(100))])
    left, right = slice(VERTICES - 2 * 546, VERTICES - 546), slice(VERTICES - 546, VERTICES)
    # Gaussian weights around each joint; an eye's joint is the centre of its ball.
    regressor = np.exp(-((joints[:, None] - vertices[None]) ** 2).sum(2) / (2 * 0.04**2))
    regressor[23], regressor[24] = 0, 0
    regressor[23, left], regressor[24, right] = 1, 1
    regressor /= regressor.sum(1, keepdims=True)
    weights = np.exp(-((_bone_centres(joints)[None] - vertices[:, None]) ** 2).sum(2) / (2 * 0.06**2)) + 1e-12
    weights[:, 23:25] = 0
    weights[left], weights[right] = np.eye(55)[23], np.eye(55)[24]
    weights /= weights.sum(1, keepdims=True)
    arrays = {
        "v_template": vertices,
        "f": faces.astype(np.uint32),
        "shapedirs": smooth_basis(400, scale),
        "posedirs": smooth_basis(486, 0.006),
        "J_regressor": regressor,
        "weights": weights,
        "kintree_table": np.stack([PARENTS % 2**32, np.arange(55)]).astype(np.uint32),
        "lmk_faces_idx": np.zeros(51, np.int64),
        "lmk_bary_coords": np.full((51, 3), 1 / 3),
        "hands_componentsl": np.eye(45),
        "hands_componentsr": np.eye(45),
        "hands_meanl": random.normal(0, 0.3, 45),
        "hands_meanr": random.normal(0, 0.3, 45),
    }
    return arrays | ({"vt": texture, "ft": texture_faces.astype(np.uint32)} if uv else {})


def _joints() -> np.ndarray:
    """Plausible rest positions [55, 3] in a T pose."""
    j = np.zeros((55, 3))
    heights = {0: -0.35, 1: -0.44, 4: -0.8, 7: -1.18, 10: -1.24, 3: -0.24, 6: -0.1, 9: 0.0, 12: 0.17, 15: 0.26, 22: 0.25}
    for index, y in heights.items():
        j[index, 1] = y
    j[[12, 15], 2], j[22, 2] = -0.01, 0.01
    for index, x in {1: 0.06, 4: 0.08, 7: 0.08, 10: 0.09}.items():
        j[index, 0] = x
    for index, (x, y) in {13: (0.05, 0.08), 16: (0.17, 0.09), 18: (0.42, 0.09), 20: (0.66, 0.09)}.items():
        j[index, :2] = x, y
    for finger in range(15):
        j[25 + finger] = 0.72 + 0.03 * (finger % 3), 0.09, 0.02 * (finger // 3 - 2)
    for left in [1, 4, 7, 10, 13, 16, 18, 20, *range(25, 40)]:
        right = left + (15 if left >= 25 else 1)
        j[right] = j[left] * [-1, 1, 1]
    j[23] = LEFT_EYE
    j[24] = LEFT_EYE * [-1, 1, 1]
    return j


def _bone_centres(joints: np.ndarray) -> np.ndarray:
    """Points [55, 3] around which each joint's skinning weight is highest."""
    centres = joints.copy()
    for index in range(55):
        children = np.flatnonzero(PARENTS == index)
        if len(children):
            centres[index] = (joints[index] + joints[children].mean(0)) / 2
    centres[15] = joints[15] + [0, 0.09, 0]
    centres[22] = joints[22] + [0, -0.03, 0.07]
    return centres


def _body() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices [V, 3], faces [F, 3], texture coordinates [U, 2] and their faces [F, 3]."""
    trunk_heights = np.interp(np.linspace(0, 1, 109), [0, 0.25, 0.45, 0.98, 1], [-1.25, -0.1, 0.12, 0.44, 0.45])
    trunk, *trunk_topology = _revolve(trunk_heights, np.interp(trunk_heights, *PROFILE.T), 73)
    head = np.clip((trunk[:, 1] - 0.2) / 0.1, 0, 1)
    trunk[:, 2] *= 0.65 + 0.55 * head
    nose = np.exp(-((trunk[:, 0] / 0.012) ** 2) - ((trunk[:, 1] - 0.3) / 0.015) ** 2) * (trunk[:, 2] > 0)
    trunk[:, 2] += 0.02 * nose
    along = np.linspace(0, 1, 71)
    arm, *arm_topology = _revolve(0.18 + 0.62 * along, 0.05 - 0.02 * along, 10)
    latitude = np.linspace(-np.pi / 2, np.pi / 2, 19)[1:-1]
    eye, *eye_topology = _revolve(EYE_RADIUS * np.sin(latitude), EYE_RADIUS * np.cos(latitude), 32, cap=EYE_RADIUS)
    left_arm = arm[:, [1, 0, 2]] * [1, 1, -1] + [0, 0.09, 0]
    eye = eye[:, [0, 2, 1]] * [-1, 1, 1]  # the poles look forward and back
    parts = [
        (trunk, trunk_topology, False),
        (left_arm, arm_topology, False),
        (left_arm * [-1, 1, 1], arm_topology, True),
        (eye + LEFT_EYE, eye_topology, False),
        (eye + LEFT_EYE * [-1, 1, 1], eye_topology, False),
    ]
    vertices, faces, texture, texture_faces = [], [], [], []
    for column, (points, (triangles, coordinates, coordinate_triangles), mirrored) in enumerate(parts):
        order = [0, 2, 1] if mirrored else [0, 1, 2]
        faces.append(triangles[:, order] + sum(map(len, vertices)))
        texture_faces.append(coordinate_triangles[:, order] + sum(map(len, texture)))
        vertices.append(points)
        texture.append((coordinates + [column, 0]) / [len(parts), 1])
    return tuple(np.concatenate(group) for group in (vertices, faces, texture, texture_faces))


def _revolve(heights: np.ndarray, radii: np.ndarray, segments: int, cap: float | None = None):
    """Closed surface of revolution about y, counter-clockwise from outside, with a seam in its texture coordinates."""
    rings = len(heights)
    angle = 2 * np.pi * np.arange(segments) / segments
    circle = np.stack([np.sin(angle), np.zeros(segments), np.cos(angle)], 1)
    points = (circle[None] * radii[:, None, None] + np.stack([heights * 0, heights, heights * 0], 1)[:, None]).reshape(-1, 3)
    ends = (heights[0], heights[-1]) if cap is None else (-cap, cap)
    points = np.concatenate([points, [[0, ends[0], 0], [0, ends[1], 0]]])
    u, v = np.meshgrid(np.linspace(0, 1, segments + 1), (np.arange(rings) + 1) / (rings + 1))
    texture = np.concatenate([np.stack([u, v], 2).reshape(-1, 2), [[0.5, 0], [0.5, 1]]])

    def triangles(width: int, wrap: int) -> np.ndarray:
        column = np.arange(segments)
        following = (column + 1) % wrap
        row = np.arange(rings - 1)[:, None] * width
        a, b, c, d = row + column, row + following, row + width + following, row + width + column
        side = np.stack([a, b, c, a, c, d], -1).reshape(-1, 3)
        south, north, top = rings * width, rings * width + 1, (rings - 1) * width
        bottom_fan = np.stack([np.full(segments, south), following, column], 1)
        top_fan = np.stack([np.full(segments, north), top + column, top + following], 1)
        return np.concatenate([side, bottom_fan, top_fan])

    return points, triangles(segments, segments), texture, triangles(segments + 1, segments + 1)
