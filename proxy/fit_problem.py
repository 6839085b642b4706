"""The cost of a fit and its Gauss-Newton system: landmarks and priors of single frames, in units of the priors' sigmas.

Frame variables z [T, n] are (expression, turns, translation), each divided by its sigma; shared ones s [m] are (identity, logarithm
of the focal length) likewise. The turns are those of the head, which the neck shares since a face does not tell the two apart, of
the jaw and of the eyes. The root's rotation stays as it is given.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from .camera import Camera
from .fit_jacobian import Jacobian, projection_rows
from .fit_settings import FitSettings
from .head_model import JOINTS, HeadModel
from .landmark_points import LandmarkPoints, Pose

TRANSLATION_SIGMA = 0.1  # metres; only a scale for the numbers, the prior of the translation is flat
NECK_SHARE = 0.35  # of a head's rotation
FREE_JOINTS = ("jaw", "left_eye", "right_eye")
_HEAD, _JAW, _LEFT_EYE, _RIGHT_EYE = range(0, 12, 3)  # first of their three turns
FLAT = 1e-4  # precision of what has no prior, in units of its scale: keeps the system definite


@dataclasses.dataclass(frozen=True)
class Variables:
    """A point of the search."""

    frame: Tensor  # [T, n]
    shared: Tensor  # [m]

    def take(self, index: Tensor | slice) -> Variables:
        return Variables(self.frame[index], self.shared)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What was detected in T frames."""

    pixels: Tensor  # [T, L, 2]
    weight: Tensor  # [T, L]
    size: Tensor  # [T] size of the face in pixels
    turn: Tensor  # [T, 3] the head's rotation that the landmarks' own depth suggests, radians

    def take(self, index: Tensor | slice) -> Evidence:
        return Evidence(self.pixels[index], self.weight[index], self.size[index], self.turn[index])


class System(NamedTuple):
    """Gauss-Newton blocks of single frames: g + H d = 0."""

    frame: Tensor  # [T, n, n]
    cross: Tensor  # [T, n, m], m = 0 with identity and focal length fixed
    shared: Tensor  # [m, m]
    frame_gradient: Tensor  # [T, n]
    shared_gradient: Tensor  # [m]


class Problem:
    """One clip's cost. `points` are the fitted landmarks with `modes` identity coefficients; the camera's focal length is its
    prior's mean. Systems have a part for the shared variables only if `with_shared`."""

    def __init__(
        self, model: HeadModel, points: LandmarkPoints, settings: FitSettings, root: Tensor, camera: Camera, with_shared: bool
    ):
        self.points, self.settings, self.root, self.camera = points, settings, root, camera
        self.modes = points.identity.shape[-1]
        self.expressions = points.expression.shape[-1]
        self._turns = _turns().to(root)
        self.with_shared = with_shared
        self._jacobian = Jacobian(points, self._turns, with_shared, 1 + with_shared)
        bounds = model.expression_bounds.to(root)
        self._expression_sigma = settings.expression * bounds.abs().amax(1)
        free = self._turns.shape[1]
        self.sigma = torch.cat([self._expression_sigma, torch.ones(free).to(root), torch.full((3,), TRANSLATION_SIGMA).to(root)])
        self.shared_sigma = torch.cat([torch.full((self.modes,), settings.identity), torch.tensor([settings.focal])]).to(root)
        self._head = slice(self.expressions, self.expressions + 3)
        self.precision = self._precision(model)  # [n, n]
        self._turn_precision = torch.zeros_like(self.precision)
        self._turn_precision[self._head, self._head] = torch.eye(3).to(root) / settings.turn**2
        unbounded = torch.full((free + 3,), torch.inf).to(root)
        self.lower = torch.cat([bounds[:, 0], -unbounded]) / self.sigma
        self.upper = torch.cat([bounds[:, 1], unbounded]) / self.sigma

    def _precision(self, model: HeadModel) -> Tensor:
        """Precision [n, n] of the frame variables' prior, whose mean is 0."""
        settings, e = self.settings, self.expressions
        jaw = settings.jaw if model.expression_joints[:, JOINTS.index("jaw")].abs().max() > 0 else settings.jaw_alone
        result = torch.zeros(len(self.sigma), len(self.sigma))
        result[range(e), range(e)] = 1.0
        for first, sigma in ((_HEAD, settings.head), (_JAW, jaw)):
            at = range(e + first, e + first + 3)
            result[at, at] = sigma**-2
        result = result.to(self.sigma)
        turns = model.expression_joints.to(self.sigma)  # [E, J, 3]
        left, right = (JOINTS.index(name) for name in ("left_eye", "right_eye"))
        for axis in range(3):
            # Each eye's own turn is free within a gaze's range, but together with what expressions add both look the same way.
            # No eye rolls about its axis of sight.
            apart = torch.zeros_like(self.sigma)
            apart[:e] = turns[:, left, axis] - turns[:, right, axis]
            for first, sign in ((_LEFT_EYE, 1.0), (_RIGHT_EYE, -1.0)):
                at = e + first + axis
                apart[at] = sign
                result[at, at] += (0.1 * settings.eyes if axis == 2 else settings.eyes) ** -2 / 2
            apart = apart * self.sigma
            result += apart[:, None] * apart / settings.vergence**2
        result[range(-3, 0), range(-3, 0)] = FLAT
        return result

    # -- variables ---------------------------------------------------------------------------------------------------

    def pack(self, expression: Tensor, joints: Tensor, translation: Tensor) -> Tensor:
        """Expression [T, E], joints [T, J, 3] and translation [T, 3] as frame variables [T, n]; neck and head by their sum."""
        eyes_and_jaw = [joints[:, JOINTS.index(name)] for name in FREE_JOINTS]
        head = joints[:, JOINTS.index("neck")] + joints[:, JOINTS.index("head")]
        return torch.cat([expression, head, *eyes_and_jaw, translation], 1) / self.sigma

    def unpack(self, frame: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Frame variables [T, n] as expression [T, E], joints [T, J, 3] and translation [T, 3]."""
        values = frame * self.sigma
        turns = (values[:, self.expressions : -3] @ self._turns.mT).unflatten(1, (-1, 3))
        joints = torch.cat([self.root.expand(len(values), 1, 3), turns], 1)
        return values[:, : self.expressions], joints, values[:, -3:]

    def head_turn(self, at: Variables) -> Tensor:
        """The head's rotation [T, 3] against the root, radians."""
        return at.frame[:, self._head]

    def identity(self, shared: Tensor) -> Tensor:
        """Identity coefficients [modes]."""
        return shared[:-1] * self.shared_sigma[:-1]

    def camera_of(self, shared: Tensor) -> Camera:
        """The camera whose focal length is the prior's mean times the exponential of the last shared variable."""
        return dataclasses.replace(self.camera, focal=self.camera.focal * float((shared[-1] * self.shared_sigma[-1]).exp()))

    # -- cost --------------------------------------------------------------------------------------------------------

    def project(self, at: Variables) -> tuple[Pose, Tensor, Camera]:
        """Posed points, the same in camera space [T, L, 3], and the camera."""
        expression, joints, translation = self.unpack(at.frame)
        pose = self.points.posed(self.identity(at.shared)[None], expression, joints)
        return pose, pose.points + translation[:, None], self.camera_of(at.shared)

    def cost(self, at: Variables, evidence: Evidence) -> Tensor:
        """Cost [T] of single frames: robust landmark distances and the prior."""
        _, points, camera = self.project(at)
        squares = self._squares(camera.project(points) - evidence.pixels, evidence)
        bend = self._bend
        data = (evidence.weight * bend * squares / (bend + squares)).sum(1) * self._evidence(evidence)
        prior = ((at.frame @ self.precision) * at.frame).sum(1)
        return 0.5 * (data + prior + self._turn_error(at, evidence).square().sum(1))

    def _turn_error(self, at: Variables, evidence: Evidence) -> Tensor:
        """[T, 3]: the head's rotation against the suggested one, in sigmas. (The scale of turns is 1.)"""
        return (at.frame[:, self._head] - evidence.turn) / self.settings.turn

    def shared_cost(self, shared: Tensor) -> Tensor:
        """Prior's cost of the shared variables, for one frame."""
        return 0.5 * (shared * shared).sum()

    def system(self, at: Variables, evidence: Evidence) -> System:
        """Gauss-Newton blocks at a point; robust weights as they stand there."""
        pose, points, camera = self.project(at)
        pixels = camera.project(points)
        difference = pixels - evidence.pixels
        squares = self._squares(difference, evidence)
        robust = (self._bend / (self._bend + squares)) ** 2
        unit = (self._evidence(evidence)[:, None] * evidence.weight * robust).sqrt() / self._unit(evidence)[:, None]
        unit = unit[..., None]
        rows = projection_rows(camera, points) * unit[..., None]
        centre = pixels.new_tensor([camera.cx, camera.cy])
        further = [pixels - centre, difference] if self.with_shared else [difference]  # by the focal length; the residual
        further = torch.stack(further, -1) * unit[..., None]
        jacobian = self._jacobian(pose, rows, further).flatten(1, 2)  # [T, 2L, n + m + 1]
        n = len(self.sigma)
        shared_sigma = self.shared_sigma if self.with_shared else self.shared_sigma[:0]
        scale = torch.cat([self.sigma, shared_sigma, torch.ones_like(self.sigma[:1])])
        hessian = torch.bmm(jacobian[..., :n].mT, jacobian) * (self.sigma[:, None] * scale)  # [T, n, n + m + 1]
        shared_columns = jacobian.flatten(0, 1)[:, n:]
        shared = (shared_columns[:, :-1].mT @ shared_columns) * (shared_sigma[:, None] * scale[n:])  # [m, m + 1]
        frame_gradient = hessian[..., -1] + at.frame @ self.precision
        frame_gradient[:, self._head] += self._turn_error(at, evidence) / self.settings.turn
        return System(
            hessian[..., :n] + self.precision + self._turn_precision,
            hessian[..., n:-1],
            shared[:, :-1],
            frame_gradient,
            shared[:, -1],
        )

    @property
    def _bend(self) -> float:
        return (self.settings.robust / self.settings.noise) ** 2

    def _unit(self, evidence: Evidence) -> Tensor:
        """[T] pixels of one sigma."""
        return self.settings.noise * evidence.size

    def _squares(self, difference: Tensor, evidence: Evidence) -> Tensor:
        return (difference * difference).sum(-1) / self._unit(evidence)[:, None] ** 2

    def _evidence(self, evidence: Evidence) -> Tensor:
        """[T] factor that makes the landmarks of a frame worth `settings.evidence` points."""
        return self.settings.evidence / evidence.weight.sum(1).clamp(min=1e-6)


def _turns() -> Tensor:
    """[(J - 1) * 3, R]: the rotation vectors of joints 1.. by the turns of the head and of the free joints."""
    shares = torch.zeros(len(JOINTS) - 1, 1 + len(FREE_JOINTS))
    shares[JOINTS.index("neck") - 1, 0] = NECK_SHARE
    shares[JOINTS.index("head") - 1, 0] = 1 - NECK_SHARE
    for column, name in enumerate(FREE_JOINTS, 1):
        shares[JOINTS.index(name) - 1, column] = 1
    return torch.kron(shares, torch.eye(3))
