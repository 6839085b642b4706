"""Rotation vectors on SO(3), batched and differentiable everywhere, the zero rotation included."""

from __future__ import annotations

import torch
from torch import Tensor


def to_matrix(rotvec: Tensor) -> Tensor:
    """Rotation vectors [..., 3] in radians to matrices [..., 3, 3] (Rodrigues' formula)."""
    angle2 = (rotvec * rotvec).sum(-1)
    small = angle2 < 1e-8
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(small, 1 - angle2 / 6, angle.sin() / angle)[..., None, None]
    b = torch.where(small, 0.5 - angle2 / 24, (1 - angle.cos()) / safe)[..., None, None]
    k = skew(rotvec)
    return torch.eye(3, dtype=rotvec.dtype, device=rotvec.device) + a * k + b * (k @ k)


def skew(vector: Tensor) -> Tensor:
    """Cross-product matrices [..., 3, 3] of vectors [..., 3]."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def to_quaternion(matrix: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] to unit quaternions [..., 4], real part first and not negative."""
    m = matrix
    diagonal = m.diagonal(dim1=-2, dim2=-1)
    sums = torch.stack(
        [
            diagonal.sum(-1),
            diagonal[..., 0] - diagonal[..., 1] - diagonal[..., 2],
            diagonal[..., 1] - diagonal[..., 0] - diagonal[..., 2],
            diagonal[..., 2] - diagonal[..., 0] - diagonal[..., 1],
        ],
        dim=-1,
    )
    # Four equivalent forms; each is exact where its own component is large, so the largest is used.
    w = [m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]]
    xy, xz, yz = (m[..., i, j] + m[..., j, i] for i, j in ((0, 1), (0, 2), (1, 2)))
    forms = torch.stack(
        [
            torch.stack([1 + sums[..., 0], w[0], w[1], w[2]], -1),
            torch.stack([w[0], 1 + sums[..., 1], xy, xz], -1),
            torch.stack([w[1], xy, 1 + sums[..., 2], yz], -1),
            torch.stack([w[2], xz, yz, 1 + sums[..., 3]], -1),
        ],
        dim=-2,
    )
    best = sums.argmax(-1)[..., None, None].expand(*sums.shape[:-1], 1, 4)
    q = torch.nn.functional.normalize(forms.gather(-2, best)[..., 0, :], dim=-1)
    return torch.where(q[..., :1] < 0, -q, q)


def to_rotvec(matrix: Tensor) -> Tensor:
    """Rotation matrices [..., 3, 3] to rotation vectors [..., 3], angle at most pi."""
    q = to_quaternion(matrix)
    sine = q[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, q[..., :1])
    return q[..., 1:] * torch.where(sine < 1e-6, 2 * torch.ones_like(sine), angle / sine.clamp(min=1e-6))


def compose(first: Tensor, second: Tensor) -> Tensor:
    """Rotation vector [..., 3] of "rotate by `first`, then by `second`"."""
    return to_rotvec(to_matrix(second) @ to_matrix(first))


def mean(rotvec: Tensor, weight: Tensor | None = None) -> Tensor:
    """Chordal mean [3] of rotation vectors [T, 3], weighted by [T]."""
    m = to_matrix(rotvec)
    m = m.mean(0) if weight is None else (m * weight[:, None, None]).sum(0) / weight.sum()
    u, _, vh = torch.linalg.svd(m)
    sign = torch.ones(3, dtype=m.dtype, device=m.device)
    sign[2] = torch.sign(torch.linalg.det(u @ vh))
    return to_rotvec(u @ torch.diag(sign) @ vh)
