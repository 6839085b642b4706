"""Landmarks of a posed head in closed form: the 478 points alone, without the dense mesh they lie on.

A landmark is a fixed barycentric mix of three dense vertices, those are linear in identity and expression, and linear
blend skinning is linear in the vertices. So the part of landmark l that follows joint j is one linear map of the
coefficients, m_lj = sum_k b_lk w_kj v_k, and the posed point is sum_j Q_j m_lj + (sum_k b_lk w_kj) t_j: exact, and
some fifty times less work than posing the mesh. Notation as in `posed` below; L landmarks, J joints.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from . import rotation
from .head_model import PARENTS, HeadModel, LandmarkTable

# MediaPipe's outline of the face, which slides along the skin as the head turns.
FACE_OVAL = [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377]
FACE_OVAL += [152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
IRISES = list(range(468, 478))  # centre and ring of the subject's right eye, then of the left
LEFT_CORNER, RIGHT_CORNER = 263, 33  # outer corners of the subject's left and right eye


class Pose(NamedTuple):
    """A posed batch of B heads, with what the Jacobian needs of it."""

    points: Tensor  # [B, L, 3] model space
    part: Tensor  # [B, L, J, 3] m_lj: what of a point follows each joint, before it is turned
    world: Tensor  # [B, J, 3, 3] Q_j: product of the rotations from the root to joint j
    parent: Tensor  # [B, J, 3, 3] Q of the joint's parent
    shift: Tensor  # [B, J, 3] t_j
    pivot: Tensor  # [B, J, 3] posed joint positions
    rotvec: Tensor  # [B, J, 3] rotations of the joints with the expression's part added
    local: Tensor  # [B, J, 3, 3] their matrices


@dataclasses.dataclass(frozen=True)
class LandmarkPoints:
    """The linear maps of L landmarks of one head model, by joint."""

    template: Tensor  # [L, J, 3]
    identity: Tensor  # [L, J, 3, I]
    expression: Tensor  # [L, J, 3, E]
    corrective: Tensor | None  # [L, J, 3, (J-1)*9] times (R - I) of joints 1.. (SMPL-X), or None
    weight: Tensor  # [L, J] skinning weight of the point
    joint_template: Tensor  # [J, 3]
    joint_identity: Tensor  # [I, J, 3]
    joint_expression: Tensor  # [E, J, 3]
    expression_joints: Tensor  # [E, J, 3]

    @staticmethod
    def of(model: HeadModel, table: LandmarkTable | None = None) -> LandmarkPoints:
        """Maps of the model's landmarks (or of `table`), in float32.

        Raises ValueError if the model has no landmark table and none is given.
        """
        table = table_of(model) if table is None else table
        device = model.template.device
        corners = model.faces[table.triangle.to(device)]  # [L, 3]
        barycentric = table.barycentric.to(device).float()
        by_joint = barycentric[..., None] * model.weights[corners].float()  # [L, 3, J]
        rows = _stencil_rows(model.stencil, corners.flatten())  # [3L, C]

        def gather(basis: Tensor) -> Tensor:
            flat = basis.permute(1, 2, 0).flatten(1).float()  # [C, 3N]
            dense = (rows @ flat).unflatten(0, corners.shape)  # [L, 3, 3N]
            return torch.einsum("lkj,lkx->ljx", by_joint, dense).unflatten(-1, (3, -1))  # [L, J, 3, N]

        return LandmarkPoints(
            template=gather(model.template[None])[..., 0],
            identity=gather(model.identity_basis),
            expression=gather(model.expression_basis),
            corrective=None if model.pose_basis is None else gather(model.pose_basis),
            weight=by_joint.sum(1),
            joint_template=model.joint_template.float(),
            joint_identity=model.joint_identity.float(),
            joint_expression=model.joint_expression.float(),
            expression_joints=model.expression_joints.float(),
        )

    def take(self, index: Tensor) -> LandmarkPoints:
        """The maps of the landmarks `index` [N] alone."""
        corrective = None if self.corrective is None else self.corrective[index]
        by_landmark = {name: getattr(self, name)[index] for name in ("template", "identity", "expression", "weight")}
        return dataclasses.replace(self, corrective=corrective, **by_landmark)

    def to(self, *args, **kwargs) -> LandmarkPoints:
        """The same maps on another device or in another dtype (arguments of Tensor.to)."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return LandmarkPoints(**{name: None if v is None else v.to(*args, **kwargs) for name, v in fields.items()})

    def posed(self, identity: Tensor, expression: Tensor, joints: Tensor) -> Pose:
        """Poses the points. identity [1 or B, I], expression [B, E], joints [B, J, 3] rotation vectors."""
        position = (
            self.joint_template
            + torch.einsum("bi,ijx->bjx", identity, self.joint_identity)
            + torch.einsum("be,ejx->bjx", expression, self.joint_expression)
        )
        rotvec = joints + torch.einsum("be,ejx->bjx", expression, self.expression_joints)
        local = rotation.to_matrix(rotvec)
        world, parent, shift, pivot = _chain(local, position)
        part = self.template + _mix(identity, self.identity) + _mix(expression, self.expression)  # [B, L, J, 3]
        if self.corrective is not None:
            part = part + _mix((local - torch.eye(3).to(local))[:, 1:].flatten(1), self.corrective)
        points = part.flatten(2) @ world.mT.flatten(1, 2) + self.weight @ shift
        return Pose(points, part, world, parent, shift, pivot, rotvec, local)


def table_of(model: HeadModel) -> LandmarkTable:
    """The model's landmark table. Raises ValueError if it has none."""
    if model.landmarks is None:
        raise ValueError(
            f"head model {model.model_id} has no landmark table; calibrate it first (proxy.calibrate.calibrate_landmarks)"
        )
    return model.landmarks


def model_landmarks(model: HeadModel, identity: Tensor, expression: Tensor, joints: Tensor) -> Tensor:
    """The landmarks [B, 478, 3] of posed heads in model space, metres.

    identity [1 or B, I], expression [B, E], joints [B, J, 3]. Raises ValueError if the model has no landmark table.
    """
    return LandmarkPoints.of(model).posed(identity, expression, joints).points


def _stencil_rows(stencil: Tensor, rows: Tensor) -> Tensor:
    """Rows [R] of the sparse stencil [V, C] as a sparse [R, C]."""
    # Its threads write in place, and inference mode is a matter of each thread.
    with torch.inference_mode(False), torch.no_grad():
        return stencil.index_select(0, rows.clone())


def _mix(coefficients: Tensor, basis: Tensor) -> Tensor:
    """coefficients [B, N], basis [L, J, 3, N] -> [B, L, J, 3]."""
    return (coefficients @ basis.flatten(0, 2).mT).unflatten(-1, basis.shape[:-1])


def _chain(local: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """World rotations, those of the parents [B, J, 3, 3], world shifts and posed joint positions [B, J, 3]."""
    world, parents, shift, pivot = [], [], [], []
    for joint, parent in enumerate(PARENTS):
        rest = position[:, joint]
        if parent < 0:
            above, origin = torch.eye(3).to(local).expand_as(local[:, 0]), rest
        else:
            above = world[parent]
            origin = (above @ rest[..., None])[..., 0] + shift[parent]
        world.append(above @ local[:, joint])
        parents.append(above)
        pivot.append(origin)
        shift.append(origin - (world[-1] @ rest[..., None])[..., 0])
    return torch.stack(world, 1), torch.stack(parents, 1), torch.stack(shift, 1), torch.stack(pivot, 1)
