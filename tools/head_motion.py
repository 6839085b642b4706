"""Splits MakeHuman's expression targets into joint rotations and a residual, so that posing gives the target at 1."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

CLEARANCE = 0.0015  # metres that skin keeps off the eyeball, where it has as much at rest
# Expressions that act on the lids together, besides each alone.
TOGETHER = (
    ("eyeSquint", "cheekSquint"), ("eyeSquint", "cheekSquint", "mouthSmile"), ("eyeSquint", "cheekSquint", "noseSneer"),
    ("eyeBlink", "cheekSquint"), ("eyeBlink", "eyeSquint"), ("eyeBlink", "eyeSquint", "cheekSquint"),
)  # fmt: skip
JAW_OPEN = 0.37  # radians; the rotation nearest to the jawOpen target
EYES = {"Left": (4, "helper-l-eye"), "Right": (5, "helper-r-eye")}


def split_expressions(
    names: list[str], targets: np.ndarray, template: np.ndarray, weights: np.ndarray, joints: np.ndarray, anchors: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Residual [E, C, 3] and rotation vectors [E, 6, 3] of targets [E, C, 3] over the template [C, 3].

    The residual is what linear blend skinning with the rotations must be given to arrive at template + target.
    """
    residual, turns = targets.copy(), np.zeros((len(names), 6, 3))
    for index, name in enumerate(names):
        if name == "jawOpen":
            turns[index, 3] = [JAW_OPEN, 0, 0]
            residual[index] = _before_skinning(template, targets[index], weights[:, 3], joints[3], turns[index, 3])
            residual[index, anchors["helper-lower-teeth"]] = 0  # teeth are rigid
        elif name.startswith("eyeLook"):
            joint, group = EYES["Left" if name.endswith("Left") else "Right"]
            ball = anchors[group]
            moved = template[ball] + targets[index, ball]
            turn, _ = Rotation.align_vectors(moved - joints[joint], template[ball] - joints[joint])
            turns[index, joint] = turn.as_rotvec()
            residual[index, ball] = 0
    return residual, turns


def keep_off_eyeballs(
    names: list[str], targets: np.ndarray, template: np.ndarray, skin: np.ndarray, balls: dict[str, tuple[np.ndarray, float]]
) -> np.ndarray:
    """Targets [E, C, 3] changed where they, alone or together, press skin [C] bool into an eyeball (centre, radius)."""
    targets = targets.copy()
    for side, (centre, radius) in balls.items():
        rest = np.linalg.norm(template - centre, axis=1) - radius
        near = np.nonzero(skin & (rest > 0) & (rest < 0.012) & (template[:, 2] > centre[2]))[0]
        allowed = radius + np.minimum(0.8 * rest[near], CLEARANCE)
        alone = [(name,) for name in names if name.endswith(side)]
        together = [tuple(part + side for part in parts) for parts in TOGETHER]
        for group in (alone + together) * 3:
            rows = np.array([names.index(name) for name in group])
            offset = template[near] + targets[rows][:, near].sum(0) - centre
            distance = np.linalg.norm(offset, axis=1)
            outward = offset / distance[:, None]
            inward = np.clip(-(targets[rows][:, near] * outward).sum(2), 1e-7, None)  # [members, near]
            missing = np.clip(allowed - distance, 0, None) * inward / inward.sum(0)
            targets[np.ix_(rows, near)] += missing[..., None] * outward
    return targets


def _before_skinning(
    template: np.ndarray, target: np.ndarray, weight: np.ndarray, joint: np.ndarray, turn: np.ndarray
) -> np.ndarray:
    """Solves blend(x) = template + target for x, where blend mixes the rotation about the joint with the identity."""
    rotation = Rotation.from_rotvec(turn).as_matrix()
    matrix = (1 - weight)[:, None, None] * np.eye(3) + weight[:, None, None] * rotation
    offset = weight[:, None] * (joint - rotation @ joint)
    return np.linalg.solve(matrix, (template + target - offset)[..., None])[..., 0] - template
