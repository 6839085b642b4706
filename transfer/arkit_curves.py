"""ARKit curves over time, as phones and speech programs deliver them, to a head motion and back."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..proxy import rotation
from ..proxy.head_model import JOINTS, HeadModel, load_head_model
from .arkit_bridge import ARKIT_NAMES, arkit_bridge
from .face_motion import EYES
from .motion import HeadMotion
from .presets import DISTANCE, NECK_SHARE

ROOT, NECK, HEAD = (JOINTS.index(name) for name in ("root", "neck", "head"))
# How far an eye turns at 1, radians. Slopes of eye angles over curves in seven recordings of Live Link Face: sideways 0.58 to 0.62,
# up and down 0.47 to 0.61.
GAZE_SIDEWAYS, GAZE_UPRIGHT = 0.6, 0.5


@dataclasses.dataclass(frozen=True)
class ArkitCurves:
    """T frames of ARKit's 52 curves (order of ARKIT_NAMES), with head and eyes where their rotations are known.

    Rotations are rotation vectors in radians in the head's axes: x to the subject's left, y up, z forward; so x turns down, y to
    the subject's left. Raises ValueError if the shapes do not fit or the rate is no positive number.
    """

    curves: Tensor  # [T, 52], 0..1
    fps: float
    head: Tensor | None = None  # [T, 3]
    eyes: Tensor | None = None  # [T, 2, 3] left, right, relative to the head
    valid: Tensor | None = None  # [T] bool: False where there was no face and the frame was filled in; None if there always was

    def __post_init__(self):
        count = len(self.curves)
        for name, shape in (("curves", (count, len(ARKIT_NAMES))), ("head", (count, 3)), ("eyes", (count, 2, 3)), ("valid", (count,))):
            value = getattr(self, name)
            if value is not None and tuple(value.shape) != shape:
                raise ValueError(f"{name} of the ARKit curves has shape {list(value.shape)}; expected {list(shape)}")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"the ARKit curves have {self.fps} frames per second; give a positive rate")

    def __len__(self) -> int:
        return len(self.curves)


def motion_from_arkit(arkit: ArkitCurves, model: HeadModel) -> HeadMotion:
    """The curves as a motion of any head model, on the model's device; the place is that of the presets.

    Curves are kept within the bounds of the embedded head's expressions: 0 to 1, mouthClose no higher than 0.2. A higher
    mouthClose presses lips together that jawOpen parts; what is above the bound is taken off both, so that the lips stay as
    close and the jaw rises. Eyes turn as recorded, or as ARKit's eyes do at these curves; the neck takes NECK_SHARE of the head.
    """
    like = model.template
    curves = _within_bounds(arkit.curves.to(like))
    expression, joints = arkit_bridge(model).to_model(curves)
    low, high = model.expression_bounds.to(like).unbind(-1)
    expression = torch.minimum(torch.maximum(expression, low), high)
    eyes = _gaze(curves) if arkit.eyes is None else arkit.eyes.to(like)
    joints[:, EYES] = eyes - torch.einsum("te,ejx->tjx", expression, model.expression_joints[:, EYES])
    if arkit.head is not None:
        joints[:, NECK] = NECK_SHARE * arkit.head.to(like)
        joints[:, HEAD] = (1 - NECK_SHARE) * arkit.head.to(like)
    every = torch.ones(len(arkit), dtype=torch.bool)
    return HeadMotion(
        model_id=model.model_id,
        expression=expression,
        joints=joints,
        translation=like.new_tensor([0.0, 0.0, -DISTANCE]).repeat(len(arkit), 1),
        valid=(every if arkit.valid is None else arkit.valid).to(like.device),
        fps=arkit.fps,
    )


def arkit_from_motion(motion: HeadMotion, model: HeadModel) -> ArkitCurves:
    """The motion of head model `model` as ARKit curves with head and eyes; the place is left out.

    eyeLook curves are set to what ARKit's eyes would have at the motion's gaze, as far as 1 reaches. Raises ValueError if the
    motion was made with another model.
    """
    if motion.model_id != model.model_id:
        raise ValueError(
            f"this HeadMotion was made with head model {motion.model_id}, but {model.model_id} is loaded; load the matching head model"
        )
    like = model.template
    expression, joints = motion.expression.to(like), motion.joints.to(like)
    turned = model.joint_rotations(expression, joints)
    curves = arkit_bridge(model).to_arkit(expression, joints, with_gaze=False)
    world = rotation.to_matrix(turned[:, [ROOT, NECK, HEAD]])
    head = rotation.to_rotvec(world[:, 0] @ world[:, 1] @ world[:, 2])
    return ArkitCurves(_with_gaze(curves, turned[:, EYES]), motion.fps, head, turned[:, EYES], motion.valid)


def _within_bounds(curves: Tensor) -> Tensor:
    low, high = load_head_model().expression_bounds.to(curves).unbind(-1)
    close, jaw = ARKIT_NAMES.index("mouthClose"), ARKIT_NAMES.index("jawOpen")
    above = (curves[:, close].clamp(max=1) - high[close]).clamp(min=0)
    bounded = torch.minimum(torch.maximum(curves, low), high)
    bounded[:, jaw] = (bounded[:, jaw] - above).clamp(min=0)
    return bounded


def _gaze_axes() -> list[tuple[int, int, int, int, float]]:
    """Eye, axis, the curves that turn it the positive and the negative way, and the angle at 1."""
    axes = []
    for eye, side, left, right in ((0, "Left", "Out", "In"), (1, "Right", "In", "Out")):
        for axis, positive, negative, angle in ((0, "Down", "Up", GAZE_UPRIGHT), (1, left, right, GAZE_SIDEWAYS)):
            curves = (ARKIT_NAMES.index(f"eyeLook{way}{side}") for way in (positive, negative))
            axes.append((eye, axis, *curves, angle))
    return axes


def _gaze(curves: Tensor) -> Tensor:
    """Rotation vectors [T, 2, 3] of ARKit's eyes at curves [T, 52]."""
    eyes = curves.new_zeros(len(curves), 2, 3)
    for eye, axis, positive, negative, angle in _gaze_axes():
        eyes[:, eye, axis] = angle * (curves[:, positive] - curves[:, negative])
    return eyes


def _with_gaze(curves: Tensor, eyes: Tensor) -> Tensor:
    """Curves [T, 52] at which ARKit's eyes turn as `eyes` [T, 2, 3]; where they already do, nothing changes."""
    missing = eyes - _gaze(curves)
    curves = curves.clone()
    for eye, axis, positive, negative, angle in _gaze_axes():
        for more, less, amount in ((positive, negative, missing[:, eye, axis]), (negative, positive, -missing[:, eye, axis])):
            rise = (amount / angle).clamp(min=0)
            taken = torch.minimum(rise, curves[:, less])
            curves[:, less] -= taken
            curves[:, more] = torch.maximum(curves[:, more], (curves[:, more] + rise - taken).clamp(max=1))
    return curves
