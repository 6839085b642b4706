"""How far a performer's lids and lips are shut, told from the rims of the performer's own head."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel
from .contact_fields import smoothstep
from .contact_points import PersonPoints, neutral_of
from .contact_rims import Rims, find_rims, joined_table
from .contact_solids import eyeballs

# Of the opening at rest. Fits, and the landmarks under them, leave eyes that are shut in a blink up to a third open.
LIDS_SHUT, LIDS_OPEN = 0.35, 0.5
LEAST_OPENING = 0.2  # of the eye's width: what a rest that is nearly shut (a sleeper) counts as
LIPS_SHUT, LIPS_OPEN = 0.012, 0.035  # of the mouth's width
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
    displacement [V, 3]. A lid is shut when its widest gap is below 35 % of that at rest, and has no say above 50 %; lips count in
    parts of the mouth's width. None if the model's rims are not to be found.
    """
    rims = find_rims(model)
    if rims is None:
        return None
    if identity is None:
        identity = expression.new_zeros(model.identity_basis.shape[0])
    person = PersonPoints.of(model, joined_table([rim.table for rim in rims.all]), identity, displacement)
    still = person.posed(rest_expression[None], rest_joints[None]).points
    neutral = neutral_of(model, identity, displacement)
    unmoved = person.posed(torch.zeros_like(rest_expression)[None], torch.zeros_like(rest_joints)[None]).points
    seen = [eye.seen for eye in eyeballs(model, neutral, rims, [part[0] for part in by_column(rims, unmoved)])] + [None]

    def gaps(points: Tensor) -> list[Tensor]:
        return [rim_gap(part, mask) for part, mask in zip(samples(rims, points), seen)]

    rest = gaps(still)
    parts = [
        gaps(person.posed(expression[start : start + CHUNK], joints[start : start + CHUNK]).points)
        for start in range(0, len(expression), CHUNK)
    ]
    left, right, lips = (torch.cat([part[k] for part in parts]) for k in range(3))
    lids = []
    for rim, gap, resting in ((rims.left_eye, left, rest[0]), (rims.right_eye, right, rest[1])):
        opening = resting.amax(-1).clamp(min=LEAST_OPENING * rim.width)
        lids.append(_shut(gap.amax(-1) / opening, LIDS_SHUT, LIDS_OPEN))
    return torch.stack(lids, dim=-1), _shut(lips / rims.lips.width, LIPS_SHUT, LIPS_OPEN)


def by_column(rims: Rims, values: Tensor) -> list[Tensor]:
    """Values [T, L or more, ...] at the samples of all rims: three of [T, 2, N, S, ...]."""
    counts = [rim.points[..., 0].numel() for rim in rims.all]
    split = values[:, : sum(counts)].split(counts, dim=1)
    return [part.unflatten(1, rim.points.shape[:3]) for part, rim in zip(split, rims.all)]


def samples(rims: Rims, points: Tensor) -> list[Tensor]:
    """Points [T, L or more, 3] of all rims in the openings' own axes: three of [T, 2, N, S, 3]."""
    return [(part.reshape(-1, 3) @ rim.axes.mT).view(part.shape) for part, rim in zip(by_column(rims, points), rims.all)]


def rim_gap(part: Tensor, seen: Tensor | None = None) -> Tensor:
    """Gap [T, N] in metres, from the front, of samples [T, 2, N, S, 3]: the upper rim's lowest over the lower one's highest.

    Below 0 where the upper rim hangs over the lower one. Only samples of `seen` [2, N, S] count, if it is given.
    """
    height = part[..., 1]
    upper, lower = height[:, 0], height[:, 1]
    if seen is not None:
        upper = upper.masked_fill(~seen[0], torch.inf)
        lower = lower.masked_fill(~seen[1], -torch.inf)
    return upper.amin(-1) - lower.amax(-1)


def _shut(ratio: Tensor, shut: float, open: float) -> Tensor:
    return 1 - smoothstep((ratio - shut) / (open - shut))
