"""Contact on a target: lids and lips meet where the performer's do, never cross, and stay before eyes and teeth.

Solved in closed form for all frames at once, on some hundred samples of the rims. Skinning moves a point that is displaced by d in
canonical space by M d with M = sum_j w_j R_j, so the movement that a column wants is taken back through M in the opening's
axes y and z. A second pass takes up what neighbouring columns add to one another. Where the model has an expression that shuts an
opening, its field goes first, as far as all columns agree (least squares), so that a large movement is the model's own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, HeadModel
from .closure import CHUNK, by_column, rim_gap, samples
from .contact_fields import bumps
from .contact_points import PersonPoints, Posed, neutral_of
from .contact_rims import Rim, find_rims, joined_table
from .contact_solids import Teeth, eyeballs, has_teeth
from .jaw import jaw_range, limit_jaw

PASSES = 2
OVERLAP = 0.0003  # metres by which shut rims overlap: the gap between two columns is never quite that at them
LIDS_CROSSED, LIPS_CROSSED = 0.003, 0.005  # metres that one rim may hang over the other, beyond the neutral face
PIERCED = 0.0005  # metres that the lips' flesh may run into one another, beyond the neutral face
LIDS_SHARE, LIPS_SHARE = 0.85, 0.4  # of a movement that the upper rim makes
SHUTTERS = ("eyeBlinkLeft", "eyeBlinkRight", "mouthClose")  # expressions that shut the openings, in the order of Rims.all
PROBE_STEP = 0.1  # of a shutter, by which its effect on the gaps is found
NEGLIGIBLE = 1e-6  # of a coefficient: metres, or shares of a shutter


class Contact:
    """Contact of one target: made once, used for any motion. Raises ValueError for a model without rims (see `find_rims`)."""

    def __init__(self, model: HeadModel, identity: Tensor, displacement: Tensor | None = None):
        """identity [I], displacement [V, 3] or None (canonical space, metres): what every frame of this target has."""
        rims = find_rims(model)
        if rims is None:
            raise ValueError(f"lids and lips of head model {model.model_id} are not to be found; calibrate its landmarks first")
        self.model, self.identity, self.displacement, self.rims = model, identity, displacement, rims
        self.limits = jaw_range(model, identity)
        rim_bumps = [bumps(model, rims, rim) for rim in rims.all]  # [2, N, V] each
        shutters = [k for k, name in enumerate(SHUTTERS) if name in model.expression_names]
        self.shutters = shutters  # openings that have one
        fields = [_fields(rim, bump) for rim, bump in zip(rims.all, rim_bumps)]
        fields.append(_expression_fields(model, [SHUTTERS[k] for k in shutters]))
        self.fields = torch.cat(fields)  # [K, V, 3]: bumps of the openings in order, then shutters
        still = identity.new_zeros(1, len(model.expression_names))
        neutral = neutral_of(model, identity, displacement)
        self.teeth = Teeth(model, neutral, rim_bumps[2]) if has_teeth(model) else None
        tables = [joined_table([rim.table for rim in rims.all])] + ([self.teeth.table(model)] if self.teeth else [])
        self.rim_points, self.table = len(tables[0].triangle), joined_table(tables)
        corners = model.faces[self.table.triangle]  # [L, 3]
        at_points = torch.einsum("lk,flkx->flx", self.table.barycentric.to(self.fields), self.fields[:, corners])
        self.at_points = at_points.flatten(1)  # [K, 3 L]
        rest = PersonPoints.of(model, self.table, identity, displacement).posed(still, still.new_zeros(1, len(JOINTS), 3))
        self.eyes = eyeballs(model, neutral, rims, [part[0] for part in by_column(rims, rest.points)])
        self.seen = [eye.seen for eye in self.eyes] + [None]
        parts = samples(rims, rest.points)
        self.rest_gaps = [rim_gap(part, seen)[0].clamp(max=0) for part, seen in zip(parts, self.seen)]
        self.rest_pierced = pierced(parts[2])[0]
        if self.teeth:
            self.teeth.remember(rest.points[:, self.rim_points :], rest)

    def correct(
        self,
        expression: Tensor,
        joints: Tensor,
        lids: Tensor | None = None,
        lips: Tensor | None = None,
        basis: Tensor | None = None,
        coefficients: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Corrected joints [T, J, 3], displacement fields [K, V, 3] and their coefficients [T, K] (canonical space, metres).

        expression [T, E], joints [T, J, 3]; lids [T, 2] and lips [T, N] are the performer's of `closure` (open if not given);
        basis [F, V, 3] with coefficients [T, F] are displacements that the frames have besides. A gap g becomes (1 - closure) g,
        and rims that cross are taken apart. K counts the fields that some frame needs.
        """
        joints = limit_jaw(self.model, expression, joints, self.limits)
        frames = len(expression)
        lids = expression.new_zeros(frames, 2) if lids is None else lids
        lips = expression.new_zeros(frames, len(self.rims.lips.share)) if lips is None else lips
        person = PersonPoints.of(self.model, self.table, self.identity, self.displacement, basis)
        found = [expression.new_zeros(0, len(self.fields))]
        for start in range(0, frames, CHUNK):
            part = slice(start, start + CHUNK)
            extra = None if coefficients is None else coefficients[part]
            posed = person.posed(expression[part], joints[part], extra)
            found.append(self._solve(posed, [lids[part, :1], lids[part, 1:], lips[part]]))
        solved = torch.cat(found)
        needed = (solved.abs() > NEGLIGIBLE).any(0)
        return joints, self.fields[needed], solved[:, needed]

    def _solve(self, posed: Posed, shut: list[Tensor]) -> Tensor:
        """Coefficients [t, K] of all fields."""
        turns = [turn.mean(3) for turn in by_column(self.rims, posed.turn)]  # [t, 2, N, 3, 3] each
        parts = samples(self.rims, posed.points)
        targets = [self._target(k, part, value) for k, (part, value) in enumerate(zip(parts, shut))]
        total = posed.points.new_zeros(len(posed.points), len(self.fields))
        total[:, len(self.fields) - len(self.shutters) :] = self._shutters(posed, parts, targets)
        for step in range(PASSES):
            points = self._moved(posed, total)
            parts, columns, steps = samples(self.rims, points), by_column(self.rims, points), []
            for k, (rim, part) in enumerate(zip(self.rims.all, parts)):
                apart = targets[k] - rim_gap(part, self.seen[k])  # [t, N]
                share = LIPS_SHARE if k == 2 else LIDS_SHARE
                up = torch.stack([share * apart, (share - 1) * apart], dim=1)  # [t, 2, N]
                # Eyes and teeth are asked in the end, when the rims are at their height.
                out = self._out(k, points, columns[k], posed) if step == PASSES - 1 else torch.zeros_like(up)
                steps.append(_canonical(rim, turns[k], torch.stack([up, out], dim=-1)).flatten(1))
            steps.append(total.new_zeros(len(total), len(self.shutters)))
            total = total + torch.cat(steps, dim=1)
        return total

    def _out(self, k: int, points: Tensor, columns: Tensor, posed: Posed) -> Tensor:
        """Metres [t, 2, N] to the front that opening k still needs; its samples are `columns` [t, 2, N, S, 3]."""
        if k < len(self.eyes):
            return self.eyes[k].push(columns)
        return self.teeth.push(points[:, self.rim_points :], posed) if self.teeth else columns.new_zeros(columns.shape[:3])

    def _moved(self, posed: Posed, total: Tensor) -> Tensor:
        """Points [t, L, 3] under coefficients [t, K]."""
        moved = (total @ self.at_points).unflatten(1, (-1, 3))
        return posed.points + (posed.turn * moved[..., None, :]).sum(-1)  # many times faster than products of small matrices

    def _shutters(self, posed: Posed, parts: list[Tensor], targets: list[Tensor]) -> Tensor:
        """Coefficients [t, number of shutters] that bring the columns' gaps closest to their targets."""
        # An expression that shuts one opening leaves the others alone, so all are tried at once.
        trial = PROBE_STEP * self.at_points[len(self.fields) - len(self.shutters) :].sum(0).view(-1, 3)[: self.rim_points]
        tried = samples(self.rims, posed.points[:, : self.rim_points] + (posed.turn[:, : self.rim_points] * trial[:, None]).sum(-1))
        found = []
        for k in self.shutters:
            gap = rim_gap(parts[k], self.seen[k])
            slope = (rim_gap(tried[k], self.seen[k]) - gap) / PROBE_STEP
            best = (slope * (targets[k] - gap)).sum(-1) / slope.square().sum(-1).clamp(min=1e-12)
            found.append(best.clamp(-1, 1))
        return torch.stack(found, dim=-1) if found else posed.points.new_zeros(len(posed.points), 0)

    def _target(self, k: int, part: Tensor, shut: Tensor) -> Tensor:
        """The gap [t, N] that opening k is to have: shut as far as the performer's, not crossed beyond the neutral face."""
        gap = rim_gap(part, self.seen[k])
        target = gap - shut * (gap + OVERLAP).clamp(min=0)
        if k == 2:
            target = target + (pierced(part) - self.rest_pierced - PIERCED - (gap - target)).clamp(min=0)
        return target.maximum(self.rest_gaps[k] - (LIPS_CROSSED if k == 2 else LIDS_CROSSED))


def pierced(part: Tensor) -> Tensor:
    """How deep the lower rim runs into the upper one, metres [T, N], 0 if it does not; samples [T, 2, N, S, 3].

    Each cut is a polyline in y and z; the depth is the largest height of the lower one over the upper one at a common z.
    """
    upper, lower = part[:, 0, ..., 1:], part[:, 1, ..., 1:]  # [T, N, S, 2]
    return torch.maximum(_height_over(lower, upper), _height_over(-upper, -lower)).clamp(min=0)


def _height_over(line: Tensor, points: Tensor) -> Tensor:
    """Largest height [T, N] of polylines [T, N, S, 2] (y, z) over points [T, N, S, 2] where they have a common z."""
    start, stop = line[..., None, :-1, :], line[..., None, 1:, :]  # [T, N, 1, S - 1, 2]
    y, z = points[..., :, None, :].unbind(-1)  # [T, N, S, 1]
    run = stop[..., 1] - start[..., 1]
    share = (z - start[..., 1]) / torch.where(run == 0, torch.ones_like(run), run)
    height = torch.lerp(start[..., 0], stop[..., 0], share) - y
    return height.where((share >= 0) & (share <= 1) & (run != 0), torch.full_like(height, -torch.inf)).amax((-2, -1))


def _fields(rim: Rim, bump: Tensor) -> Tensor:
    """Fields [4 N, V, 3] of bumps [2, N, V]: each along the opening's y and z axes."""
    return (bump[:, :, None, :, None] * rim.axes[1:, None]).flatten(0, 2)


def _expression_fields(model: HeadModel, names: list[str]) -> Tensor:
    """Named expressions at 1 as fields [K, V, 3] of the dense vertices."""
    chosen = [model.expression_index(name) for name in names]
    return model.dense(model.expression_basis[chosen]) if chosen else model.template.new_zeros(0, model.vertex_count, 3)


def _canonical(rim: Rim, turn: Tensor, wanted: Tensor) -> Tensor:
    """Canonical movement [t, 2, N, 2] in y and z that skinning with `turn` [t, 2, N, 3, 3] turns into the wanted one."""
    block = rim.axes[1:] @ turn @ rim.axes[1:].mT  # [t, 2, N, 2, 2]
    (a, b), (c, d) = (row.unbind(-1) for row in block.unbind(-2))
    y, z = wanted.unbind(-1)
    return torch.stack([d * y - b * z, a * z - c * y], dim=-1) / (a * d - b * c)[..., None]
