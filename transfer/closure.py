"""How far a performer's lids and lips are shut, told from the rims of the performer's own head."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel
from .contact_fields import smoothstep
from .contact_points import PersonPoints
from .contact_rims import Rims, find_rims, joined_table

LIDS_SHUT, LIDS_OPEN = 0.15, 0.35  # of the opening at rest: fits leave closed eyes a little open
LEAST_OPENING = 0.2  # of the eye's width: what a rest that is nearly shut (a sleeper) counts as
LIPS_SHUT, LIPS_OPEN = 0.018, 0.055  # of the mouth's width
CHUNK = 256  # frames at once


def closure(
    model: HeadModel,
    expression: Tensor,
    joints: Tensor,
    rest_expression: Tensor,
    rest_joints: Tensor,
    identity: Tensor | None = None,
    displacement: Tensor | None = None,
) -> tuple[Tensor, Tensor] | None:
    """Closure of a performer's lids [T, 2] (left, right eye) and lips [T, N] (columns from right to left); 1 is shut, 0 is open.

    expression [T, E], joints [T, J, 3]; the same at rest: [E], [J, 3]; identity [I] (the mean person if not given),
    displacement [V, 3]. A lid is shut when its widest gap is below 15 % of that at rest, and has no say above 35 %; lips count in
    parts of the mouth's width. None if the model's rims are not to be found.
    """
    rims = find_rims(model)
    if rims is None:
        return None
    if identity is None:
        identity = expression.new_zeros(model.identity_basis.shape[0])
    person = PersonPoints.of(model, joined_table([rim.table for rim in rims.all]), identity, displacement)
    rest = gaps(rims, person.posed(rest_expression[None], rest_joints[None]).points)
    parts = [
        gaps(rims, person.posed(expression[start : start + CHUNK], joints[start : start + CHUNK]).points)
        for start in range(0, len(expression), CHUNK)
    ]
    left, right, lips = (torch.cat([part[k] for part in parts]) for k in range(3))
    lids = []
    for rim, gap, still in ((rims.left_eye, left, rest[0]), (rims.right_eye, right, rest[1])):
        opening = still.amax(-1).clamp(min=LEAST_OPENING * rim.width)
        lids.append(_shut(gap.amax(-1) / opening, LIDS_SHUT, LIDS_OPEN))
    return torch.stack(lids, dim=-1), _shut(lips / rims.lips.width, LIPS_SHUT, LIPS_OPEN)


def samples(rims: Rims, points: Tensor) -> list[Tensor]:
    """Points [T, L, 3] of all rims in the openings' own axes: three of [T, 2, N, S, 3]."""
    counts = [rim.points[..., 0].numel() for rim in rims.all]
    split = points.split(counts, dim=1)
    return [(part.reshape(-1, 3) @ rim.axes.mT).view(len(part), *rim.points.shape) for part, rim in zip(split, rims.all)]


def gaps(rims: Rims, points: Tensor) -> list[Tensor]:
    """Gap of each opening in metres, three of [T, N], seen from its front: below 0 where the upper rim hangs over the lower."""
    return [rim_gap(part) for part in samples(rims, points)]


def rim_gap(part: Tensor) -> Tensor:
    """Gap [T, N] of samples [T, 2, N, S, 3]: lowest of the upper rim over the highest of the lower one."""
    height = part[..., 1]
    return height[:, 0].amin(-1) - height[:, 1].amax(-1)


def _shut(ratio: Tensor, shut: float, open: float) -> Tensor:
    return 1 - smoothstep((ratio - shut) / (open - shut))
