"""Analytic derivatives of projected landmarks. B frames, L landmarks, J joints, E expressions, I identity modes."""

from __future__ import annotations

import torch
from torch import Tensor

from . import rotation
from .camera import Camera
from .head_model import PARENTS
from .landmark_points import LandmarkPoints, Pose


def projection_rows(camera: Camera, points: Tensor) -> Tensor:
    """d pixel / d point [B, L, 2, 3] at camera-space points [B, L, 3] (the derivative of `Camera.project`)."""
    x, y, z = points.unbind(-1)
    scale = -camera.focal / z
    zero = torch.zeros_like(x)
    along = torch.stack([scale, zero, -scale * x / z], -1)
    return torch.stack([along, torch.stack([zero, -scale, scale * y / z], -1)], -2)


class Jacobian:
    """Derivatives of the pixels of `points` by expression, joint rotations and identity, for any pose.

    What does not depend on the pose is put together once: for each landmark one matrix from the coefficients to (parts
    that follow each joint, rest positions of the joints, rotation vectors of the joints).
    """

    def __init__(self, points: LandmarkPoints, with_identity: bool):
        self.points = points
        self.expressions = points.expression.shape[-1]
        count = points.template.shape[0]

        def stack(basis: Tensor, joint_basis: Tensor, turns: Tensor) -> Tensor:
            flat = [basis.flatten(1, 2), *(b.flatten(1).mT.expand(count, -1, -1) for b in (joint_basis, turns))]
            return torch.cat(flat, 1)  # [L, 3 * J * 3, N]

        maps = stack(points.expression, points.joint_expression, points.expression_joints)
        if with_identity:
            still = torch.zeros_like(points.joint_identity)
            maps = torch.cat([maps, stack(points.identity, points.joint_identity, still)], 2)
        self._used = maps.abs().amax((0, 2)).nonzero()[:, 0]
        self._maps = maps[:, self._used].contiguous()
        self._below = _descendants().to(points.template)
        self._weight_below = points.weight @ self._below.T  # [L, J]

    def __call__(self, pose: Pose, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Pixels' derivatives by expression [B, L, 2, E], joints [B, L, 2, J, 3] and identity [B, L, 2, I] (I = 0 if left out).

        `rows` are those of `projection_rows` at the posed points. Joint derivatives are by the rotation vectors.
        """
        turn = self._turns(pose, rows)
        follow = torch.einsum("blcx,bjxy->blcjy", rows, pose.world)
        if self.points.corrective is not None:
            turn = turn + self._corrective_turns(pose, follow)
        rest = torch.einsum("blcx,bjxy->blcjy", rows, pose.parent - pose.world) * self._weight_below[:, None, :, None]
        inner = torch.stack([follow, rest, turn], 3).flatten(3)[..., self._used]  # [B, L, 2, K]
        batch = inner.shape[0]
        outer = torch.bmm(inner.transpose(0, 1).flatten(1, 2), self._maps).unflatten(1, (batch, 2)).transpose(0, 1)
        return outer[..., : self.expressions], turn, outer[..., self.expressions :]

    def _turns(self, pose: Pose, rows: Tensor) -> Tensor:
        """Rigid part: everything below a joint turns about the joint's posed position."""
        arm = torch.einsum("jd,bldx->bljx", self._below, pose.share) - self._weight_below[..., None] * pose.pivot[:, None]
        moment = torch.linalg.cross(arm[:, :, None], rows[:, :, :, None])  # [B, L, 2, J, 3]
        return torch.einsum("blcjx,bjxy->blcjy", moment, pose.parent @ left_jacobian(pose.rotvec))

    def _corrective_turns(self, pose: Pose, follow: Tensor) -> Tensor:
        """Part of the pose correctives, which are linear in the matrices of joints 1..: dR = [J_l dr]x R."""
        by_matrix = torch.einsum("blcjx,ljxq->blcq", follow, self.points.corrective).unflatten(-1, (-1, 3, 3))
        axes = rotation.skew(left_jacobian(pose.rotvec[:, 1:]).mT)  # [B, J-1, 3, 3, 3]: one skew matrix per component
        change = axes @ pose.local[:, 1:, None]
        turn = torch.einsum("blcjxy,bjaxy->blcja", by_matrix, change)
        return torch.nn.functional.pad(turn, (0, 0, 1, 0))


def left_jacobian(rotvec: Tensor) -> Tensor:
    """J_l [..., 3, 3] with exp(r + dr) = exp(J_l(r) dr) exp(r) for rotation vectors [..., 3]."""
    angle2 = (rotvec * rotvec).sum(-1)[..., None, None]
    small = angle2 < 1e-4
    safe = torch.where(small, torch.ones_like(angle2), angle2)
    angle = safe.sqrt()
    a = torch.where(small, 0.5 - angle2 / 24, (1 - angle.cos()) / safe)
    b = torch.where(small, 1 / 6 - angle2 / 120, (angle - angle.sin()) / (safe * angle))
    k = rotation.skew(rotvec)
    return torch.eye(3).to(rotvec) + a * k + b * (k @ k)


def _descendants() -> Tensor:
    """[J, J]: 1 where joint d (column) is joint j (row) or hangs below it."""
    below = torch.eye(len(PARENTS))
    for joint, parent in enumerate(PARENTS):
        if parent >= 0:
            below[:, joint] += below[:, parent]
    return below
