"""What a SMPL-X file does not say: where the face is, what colour it has and, if it lacks them, texture coordinates.

Nothing here comes from an index table (those are gated): everything is computed from joints, weights and geometry, so
the regions are approximate. Lengths are measured in eye distances (between the centres of the eyeballs), with the
proportions of an average face.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from .head_model import JOINTS, PARTS

ROOT, NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE = range(len(JOINTS))
SKIN_COLOUR, LIP_COLOUR = (0.78, 0.60, 0.51), (0.70, 0.42, 0.39)
SCLERA_COLOUR, IRIS_COLOUR, PUPIL_COLOUR = (0.90, 0.88, 0.86), (0.33, 0.24, 0.16), (0.03, 0.03, 0.03)
IRIS_ANGLE, PUPIL_ANGLE = 0.50, 0.16  # radians seen from the centre of the eyeball


def find_eyeballs(faces: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """0 = skin, 1 = left eyeball, 2 = right eyeball per vertex [V]: the connected pieces that mostly turn with an eye."""
    edges = faces[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = coo_matrix((np.ones(len(edges)), edges.T), (len(weights), len(weights)))
    _, piece = connected_components(graph, directed=False)
    owner = np.select([weights[:, LEFT_EYE] > 0.5, weights[:, RIGHT_EYE] > 0.5], [1, 2], 0)
    votes = np.stack([np.bincount(piece, weights=owner == index) for index in range(3)], 1)  # [pieces, 3]
    return votes.argmax(1)[piece]


def soft_regions(
    vertices: np.ndarray, normals: np.ndarray, weights: np.ndarray, joints: np.ndarray, ball: np.ndarray
) -> dict[str, np.ndarray]:
    """Soft masks [V] 0..1 by name, from vertices and unit normals [V, 3], weights [V, J], joints [J, 3] and eyeballs [V].

    SMPL-X has no teeth, tongue or mouth cavity of its own: those masks are 0.
    """
    eye_centre = joints[[LEFT_EYE, RIGHT_EYE]].mean(0)
    unit = np.linalg.norm(joints[LEFT_EYE] - joints[RIGHT_EYE])
    offset = (vertices - eye_centre) / unit  # [V, 3]
    side, up = np.abs(offset[:, 0]), offset[:, 1]
    skin = np.where(ball > 0, 0.0, 1.0)
    front = skin * _step(normals[:, 2], -0.1, 0.3) * _step(offset[:, 2], -1.0, -0.4)
    moving = skin * (weights[:, HEAD] + weights[:, JAW])
    # The lips meet where the weight of the jaw passes one half on the front's middle line, about one unit below the eyes.
    meeting = weights[:, JAW] * (1 - weights[:, JAW]) + 1e-4
    middle = front * meeting * np.exp(-((side / 0.2) ** 2) - ((up + 1.1) / 0.25) ** 2) + 1e-12
    mouth = float((up * middle).sum() / middle.sum())
    eye_distance = np.linalg.norm(np.stack([side - 0.5, up, offset[:, 2]]), axis=0)
    face = moving * front * _inside(side / 1.25, (up + 0.45) / 1.6)
    ears = moving * _step(side, 0.95, 1.1) * _inside((up + 0.35) / 0.75, (offset[:, 2] + 1.5) / 0.7)
    scalp = moving * (1 - face) * np.maximum(_step(up, 0.8, 1.3), _step(-offset[:, 2], 1.2, 1.8) * _step(up, -1.2, -0.4))
    zero = np.zeros(len(vertices))
    masks = {
        "face": face,
        "lips": face * _inside(side / 0.45, (up - mouth) / 0.2),
        "lids": skin * front * _step(-eye_distance, -0.45, -0.3),
        "brows": face * _inside((side - 0.5) / 0.42, (up - 0.42) / 0.16),
        "nose": face * _inside(side / 0.3, (up + 0.45) / 0.4) * _step(offset[:, 2], 0.1, 0.25),
        "ears": ears,
        "scalp": scalp * (1 - ears),
        "neck": skin * weights[:, NECK],
        "eyes": 1 - skin,
        "teeth": zero,
        "tongue": zero,
        "mouth": zero,
        "shoulders": skin * weights[:, ROOT],
    }
    return {name: mask.clip(0, 1) for name, mask in masks.items()}


def default_albedo(vertices: np.ndarray, joints: np.ndarray, ball: np.ndarray, lips: np.ndarray) -> np.ndarray:
    """Colours [V, 3]: skin, a hint of lips, and eyeballs with an iris and a pupil that look to +z."""
    colour = np.outer(1 - lips, SKIN_COLOUR) + np.outer(lips, LIP_COLOUR)
    for index, joint in ((1, LEFT_EYE), (2, RIGHT_EYE)):
        direction = vertices[ball == index] - joints[joint]
        angle = np.arctan2(np.linalg.norm(direction[:, :2], axis=1), direction[:, 2])[:, None]
        iris = np.where(angle < PUPIL_ANGLE, PUPIL_COLOUR, IRIS_COLOUR)
        colour[ball == index] = np.where(angle < IRIS_ANGLE, iris, SCLERA_COLOUR)
    return colour


def part_colour(albedo: np.ndarray, faces: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Mean colour [P, 3] of the triangles of each of PARTS; a part that the mesh lacks gets the skin's."""
    triangles = albedo[faces].mean(1)  # [F, 3]
    return np.stack([triangles[parts == code if (parts == code).any() else parts == 0].mean(0) for code in range(len(PARTS))])


def unwrap(vertices: np.ndarray, faces: np.ndarray, joints: np.ndarray, ball: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Texture coordinates [U, 2] and their faces [F, 3] for a file without any.

    The skin is rolled onto a cylinder that ends in a half sphere at the level of the eyes, with its seam at the back;
    each eyeball becomes a disc (Lambert's azimuthal projection around its front) in the lower corners.
    """
    axis = joints[HEAD]
    centre = np.array([axis[0], joints[[LEFT_EYE, RIGHT_EYE], 1].mean(), axis[2]])
    x, y, z = (vertices - centre).T
    radius = np.hypot(x, z)
    size = np.median(radius[(ball == 0) & (np.abs(y) < 0.3 * radius)])  # radius of the head at the eyes
    rise = np.where(y > 0, size * np.arctan2(y, radius), y)
    angle = np.arctan2(x, z)
    turned = angle[faces]  # [F, 3]
    crossing = (np.ptp(turned, axis=1) > np.pi) & (ball[faces] == 0).all(1)
    wrapped = crossing[:, None] & (turned < 0)  # these corners get a second coordinate beyond the seam
    keys = faces + len(vertices) * wrapped
    unique, uv_faces = np.unique(keys, return_inverse=True)
    source, beyond = unique % len(vertices), unique >= len(vertices)
    flat = np.stack([angle[source] + 2 * np.pi * beyond, rise[source]], 1)
    on_skin = ball[source] == 0
    uv = np.empty((len(unique), 2))
    uv[on_skin] = _fit(flat[on_skin], low=(0.01, 0.15), high=(0.99, 0.99))
    for index, joint, corner in ((1, LEFT_EYE, 0.87), (2, RIGHT_EYE, 0.01)):
        chosen = ball[source] == index
        direction = vertices[source[chosen]] - joints[joint]
        direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        disc = direction[:, :2] / np.sqrt(1 + direction[:, 2:]).clip(1e-3)
        uv[chosen] = _fit(disc, low=(corner, 0.01), high=(corner + 0.12, 0.13))
    return uv, uv_faces.reshape(faces.shape)


def _fit(points: np.ndarray, low: tuple[float, float], high: tuple[float, float]) -> np.ndarray:
    least, size = points.min(0), np.ptp(points, axis=0)
    return np.asarray(low) + (points - least) / size * (np.asarray(high) - low)


def _step(value: np.ndarray, start: float, end: float) -> np.ndarray:
    """Smooth step from 0 at `start` to 1 at `end`."""
    t = ((value - start) / (end - start)).clip(0, 1)
    return t * t * (3 - 2 * t)


def _inside(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """1 inside the unit circle, falling to 0 over its outer third."""
    return 1 - _step(np.hypot(x, y), 0.7, 1.05)
