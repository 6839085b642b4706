"""Photo or clip to HeadTrack: detected landmarks in, identity, focal length, expression and pose of a head model out."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from . import rotation
from .camera import Camera
from .fit_problem import Evidence, Problem, Variables
from .fit_settings import FitSettings
from .fit_solver import fit_motion, fit_shape
from .fit_start import Placement, place, start_joints, start_translation, still_weight, torso
from .frames import Frames
from .head_model import HeadModel
from .head_track import HeadTrack
from .landmark_points import LEFT_CORNER, RIGHT_CORNER, LandmarkPoints, table_of
from .landmarks import FaceLandmarks, Landmarker

Progress = Callable[[int, int], None]


def fit_frames(
    frames: Frames,
    model: HeadModel,
    landmarker: Landmarker,
    face_index: int = 0,
    missing: str = "interpolate",
    settings: FitSettings = FitSettings(),
    focal: float | None = None,
    progress: Progress | None = None,
) -> HeadTrack:
    """Detects landmarks in a photo or clip and fits the head model to them; see `fit_landmarks` for the rest.

    Frames without a face are not valid, and `missing` says what they get: "interpolate" (between the valid neighbours, the
    ends hold), "previous" (the last valid frame, or the first one before it) or "empty" (a head at rest where it would be, no
    landmarks). Progress counts two steps per frame.
    """

    def part(offset: int) -> Progress | None:
        if progress is None:
            return None
        return lambda done, total: progress(offset + round(done * len(frames) / max(total, 1)), 2 * len(frames))

    landmarks = landmarker.track(frames, face_index, missing, part(0))
    return _fill_missing(fit_landmarks(landmarks, model, settings, focal, part(len(frames))), missing)


def fit_landmarks(
    landmarks: FaceLandmarks,
    model: HeadModel,
    settings: FitSettings = FitSettings(),
    focal: float | None = None,
    progress: Progress | None = None,
) -> HeadTrack:
    """Fits one identity and focal length (estimated if `focal` is None, pixels) and each frame's expression and pose.

    Frames flagged as invalid have no say; their parameters are interpolated between the valid ones. Computes on the
    model's device, returns CPU tensors. Raises ValueError if there is no frame, no valid frame, a valid point that is not
    finite, or no landmark table.
    """
    _check(landmarks)
    with torch.inference_mode(False), torch.no_grad():
        return _Fit(landmarks, model, settings, focal).run(progress)


def _check(landmarks: FaceLandmarks) -> None:
    count = len(landmarks.points)
    if count == 0:
        raise ValueError("there is no frame to fit; give at least one frame with a face")
    if not bool(landmarks.valid.any()):
        raise ValueError(f"no face was found in any of the {count} frames; give a picture or clip that shows a human face")
    broken = ~landmarks.points[landmarks.valid].isfinite().all(-1).all(-1)
    if bool(broken.any()):
        frame = int(landmarks.valid.nonzero()[broken][0])
        raise ValueError(f"the landmarks of frame {frame} are not finite numbers; mark that frame as invalid or detect it again")


def _fill_missing(track: HeadTrack, missing: str) -> HeadTrack:
    """The policy of `fit_frames` on a track whose frames without a face are interpolated."""
    names = ("expression", "joints", "translation", "landmarks_fit")
    if missing == "previous":
        frames = torch.arange(len(track)).where(track.valid, torch.full((), -1)).cummax(0).values
        frames = frames.where(frames >= 0, track.valid.nonzero()[0])
        return dataclasses.replace(track, **{name: getattr(track, name)[frames] for name in names})
    if missing == "empty":
        shown = track.valid
        rest = {"expression": track.expression * shown[:, None], "joints": track.joints * shown[:, None, None]}
        return dataclasses.replace(track, landmarks_fit=track.landmarks_fit * shown[:, None, None], **rest)
    return track


class _Fit:
    """The steps of one fit; T frames of which N are valid."""

    def __init__(self, landmarks: FaceLandmarks, model: HeadModel, settings: FitSettings, focal: float | None):
        self.landmarks, self.model, self.settings = landmarks, model, settings
        device = model.template.device
        table = table_of(model)
        self.keep = (table.weight > 0).nonzero()[:, 0].cpu()
        self.modes = min(settings.identity_modes, model.identity_basis.shape[0])
        self.every = LandmarkPoints.of(model)
        self.points = _leading(self.every.take(self.keep.to(device)), self.modes)
        self.frames = landmarks.valid.nonzero()[:, 0]  # [N]
        self.detected = landmarks.points[self.frames].clone().float().to(device)  # [N, 478, 3]
        self.weight = table.weight[self.keep].float().to(device) * landmarks.confidence[self.frames].to(device)[:, None]
        half = max(landmarks.width, landmarks.height) / 2
        guess = half / math.tan(settings.field_of_view / 2)
        self.fixed_focal = focal is not None
        self.camera = Camera.centred(guess if focal is None else focal, landmarks.width, landmarks.height)

    def run(self, progress: Progress | None) -> HeadTrack:
        settings = self.settings
        total, done = 2 * settings.shape_rounds + settings.motion_rounds, 0

        def tick() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress(done, total)

        still = still_weight(self.every, self.model.expression_bounds, settings.expression)
        placed = place(self.every.template.sum(1), self.detected, still, self.camera)
        root = torso(placed.rotation, self.weight.mean(1), settings)
        problem = self._problem(root, with_shared=False)
        start = self._start(problem, placed)
        evidence = self._evidence(placed, problem.head_turn(start))
        shape_problem = self._problem(root, with_shared=True)
        # A few frames bring the shape near its place at a third of the cost, all key frames settle it.
        stages = [(settings.keyframes, settings.tolerance)]
        if len(self.frames) > settings.keyframes // 3 > 0:
            stages.insert(0, (settings.keyframes // 3, 10 * settings.tolerance))
        for count, tolerance in stages:
            keys = torch.linspace(0, len(self.frames) - 1, min(count, len(self.frames))).round().long()
            shaped = fit_shape(shape_problem, evidence.take(keys), start.take(keys), tolerance, tick)
            start = Variables(self._spread(problem, keys, shaped, start), shaped.shared)
        solved = fit_motion(problem, evidence, start, self._ties(problem), tick)
        if progress is not None and done < total:
            progress(total, total)
        return self._track(problem, solved)

    def _problem(self, root: Tensor, with_shared: bool) -> Problem:
        settings = dataclasses.replace(self.settings, focal=1e-4) if self.fixed_focal else self.settings
        return Problem(self.model, self.points, settings, root, self.camera, with_shared)

    def _start(self, problem: Problem, placed: Placement) -> Variables:
        joints = start_joints(placed.rotation, problem.root)
        expression = joints.new_zeros(len(joints), problem.expressions)
        posed = self.points.posed(joints.new_zeros(1, self.modes), expression, joints).points
        centre = joints.new_tensor([self.camera.cx, self.camera.cy])
        pixels = self.detected[:, self.keep, :2].mean(1)
        translation = start_translation(posed.mean(1), pixels, placed.scale, self.camera.focal, centre)
        return Variables(problem.pack(expression, joints, translation), joints.new_zeros(self.modes + 1))

    def _evidence(self, placed: Placement, turn: Tensor) -> Evidence:
        """Detected points with the size of each face and weights that fall off where the surface looks away."""
        template = self.every.template.sum(1)
        span = (template[LEFT_CORNER] - template[RIGHT_CORNER]).norm()
        facing = (self._normals() @ placed.rotation[:, 2].mT).mT  # [N, L] cosine with the axis towards the viewer
        share = (facing / 0.4).clamp(0, 1)
        weight = self.weight * (self.settings.back_facing + (1 - self.settings.back_facing) * share)
        return Evidence(self.detected[:, self.keep, :2].contiguous(), weight, placed.scale * span, turn)

    def _normals(self) -> Tensor:
        """Normals [L, 3] of the neutral head at the landmarks."""
        model, table = self.model, table_of(self.model)
        corners = model.faces[table.triangle.to(model.faces.device)[self.keep]]
        vertices = (model.stencil @ model.template)[None]
        normals = model.vertex_normals(vertices)[0][corners]
        mixed = (normals * table.barycentric.to(normals)[self.keep][..., None]).sum(1)
        return torch.nn.functional.normalize(mixed, dim=-1)

    def _spread(self, problem: Problem, keys: Tensor, shaped: Variables, start: Variables) -> Tensor:
        """First guess [N, n] of all frames: what was found at the key frames, in between interpolated.

        Pose keeps the closed form's own motion and takes only its correction from the key frames.
        """
        change = shaped.frame - start.frame[keys]
        return (start.frame + _interpolate(change, keys, len(self.frames))).clamp(problem.lower, problem.upper)

    def _ties(self, problem: Problem) -> Tensor:
        """Precision [N-1, n] of neighbours' differences, by the time between them."""
        settings = self.settings
        turns = len(problem.sigma) - problem.expressions - 3
        speed = torch.cat(
            [
                problem.sigma[: problem.expressions] * settings.speed_expression / settings.expression,
                torch.full((turns,), settings.speed_rotation).to(problem.sigma),
                torch.full((3,), settings.speed_translation).to(problem.sigma),
            ]
        )
        steps = self.frames.diff().to(speed) * 25 / self.landmarks.fps
        return (problem.sigma / speed) ** 2 / steps[:, None]

    def _track(self, problem: Problem, solved: Variables) -> HeadTrack:
        count, landmarks = len(self.landmarks.points), self.landmarks
        expression, joints, translation = problem.unpack(solved.frame)
        expression = _interpolate(expression, self.frames, count)
        joints = _interpolate_rotations(joints, self.frames, count)
        translation = _interpolate(translation, self.frames, count)
        identity = expression.new_zeros(self.model.identity_basis.shape[0])
        identity[: self.modes] = problem.identity(solved.shared)
        camera = problem.camera_of(solved.shared)
        points = self.every.posed(identity[None], expression, joints).points
        return HeadTrack(
            model_id=self.model.model_id,
            identity=identity.cpu(),
            expression=expression.cpu(),
            joints=joints.cpu(),
            translation=translation.cpu(),
            focal=camera.focal,
            width=landmarks.width,
            height=landmarks.height,
            fps=landmarks.fps,
            valid=landmarks.valid.clone().cpu(),
            confidence=landmarks.confidence.clone().cpu(),
            landmarks=landmarks.points[..., :2].clone().cpu(),
            landmarks_fit=camera.project(points + translation[:, None]).cpu(),
        )


def _leading(points: LandmarkPoints, modes: int) -> LandmarkPoints:
    return dataclasses.replace(
        points, identity=points.identity[..., :modes].contiguous(), joint_identity=points.joint_identity[:modes]
    )


def _brackets(known: Tensor, count: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each of `count` positions the indices into sorted `known` around it and the share [count] of the later one."""
    places = torch.arange(count, device=known.device)
    after = torch.searchsorted(known, places).clamp(max=len(known) - 1)
    before = torch.where(known[after] > places, (after - 1).clamp(min=0), after)
    gap = (known[after] - known[before]).clamp(min=1)
    share = ((places - known[before]) / gap).clamp(0, 1)
    return before.to(like.device), after.to(like.device), share.to(like)


def _interpolate(values: Tensor, known: Tensor, count: int) -> Tensor:
    """values [N, n] at frames `known` [N] to all `count` frames: linear between, constant outside."""
    before, after, share = _brackets(known, count, values)
    return values[before] + share[:, None] * (values[after] - values[before])


def _interpolate_rotations(joints: Tensor, known: Tensor, count: int) -> Tensor:
    """The same for rotation vectors [N, J, 3], along the shortest turn."""
    before, after, share = _brackets(known, count, joints)
    start, end = rotation.to_matrix(joints[before]), rotation.to_matrix(joints[after])
    turn = rotation.to_rotvec(start.mT @ end) * share[:, None, None]
    mixed = rotation.to_rotvec(start @ rotation.to_matrix(turn))
    return torch.where((before == after)[:, None, None], joints[before], mixed)
