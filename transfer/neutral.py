"""The face at rest: what expression, pose and place a clip or photo has when nothing is acted."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..proxy import rotation
from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.head_track import HeadTrack
from .motion import HeadMotion

# Small coefficients are a resting face and fit noise; what goes beyond was acted. In units of the model's upper bound.
RESTING_LIMIT = 0.25
RESTING_JAW_OPEN = 0.05  # share of jawOpen's bound up to which the mouth counts as closed
QUIET_SHARE = 0.15  # share of a clip's frames that count as quiet


@dataclasses.dataclass(frozen=True)
class Rest:
    """A head at rest: expression [E], joints [J, 3] in radians, translation [3] in metres."""

    expression: Tensor
    joints: Tensor
    translation: Tensor


def resting_expression(expression: Tensor, model: HeadModel) -> Tensor:
    """Part of an expression [E] that may be the face's resting shape.

    Each coefficient is limited to a quarter of its bound. Lips that part with an open jaw say nothing about their shape at
    rest, so with ARKit's names the mouth's coefficients fade to 0 as jawOpen grows.
    """
    low, high = model.expression_bounds.to(expression).unbind(-1)
    rest = torch.minimum(torch.maximum(expression, RESTING_LIMIT * low), RESTING_LIMIT * high)
    if "jawOpen" in model.expression_names:
        mouth = [i for i, name in enumerate(model.expression_names) if name.startswith(("jaw", "mouth", "tongue"))]
        jaw = model.expression_names.index("jawOpen")
        rest[mouth] *= (1 - (expression[jaw] / high[jaw] - RESTING_JAW_OPEN) / RESTING_LIMIT).clamp(0, 1)
    return rest


def quiet_frames(driver: HeadTrack | HeadMotion, share: float = QUIET_SHARE) -> Tensor:
    """Indices of the valid frames with the least acted expression: small coefficients, slow change.

    Raises ValueError if no frame is valid.
    """
    valid = driver.valid.nonzero()[:, 0]
    if len(valid) == 0:
        raise ValueError("the driver has no frame with a face; choose another clip")
    expression = driver.expression
    size = expression.square().sum(-1)
    change = torch.zeros_like(size)
    if len(size) > 1:
        step = (expression[1:] - expression[:-1]).square().sum(-1)
        change[1:] += step
        change[:-1] += step
    energy = (size + 4 * change)[valid]
    return valid[energy.argsort()[: max(1, round(share * len(valid)))]]


def rest_of(driver: HeadTrack | HeadMotion, model: HeadModel) -> Rest:
    """Rest of a clip: robust mean over its quiet frames, the expression limited to what a face at rest may have."""
    quiet = quiet_frames(driver)
    joints = torch.stack([rotation.mean(driver.joints[quiet, j]) for j in range(len(JOINTS))])
    return Rest(
        resting_expression(driver.expression[quiet].median(0).values, model),
        joints,
        driver.translation[quiet].median(0).values,
    )
