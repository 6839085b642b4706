import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.build import build_proxy
from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.landmark_points import model_landmarks
from expportrait.proxy.posing import Stage, camera_space, output_camera
from expportrait.proxy.preview import render_preview
from expportrait.proxy.preview_eyes import EYES
from expportrait.proxy.preview_lids import LOWER
from expportrait.proxy.preview_source import PreviewSource
from expportrait.proxy.render_interior import part_vertices
from expportrait.proxy.render_regions import IRIS_ANGLE, eye_angle

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track, move, paint, skin_paint  # noqa: E402
from toy_head import make_model  # noqa: E402

SIZE = 320
WHITE, IRIS = torch.tensor([0.8, 0.78, 0.75]), torch.tensor([0.1, 0.3, 0.7])


def eye_paint(model):
    """Skin, and eyes with a white and a blue iris."""
    colours = skin_paint(model)
    ball = torch.stack([part_vertices(model, name) for name in EYES]).any(0)
    colours[ball] = WHITE
    colours[eye_angle(model) < IRIS_ANGLE] = IRIS
    return colours


@pytest.fixture(scope="module")
def scene(model):
    """A head near the camera: track, picture, proxy, and what the preview knows of them."""
    track = make_track(model, SIZE, SIZE, focal=4 * SIZE)
    picture = paint(model, track, eye_paint(model))
    person = torch.ones(SIZE, SIZE)
    proxy = build_proxy(picture, track, model, texture_size=256, person=person)
    known = PreviewSource.of(picture, proxy, Stage(model, output_camera(proxy.camera)), person)
    return track, picture, proxy, known


def look(track, aside, down=0.0):
    """The track with both eyes turned by those radians."""
    joints = track.joints.clone()
    for name in EYES:
        joints[:, JOINTS.index(name)] = torch.tensor([down, aside, 0.0])
    return dataclasses.replace(track, joints=joints)


def shot_of(scene, model, motion):
    return Stage(model, output_camera(scene[2].camera)).shot(camera_space(model, scene[2], motion))


def render(scene, model, motion):
    _, picture, proxy, _ = scene
    return next(render_preview(picture, proxy, motion, model, person=torch.ones(SIZE, SIZE)))


def test_what_lids_cover_of_an_eye_continues_what_they_leave_open(model, scene):
    eyes, angle = scene[3].eyes, eye_angle(model)
    for ball in eyes.ball:
        for colour, low, high in ((IRIS, 0.0, 0.8 * IRIS_ANGLE), (WHITE, 1.3 * IRIS_ANGLE, 1.0)):
            found, trust = eyes.at(eyes.place[ball & (angle > low) & (angle < high)])
            assert 0.01 < trust.mean() < 0.9 and (trust < 0.05).any()
            assert (found - colour).abs().max() < 0.25 and (found - colour).abs().mean() < 0.05


def test_turned_eyes_show_the_iris_whole_and_where_it_is(model, scene):
    """At every side, above and below, against the same head painted so; without a seam where the photo's part ends."""
    for aside, down in ((0.4, 0.0), (-0.4, 0.0), (0.0, 0.3), (0.0, -0.25)):
        motion = look(scene[0], aside, down)
        truth = paint(model, motion, eye_paint(model)).permute(1, 2, 0)
        shot = shot_of(scene, model, motion)
        (ball,) = shot.pixels(scene[3].eyes.ball.any(0).float()[None, :, None])
        ball = shot.raster.scatter(ball)[0, ..., 0] > 0.99
        wrong = (render(scene, model, motion)[0] - truth).abs().mean(-1)[ball]
        assert int(ball.sum()) > 300
        assert wrong.mean() < 0.09 and (wrong > 0.25).float().mean() < 0.06


def test_eyes_move_against_their_lids_and_not_with_the_head(model, scene):
    track, _, _, known = scene
    ball = known.eyes.ball.any(0)
    turned = make_track(model, SIZE, SIZE, yaws=(0.3,), focal=4 * SIZE)
    for still in (track, turned):
        assert known.eyes.moved(shot_of(scene, model, still)).max() < 0.05
    for moving in (look(track, 0.3), move(track, model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)):
        moved = known.eyes.moved(shot_of(scene, model, moving))
        assert moved[:, ball].min() > 0.9 and not moved[:, ~ball].any()


def test_each_eye_closes_alone(model, scene):
    track, _, _, known = scene
    turned = make_track(model, SIZE, SIZE, yaws=(0.3,), focal=4 * SIZE)
    for still in (track, turned, look(track, 0.3)):
        assert known.lids.closed(shot_of(scene, model, still)).max() < 0.05
    half, whole, over = (known.lids.closed(shot_of(scene, model, move(track, model, eyeBlinkLeft=k)))[0] for k in (0.2, 0.6, 1.0))
    assert whole[0] > 0.95 and over[0] > 0.95 and 0.05 < half[0] < 0.9
    assert all(float(right) < 0.05 for _, right in (half, whole, over))


def test_closed_lids_meet_in_a_dark_line(model, scene):
    track, _, proxy, _ = scene
    closed = move(track, model, eyeBlinkLeft=0.7, eyeBlinkRight=0.7)
    frame = render(scene, model, closed)[0].mean(-1)
    points = model_landmarks(model, proxy.identity[None], closed.expression, closed.joints) + closed.translation[:, None]
    for line in LOWER:
        x, y = proxy.camera.project(points)[0, list(line[3:6])].mean(0).long().tolist()
        column = frame[y - 4 : y + 12, x - 2 : x + 3].mean(1)
        assert column.min() < 0.75 * column.median()


def test_an_eye_larger_than_its_mesh_is_not_left_below_closed_lids(model):
    """As a drawn figure's: its picture shows the eye on what is the fitted lower lid."""
    track = make_track(model, SIZE, SIZE, focal=4 * SIZE)
    colours = eye_paint(model)
    rest = model.canonical(torch.zeros(1, model.identity_basis.shape[0]), torch.zeros(1, len(model.expression_names)))
    points = model.landmarks.points(rest, model.faces)[0]
    middles = points[[line[4] for line in LOWER]]
    below = ((rest[0][:, None] - middles).norm(dim=-1) < 0.005).any(1) & part_vertices(model, "skin")
    colours[below] = torch.tensor([0.0, 0.9, 0.0])
    picture, person = paint(model, track, colours), torch.ones(SIZE, SIZE)
    proxy = build_proxy(picture, track, model, texture_size=256, person=person)
    closed = move(track, model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)
    frame = next(render_preview(picture, proxy, closed, model, person=person))[0]
    before, after = (int((image[..., 1] - image[..., 0] > 0.3).sum()) for image in (picture.permute(1, 2, 0), frame))
    assert before > 100 and after < 0.15 * before


def test_heads_without_eyes_have_none(generator):
    model = make_model(generator)
    track = make_track(model, 96, 96)
    picture, person = torch.rand(3, 96, 96, generator=generator), torch.ones(96, 96)
    proxy = build_proxy(picture, track, model, texture_size=64, person=person)
    known = PreviewSource.of(picture, proxy, Stage(model, output_camera(proxy.camera)), person)
    assert known.eyes is None
