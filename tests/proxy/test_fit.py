import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.camera import Camera
from expportrait.proxy.fit import FitSettings, fit_frames, fit_landmarks
from expportrait.proxy.fit_start import CROSS, DEPTH_SHARE, REST_TILT, TILT, place, seen_place, still_weight, upright
from expportrait.proxy.frames import Frames
from expportrait.proxy.landmark_points import FACE_OVAL, LandmarkPoints, model_landmarks
from expportrait.proxy.rotation import to_matrix, to_rotvec

sys.path.insert(0, str(Path(__file__).parent))
from toy_head import face_landmarks, make_model

FRAMES = 12
EXACT = FitSettings(evidence=4000.0, turn=0.1, shape_rounds=25, motion_rounds=8, tolerance=1e-5)


@dataclasses.dataclass
class Scene:
    """A known clip of a toy head and what a landmarker would say about it."""

    identity: torch.Tensor
    expression: torch.Tensor
    joints: torch.Tensor
    translation: torch.Tensor
    camera: Camera
    landmarks: object

    @staticmethod
    def of(model, generator, frames=FRAMES, noise=0.0, roll=0.0):
        time = torch.linspace(0, 2 * math.pi, frames)[:, None]
        identity = 0.8 * torch.randn(1, model.identity_basis.shape[0], generator=generator)
        phase = 2 * math.pi * torch.rand(model.expression_basis.shape[0], generator=generator)
        expression = (0.5 + 0.6 * torch.sin(time + phase)).clamp(0, 1) * 0.8
        joints = torch.zeros(frames, 6, 3)
        joints[:, 2] = torch.sin(time + torch.tensor([0.0, 1.0, 2.0])) * torch.tensor([0.2, 0.3, 0.1])
        joints[:, 1] = 0.5 * joints[:, 2]
        joints[:, 0, 2] = roll
        translation = torch.tensor([0.02, 0.0, -0.9]) + 0.02 * torch.sin(time + torch.tensor([0.0, 2.0, 3.0]))
        camera = Camera.centred(1000.0, 512, 512)
        points = model_landmarks(model, identity, expression, joints) + translation[:, None]
        pixels = camera.project(points)
        pixels = pixels + noise * torch.randn(pixels.shape, generator=generator)
        depth = (points[..., 2].mean(1, keepdim=True) - points[..., 2]) * 1000 / 0.9 / DEPTH_SHARE
        return Scene(identity[0], expression, joints, translation, camera, face_landmarks(pixels, depth, 512, 512))


@pytest.fixture(scope="module")
def toy():
    return make_model(torch.Generator().manual_seed(3))


@pytest.fixture(scope="module")
def scene(toy):
    return Scene.of(toy, torch.Generator().manual_seed(4))


@pytest.fixture(scope="module")
def track(toy, scene):
    return fit_landmarks(scene.landmarks, toy, EXACT, focal=scene.camera.focal)


def errors(track):
    return (track.landmarks_fit - track.landmarks).norm(dim=-1)[track.valid]


def head_turn(joints):
    m = to_matrix(joints)
    return m[:, 0] @ m[:, 1] @ m[:, 2]


def degrees_apart(a, b):
    return to_rotvec(head_turn(a.joints).mT @ head_turn(b.joints)).norm(dim=-1) * 180 / math.pi


def test_a_known_clip_is_found_again(scene, track):
    assert errors(track)[:, 36:].mean() < 0.15
    assert (track.identity - scene.identity).abs().mean() < 0.15
    assert (track.expression - scene.expression).abs().mean() < 0.06
    assert degrees_apart(track, scene).median() < 1.0
    assert (track.translation - scene.translation).norm(dim=-1).median() < 0.02


def test_the_track_says_what_was_fitted(toy, scene, track):
    assert track.model_id == "toy" and (track.width, track.height, track.fps) == (512, 512, 25.0)
    assert track.focal == pytest.approx(scene.camera.focal, rel=1e-3)
    assert track.identity.shape == (12,) and track.joints.shape == (FRAMES, 6, 3)
    points = model_landmarks(toy, track.identity[None], track.expression, track.joints) + track.translation[:, None]
    assert torch.allclose(track.camera.project(points), track.landmarks_fit, atol=1e-2)
    assert torch.equal(track.landmarks, scene.landmarks.points[..., :2])


def test_expressions_keep_their_bounds(track):
    assert track.expression.min() >= 0 and track.expression.max() <= 1


def test_focal_length_is_estimated_within_its_prior(toy, scene):
    track = fit_landmarks(scene.landmarks, toy)
    assert 0.6 < track.focal / scene.camera.focal < 1.6


def test_wrong_landmarks_do_little_harm(toy, scene):
    clean = fit_landmarks(scene.landmarks, toy, focal=1000.0)
    points = scene.landmarks.points.clone()
    points[:, 100:120, :2] += 60
    track = fit_landmarks(dataclasses.replace(scene.landmarks, points=points), toy, focal=1000.0)
    good = torch.ones(478, dtype=torch.bool)
    good[100:120] = False
    good[:36] = False
    assert (track.landmarks_fit - clean.landmarks_fit).norm(dim=-1)[:, good].mean() < 0.5


def test_noise_is_smoothed_in_time(toy):
    scene = Scene.of(toy, torch.Generator().manual_seed(5), frames=40, noise=1.0)
    track = fit_landmarks(scene.landmarks, toy, focal=1000.0)

    def acceleration(x):
        return (x[2:] - 2 * x[1:-1] + x[:-2])[:, 36:].norm(dim=-1).mean()

    assert acceleration(track.landmarks_fit) < 0.5 * acceleration(track.landmarks)


def test_frames_without_a_face_are_filled_in_and_have_no_say(toy, scene):
    valid = torch.ones(FRAMES, dtype=torch.bool)
    valid[[0, 5, 6]] = False
    broken = scene.landmarks.points.clone()
    broken[~valid] = torch.nan
    one = fit_landmarks(dataclasses.replace(scene.landmarks, valid=valid, points=broken), toy, focal=1000.0)
    other = fit_landmarks(
        dataclasses.replace(scene.landmarks, valid=valid, points=torch.where(valid[:, None, None], broken, 7.0)), toy, focal=1000.0
    )
    assert torch.equal(one.identity, other.identity) and torch.equal(one.valid, valid)
    assert torch.equal(one.expression[0], one.expression[1])  # the ends hold
    middle = one.expression[4] + (one.expression[7] - one.expression[4]) / 3
    assert torch.allclose(one.expression[5], middle, atol=1e-5)
    start, turn = to_matrix(one.joints[4]), to_rotvec(to_matrix(one.joints[4]).mT @ to_matrix(one.joints[7]))
    assert torch.allclose(to_matrix(one.joints[5]), start @ to_matrix(turn / 3), atol=1e-5)
    assert one.landmarks_fit.isfinite().all()


@pytest.fixture(scope="module")
def gap(model):
    """Policy to track, of a clip whose frames 2 and 3 have no face and whose first frame has none either."""
    from expportrait.proxy.landmarks import load_landmarker

    face = torch.from_numpy(pytest.importorskip("skimage.data").astronaut()[:280, 80:360]).float()[None] / 255
    shift = torch.nn.functional.pad(face, (0, 0, 12, 0))[:, :, :280]
    grey = torch.full_like(face, 0.5)
    frames = Frames.from_images(torch.cat([grey, face, grey, grey, shift]))
    landmarker = load_landmarker()
    return {policy: fit_frames(frames, model, landmarker, missing=policy) for policy in ("interpolate", "previous", "empty")}


def test_the_policy_for_missing_faces_reaches_the_parameters(gap):
    for track in gap.values():
        assert track.valid.tolist() == [False, True, False, False, True]
        assert track.translation.isfinite().all()
    x = gap["interpolate"].translation[:, 0]
    assert torch.allclose(x[[2, 3]], x[1] + (x[4] - x[1]) * torch.tensor([1 / 3, 2 / 3]), atol=1e-5) and x[0] == x[1] != x[4]
    for name in ("expression", "joints", "translation", "landmarks_fit"):
        held = getattr(gap["previous"], name)
        assert torch.equal(held[[0, 2, 3]], held[[1, 1, 1]])
    empty = gap["empty"]
    assert not empty.expression[[0, 2, 3]].any() and not empty.joints[[0, 2, 3]].any() and not empty.landmarks_fit[2].any()
    assert empty.expression[4].any()


def test_a_lying_head_turns_the_torso(toy):
    upright = Scene.of(toy, torch.Generator().manual_seed(6), frames=3)
    lying = Scene.of(toy, torch.Generator().manual_seed(6), frames=3, roll=1.7)
    assert fit_landmarks(upright.landmarks, toy, focal=1000.0).joints[:, 0].norm(dim=-1).max() == 0
    track = fit_landmarks(lying.landmarks, toy, focal=1000.0)
    assert track.joints[0, 0, 2] > 0.8 and torch.equal(track.joints[0, 0], track.joints[2, 0])
    assert errors(track)[:, 36:].mean() < 2.0


def test_one_frame_inside_inference_mode_with_progress(toy):
    steps = []
    scene = Scene.of(toy, torch.Generator().manual_seed(8), frames=1)
    with torch.inference_mode():
        landmarks = dataclasses.replace(scene.landmarks, points=scene.landmarks.points.clone())
        track = fit_landmarks(landmarks, toy, progress=lambda done, total: steps.append((done, total)))
    assert len(track) == 1 and not track.expression.is_inference() and not track.landmarks.is_inference()
    assert steps[-1][0] == steps[-1][1] and steps == sorted(steps)
    assert errors(track)[:, 36:].mean() < 3.0


def test_progress_can_cancel(toy, scene):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_landmarks(scene.landmarks, toy, progress=stop)


def test_correctives_are_fitted_too():
    model = make_model(torch.Generator().manual_seed(9), correctives=True)
    scene = Scene.of(model, torch.Generator().manual_seed(9), frames=4)
    assert errors(fit_landmarks(scene.landmarks, model, EXACT, focal=1000.0))[:, 36:].mean() < 0.3


def test_bad_input_is_told_in_one_sentence(toy, scene):
    landmarks = scene.landmarks
    empty = dataclasses.replace(landmarks, points=landmarks.points[:0], valid=landmarks.valid[:0], confidence=landmarks.confidence[:0])
    with pytest.raises(ValueError, match="no frame to fit"):
        fit_landmarks(empty, toy)
    with pytest.raises(ValueError, match="no face was found in any of the 12 frames"):
        fit_landmarks(dataclasses.replace(landmarks, valid=torch.zeros(FRAMES, dtype=torch.bool)), toy)
    points = landmarks.points.clone()
    points[4, 10, 1] = torch.nan
    with pytest.raises(ValueError, match="landmarks of frame 4 are not finite"):
        fit_landmarks(dataclasses.replace(landmarks, points=points), toy)
    with pytest.raises(ValueError, match="no landmark table; calibrate"):
        fit_landmarks(landmarks, dataclasses.replace(toy, landmarks=None))


def test_a_photo_is_fitted_with_the_embedded_head(model):
    data = pytest.importorskip("skimage.data")
    from expportrait.proxy.landmarks import load_landmarker

    picture = torch.from_numpy(data.astronaut()).float()[None] / 255
    steps = []
    with torch.inference_mode():
        track = fit_frames(Frames.from_images(picture), model, load_landmarker(), progress=lambda *s: steps.append(s))
    span = (track.landmarks[0, 33] - track.landmarks[0, 263]).norm()
    keep = torch.ones(478, dtype=torch.bool)
    keep[FACE_OVAL] = False
    assert errors(track)[0, keep].mean() < 0.025 * span
    assert track.identity.square().mean().sqrt() < 1
    assert steps[-1] == (2, 2) and steps == sorted(steps)
    jaw_open = track.expression[0, model.expression_index("jawOpen")]
    smile = track.expression[0, model.expression_index("mouthSmileLeft")]
    assert smile > 0.2 and jaw_open < 0.5


def seen_by_landmarker(toy, camera, centre, turn):
    """Points and depth of the toy head in pixels, as a landmarker without habits gives them."""
    points = model_landmarks(toy, torch.zeros(1, 12), torch.zeros(1, toy.expression_basis.shape[0]), turn) + centre
    distance = -points[..., 2].mean(1, keepdim=True)
    depth = -points[..., 2] - distance
    return torch.cat([camera.project(points), (depth * camera.focal / distance / DEPTH_SHARE)[..., None]], -1)


def test_perspective_does_not_turn_a_head(toy):
    camera = Camera.centred(700.0, 512, 512)
    neutral = LandmarkPoints.of(toy).template.sum(1)
    turn = torch.zeros(1, 6, 3)
    turn[:, 0] = torch.tensor([0.2, -0.4, 0.1])
    for x, y, z in ((0.0, 0.0, -0.8), (0.2, -0.15, -0.8), (-0.1, 0.1, -0.5)):
        centre = torch.tensor([x, y, z])
        seen = seen_place(neutral, seen_by_landmarker(toy, camera, centre, turn), torch.ones(478), camera)
        assert to_rotvec(to_matrix(turn[:, 0]).mT @ seen.rotation).norm() < math.radians(1.5)
        assert float(seen.scale) == pytest.approx(camera.focal / -z, rel=0.3)  # the toy stands off its origin


def test_habits_of_the_landmarker_are_undone(toy):
    camera, neutral = Camera.centred(700.0, 512, 512), LandmarkPoints.of(toy).template.sum(1)
    detected = seen_by_landmarker(toy, camera, torch.tensor([0.0, 0.0, -0.8]), torch.zeros(1, 6, 3))
    seen = seen_place(neutral, detected, torch.ones(478), camera).rotation
    placed = place(neutral, detected, torch.ones(478), camera).rotation
    assert to_rotvec(seen.mT @ placed)[0, 0] == pytest.approx(TILT + REST_TILT, abs=2e-3)
    pitch, yaw = torch.tensor([[0.3, 0.0, 0.0]]), torch.tensor([[0.0, 0.5, 0.0]])
    turned = to_matrix(yaw) @ to_matrix(pitch)
    more = upright(turned, 0.0, 0.0, CROSS)
    assert torch.allclose(to_rotvec(turned.mT @ more), torch.tensor([[0.0, CROSS * 0.15, 0.0]]), atol=1e-5)


def test_what_expressions_move_says_little_about_the_heads_turn(model):
    weight = still_weight(LandmarkPoints.of(model), model.expression_bounds, 0.25)
    lower_lip, bridge_of_the_nose, iris = 17, 6, 468
    assert weight[iris] == 0 and weight[lower_lip] < 0.3 < 0.7 < weight[bridge_of_the_nose]
