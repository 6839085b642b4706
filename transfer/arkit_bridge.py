"""ARKit's 52 expressions on any head model, and back: the bridge between models whose expressions have other meanings.

ARKit names shapes, not models. What a shape does is told by the embedded head, whose expressions are ARKit's: how it moves the
landmarks and turns the eyes. For another model (SMPL-X: principal components, a jaw and eyes that are joints) the
coefficients that move *its* landmarks the same way are solved once, by ridge least squares with the prior that the model's
bounds stand for; the way back is a least squares problem within ARKit's bounds for every frame.
"""

from __future__ import annotations

import dataclasses
import weakref

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, HeadModel, load_head_model
from .box_least_squares import box_least_squares
from .face_motion import EYES, JAW, FaceMotion, landmarks_in_use

ARKIT_NAMES = (
    "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight",
    "cheekPuff", "cheekSquintLeft", "cheekSquintRight",
    "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft", "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight",
    "eyeLookOutLeft", "eyeLookOutRight", "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight",
    "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight",
    "mouthClose", "mouthDimpleLeft", "mouthDimpleRight", "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft",
    "mouthLowerDownLeft", "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft", "mouthSmileRight",
    "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight", "tongueOut",
)  # fmt: skip
# Which shapes tell what the joints of a model with ARKit's expressions do beyond its expressions.
FOLDED = tuple(name for name in ARKIT_NAMES if name.startswith(("jaw", "eyeLook")))
NOISE = 0.003  # outer-eye distances: how closely a landmark is to be met, against the priors below
JAW_DEVIATION = (0.3, 0.1, 0.05)  # radians about x (open), y (sideways) and z: standard deviations of the jaw's prior
CURVE_DEVIATION = 2.0  # standard deviation of an ARKit curve's prior
OPPOSED = 300.0  # cost of an eye that fully looks up and down, or in and out, at once: more than lids could gain by it
EYE_RADIUS = 0.14  # outer-eye distances: a turn of the eye counts as the shift of its pupil
PUPILS = 300  # landmarks that a pupil is worth: gaze comes before the lids that follow it
ROUNDS = 6  # Gauss-Newton steps at most; the turning jaw is what is not linear
ENOUGH = 1e-6  # of a curve: a step no longer than this is the last
FRAMES_AT_ONCE = 256  # bounds the memory of long motions


@dataclasses.dataclass(frozen=True, eq=False)
class ArkitBridge:
    """Between ARKit curves [T, 52] in the order of ARKIT_NAMES and a model's expression [T, E] and joints [T, J, 3].

    Both are differences from the model's neutral face at rest; joints are rotation vectors in radians of which only jaw and
    eyes are used, and to_model leaves the others 0.
    """

    model_id: str
    expression: Tensor  # [52, E] coefficients of each ARKit shape
    joints: Tensor  # [52, J, 3] and its rotations
    residual: Tensor  # [52] 0..1: share of the shape's motion that the model cannot show (1 for what it does not have)
    named: Tensor | None  # [52] where the ARKit names stand among the model's expressions, None if it has none
    turns: Tensor  # [E, 2, 3] rotation of the eyes per unit of expression
    face: FaceMotion  # of the model, or of the embedded head if the expressions are ARKit's
    arkit: _ArkitFace

    def to_model(self, curves: Tensor) -> tuple[Tensor, Tensor]:
        """Expression [T, E] and joints [T, J, 3] of curves [T, 52]. Raises ValueError for another number of columns."""
        if curves.ndim != 2 or curves.shape[1] != len(ARKIT_NAMES):
            raise ValueError(f"the ARKit curves have shape {list(curves.shape)}; give one column for each of the {len(ARKIT_NAMES)} names")
        return curves @ self.expression.to(curves), torch.einsum("tk,kjx->tjx", curves, self.joints.to(curves))

    def to_arkit(self, expression: Tensor, joints: Tensor, with_gaze: bool = True) -> Tensor:
        """Curves [T, 52] of expression [T, E] and joints [T, J, 3].

        With ARKit's expressions these are the curves, and what jaw and eyes do beyond them is added to jaw... and eyeLook...
        as far as their bounds allow. Otherwise the curves are those within the embedded head's bounds that move the
        landmarks and eyes most like it. Where mouthClose and jawOpen could stand for each other, small values are taken.
        Without gaze the eyes' rotations count for nothing, and eyeLook... tells what the lids do: for those who take care of
        the eyes themselves.
        """
        if self.named is None:
            curves = expression.new_zeros(len(expression), len(ARKIT_NAMES))
            unsolved = torch.arange(len(curves), device=curves.device)
        else:
            curves = expression[:, self.named]
            unsolved = (joints[:, [JAW, *EYES] if with_gaze else [JAW]] != 0).flatten(1).any(1).nonzero()[:, 0]
        for some in unsolved.split(FRAMES_AT_ONCE) if len(unsolved) else ():
            curves[some] = self._solve(expression[some], joints[some], curves[some], with_gaze).to(curves)
        return curves

    def _solve(self, expression: Tensor, joints: Tensor, start: Tensor, with_gaze: bool) -> Tensor:
        with torch.inference_mode(False), torch.no_grad():
            device = self.expression.device
            expression, joints, start = (x.to(device, torch.float64, copy=True) for x in (expression, joints, start))
            gaze = joints[:, EYES] + torch.einsum("te,ejx->tjx", expression, self.turns)
            shown = start if self.named is not None else expression
            target = self.arkit.rows(self.face.displacements(shown, joints[:, JAW]), gaze)
            low, high = torch.minimum(start, self.arkit.low), torch.maximum(start, self.arkit.high)
            if self.named is not None:
                free = torch.tensor([name in FOLDED for name in ARKIT_NAMES], device=device)
                low, high = torch.where(free, low, start), torch.where(free, high, start)
            return self.arkit.explain(target, start, low, high, with_gaze)


@dataclasses.dataclass(frozen=True, eq=False)
class _ArkitFace:
    """What ARKit's shapes do, shown by the embedded head. M rows: weighted displacements of the landmarks, then of the pupils."""

    face: FaceMotion
    weight: Tensor  # [L] of the landmarks
    turns: Tensor  # [52, 2, 3] rotation of the eyes per unit
    low: Tensor  # [52] bounds of the curves
    high: Tensor  # [52]

    def rows(self, displacements: Tensor, gaze: Tensor) -> Tensor:
        """Rows [B, M] of displacements [B, L, 3] and rotation vectors of the eyes [B, 2, 3], in units of their tolerance."""
        skin = displacements * self.weight.sqrt()[:, None] / NOISE
        return torch.cat([skin.flatten(1), EYE_RADIUS * PUPILS**0.5 / NOISE * gaze.flatten(1)], 1)

    def shown(self, curves: Tensor) -> Tensor:
        """Rows [B, M] of curves [B, 52]."""
        still = curves.new_zeros(len(curves), 3)
        return self.rows(self.face.displacements(curves, still), torch.einsum("bk,kjx->bjx", curves, self.turns))

    def unit_rows(self) -> Tensor:
        """Rows [52, M] of each shape at its upper bound, per unit."""
        return self.shown(torch.diag(self.high)) / self.high[:, None]

    def explain(self, target: Tensor, start: Tensor, low: Tensor, high: Tensor, with_gaze: bool) -> Tensor:
        """Curves [T, 52] between low and high [T, 52] whose rows are closest to `target` [T, M], those of the pupils left out if not
        `with_gaze`; the prior draws them to `start`."""
        count = target.shape[1] - (0 if with_gaze else self.turns[0].numel())
        rows, prior = self.unit_rows()[:, :count], CURVE_DEVIATION**-2
        matrix = rows @ rows.mT + prior * torch.eye(len(rows)).to(rows)
        # Beside the squares of the gaze the cost of opposed curves is small; alone it would not be convex.
        opposed = _opposed().to(rows) if with_gaze else torch.zeros_like(matrix)
        curves = start
        for _ in range(ROUNDS):
            slope = (target - self.shown(curves))[:, :count] @ rows.mT - prior * (curves - start) - curves @ opposed
            step = box_least_squares(matrix + opposed, slope, low - curves, high - curves)
            curves = curves + step
            if step.abs().max() < ENOUGH:
                break
        return curves


def _opposed() -> Tensor:
    """Cost [52, 52] of the products of curves that say opposite things: an eye that looks up and down at once."""
    cost = torch.zeros(len(ARKIT_NAMES), len(ARKIT_NAMES))
    for side in ("Left", "Right"):
        for one, other in (("In", "Out"), ("Up", "Down")):
            i, k = (ARKIT_NAMES.index(f"eyeLook{way}{side}") for way in (one, other))
            cost[i, k] = cost[k, i] = OPPOSED
    return cost


_bridges: weakref.WeakKeyDictionary[HeadModel, ArkitBridge] = weakref.WeakKeyDictionary()


def arkit_bridge(model: HeadModel) -> ArkitBridge:
    """The bridge to a head model, solved once per model object (about a second for SMPL-X).

    Raises ValueError if the model has neither ARKit's expressions nor a landmark table.
    """
    if model not in _bridges:
        with torch.inference_mode(False), torch.no_grad():
            _bridges[model] = _named_bridge(model) if _has_arkit_names(model) else _solved_bridge(model)
    return _bridges[model]


def _has_arkit_names(model: HeadModel) -> bool:
    return set(ARKIT_NAMES) <= set(model.expression_names)


def _named_bridge(model: HeadModel) -> ArkitBridge:
    embedded = _embedded(model)
    named = torch.tensor([model.expression_index(name) for name in ARKIT_NAMES], device=model.template.device)
    expression = torch.zeros(len(ARKIT_NAMES), len(model.expression_names), device=named.device)
    expression[torch.arange(len(named)), named] = 1
    arkit = _arkit_face(embedded, landmarks_in_use(embedded.landmarks.weight))
    return ArkitBridge(
        model_id=model.model_id,
        expression=expression.double(),
        joints=model.template.new_zeros(len(ARKIT_NAMES), len(JOINTS), 3, dtype=torch.float64),
        residual=model.template.new_zeros(len(ARKIT_NAMES)),
        named=named,
        turns=model.expression_joints[:, EYES].double(),
        face=arkit.face,
        arkit=arkit,
    )


def _solved_bridge(model: HeadModel) -> ArkitBridge:
    if model.landmarks is None:
        raise ValueError(
            f"head model {model.model_id} has neither ARKit's expressions nor a landmark table, so ARKit curves cannot be shown "
            f"on it; load it with Load Head Model (or load_calibrated_head), which makes the table"
        )
    embedded = _embedded(model)
    landmarks = landmarks_in_use(embedded.landmarks.weight, model.landmarks.weight)
    arkit = _arkit_face(embedded, landmarks, model.landmarks.weight)
    # Landmarks that no shape moves show how the heads lie to each other.
    unit = arkit.face.displacements(torch.diag(arkit.high), arkit.high.new_zeros(len(arkit.high), 3))
    still = arkit.weight / (1 + unit.square().sum(-1).amax(0) / NOISE**2)
    face = FaceMotion.of(model, landmarks).aligned(arkit.face, still)

    expression, jaw = _coefficients(model, face, arkit)
    joints = model.template.new_zeros(len(ARKIT_NAMES), len(JOINTS), 3, dtype=torch.float64)
    joints[:, JAW] = jaw
    turns = model.expression_joints[:, EYES].double()
    joints[:, EYES] = arkit.turns - torch.einsum("ke,ejx->kjx", expression, turns)
    wanted = arkit.unit_rows()
    size = arkit.high[:, None]
    shown = arkit.rows(face.displacements(size * expression, size * jaw), size[..., None] * arkit.turns) / size
    # One tolerance keeps shapes that move no landmark (tongueOut) from counting as met.
    share = ((wanted - shown).norm(dim=1) + 1) / (wanted.norm(dim=1) + 1)
    return ArkitBridge(
        model_id=model.model_id,
        expression=expression,
        joints=joints,
        residual=share.clamp(max=1).to(model.template),
        named=None,
        turns=turns,
        face=face,
        arkit=arkit,
    )


def _coefficients(model: HeadModel, face: FaceMotion, arkit: _ArkitFace) -> tuple[Tensor, Tensor]:
    """Expression [52, E] and jaw rotation [52, 3] per unit of each ARKit shape: Gauss-Newton on the landmarks' displacements at
    the shape's upper bound, with normal priors on both; a model's bounds are three standard deviations."""
    deviation = model.expression_bounds.double().abs().amax(-1) / 3
    deviation = torch.cat([deviation, deviation.new_tensor(JAW_DEVIATION)])
    still = torch.zeros_like(arkit.turns)
    wanted = arkit.rows(arkit.face.displacements(torch.diag(arkit.high), arkit.high.new_zeros(len(arkit.high), 3)), still)
    count = len(deviation) - 3
    found = wanted.new_zeros(len(wanted), count + 3)
    scale = torch.cat([(arkit.weight.sqrt() / NOISE).repeat_interleave(3), wanted.new_zeros(still[0].numel())])
    for _ in range(ROUNDS):
        expression, jaw = found[:, :count], found[:, count:]
        missing = wanted - arkit.rows(face.displacements(expression, jaw), still)
        slopes = face.derivatives(expression, jaw).flatten(1, 2)  # [52, L * 3, E + 3]
        slopes = slopes * scale[: slopes.shape[1], None] * deviation
        standard = found / deviation
        right = torch.einsum("kme,km->ke", slopes, missing[:, : slopes.shape[1]]) - standard
        matrix = slopes.mT @ slopes + torch.eye(count + 3).to(slopes)
        found = (standard + torch.linalg.solve(matrix, right)) * deviation
    found = found / arkit.high[:, None]
    return found[:, :count], found[:, count:]


def _embedded(model: HeadModel) -> HeadModel:
    return load_head_model().to(model.template.device)


def _arkit_face(embedded: HeadModel, landmarks: Tensor, other: Tensor | None = None) -> _ArkitFace:
    """ARKit's shapes by the embedded head at `landmarks` [L], weighted by its table and by the `other` weights [478]."""
    weight = embedded.landmarks.weight if other is None else (embedded.landmarks.weight * other).sqrt()
    low, high = embedded.expression_bounds.double().unbind(-1)
    turns = embedded.expression_joints[:, EYES].double()
    return _ArkitFace(FaceMotion.of(embedded, landmarks), weight[landmarks].double(), turns, low, high)
