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
    """Derivatives of the pixels of `points` by expression, turns, translation and identity, for any pose.

    The rotation vectors of joints 1.. are `turns` [(J - 1) * 3, R] times R variables.

    What does not depend on the pose is put together once: for each landmark one matrix from all columns' coefficients to
    (parts that follow each joint, rest positions of the joints, rotation vectors of the joints, translation).
    """

    def __init__(self, points: LandmarkPoints, turns: Tensor, with_identity: bool, further: int = 0):
        self.points = points
        self._below = _descendants().to(points.template)
        modes = points.identity.shape[-1] if with_identity else 0
        expressions = points.expression.shape[-1]
        place = expressions + turns.shape[1]  # first column of the translation

        def spread(by_expression: Tensor, by_identity: Tensor | None) -> Tensor:
            padded = torch.nn.functional.pad(by_expression, (0, turns.shape[1] + 3))
            tail = padded.new_zeros(*padded.shape[:-1], modes) if by_identity is None else by_identity[..., :modes]
            return torch.nn.functional.pad(torch.cat([padded, tail], -1), (0, further))

        parts = spread(points.expression, points.identity).flatten(1, 2)  # [L, J * 3, N]
        rest = spread(points.joint_expression.flatten(1).mT, points.joint_identity.flatten(1).mT)  # [J * 3, N]
        turned = spread(points.expression_joints.flatten(1).mT, None)  # [J * 3, N]
        turned[3:, expressions:place] = turns
        plain = torch.zeros_like(turned[: 3 + further])  # rows: translation, further columns
        plain[:3, place : place + 3] = torch.eye(3)
        plain[3:, plain.shape[1] - further :] = torch.eye(further)
        used, used_rest, self._turning = (x.abs().amax(-1).nonzero()[:, 0] for x in (parts.abs().amax(0), rest, turned))
        self._moving = torch.cat([used, used_rest + rest.shape[0]])
        weight_below = points.weight @ self._below.T  # [L, J]
        rest = weight_below[:, used_rest // 3, None] * rest[used_rest]
        plain = torch.cat([turned[self._turning], plain]).expand(len(parts), -1, -1)
        self._maps = torch.cat([parts[:, used], rest, plain], 1)  # [L, K, N], K rows that are not zero throughout

    def __call__(self, pose: Pose, rows: Tensor, further: Tensor | None = None) -> Tensor:
        """Pixels' derivatives [B, L, 2, N] by expression [E], turns [R], translation [3] and identity [I, none if left out], then
        the columns `further` [B, L, 2, F] as they are.

        `rows` are those of `projection_rows` at the posed points, or multiples of them: then the derivatives are multiplied
        likewise.
        """
        batch, count = rows.shape[:2]
        turn = self._turns(pose, rows)  # [B, L, 2, J * 3]
        if self.points.corrective is not None:
            turn = turn + self._corrective_turns(pose, torch.einsum("blcx,bjxy->blcjy", rows, pose.world))
        moves = torch.cat([pose.world, pose.parent - pose.world], 1).transpose(1, 2).flatten(2)[..., self._moving]  # [B, 3, K]
        moved = torch.bmm(rows.flatten(1, 2), moves).unflatten(1, (count, 2))
        inner = [moved, turn[..., self._turning], rows] + ([] if further is None else [further])
        inner = torch.cat([x.transpose(0, 1) for x in inner], -1).flatten(1, 2)  # [L, B * 2, K]
        return torch.bmm(inner, self._maps).unflatten(1, (batch, 2)).transpose(0, 1)

    def _turns(self, pose: Pose, rows: Tensor) -> Tensor:
        """Rigid part [B, L, 2, J * 3]: everything below a joint turns about the joint's posed position.

        An axis a moves the arm r from joint to point by a x r; the axes are the columns of the parent's rotation times J_l.
        For all axes of all joints that is one product with the parts of the points.
        """
        joints = self._below.shape[0]
        axes = (pose.parent @ left_jacobian(pose.rotvec)).mT  # [B, J, 3 (axis), 3]
        crosses = rotation.skew(axes).permute(0, 4, 3, 1, 2)  # [B, 3 (y), 3 (x), J, 3 (axis)]: a x r = skew(a) r
        moves = (self._below.T[:, None, None, :, None] * crosses[:, None]).flatten(3)  # [B, J, 3 (y), 3 (x) * J * 3]
        pivots = torch.linalg.cross(axes, pose.pivot[:, :, None]).permute(0, 3, 1, 2)  # [B, 3 (x), J, 3 (axis)]
        pivots = (self._below.T[:, None, :, None] * pivots[:, None]).flatten(2)  # [B, J, 3 * J * 3]
        offset = (pose.shift[:, :, None] @ moves)[:, :, 0] - pivots
        moved = torch.baddbmm(self.points.weight @ offset, pose.part.flatten(2), (pose.world.mT @ moves).flatten(1, 2))
        moved = moved.unflatten(2, (3, 1, 3 * joints))
        return sum(rows[..., x, None] * moved[:, :, x] for x in range(3))

    def _corrective_turns(self, pose: Pose, follow: Tensor) -> Tensor:
        """Part of the pose correctives, which are linear in the matrices of joints 1..: dR = [J_l dr]x R."""
        by_matrix = torch.einsum("blcjx,ljxq->blcq", follow, self.points.corrective).unflatten(-1, (-1, 3, 3))
        axes = rotation.skew(left_jacobian(pose.rotvec[:, 1:]).mT)  # [B, J-1, 3, 3, 3]: one skew matrix per component
        change = axes @ pose.local[:, 1:, None]
        turn = torch.einsum("blcjxy,bjaxy->blcja", by_matrix, change)
        return torch.nn.functional.pad(turn, (0, 0, 1, 0)).flatten(3)


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
