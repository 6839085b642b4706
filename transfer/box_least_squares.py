"""Least squares within bounds for many right-hand sides at once."""

from __future__ import annotations

import torch
from torch import Tensor

PATIENCE = 5  # exchanges of everything at once that need not help, before one variable at a time is exchanged
EXCHANGES = 200  # ten times what it takes; then the last guess, moved within the bounds, has to do
TOLERANCE = 1e-9  # of the unbounded solution's size


def box_least_squares(matrix: Tensor, right: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """x [T, K] with low <= x <= high that minimises x A x / 2 - b x for a positive definite A = `matrix` [K, K], b = `right` [T, K].

    Block principal pivoting (Judice and Pires 1994, as told by Kim and Park 2011 for the non-negative case): each variable is
    free or at one of its bounds [T, K]; all that break the optimality conditions change their side at once, and only the last
    of them where that has stopped helping, which is known to end. float64 is advised.
    """
    count = right.shape[1]
    x = torch.zeros_like(right)
    # Where 0 lies on a bound the search starts there: so a good guess, taken off before the call, is a good start.
    side = (high <= 0).to(torch.int8) - ((low >= 0) & (high > 0)).to(torch.int8)
    left = torch.arange(len(right), device=right.device)  # rows that are not solved yet
    best = right.new_full((len(right),), count + 1.0)  # fewest broken conditions so far
    patience = torch.full_like(best, PATIENCE)
    slack = TOLERANCE * (1 + right.abs().amax(1, keepdim=True))
    for _ in range(EXCHANGES):
        b, lower, upper, at = right[left], low[left], high[left], side[left]
        free = (at == 0).to(b)
        fixed = torch.where(at < 0, lower, upper) * (1 - free)
        system = matrix * free[:, :, None] * free[:, None] + torch.diag_embed(1 - free)
        solution = torch.linalg.solve(system, free * (b - fixed @ matrix) + fixed)
        slope = b - solution @ matrix
        x[left] = torch.minimum(torch.maximum(solution, lower), upper)
        below, above = (at == 0) & (solution < lower - TOLERANCE), (at == 0) & (solution > upper + TOLERANCE)
        loose = ((at < 0) & (slope > slack[left])) | ((at > 0) & (slope < -slack[left]))
        loose &= upper > lower
        wrong = below | above | loose
        number = wrong.sum(1).to(best)
        better = number < best[left]
        patience[left] = torch.where(better, PATIENCE, patience[left] - 1)
        best[left] = torch.minimum(best[left], number)
        last = count - 1 - wrong.flip(1).int().argmax(1)
        single = torch.zeros_like(wrong).scatter_(1, last[:, None], True)
        change = wrong & torch.where(patience[left, None] >= 0, True, single)
        turned = above.to(at.dtype) - below.to(at.dtype)
        side[left] = torch.where(change, turned, at)
        left = left[number > 0]
        if len(left) == 0:
            break
    return x
