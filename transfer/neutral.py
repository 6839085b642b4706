"""The face at rest: what expression, pose and place a clip or photo has when nothing is acted."""

from __future__ import annotations

import dataclasses
import logging

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
LOW_QUANTILE = 0.2  # of a coefficient that cannot be negative: where it is while other things are acted
# Distance (of all coefficients, in units of their bounds) of a clip's frames from its quiet ones at which it begins to act, and at
# which it acts so much that what never goes away is the face's shape or the fit's bias, not an expression.
STILL, LIVELY = 0.4, 1.2
RESTLESS = 0.7  # distance of the quiet frames from a face at rest above which the user is told

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Rest:
    """A head at rest: expression [E], joints [J, 3] in radians, translation [3] in metres."""

    expression: Tensor
    joints: Tensor
    translation: Tensor


def resting_expression(expression: Tensor, model: HeadModel, lively: float = 0.0) -> Tensor:
    """Part of an expression [E] that may be the face's resting shape.

    Each coefficient is limited to a quarter of its bound. Lips that part with an open jaw say nothing about their shape at
    rest, so with ARKit's names the mouth's coefficients fade to 0 as jawOpen grows. With `lively` 0..1, how much the face
    acts in other frames, both limits recede: what stays while other things are acted is no acting.
    """
    low, high = model.expression_bounds.to(expression).unbind(-1)
    limit = RESTING_LIMIT + (1 - RESTING_LIMIT) * lively
    rest = torch.minimum(torch.maximum(expression, limit * low), limit * high)
    if "jawOpen" in model.expression_names:
        mouth = [i for i, name in enumerate(model.expression_names) if name.startswith(("jaw", "mouth", "tongue"))]
        jaw = model.expression_names.index("jawOpen")
        fade = (1 - (expression[jaw] / high[jaw] - RESTING_JAW_OPEN) / RESTING_LIMIT).clamp(0, 1)
        rest[mouth] *= lively + (1 - lively) * fade
    return rest


def quiet_frames(driver: HeadTrack | HeadMotion, model: HeadModel, share: float = QUIET_SHARE) -> Tensor:
    """Indices of the valid frames with the least acted expression: near where the coefficients stay, slow change.

    Coefficients that cannot be negative stay at their LOW_QUANTILE, others at their median: what a fit adds to a face in every
    frame is no acting. Raises ValueError if no frame is valid.
    """
    valid = driver.valid.nonzero()[:, 0]
    if len(valid) == 0:
        raise ValueError("the driver has no frame with a face; choose another clip")
    expression = driver.expression
    seen = expression[valid]
    one_sided = (model.expression_bounds[:, 0] >= 0).to(expression.device)
    centre = torch.where(one_sided, seen.quantile(LOW_QUANTILE, dim=0), seen.median(0).values)
    size = (expression - centre).square().sum(-1)
    change = torch.zeros_like(size)
    if len(size) > 1:
        step = (expression[1:] - expression[:-1]).square().sum(-1)
        change[1:] += step
        change[:-1] += step
    energy = (size + 4 * change)[valid]
    return valid[energy.argsort()[: max(1, round(share * len(valid)))]]


def rest_of(driver: HeadTrack | HeadMotion, model: HeadModel) -> Rest:
    """Rest of a clip: mean over its quiet frames, the expression limited to what a face at rest may have.

    A face that acts in its quiet frames too (a laughing photo) gets that limited rest, and a warning is logged. Raises
    ValueError if no frame is valid.
    """
    quiet = quiet_frames(driver, model)
    joints = torch.stack([rotation.mean(driver.joints[quiet, j]) for j in range(len(JOINTS))])
    expression = driver.expression[quiet].mean(0)
    reach = model.expression_bounds.abs().amax(1).to(expression)
    away = ((driver.expression[driver.valid] - expression) / reach).norm(dim=-1).median()
    lively = float(((away - STILL) / (LIVELY - STILL)).clamp(0, 1))
    resting = resting_expression(expression, model, lively)
    if float(((expression - resting) / reach).norm()) > RESTLESS:
        logger.warning("no picture shows this face at rest, so a mild form of its calmest look is taken; give neutral_frame if one does")
    return Rest(resting, joints, driver.translation[quiet].mean(0))


def neutral_expression(track: HeadTrack, model: HeadModel, frame: int | None = None) -> Tensor:
    """Expression [E] of a fitted person's face at rest: that of `frame` if one is given, else found by `rest_of`."""
    return (rest_of(track, model) if frame is None else rest_at(track, frame)).expression


def rest_at(driver: HeadTrack | HeadMotion, frame: int) -> Rest:
    """The head in one frame, declared to be at rest. Raises ValueError if there is no such frame, or no face in it."""
    if not 0 <= frame < len(driver):
        raise ValueError(f"neutral_frame is {frame}, but the clip has frames 0 to {len(driver) - 1}; give one of them")
    if not bool(driver.valid[frame]):
        raise ValueError(f"no face was found in frame {frame} of the clip; give another neutral_frame")
    return Rest(driver.expression[frame], driver.joints[frame], driver.translation[frame])
