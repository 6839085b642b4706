"""Motions that need no clip: keyframes over ARKit names, head angles and gaze, for any head model."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator

from ...proxy.head_model import JOINTS, HeadModel
from ..motion import HeadMotion
from ..neutral import Rest

FOLDER = Path(__file__).parent
NECK_SHARE = 0.4  # share of the head's rotation that the neck takes
JAW_OPEN = 0.37  # radians of jaw rotation at jawOpen = 1, for models without ARKit names
DISTANCE = 1.0  # metres between camera and model origin at rest


def preset_names() -> tuple[str, ...]:
    """Names of the presets, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def load_preset(name: str, model: HeadModel) -> tuple[HeadMotion, Rest]:
    """The motion of a preset for `model`, and its rest.

    A model without ARKit's expression names (SMPL-X) takes head, jaw and gaze from a preset, not the other curves.
    Raises ValueError for an unknown name.
    """
    if name not in preset_names():
        raise ValueError(f"there is no preset {name!r}; choose one of {', '.join(preset_names())}")
    preset = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    fps = float(preset["fps"])
    time = np.arange(round(preset["seconds"] * fps)) / fps
    curves = {key: PchipInterpolator(*zip(*keys))(time) for key, keys in _keyframes(preset).items()}
    count = len(time)
    arkit = set(model.expression_names)
    expression = np.zeros((count, len(model.expression_names)), np.float32)
    for index, key in enumerate(model.expression_names):
        if key in curves:
            expression[:, index] = curves[key]
    joints = np.zeros((count, len(JOINTS), 3), np.float32)
    head = np.stack([curves.get(key, np.zeros(count)) for key in ("headPitch", "headYaw", "headRoll")], -1)
    joints[:, JOINTS.index("neck")] = NECK_SHARE * np.radians(head)
    joints[:, JOINTS.index("head")] = (1 - NECK_SHARE) * np.radians(head)
    gaze = np.stack([curves.get(key, np.zeros(count)) for key in ("gazePitch", "gazeYaw")], -1)
    for eye in ("left_eye", "right_eye"):
        joints[:, JOINTS.index(eye), :2] = np.radians(gaze)
    if "jawOpen" in curves and "jawOpen" not in arkit:
        joints[:, JOINTS.index("jaw"), 0] = JAW_OPEN * curves["jawOpen"]
    like = model.template
    translation = like.new_tensor([0.0, 0.0, -DISTANCE]).repeat(count, 1)
    motion = HeadMotion(
        model_id=model.model_id,
        expression=torch.from_numpy(expression).to(like),
        joints=torch.from_numpy(joints).to(like),
        translation=translation,
        valid=torch.ones(count, dtype=torch.bool, device=like.device),
        fps=fps,
    )
    return motion, Rest(torch.zeros_like(motion.expression[0]), torch.zeros_like(motion.joints[0]), translation[0])


def _keyframes(preset: dict) -> dict[str, list[tuple[float, float]]]:
    """All curves of a preset as (second, value) keys: its own curves plus those spelled by its timeline of poses."""
    keys = {name: [tuple(key) for key in curve] for name, curve in preset["curves"].items()}
    names = {name for pose in preset["poses"].values() for name in pose}
    for name in names & keys.keys():
        raise ValueError(f"preset curve {name} stands both in a pose and as a curve; keep one")
    for name in names:
        keys[name] = [(second, preset["poses"][pose].get(name, 0.0)) for second, pose in preset["timeline"]]
    for name, curve in keys.items():
        if not all(math.isfinite(v) for key in curve for v in key):
            raise ValueError(f"preset curve {name} holds a value that is no number")
    return keys
