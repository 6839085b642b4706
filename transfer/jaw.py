"""The range of the jaw: no head opens its mouth further, and lower teeth stop at the upper ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, PARTS, HeadModel

JAW = JOINTS.index("jaw")
# Radians about x (opening), y (sideways) and z (roll). Adults open 40 to 60 mm between the incisors, some 100 mm from the
# condyles' axis, and move the incisors 8 to 12 mm sideways (Okeson, Management of Temporomandibular Disorders, 8th ed., ch. 9).
WIDEST, SIDEWAYS, ROLL = 0.5, 0.12, 0.06
CLOSED = 0.03  # closing beyond the closed mouth, for models without teeth
KNEE = 0.75  # share of a limit from which on a rotation is held back
BITE = 0.0005  # metres that teeth may meet: flesh and fit are no finer
CELL = 0.002  # metres of the grid on which upper and lower teeth are compared


def jaw_range(model: HeadModel, identity: Tensor) -> Tensor:
    """Limits [3, 2] in radians of the jaw's rotation vector of one person, identity [I]; closing stops at the teeth."""
    limits = model.template.new_tensor([[-CLOSED, WIDEST], [-SIDEWAYS, SIDEWAYS], [-ROLL, ROLL]])
    limits[0, 0] = -min(CLOSED, _bite_angle(model, identity))
    return limits


def limit_jaw(model: HeadModel, expression: Tensor, joints: Tensor, limits: Tensor) -> Tensor:
    """Joints [T, J, 3] whose jaw, with the expression's part of it, stays inside `limits` [3, 2].

    Unchanged up to KNEE of each limit, from there on approaching it without ever reaching it: smooth in value, hence in time.
    """
    total = model.joint_rotations(expression, joints)[:, JAW]  # [T, 3]
    low, high = limits.to(total).unbind(-1)
    held = torch.where(total < 0, -_held(-total, -low), _held(total, high))
    out = joints.expand(len(total), -1, -1).clone()
    out[:, JAW] += held - total
    return out


def _held(value: Tensor, limit: Tensor) -> Tensor:
    knee, room = KNEE * limit, (1 - KNEE) * limit
    beyond = (value - knee).clamp(min=0)
    return value.minimum(knee) + room * (1 - torch.exp(-beyond / room))


def _bite_angle(model: HeadModel, identity: Tensor) -> float:
    """Radians by which this person's closed mouth can close further before the teeth meet by BITE."""
    parts = model.vertex_parts()
    still = identity.new_zeros(1, len(model.expression_names))
    neutral = model.canonical(identity[None], still)[0]
    upper, lower = (neutral[parts == PARTS.index(name)] for name in ("upper_teeth", "lower_teeth"))
    if len(upper) == 0 or len(lower) == 0:
        return CLOSED
    joint = model.joint_positions(identity[None], still)[0, JAW]
    origin = torch.cat([upper, lower])[:, [0, 2]].amin(0)
    cells = [((teeth[:, [0, 2]] - origin) / CELL).long() for teeth in (upper, lower)]
    size = torch.cat(cells).amax(0) + 1
    count = int(size[0] * size[1])
    index = [cell[:, 0] * size[1] + cell[:, 1] for cell in cells]
    bottom = upper.new_full((count,), torch.inf).scatter_reduce(0, index[0], upper[:, 1], "amin")
    top = lower.new_full((count,), -torch.inf).scatter_reduce(0, index[1], lower[:, 1], "amax")
    depth = origin[1] + (torch.arange(count, device=top.device) % size[1] + 0.5) * CELL - joint[2]
    clearance = bottom - top
    meeting = clearance.isfinite() & (depth > 0.01)
    if not bool(meeting.any()):
        return CLOSED
    return float(((clearance[meeting].clamp(min=0) + BITE) / depth[meeting]).min())
