"""Expression and pose transfer by coefficients: differences from the driver's rest, added to the target's rest.

Identity is no input and no output here, so it cannot leak from the driver.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ..proxy import rotation
from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.head_track import HeadTrack
from .motion import HeadMotion
from .neutral import Rest, rest_of
from .smooth import smooth_rotations, smooth_values

Origin = Literal["source", "driver", "mix"]
ROOT, NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE = (JOINTS.index(n) for n in ("root", "neck", "head", "jaw", "left_eye", "right_eye"))
RESTING_JAW = 0.05  # radians


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """What comes from where, and how much of it."""

    pose_from: Origin = "driver"  # head rotation and place
    expression_from: Origin = "driver"  # expression, jaw and gaze
    mix: float = 0.5  # for "mix": 0 is the source alone, 1 the driver alone
    pose_strength: float = 1.0  # scales the driver's rotation and movement away from its rest
    expression_strength: float = 1.0  # scales the driver's expression away from its rest
    smoothing: float = 0.0  # standard deviation of the Gaussian over time, seconds; 0 is off

    def __post_init__(self):
        for name in ("pose_from", "expression_from"):
            if getattr(self, name) not in get_args(Origin):
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(get_args(Origin))}")
        for name in ("mix", "pose_strength", "expression_strength", "smoothing"):
            if not math.isfinite(getattr(self, name)) or getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; give a number of at least 0")

    def amount(self, origin: Origin, strength: float) -> float:
        return {"source": 0.0, "driver": strength, "mix": strength * self.mix}[origin]


def transfer_motion(
    proxy: HeadProxy,
    driver: HeadTrack | HeadMotion,
    model: HeadModel,
    settings: TransferSettings = TransferSettings(),
    rest: Rest | None = None,
) -> HeadMotion:
    """Moves the driver's expression and head pose onto the proxy's head.

    Expression (and jaw and gaze) = target at rest + strength (driver - driver at rest), within the model's bounds; with
    amount 0 it is the expression of the source picture. World rotations of neck and head are multiplied by the driver's
    rotations relative to its rest; sideways movement is taken over in metres, distance as a ratio. Joint positions come
    from the target's own identity, so a head that only changes expression stays where it is. A driver's detail is its own
    skin's and stays behind: the detail of a refined proxy follows the expression.

    `rest` is the driver at rest (found by `rest_of` if not given). Returns T frames, T being the driver's.
    Raises ValueError if driver, proxy and model do not belong together, or the driver is empty or nowhere valid.
    """
    for what, found in (("driver", driver.model_id), ("proxy", proxy.model_id)):
        if found != model.model_id:
            raise ValueError(
                f"the {what} was made with head model {found}, but {model.model_id} is loaded; make both with one model"
            )
    if len(driver) == 0:
        raise ValueError("the driver has no frame; choose a clip with at least one frame")
    rest = rest or rest_of(driver, model)
    sigma = settings.smoothing * driver.fps
    expression, joints, translation = (
        smooth_values(driver.expression, sigma),
        smooth_rotations(driver.joints, sigma),
        smooth_values(driver.translation, sigma),
    )
    acted = settings.amount(settings.expression_from, settings.expression_strength)
    moved = settings.amount(settings.pose_from, settings.pose_strength)
    return HeadMotion(
        model_id=model.model_id,
        expression=_transfer_expression(proxy, expression, model, rest, acted),
        joints=_transfer_joints(proxy, joints, rest, moved, acted),
        translation=_transfer_translation(proxy, translation, rest, moved),
        valid=driver.valid.clone(),
        fps=driver.fps,
    )


def _transfer_expression(proxy: HeadProxy, expression: Tensor, model: HeadModel, rest: Rest, amount: float) -> Tensor:
    if amount == 0:
        return proxy.source_expression.expand_as(expression).clone()
    low, high = model.expression_bounds.to(expression).unbind(-1)
    moved = proxy.neutral + amount * (expression - rest.expression)
    return torch.minimum(torch.maximum(moved, low), high)


def _transfer_joints(proxy: HeadProxy, joints: Tensor, rest: Rest, moved: float, acted: float) -> Tensor:
    source = rotation.to_matrix(proxy.source_joints)  # [J, 3, 3]
    driver_world, rest_world = _world(rotation.to_matrix(joints)), _world(rotation.to_matrix(rest.joints))
    source_world = _world(source)
    neck, head = (
        rotation.to_matrix(moved * rotation.to_rotvec(driver_world[k] @ rest_world[k].mT)) @ source_world[k] for k in (NECK, HEAD)
    )  # [T, 3, 3]
    out = proxy.source_joints.repeat(joints.shape[0], 1, 1)
    out[:, NECK] = rotation.to_rotvec(source[ROOT].mT @ neck)
    out[:, HEAD] = rotation.to_rotvec(neck.mT @ head)
    if acted > 0:
        jaw = proxy.source_joints[JAW]
        out[:, JAW] = jaw * (RESTING_JAW / jaw.norm().clamp(min=RESTING_JAW))  # an open mouth in the picture is no rest
        for k in (JAW, LEFT_EYE, RIGHT_EYE):
            out[:, k] += acted * (joints[:, k] - rest.joints[k])
    return out


def _world(local: Tensor) -> dict[int, Tensor]:
    """World rotations of neck and head from local ones [..., J, 3, 3]."""
    neck = local[..., ROOT, :, :] @ local[..., NECK, :, :]
    return {NECK: neck, HEAD: neck @ local[..., HEAD, :, :]}


def _transfer_translation(proxy: HeadProxy, translation: Tensor, rest: Rest, amount: float) -> Tensor:
    sideways = proxy.source_translation[:2] + amount * (translation[:, :2] - rest.translation[:2])
    ratio = (translation[:, 2:] / rest.translation[2]).clamp(min=0.2)
    return torch.cat([sideways, proxy.source_translation[2] * ratio**amount], dim=1)
