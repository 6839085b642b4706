"""Displacements over time in short form: a few fields and their strength per frame."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

KEPT = 1 - 1e-5  # share of the displacements' energy that shortened fields keep


@dataclasses.dataclass(frozen=True)
class Detail:
    """Displacements of T frames in canonical space: fields [K, V, 3] in metres, coefficients [T, K]."""

    fields: Tensor
    coefficients: Tensor

    def __add__(self, other: Detail) -> Detail:
        return Detail(torch.cat([self.fields, other.fields]), torch.cat([self.coefficients, other.coefficients], dim=1))

    def __mul__(self, factor: float) -> Detail:
        return Detail(self.fields, factor * self.coefficients)

    def shortened(self) -> Detail:
        """The same displacements by as few orthogonal fields as keep nearly all of their energy (truncated SVD).

        With the fields' Gram matrix G = L L', the rows C L of coefficients C are coordinates in an orthonormal basis.
        """
        flat = self.fields.flatten(1)
        if flat.shape[0] == 0:
            return self
        gram = (flat @ flat.mT).double()
        values, vectors = torch.linalg.eigh(gram)
        real = values > values[-1] * 1e-10
        root = vectors[:, real] * values[real].sqrt()  # L [K, R]
        u, size, vh = torch.linalg.svd(self.coefficients.double() @ root, full_matrices=False)
        energy = size.square().cumsum(0)
        if not energy[-1] > 0:
            return Detail(self.fields[:0], self.coefficients[:, :0])
        count = int((energy < KEPT * energy[-1]).sum()) + 1
        back = vectors[:, real] / values[real].sqrt()  # so that back' @ flat are the orthonormal fields
        fields = (vh[:count] @ back.mT).to(flat) @ flat
        scale = size[:count] / len(u) ** 0.5  # coefficients then have an RMS of 1
        coefficients = (u[:, :count] * len(u) ** 0.5).to(flat)
        return Detail((scale.to(flat)[:, None] * fields).unflatten(1, (-1, 3)), coefficients)
