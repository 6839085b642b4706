"""Samples of a person's rims over a clip, without the mesh around them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, HeadModel, LandmarkTable
from ..proxy.landmark_points import LandmarkPoints

SKULL = [JOINTS.index(name) for name in ("root", "neck", "head")]  # what carries lids and lips as one
JAW = JOINTS.index("jaw")


class Posed(NamedTuple):
    """L points of T frames in the skull's frame: of a head whose root, neck and head joints are at rest."""

    points: Tensor  # [T, L, 3] metres
    turn: Tensor  # [T, L, 3, 3] what skinning does to a small canonical displacement there
    jaw: tuple[Tensor, Tensor]  # rotation [T, 3, 3] and shift [T, 3] that take canonical points to posed ones


@dataclasses.dataclass(frozen=True)
class PersonPoints:
    """Places on one person's skin as linear maps of expression and of K displacement fields."""

    maps: LandmarkPoints
    expressions: int  # the first columns of maps.expression; the fields come behind

    @staticmethod
    def of(
        model: HeadModel, table: LandmarkTable, identity: Tensor, displacement: Tensor | None = None, basis: Tensor | None = None
    ) -> PersonPoints:
        """Places `table` [L] of identity [I], displaced by a static displacement [V, 3] and fields [K, V, 3], canonical metres."""
        maps = LandmarkPoints.of(model, table)
        corners = model.faces[table.triangle]  # [L, 3]
        by_joint = table.barycentric[..., None] * model.weights[corners]  # [L, 3, J]
        template = maps.template + torch.einsum("i,ljxi->ljx", identity, maps.identity)
        if displacement is not None:
            template = template + torch.einsum("lkj,lkx->ljx", by_joint, displacement[corners].to(template))
        expression, joint_expression, expression_joints = maps.expression, maps.joint_expression, maps.expression_joints
        if basis is not None:
            extra = torch.einsum("lkj,flkx->ljxf", by_joint, basis[:, corners].to(template))
            expression = torch.cat([expression, extra], dim=-1)
            still = joint_expression.new_zeros(len(basis), *joint_expression.shape[1:])
            joint_expression, expression_joints = torch.cat([joint_expression, still]), torch.cat([expression_joints, still])
        fixed = dataclasses.replace(
            maps,
            template=template,
            identity=maps.identity[..., :0],
            joint_template=maps.joint_template + torch.einsum("i,ijx->jx", identity, maps.joint_identity),
            joint_identity=maps.joint_identity[:0],
            expression=expression,
            joint_expression=joint_expression,
            expression_joints=expression_joints,
        )
        return PersonPoints(fixed, len(model.expression_names))

    def posed(self, expression: Tensor, joints: Tensor, coefficients: Tensor | None = None) -> Posed:
        """Points of expression [T, E], joints [T, J, 3] and coefficients [T, K] of the fields (zeros if not given)."""
        fields = self.maps.expression.shape[-1] - self.expressions
        if coefficients is None:
            coefficients = expression.new_zeros(len(expression), fields)
        joints = joints.clone()
        joints[:, SKULL] = 0
        pose = self.maps.posed(expression.new_zeros(1, 0), torch.cat([expression, coefficients], dim=1), joints)
        turn = (self.maps.weight @ pose.world.flatten(2)).unflatten(-1, (3, 3))
        return Posed(pose.points, turn, (pose.world[:, JAW], pose.shift[:, JAW]))


def neutral_of(model: HeadModel, identity: Tensor, displacement: Tensor | None) -> Tensor:
    """Canonical vertices [V, 3] of a person without expression: identity [I], displacement [V, 3]."""
    points = model.canonical(identity[None], identity.new_zeros(1, len(model.expression_names)))[0]
    return points if displacement is None else points + displacement
