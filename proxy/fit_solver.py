"""Levenberg-Marquardt for a clip, in two forms of sparse system.

- `fit_shape`: key frames with their shared identity and focal length. The system is an arrowhead: blocks of single frames and one
  shared block, eliminated by a Schur complement.
- `fit_motion`: all frames, identity fixed, neighbours tied by a prior on their difference. The system is block tridiagonal with diagonal
  couplings, solved by conjugate gradients with the frames' own blocks as preconditioner.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .fit_problem import Evidence, Problem, System, Variables

LEAST_FRAMES = 8  # the prior of the shared variables counts at least so often: one photo cannot tell a smile from a wide mouth
CHUNK = 32  # frames whose Jacobian is held at once
INTERIOR_STEPS = 2  # per linearisation
START_PRESSURE, LEAST_PRESSURE = 0.1, 1e-3  # mu of the interior-point method, in units of the cost
MARGIN = 0.02  # share of its range that a bounded variable starts off its bounds
CONJUGATE_STEPS, CONJUGATE_TOLERANCE = 25, 1e-4
DAMPING, DAMPING_MIN, DAMPING_MAX = 1e-3, 1e-6, 1e3


def fit_shape(problem: Problem, evidence: Evidence, start: Variables, tolerance: float, tick: Callable[[], None]) -> Variables:
    """Frames and shared variables that fit together, from `start`; calls `tick` once per round and ends when one lowers the cost
    by less than the share `tolerance`."""
    interior, damping = _Interior(problem, start.frame), DAMPING
    at, frames = Variables(interior.inside(start.frame), start.shared), max(len(start.frame), LEAST_FRAMES)

    def total(point: Variables) -> Tensor:
        return problem.cost(point, evidence).sum() + frames * problem.shared_cost(point.shared)

    cost = total(at)
    for _ in range(problem.settings.shape_rounds):
        system = _collect(problem, at, evidence)
        improved, rejected = False, False
        while not improved and damping <= DAMPING_MAX:
            trial = _arrowhead_step(at, system, interior, damping)
            trial_cost = total(trial)
            improved = bool(trial_cost < cost)
            if not improved:
                damping, rejected = damping * 8, True
        if not rejected:
            damping = max(damping / 5, DAMPING_MIN)
        tick()
        if not improved:
            break
        drop = float((cost - trial_cost) / cost)
        at, cost = trial, trial_cost
        if drop < tolerance:
            break
    return at


def fit_motion(problem: Problem, evidence: Evidence, start: Variables, tie: Tensor, tick: Callable[[], None]) -> Variables:
    """Frames that fit with the shared variables as they are; `tie` [T-1, n] is the precision of neighbours' differences."""
    interior = _Interior(problem, start.frame)
    at = Variables(interior.inside(start.frame), start.shared)
    damping = torch.full((len(at.frame),), DAMPING).to(at.frame)
    cost = _motion_cost(problem, at, evidence)
    ties = _tie_cost(at.frame, tie)
    system = _collect(problem, at, evidence)
    for _ in range(problem.settings.motion_rounds):
        trial = Variables(_tied_step(at, system, interior, tie, damping), at.shared)
        trial_cost, trial_ties = _motion_cost(problem, trial, evidence), _tie_cost(trial.frame, tie)
        tick()
        # Frames that got worse, with the ties to their neighbours, go on more carefully; the clip as a whole must get better.
        worse = trial_cost + trial_ties > cost + ties
        damping = torch.where(worse, damping * 10, damping / 5).clamp(DAMPING_MIN, DAMPING_MAX)
        before, after = (float(c.sum() + t.sum() / 2) for c, t in ((cost, ties), (trial_cost, trial_ties)))
        if after >= before:
            continue
        at, cost, ties = trial, trial_cost, trial_ties
        if before - after < problem.settings.tolerance * before:
            break
        system = _collect(problem, at, evidence)
    return at


def _motion_cost(problem: Problem, at: Variables, evidence: Evidence) -> Tensor:
    parts = [problem.cost(at.take(s), evidence.take(s)) for s in _chunks(len(at.frame), 4 * CHUNK)]
    return torch.cat(parts)


def _tie_cost(frame: Tensor, tie: Tensor) -> Tensor:
    """[T] cost of the ties of each frame to its neighbours; summed over the clip each tie counts twice."""
    each = 0.5 * (tie * (frame[1:] - frame[:-1]) ** 2).sum(1)
    return torch.nn.functional.pad(each, (0, 1)) + torch.nn.functional.pad(each, (1, 0))


def _collect(problem: Problem, at: Variables, evidence: Evidence) -> System:
    parts = [problem.system(at.take(s), evidence.take(s)) for s in _chunks(len(at.frame), CHUNK)]
    frame, cross, shared, frame_gradient, shared_gradient = zip(*parts)
    return System(torch.cat(frame), torch.cat(cross), sum(shared), torch.cat(frame_gradient), sum(shared_gradient))


def _chunks(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


class _Interior:
    """Bounds on the first variables of each frame as a primal-dual interior-point method (Nocedal and Wright, Numerical
    Optimization, 19.2): slacks g and multipliers z with g z = mu, mu falling from step to step. The multipliers outlive a
    linearisation, so a few steps per round suffice."""

    def __init__(self, problem: Problem, frame: Tensor):
        count = problem.expressions
        self.bounded, self.lower, self.upper = slice(0, count), problem.lower[:count], problem.upper[:count]
        gap = self.upper - self.lower
        self._inner = (self.lower + MARGIN * gap, self.upper - MARGIN * gap)
        low, high = self._slacks(self.inside(frame))
        self.below, self.above = START_PRESSURE / low, START_PRESSURE / high  # z of the lower and upper bounds [T, E]

    def inside(self, frame: Tensor) -> Tensor:
        """Frame variables moved off their bounds."""
        frame = frame.clone()
        frame[:, self.bounded] = frame[:, self.bounded].clamp(*self._inner)
        return frame

    def _slacks(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        x = frame[:, self.bounded]
        return x - self.lower, self.upper - x

    def terms(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Additions to the diagonal and to the gradient [T, E], and the pressure mu [T, 1] they stand for."""
        low, high = self._slacks(frame)
        pressure = (0.1 * ((self.below * low + self.above * high) / 2).mean(1, keepdim=True)).clamp(min=LEAST_PRESSURE)
        return self.below / low + self.above / high, pressure / high - pressure / low, pressure

    def advance(self, frame: Tensor, step: Tensor, pressure: Tensor) -> Tensor:
        """New frame variables [T, n]: `step` [T, n], in which each bounded variable stops short of its bound by itself.

        One common share of the step, as in the textbook, would let the first variable at its bound hold up all others of its
        frame; the next step puts right what the stopped ones left.
        """
        low, high = self._slacks(frame)
        d = step[:, self.bounded]
        change_below = (pressure - self.below * d) / low - self.below
        change_above = (pressure + self.above * d) / high - self.above
        dual = _reach(torch.cat([self.below, self.above], 1), torch.cat([change_below, change_above], 1))
        self.below, self.above = self.below + dual * change_below, self.above + dual * change_above
        step = step.clone()
        step[:, self.bounded] = d.clamp(-0.95 * low, 0.95 * high)
        return frame + step


def _reach(room: Tensor, change: Tensor) -> Tensor:
    """[T, 1]: how much of `change` [T, n] keeps room + change positive, at most 1."""
    return (0.95 / (-change / room).amax(1, keepdim=True).clamp(min=0.95)).clamp(max=1)


def _damped(blocks: Tensor, damping: Tensor | float) -> Tensor:
    blocks = blocks.clone()
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    diagonal += damping * (diagonal + 1)
    return blocks


def _arrowhead_step(at: Variables, system: System, interior: _Interior, damping: float) -> Variables:
    """Minimum of the quadratic model within the bounds."""
    frames = max(len(at.frame), LEAST_FRAMES)
    blocks, cross = _damped(system.frame, damping), system.cross
    shared_block = system.shared.clone()
    shared_block.diagonal().add_(frames)  # the prior, once per frame: a clip trusts it as much as a photo does
    shared_block = _damped(shared_block, damping)
    shared_start = system.shared_gradient + frames * at.shared
    frame, shared = at.frame, at.shared
    for _ in range(INTERIOR_STEPS):
        moved, shared_moved = frame - at.frame, shared - at.shared
        gradient = system.frame_gradient + _product(blocks, moved) + cross @ shared_moved
        shared_gradient = shared_start + shared_block @ shared_moved + moved.flatten() @ cross.flatten(0, 1)
        stiffness, push, pressure = interior.terms(frame)
        gradient[:, interior.bounded] += push
        held = blocks.clone()
        held.diagonal(dim1=1, dim2=2)[:, interior.bounded] += stiffness
        right = torch.cat([cross, gradient[..., None]], -1)
        solved = torch.bmm(torch.cholesky_inverse(torch.linalg.cholesky(held)), right)  # [T, n, m + 1]
        eliminated = cross.flatten(0, 1).mT @ solved.flatten(0, 1)  # [m, m + 1]
        shared_step = torch.linalg.solve(shared_block - eliminated[:, :-1], eliminated[:, -1] - shared_gradient)
        frame = interior.advance(frame, -solved[..., -1] - solved[..., :-1] @ shared_step, pressure)
        shared = shared + shared_step
    return Variables(frame, shared)


def _tied_step(at: Variables, system: System, interior: _Interior, tie: Tensor, damping: Tensor) -> Tensor:
    """The same for the block tridiagonal system; new frame variables [T, n]."""
    blocks = _damped(system.frame, damping[:, None])
    blocks.diagonal(dim1=1, dim2=2).add_(_pad(tie, 1, 0) + _pad(tie, 0, 1))
    pull = tie * (at.frame[1:] - at.frame[:-1])
    start = system.frame_gradient + _pad(pull, 1, 0) - _pad(pull, 0, 1)

    def apply(some: Tensor, x: Tensor) -> Tensor:
        return _product(some, x) - _pad(tie * x[1:], 0, 1) - _pad(tie * x[:-1], 1, 0)

    frame = at.frame
    for _ in range(INTERIOR_STEPS):
        gradient = start + apply(blocks, frame - at.frame)
        stiffness, push, pressure = interior.terms(frame)
        gradient[:, interior.bounded] += push
        held = blocks.clone()
        held.diagonal(dim1=1, dim2=2)[:, interior.bounded] += stiffness
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(held))
        step = _conjugate_gradients(lambda x: apply(held, x), inverse, -gradient)
        frame = interior.advance(frame, step, pressure)
    return frame


def _product(blocks: Tensor, x: Tensor) -> Tensor:
    """Symmetric blocks [T, n, n] times x [T, n], from the left: several times faster than with x as columns."""
    return torch.bmm(x[:, None], blocks)[:, 0]


def _pad(rows: Tensor, before: int, after: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, 0, before, after))


def _conjugate_gradients(apply: Callable[[Tensor], Tensor], inverse: Tensor, right: Tensor) -> Tensor:
    """Solves apply(x) = right [T, n] with the inverses [T, n, n] of the diagonal blocks as preconditioner."""

    def precondition(x: Tensor) -> Tensor:
        return _product(inverse, x)

    x = precondition(right)
    residual = right - apply(x)
    z = precondition(residual)
    direction, energy = z, (residual * z).sum()
    enough = CONJUGATE_TOLERANCE * (right * x).sum()
    for _ in range(CONJUGATE_STEPS):
        if energy <= enough:
            break
        image = apply(direction)
        step = energy / (direction * image).sum()
        x, residual = x + step * direction, residual - step * image
        z = precondition(residual)
        previous, energy = energy, (residual * z).sum()
        direction = z + (energy / previous) * direction
    return x
