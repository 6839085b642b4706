"""Expressions by hand: named ones, ARKit curves and keyframes that add to a motion, or replace its expression for a while."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from ..proxy import rotation
from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.posing import check_models
from .arkit_bridge import ARKIT_NAMES, arkit_bridge
from .expression_controls import ANGLES, CONTROLS, curve_amounts
from .expression_keyframes import Keyframe
from .motion import HeadMotion
from .presets import NECK_SHARE
from .transfer import RESTING_JAW

NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE = (JOINTS.index(n) for n in ("neck", "head", "jaw", "left_eye", "right_eye"))
EditMode = Literal["add", "replace"]


@dataclasses.dataclass(frozen=True)
class TimeRange:
    """When an edit acts: from start to end, in seconds, with eases (smoothstep) inside; an end of -1 is the motion's end.

    Raises ValueError for a time that is no number, a negative start or ease, or an end before the start.
    """

    start: float = 0.0
    end: float = -1.0
    ease_in: float = 0.0
    ease_out: float = 0.0

    def __post_init__(self):
        for name in ("start", "ease_in", "ease_out"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}; give seconds of at least 0")
        if self.end != -1 and not self.end >= self.start:
            raise ValueError(f"the edit ends at {self.end:g} s, but starts at {self.start:g} s; let it end later, or give -1 for the end")

    def weights(self, count: int, fps: float) -> Tensor:
        """How much of the edit each frame gets, [T] in 0..1. Eases that do not fit into the range are shortened alike.

        Raises ValueError if the motion ends before the range starts.
        """
        time = torch.arange(count, dtype=torch.float64) / fps
        last = (count - 1) / fps
        if self.start > last:
            raise ValueError(f"the edit starts at {self.start:g} s, but the last frame is at {last:g} s; start earlier")
        end = last if self.end == -1 else min(self.end, last)
        eases = self.ease_in + self.ease_out
        fit = min(1.0, (end - self.start) / eases) if eases > 0 else 1.0
        weight = ((time >= self.start - 1e-6) & (time <= end + 1e-6)).double()
        for since, ease in ((time - self.start, fit * self.ease_in), (end - time, fit * self.ease_out)):
            if ease > 0:
                x = (since / ease).clamp(0, 1)
                weight = weight * x * x * (3 - 2 * x)
        return weight


def resting_motion(proxy: HeadProxy, seconds: float, fps: float) -> HeadMotion:
    """A still motion of a person at rest, for an edit that stands alone: neutral expression, mouth shut, the source picture's
    pose and gaze. At least one frame. Raises ValueError unless seconds and fps are above 0."""
    for name, value in (("seconds", seconds), ("fps", fps)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; give a number above 0")
    count = max(1, round(seconds * fps))
    return HeadMotion(
        model_id=proxy.model_id,
        expression=proxy.neutral.repeat(count, 1),
        joints=_resting_joints(proxy).repeat(count, 1, 1),
        translation=proxy.source_translation.repeat(count, 1),
        valid=torch.ones(count, dtype=torch.bool, device=proxy.neutral.device),
        fps=float(fps),
    )


def edit_expression(
    motion: HeadMotion,
    amounts: Mapping[str, float] | Sequence[Keyframe],
    proxy: HeadProxy,
    model: HeadModel,
    when: TimeRange = TimeRange(),
    mode: EditMode = "add",
) -> HeadMotion:
    """Edits the expression of a motion of `proxy`: amounts by name (see `expression_controls`), or keyframes.

    "add" adds the curves to what is there; "replace" first goes from the motion's expression, jaw and gaze to the person's rest,
    the detail fading out. Head angles always add, on SO(3): positive headPitch nods down, headYaw turns to the subject's left,
    headRoll tilts to the subject's right shoulder, gazePitch looks down and gazeYaw to the subject's left, all in degrees.
    Between keyframes each curve is a monotone cubic (Fritsch and Carlson 1980); before the first and after the last it holds.
    An edited expression stays within the model's bounds, or within the motion's where those are wider; frames outside the
    range are not touched. A model without ARKit's names gets the curves through `arkit_bridge`.

    Raises ValueError for an unknown mode, name or amount, an empty motion, a range after its end, or different head models.
    """
    if mode not in get_args(EditMode):
        raise ValueError(f"the edit mode is {mode!r}; choose one of {', '.join(get_args(EditMode))}")
    check_models(model, proxy, motion)
    if len(motion) == 0:
        raise ValueError("the motion has no frame; give one with at least one frame")
    curves = _curves(amounts, len(motion), motion.fps).to(motion.expression)
    weight = when.weights(len(motion), motion.fps).to(motion.expression)[:, None]
    start = _faded_to_rest(motion, proxy, weight) if mode == "replace" else motion
    return _with_curves(start, weight * curves, motion.expression, model)


def _curves(amounts: Mapping[str, float] | Sequence[Keyframe], count: int, fps: float) -> Tensor:
    """[T, len(CONTROLS)] of amounts that stay or of keyframes."""
    if isinstance(amounts, Mapping):
        amounts = (Keyframe(0.0, curve_amounts(amounts)),)
    curves = torch.zeros(count, len(CONTROLS), dtype=torch.float64)
    if not amounts:
        return curves
    seconds = [key.seconds for key in amounts]
    values = np.array([[key.amounts.get(name, 0.0) for name in CONTROLS] for key in amounts])
    if len(seconds) == 1:
        return curves + torch.from_numpy(values)
    time = np.clip(np.arange(count) / fps, seconds[0], seconds[-1])
    return torch.from_numpy(PchipInterpolator(seconds, values)(time))


def _resting_joints(proxy: HeadProxy) -> Tensor:
    """Joints [J, 3] of the source picture with the jaw no further open than at rest."""
    joints = proxy.source_joints.clone()
    joints[JAW] *= RESTING_JAW / joints[JAW].norm().clamp(min=RESTING_JAW)
    return joints


def _faded_to_rest(motion: HeadMotion, proxy: HeadProxy, weight: Tensor) -> HeadMotion:
    joints, rest = motion.joints.clone(), _resting_joints(proxy)
    for k in (JAW, LEFT_EYE, RIGHT_EYE):
        joints[:, k] = torch.lerp(joints[:, k], rest[k].expand_as(joints[:, k]), weight)
    return dataclasses.replace(
        motion,
        expression=torch.lerp(motion.expression, proxy.neutral.expand_as(motion.expression), weight),
        joints=joints,
        detail=None if motion.detail is None else motion.detail * (1 - weight),
    )


def _with_curves(motion: HeadMotion, curves: Tensor, before: Tensor, model: HeadModel) -> HeadMotion:
    """Adds curves [T, len(CONTROLS)]; `before` [T, E] is the expression that may already lie beyond the bounds."""
    shapes, angles = curves[:, : len(ARKIT_NAMES)], torch.deg2rad(curves[:, len(ARKIT_NAMES) :])
    expression, joints = motion.expression, motion.joints.clone()
    if bool(shapes.any()):
        change, turns = arkit_bridge(model).to_model(shapes)
        low, high = model.expression_bounds.to(expression).unbind(-1)
        expression = torch.minimum(
            torch.maximum(expression + change.to(expression), torch.minimum(low, before)), torch.maximum(high, before)
        )
        joints += turns.to(joints)
    angle = {name: angles[:, i] for i, name in enumerate(ANGLES)}
    for k in (LEFT_EYE, RIGHT_EYE):
        joints[:, k, 0] += angle["gazePitch"]
        joints[:, k, 1] += angle["gazeYaw"]
    head = torch.stack([angle["headPitch"], angle["headYaw"], angle["headRoll"]], -1)  # [T, 3]
    for k, share in ((NECK, NECK_SHARE), (HEAD, 1 - NECK_SHARE)):
        turned = rotation.compose(joints[:, k], share * head)
        joints[:, k] = torch.where(head.any(-1, keepdim=True), turned, joints[:, k])
    return dataclasses.replace(motion, expression=expression, joints=joints)
