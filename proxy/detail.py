"""The dynamic displacement of a clip in short form: a few fields, their strength per frame, and how expressions call them up."""

from __future__ import annotations

import torch
from torch import Tensor

COLUMNS = 8192  # coordinates whose products are summed at once: bounds the memory of the float64 copies


def low_rank(dynamic: Tensor, energy: float = 0.999, most: int = 32) -> tuple[Tensor, Tensor, float]:
    """Shortest basis of a dynamic displacement [T, V, 3] (metres): a truncated SVD (Eckart and Young 1936).

    Returns basis [K, V, 3] in metres, strongest first, coefficients [T, K] with an RMS of 1 over the clip, and the share
    0..1 of the field's energy (its sum of squares) that their product keeps. K is the smallest number that keeps `energy`,
    at most `most`, and 0 for a field of zeros, all of which is kept. Nothing is centred, so that zero detail stays zero. The
    largest coordinate of each basis field is positive, which settles the signs.

    Raises ValueError for a field of another shape or with values that are no numbers, energy outside 0..1 or most below 1.
    """
    if dynamic.ndim != 3 or dynamic.shape[2] != 3:
        raise ValueError(f"the dynamic displacement has shape {list(dynamic.shape)}; expected [T, V, 3]")
    if not 0 < energy <= 1:
        raise ValueError(f"energy is {energy}; give the share to keep, above 0 and at most 1")
    if most < 1:
        raise ValueError(f"most is {most}; allow at least 1 basis field")
    if not bool(dynamic.isfinite().all()):
        raise ValueError("the dynamic displacement holds values that are no numbers; solve it again")
    frames, vertices = dynamic.shape[:2]
    flat = dynamic.flatten(1)  # [T, 3V]
    over_time = frames <= flat.shape[1]
    values, vectors = torch.linalg.eigh(_gram(flat if over_time else flat.mT))
    values, vectors = values.flip(0), vectors.flip(1).to(flat)  # strongest first
    count = _rank(values, energy, most)
    scale = frames**0.5
    if over_time:
        coefficients = vectors[:, :count] * scale  # [T, K]
        basis = coefficients.mT @ flat / max(1, frames)  # [K, 3V]
    else:
        size = values[:count].sqrt().to(flat)
        basis = (vectors[:, :count] * size).mT / scale
        coefficients = flat @ vectors[:, :count] / size * scale
    sign = _signs(basis)
    kept = float(values[:count].sum() / values.sum()) if count else 1.0
    return (basis * sign[:, None]).view(count, vertices, 3), coefficients * sign, min(1.0, kept)


def expression_map(expression: Tensor, neutral: Tensor, coefficients: Tensor, ridge: float) -> Tensor:
    """Detail coefficients per unit of expression, [E, K]: what any motion's expressions do to this person's skin.

    Ridge regression in closed form (Hoerl and Kennard 1970) of coefficients [T, K] on x = expression [T, E] - neutral [E],
    without intercept, so that the neutral face has no detail. Each expression is scaled by how much the clip showed of it,
    s = RMS of x: with W = S U and S = diag(s),

        U = (S x'x S / T + ridge I)^-1 S x'c / T

    The penalty on an expression therefore grows as ridge / s^2: one that stands alone is believed by half at s =
    ridge^(1/4), and one that the clip never showed gets nothing, however its noise and that of the coefficients agree.

    Raises ValueError if the shapes do not belong together, a value is no number, or ridge is not above 0.
    """
    frames, count = expression.shape if expression.ndim == 2 else (-1, -1)
    if frames < 0 or neutral.shape != (count,) or coefficients.ndim != 2 or len(coefficients) != frames:
        raise ValueError(
            f"expression, neutral and coefficients have shapes {list(expression.shape)}, {list(neutral.shape)} and "
            f"{list(coefficients.shape)}; expected [T, E], [E] and [T, K]"
        )
    if not ridge > 0:
        raise ValueError(f"ridge is {ridge}; give a number above 0")
    if not all(bool(value.isfinite().all()) for value in (expression, neutral, coefficients)):
        raise ValueError("expression, neutral or coefficients hold values that are no numbers; fit the clip again")
    offset = (expression - neutral).double()
    seen = (offset.square().sum(0) / max(1, frames)).sqrt()  # [E]
    scaled = offset * seen  # [T, E]
    system = scaled.mT @ scaled / max(1, frames) + ridge * torch.eye(count).to(scaled)
    right = scaled.mT @ coefficients.to(scaled) / max(1, frames)
    return (seen[:, None] * torch.linalg.solve(system, right)).to(coefficients)


def _gram(rows: Tensor) -> Tensor:
    """Products [N, N] of rows [N, M] with one another, in float64: squares halve the digits."""
    total = rows.new_zeros(len(rows), len(rows), dtype=torch.float64)
    for columns in rows.split(COLUMNS, dim=1):
        columns = columns.double()
        total += columns @ columns.mT
    return total


def _rank(values: Tensor, energy: float, most: int) -> int:
    """How many of the sorted eigenvalues are needed; what float64 cannot tell from zero never is."""
    if len(values) == 0 or not values[0] > 0:
        return 0
    real = int((values > values[0] * len(values) * torch.finfo(values.dtype).eps).sum())
    share = values.cumsum(0) / values[:real].sum()
    return min(most, real, 1 + int((share < energy).sum()))


def _signs(basis: Tensor) -> Tensor:
    """-1 or 1 for each field [K, N]: the sign of its largest coordinate."""
    if basis.numel() == 0:
        return basis.new_ones(len(basis))
    largest = basis.abs().argmax(1, keepdim=True)
    return torch.where(basis.gather(1, largest)[:, 0] < 0, -1.0, 1.0).to(basis)
