"""Smoothing of a whole motion: expression and pose each with a strength of their own."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS
from .motion import HeadMotion
from .one_euro import one_euro_rotations, one_euro_values
from .smooth import smooth_rotations, smooth_values

EXPRESSION_JOINTS = [JOINTS.index(name) for name in ("jaw", "left_eye", "right_eye")]
POSE_JOINTS = [JOINTS.index(name) for name in ("root", "neck", "head")]
SmoothMethod = Literal["gaussian", "one-euro"]
# One-euro: Hz by which the cutoff rises for each unit of speed, so that a blink or a quick turn comes through almost undelayed.
VALUE_BETA = 2.0  # per (expression or detail coefficient / s)
ROTATION_BETA = 4.0  # per (rad / s)
TRANSLATION_BETA = 20.0  # per (m / s)


def smooth_motion(
    motion: HeadMotion, method: SmoothMethod = "gaussian", expression_strength: float = 0.0, pose_strength: float = 0.0
) -> HeadMotion:
    """Smooths expression and head pose, each with its own strength in seconds; 0 leaves it as it is, bit by bit.

    The jaw, the eyes and the detail belong to the expression; root, neck, head and translation are the pose.

    "gaussian": the strength is the standard deviation of a kernel that looks to both sides, so nothing is delayed.
    "one-euro": the strength is the time constant of a causal low-pass at rest, min_cutoff = 1 / (2 pi strength); the faster
    something moves, the less it is smoothed. Frames that are not valid take part with the values they were filled with.
    Raises ValueError for an unknown method, a negative strength or a motion without a usable fps.
    """
    if method not in get_args(SmoothMethod):
        raise ValueError(f"the smoothing method is {method!r}; choose one of {', '.join(get_args(SmoothMethod))}")
    for name, strength in (("expression_strength", expression_strength), ("pose_strength", pose_strength)):
        if not (math.isfinite(strength) and strength >= 0):
            raise ValueError(f"{name} is {strength}; give the seconds to smooth over, at least 0")
    if not (math.isfinite(motion.fps) and motion.fps > 0):
        raise ValueError(f"the motion has {motion.fps} frames per second; make it again with a number above 0")

    def values(given: Tensor, strength: float, beta: float) -> Tensor:
        if method == "gaussian":
            return smooth_values(given, strength * motion.fps)
        return one_euro_values(given, motion.fps, _cutoff(strength), beta)

    def rotations(given: Tensor, strength: float) -> Tensor:
        if method == "gaussian":
            return smooth_rotations(given, strength * motion.fps)
        return one_euro_rotations(given, motion.fps, _cutoff(strength), ROTATION_BETA)

    joints = torch.empty_like(motion.joints)
    for places, strength in ((POSE_JOINTS, pose_strength), (EXPRESSION_JOINTS, expression_strength)):
        joints[:, places] = rotations(motion.joints[:, places], strength)
    return dataclasses.replace(
        motion,
        expression=values(motion.expression, expression_strength, VALUE_BETA),
        joints=joints,
        translation=values(motion.translation, pose_strength, TRANSLATION_BETA),
        detail=None if motion.detail is None else values(motion.detail, expression_strength, VALUE_BETA),
    )


def _cutoff(strength: float) -> float:
    return 1 / (2 * math.pi * strength) if strength > 0 else math.inf
