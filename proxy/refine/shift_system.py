"""Shifts of a skin in some frames as one sparse system, and how it is solved.

A data term of 2 x 2 blocks per vertex and frame, landmarks, a membrane over the mesh, and ties from each frame to the next. Shifts are
smooth, so the unknowns are those of the control mesh that the head is subdivided from. It is solved by a few conjugate gradients: with
the data's mean over the frames the modes of the ties in time are systems of their own, and few factorisations, one for stiffnesses that
are nearly alike, precondition all frames.
"""

from __future__ import annotations

import dataclasses
import warnings

import numpy as np
import scipy.sparse as sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from .surface import Skin, factor

STEPS, TOLERANCE = 12, 3e-2  # of the conjugate gradients
LADDER = 6.0  # ratio of the stiffnesses that are factored: a mode in time is preconditioned by the nearest


class Membrane:
    """Smoothness of shifts: `strain` is the sigma of a shift's change over its distance, `size` that of the shift, metres.

    The S vertices' shifts are `basis` [S, C] times C coefficients (default: each is its own); the other terms look at N of them.
    Coefficients are [C, 2, t]: two directions, t frames.
    """

    def __init__(
        self, skin: Skin, strain: float, size: float, data: float | Tensor,
        basis: sparse.spmatrix | None = None, at: Tensor | None = None,
    ):  # fmt: skip
        """`data`: see `expect`; `at` [N]: the vertices that the other terms look at (default: all)."""
        mass, like = skin.mass(), skin.normals
        count = len(mass)
        basis = sparse.identity(count).tocsr() if basis is None else basis
        self._rows = basis if at is None else basis[at.cpu().numpy()]
        stiffness = skin.stiffness(skin.area.new_ones(len(skin.faces))) / (strain**2 * float(np.median(mass)))
        self._stiff = (basis.T @ stiffness @ basis).tocsc()
        self._loose = (basis.T @ basis).tocsc() / size**2
        parts = self._stiff, self._stiff + self._loose, self._rows, self._rows.T
        self._stretch, self._whole, self._spread, self._gather = (to_torch(part).to(like) for part in parts)
        self.expect(data)

    def expect(self, data: float | Tensor) -> None:
        """Tells the preconditioner the mean diagonal of the other terms, 1 / metre^2: [N], or one number."""
        weight = np.broadcast_to(data.double().cpu().numpy() if isinstance(data, Tensor) else data, self._rows.shape[:1])
        self._soft = (self._loose + self._rows.T @ sparse.diags(weight) @ self._rows).tocsc()
        self._solvers: dict[int, scipy.sparse.linalg.SuperLU] = {}

    def spread(self, x: Tensor) -> Tensor:
        """Shifts [N, 2, t] of coefficients."""
        return _times(self._spread, x)

    def gather(self, forces: Tensor) -> Tensor:
        """What forces [N, 2, t] on the shifts are on the coefficients."""
        return _times(self._gather, forces)

    def apply(self, x: Tensor) -> Tensor:
        """Stiffness and pull of coefficients."""
        return _times(self._whole, x)

    def stretch(self, x: Tensor) -> Tensor:
        """Stiffness alone."""
        return _times(self._stretch, x)

    def precondition(self, x: Tensor, stiffness: np.ndarray) -> Tensor:
        """Solves the system of membrane and mean data for coefficients x, the stiffness times [t], ascending, for each frame."""
        steps = np.rint(np.log(stiffness) / np.log(LADDER)).astype(int)
        values = x.float().cpu().numpy()
        out = np.empty_like(values)
        for step in np.unique(steps):
            if step not in self._solvers:
                # Single precision is exact enough for a preconditioner, and faster.
                self._solvers[step] = factor((self._stiff * LADDER**step + self._soft).astype(np.float32))
            own = slice(*np.searchsorted(steps, (step, step + 1)))
            some = values[:, :, own]
            out[:, :, own] = self._solvers[step].solve(some.reshape(len(some), -1)).reshape(some.shape)
        return torch.from_numpy(out).to(x)


def _times(matrix: Tensor, x: Tensor) -> Tensor:
    return (matrix @ x.flatten(1)).unflatten(1, x.shape[1:])


@dataclasses.dataclass(frozen=True)
class Pins:
    """L landmarks' say on the shifts of the three vertices around each: the normal equations, 1 / metre^2."""

    corners: Tensor  # [L, 3] indices of vertices
    blocks: Tensor  # [t, L, 6, 6] of three shifts with each other
    right: Tensor  # [t, L, 6]

    def apply(self, x: Tensor) -> Tensor:
        """What the landmarks do to shifts [N, 2, t]."""
        near = x[self.corners].flatten(1, 2)  # [L, 6, t]
        return self._scatter((self.blocks @ near.permute(2, 0, 1)[..., None])[..., 0], x)

    def pull(self, like: Tensor) -> Tensor:
        """Right side [N, 2, t] of the system; zero but at the landmarks."""
        return self._scatter(self.right, like)

    def diagonal(self, count: int) -> Tensor:
        """Of the normal equations of `count` shifts, mean over frames and directions: [count]."""
        own = self.blocks.diagonal(dim1=-2, dim2=-1).unflatten(-1, (3, 2)).mean((0, -1))  # [L, 3]
        return own.new_zeros(count).index_add_(0, self.corners.flatten(), own.flatten())

    def _scatter(self, values: Tensor, like: Tensor) -> Tensor:
        values = values.permute(1, 2, 0).unflatten(1, (3, 2)).flatten(0, 1)  # [L * 3, 2, t]
        return torch.zeros_like(like).index_add_(0, self.corners.flatten(), values)


@dataclasses.dataclass(frozen=True)
class Ties:
    """t frames in a row, each tied to the next; the first and the last to frames outside that keep their shifts.

    What is tied is the strain, in units of the membrane's stiffness: the skin may move as a whole, it may not flicker. Shifts are
    told by their coefficients.
    """

    weight: Tensor  # [t + 1] of the tie before each frame, and of that behind the last
    before: Tensor  # [C, 2] coefficients of the frame before the first
    after: Tensor  # [C, 2] and of that behind the last

    def matrix(self) -> Tensor:
        """What the ties do to changes of the frames' shifts, to be stretched: [t, t]."""
        between = self.weight[1:-1]
        return torch.diag(self.weight[:-1] + self.weight[1:]) - torch.diag(between, 1) - torch.diag(between, -1)

    def pull(self, present: Tensor) -> Tensor:
        """Right side [C, 2, t] of the system for changes of coefficients `present` [C, 2, t], to be stretched."""
        right = -present @ self.matrix()
        right[..., 0] += self.weight[0] * self.before
        right[..., -1] += self.weight[-1] * self.after
        return right


def solve_shifts(
    membrane: Membrane,
    blocks: Tensor,
    right: Tensor,
    present: Tensor,
    pins: Pins | None = None,
    ties: Ties | None = None,
    steps: int = STEPS,
    tolerance: float = TOLERANCE,
) -> Tensor:
    """Changes [t, C, 2] of coefficients `present` [t, C, 2] for data terms with blocks [t, N, 2, 2] and right sides [t, N, 2].

    Conjugate gradients of at most `steps` steps, until one adds less than `tolerance` to the energy of all before. Were the data terms
    the same in all frames, the modes in which ties couple them would be systems of their own; the preconditioner solves those.
    """
    blocks = blocks.permute(1, 2, 3, 0).contiguous()  # [N, 2, 2, t]
    present = present.permute(1, 2, 0)  # [C, 2, t]
    tied = present.new_zeros(2 * present.shape[-1:]) if ties is None else ties.matrix()
    loose, modes = np.linalg.eigh(tied.double().cpu().numpy())
    stiffness, modes = 1 + loose.clip(min=0), torch.from_numpy(modes).to(present)

    def apply(x: Tensor) -> Tensor:
        shifts = membrane.spread(x)
        forces = (blocks * shifts[:, None]).sum(2)
        if pins is not None:
            forces = forces + pins.apply(shifts)
        image = membrane.gather(forces) + membrane.apply(x)
        return image if ties is None else image + membrane.stretch(x @ tied)

    def precondition(x: Tensor) -> Tensor:
        return membrane.precondition(x @ modes, stiffness) @ modes.mT

    forces = right.permute(1, 2, 0)
    if pins is not None:
        forces = forces + pins.pull(forces)
    residual = membrane.gather(forces) - membrane.apply(present)
    if ties is not None:
        residual = residual + membrane.stretch(ties.pull(present))
    x, direction = torch.zeros_like(residual), torch.zeros_like(residual)
    energy, total = residual.new_ones(()), residual.new_zeros(())
    for _ in range(steps):
        z = precondition(residual)
        previous, energy = energy, (residual * z).sum()
        direction = z + energy / previous.clamp(min=1e-30) * direction
        image = apply(direction)
        step = energy / (direction * image).sum().clamp(min=1e-30)
        x, residual = x + step * direction, residual - step * image
        total = total + step * energy
        if bool(step * energy <= tolerance * total):
            break
    return x.permute(2, 0, 1)


def to_torch(matrix: sparse.spmatrix) -> Tensor:
    """The same as a sparse tensor of compressed rows."""
    matrix = matrix.tocsr()
    parts = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, matrix.shape, check_invariants=False)
