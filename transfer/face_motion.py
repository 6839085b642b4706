"""How the landmarks of a head move with expression and jaw, in a frame that heads of any size and build share."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.landmark_points import FACE_OVAL, IRISES, LEFT_CORNER, RIGHT_CORNER, LandmarkPoints, Pose

JAW = JOINTS.index("jaw")
EYES = [JOINTS.index("left_eye"), JOINTS.index("right_eye")]
STEP = 1e-4  # radians, of the central differences by the jaw's rotation


@dataclasses.dataclass(frozen=True)
class FaceMotion:
    """L landmarks of a head of zero identity that looks straight ahead; what moves them is expression and jaw alone.

    Lengths are in units of the head's outer-eye distance, axes are those of the head it was aligned with. Eyeballs are left
    out (no iris points, eyes at rest): gaze is known from the joints themselves. float64.
    """

    points: LandmarkPoints
    rest: Tensor  # [L, 3] model space, metres
    frame: Tensor  # [3, 3] model space to the common axes, divided by the outer-eye distance in metres

    @staticmethod
    def of(model: HeadModel, landmarks: Tensor) -> FaceMotion:
        """Motion of the landmarks with the indices `landmarks` [L], in the model's own axes.

        Raises ValueError if the model has no landmark table.
        """
        every = LandmarkPoints.of(model).to(torch.float64)
        still = _pose(every, *_at_rest(every)).points[0]
        size = (still[LEFT_CORNER] - still[RIGHT_CORNER]).norm()
        return FaceMotion(every.take(landmarks), still[landmarks], torch.eye(3).to(still) / size)

    def aligned(self, reference: FaceMotion, weight: Tensor) -> FaceMotion:
        """The same in the axes of `reference`: turned so that its landmarks at rest lie closest to those of the reference
        in the mean square weighted by `weight` [L] (Kabsch's rotation)."""
        here, there = (face.rest @ face.frame.mT for face in (self, reference))
        share = (weight / weight.sum())[:, None]
        here, there = here - (share * here).sum(0), there - (share * there).sum(0)
        u, _, vh = torch.linalg.svd((share * there).mT @ here)
        flip = torch.diag(torch.stack([torch.ones_like(u[0, 0]), torch.ones_like(u[0, 0]), torch.linalg.det(u @ vh)]))
        return dataclasses.replace(self, frame=u @ flip @ vh @ self.frame)

    def displacements(self, expression: Tensor, jaw: Tensor) -> Tensor:
        """Displacements [B, L, 3] from rest by expression [B, E] and given jaw rotation vectors [B, 3] (radians)."""
        return (_pose(self.points, expression, jaw).points - self.rest) @ self.frame.mT

    def derivatives(self, expression: Tensor, jaw: Tensor) -> Tensor:
        """Derivatives [B, L, 3, E + 3] of the displacements by expression and jaw.

        What the expression does to the place of the joints is left out; it only matters as they turn, and is small.
        """
        by_jaw = []
        for axis in torch.eye(3).to(jaw):
            ahead, behind = (self.displacements(expression, jaw + sign * STEP * axis) for sign in (1, -1))
            by_jaw.append((ahead - behind) / (2 * STEP))
        by_jaw = torch.stack(by_jaw, -1)  # [B, L, 3, 3]
        world = _pose(self.points, expression, jaw).world
        by_expression = torch.einsum("xy,bjyz,ljze->blxe", self.frame, world, self.points.expression)
        by_expression = by_expression + by_jaw @ self.points.expression_joints[:, JAW].mT
        return torch.cat([by_expression, by_jaw], -1)


def landmarks_in_use(*weights: Tensor) -> Tensor:
    """Indices [L] of the landmarks on the skin that every one of the tables' weights [478] counts; neither the face oval nor the
    irises, which say where the outline and the gaze are."""
    used = torch.stack([weight > 0 for weight in weights]).all(0)
    used[FACE_OVAL + IRISES] = False
    return used.nonzero()[:, 0]


def _at_rest(points: LandmarkPoints) -> tuple[Tensor, Tensor]:
    return points.template.new_zeros(1, points.expression.shape[-1]), points.template.new_zeros(1, 3)


def _pose(points: LandmarkPoints, expression: Tensor, jaw: Tensor) -> Pose:
    joints = expression.new_zeros(len(expression), len(JOINTS), 3)
    joints[:, JAW] = jaw
    # Expressions that turn the eyes (eyeLook...) are countered, so that the eyes stay at rest.
    joints[:, EYES] = -torch.einsum("be,ejx->bjx", expression, points.expression_joints[:, EYES])
    return points.posed(points.template.new_zeros(1, points.identity.shape[-1]), expression, joints)
