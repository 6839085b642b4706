import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.build import best_frame, build_proxy, source_proxy
from expportrait.proxy.camera import Camera
from expportrait.proxy.inpaint import pull_push
from expportrait.proxy.lighting import fit_light, shade
from expportrait.proxy.posing import SourcePose, Stage, camera_space
from expportrait.proxy.raster import Rasterizer
from expportrait.proxy.render_interior import dense_template, part_vertices
from expportrait.proxy.render_regions import IRIS_ANGLE, eye_angle
from expportrait.proxy.source_picture import frame_source
from expportrait.proxy.texture import Atlas, mirror_vertices

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track, paint, skin_paint  # noqa: E402

SIZE = 256


def texture_at_vertices(model, texture):
    """Texture [C, h, w] at one uv of each vertex, [V, C]."""
    uv = torch.zeros(model.vertex_count, 2)
    uv[model.faces.flatten()] = model.uv[model.uv_faces.flatten()]
    return Rasterizer(model.faces, model.vertex_count).texture(texture[None], uv)


def everyone(track):
    return torch.ones(track.height, track.width)


@pytest.fixture(scope="module")
def painted(model):
    track = make_track(model, SIZE, SIZE)
    colours = skin_paint(model)
    picture = paint(model, track, colours)
    return track, colours, picture, build_proxy(picture, track, model, texture_size=SIZE, person=everyone(track))


def test_seen_skin_gets_its_own_colour(model, painted):
    _, colours, _, proxy = painted
    found, confidence = (texture_at_vertices(model, t) for t in (proxy.albedo, proxy.albedo_confidence))
    seen = (confidence[:, 0] > 0.9) & (model.regions["face"] > 0.9) & part_vertices(model, "skin")
    assert int(seen.sum()) > 1000
    error = (found - colours)[seen]
    # Light is taken out up to a factor that a picture cannot tell from the albedo; paint that varies slowly reads as light.
    assert error.abs().mean() < 0.04


def test_confidence_says_what_was_seen(model, painted):
    proxy = painted[3]
    confidence = texture_at_vertices(model, proxy.albedo_confidence)[:, 0]
    assert proxy.albedo_confidence.min() >= 0 and proxy.albedo_confidence.max() <= 1
    points = dense_template(model)
    back = (points[:, 2] < points[:, 2].mean() - 0.06) & (model.regions["scalp"] > 0.5)
    assert int(back.sum()) > 50 and confidence[back].max() < 0.05
    assert confidence[model.regions["nose"] > 0.9].median() > 0.8


def test_light_is_mostly_taken_out(model):
    track = make_track(model, SIZE, SIZE)
    flat = torch.full((model.vertex_count, 3), 0.5)
    stage = Stage(model, track.camera)
    shot = stage.shot(camera_space(model, track.identity, track))
    light = torch.zeros(9, 3)
    light[0], light[3] = 1.0, 0.35  # from the subject's left
    picture = paint(model, track, flat * shade(light, shot.normals[0]))
    proxy = build_proxy(picture, track, model, texture_size=SIZE, person=everyone(track))
    found = texture_at_vertices(model, proxy.albedo).mean(-1)
    cheeks = (model.regions["face"] > 0.9) & (texture_at_vertices(model, proxy.albedo_confidence)[:, 0] > 0.8)
    left = dense_template(model)[:, 0] > 0.03
    right = dense_template(model)[:, 0] < -0.03
    shading = shade(light, shot.normals[0]).mean(-1)
    before = shading[cheeks & left].mean() / shading[cheeks & right].mean()
    after = found[cheeks & left].mean() / found[cheeks & right].mean()
    assert before > 1.3
    assert abs(after.log()) < 0.55 * before.log()


def test_far_side_is_filled_from_the_near_side(model):
    track = make_track(model, SIZE, SIZE, yaws=(0.9,))
    points = dense_template(model)
    colours = torch.full((model.vertex_count, 3), 0.6)
    spot = ((points[:, 0].abs() > 0.035) & (points[:, 1] > points[model.regions["nose"] > 0.9, 1].min())).float()
    colours = colours * (1 - 0.5 * spot[:, None] * torch.tensor([0.0, 1.0, 1.0]))  # red cheeks
    picture = paint(model, track, colours)
    proxy = build_proxy(picture, track, model, texture_size=SIZE, person=everyone(track))
    found = texture_at_vertices(model, proxy.albedo)
    confidence = texture_at_vertices(model, proxy.albedo_confidence)[:, 0]
    mirrored = confidence[mirror_vertices(model)]
    hidden = (confidence < 0.02) & (mirrored > 0.8) & (spot > 0) & (model.regions["face"] > 0.9)
    assert int(hidden.sum()) > 50
    assert (found[hidden, 0] / found[hidden, 1]).median() > 1.5


def test_background_stays_out(model):
    track = make_track(model, SIZE, SIZE)
    wide = dataclasses.replace(track, translation=track.translation + torch.tensor([0.0, 0.0, -0.06]))  # picture: smaller head
    picture = paint(model, wide, torch.full((model.vertex_count, 3), 0.6), background=0.0)
    person = (picture[0] > 0.3).float()
    face = (model.regions["face"] > 0.5) & (model.regions["lips"] < 0.1)

    def dark_share(mask):
        proxy = build_proxy(picture, track, model, texture_size=SIZE, person=mask)
        return (texture_at_vertices(model, proxy.albedo)[face].mean(-1) < 0.45).float().mean()

    assert dark_share(person) < 0.015
    assert dark_share(torch.ones_like(person)) > 0.03  # what the mask is for


def test_eyes_take_the_colour_of_the_picture(model):
    track = make_track(model, SIZE, SIZE, focal=3.2 * SIZE)
    colours = torch.full((model.vertex_count, 3), 0.6)
    angle = eye_angle(model)
    colours[angle < 1.5] = 0.75
    colours[angle < IRIS_ANGLE] = torch.tensor([0.1, 0.3, 0.7])
    proxy = build_proxy(paint(model, track, colours), track, model, texture_size=512, person=everyone(track))
    iris = texture_at_vertices(model, proxy.albedo)[(angle > 0.24) & (angle < 0.38)].mean(0)
    assert iris[2] > 1.5 * iris[1] > 1.5 * iris[0]


def test_identity_and_pose_are_the_tracks(model, painted):
    track, _, _, proxy = painted
    assert torch.equal(proxy.identity, track.identity)
    assert torch.equal(proxy.source_translation, track.translation[0])
    assert not proxy.neutral.any() and proxy.model_id == model.model_id
    assert proxy.crop[2] == proxy.crop[3] > 0


def test_works_in_inference_mode_and_on_a_batch_of_one(model, painted):
    track, _, picture, proxy = painted
    with torch.inference_mode():
        again = build_proxy(picture[None], track, model, texture_size=SIZE, person=everyone(track))
    assert torch.allclose(again.albedo, proxy.albedo, atol=1e-5)


def test_finds_the_person_itself(model):
    from skimage.data import astronaut

    picture = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    proxy = build_proxy(picture, make_track(model, 512, 512), model, texture_size=64)
    assert proxy.albedo.shape == (3, 64, 64) and bool(proxy.albedo.isfinite().all())


def test_best_frame_is_frontal_and_found(model):
    track = make_track(model, 64, 64, yaws=(0.0, 0.6, 0.1, 0.5))
    track = dataclasses.replace(track, valid=torch.tensor([False, True, True, True]))
    assert best_frame(track) == 2
    with pytest.raises(ValueError, match="no frame of the track has a face"):
        best_frame(dataclasses.replace(track, valid=torch.zeros(4, dtype=torch.bool)))


@pytest.mark.parametrize(
    ("shape", "change", "frame", "message"),
    [
        ((3, 64, 60), {}, 0, "60 x 64 pixels, but the track was fitted to 64 x 64"),
        ((64, 64, 3), {}, 0, r"expected \[3, H, W\]"),
        ((3, 64, 64), {"valid": torch.zeros(1, dtype=torch.bool)}, 0, "no face was found in frame 0"),
        ((3, 64, 64), {}, 1, "frame 1 is not in the track"),
        ((3, 64, 64), {"model_id": "another"}, 0, "made with head model another"),
        ((3, 1, 1), {"width": 1, "height": 1}, 0, "needs at least 16"),
    ],
)
def test_bad_input_is_named(model, shape, change, frame, message):
    track = dataclasses.replace(make_track(model, 64, 64), **change)
    with pytest.raises(ValueError, match=message):
        build_proxy(torch.zeros(shape), track, model, frame)


def test_light_is_recovered_from_a_sphere(generator):
    normals = torch.nn.functional.normalize(torch.randn(2000, 3, generator=generator), dim=-1)
    light = 0.08 * torch.randn(9, 3, generator=generator)
    light[0] = 1
    albedo = torch.rand(2000, 3, generator=generator) * 0.5 + 0.3
    colour = albedo * shade(light, normals)
    colour[:100] = 0  # outliers
    found = fit_light(colour, albedo, normals, torch.ones(2000), ridge=0.0, steps=12)
    assert (found - light).abs().max() < 0.02


def test_pull_push_keeps_what_is_known_and_continues_it(generator):
    image = torch.rand(2, 3, 37, 20, generator=generator)
    weight = (torch.rand(2, 1, 37, 20, generator=generator) > 0.5).float()
    filled = pull_push(image, weight)
    known = weight.expand_as(image) == 1
    assert torch.equal(filled[known], image[known])
    assert filled.min() >= 0 and filled.max() <= 1
    assert torch.allclose(pull_push(torch.full_like(image, 0.4), weight), torch.full_like(image, 0.4), atol=1e-5)
    assert not pull_push(image, torch.zeros_like(weight)).any()


def test_mirror_is_its_own_inverse_on_the_skin(model):
    mirror = mirror_vertices(model)
    points = dense_template(model)
    face = model.regions["face"] > 0.5
    distance = (points[mirror] * torch.tensor([-1.0, 1.0, 1.0]) - points).norm(dim=-1)
    assert distance[face].median() < 0.001
    assert ((points[mirror[mirror]] - points).norm(dim=-1)[face] < 0.003).float().mean() > 0.95


def test_frame_source_follows_the_camera(generator):
    picture = torch.rand(3, 40, 60, generator=generator)
    camera = Camera.centred(100, 60, 40)
    assert frame_source(picture, camera, camera).data_ptr() == picture.data_ptr()
    doubled = frame_source(picture, camera, camera.viewport(0, 0, 60, 40, 120, 80))
    assert doubled.shape == (1, 3, 80, 120)
    halved = frame_source(picture, camera, camera.viewport(0, 0, 60, 40, 30, 20))
    boxes = picture.unflatten(1, (20, 2)).unflatten(3, (30, 2)).mean((2, 4))
    assert (halved[0] - boxes).abs().mean() < 0.06
    part = frame_source(picture, camera, camera.viewport(10, 5, 30, 20, 30, 20))
    assert torch.allclose(part[0], picture[:, 5:25, 10:40], atol=1e-4)
    wider = frame_source(picture, camera, camera.viewport(-10, -10, 80, 60, 80, 60))
    assert torch.allclose(wider[0, :, 10:50, 10:70], picture, atol=1e-4)
    outside = wider[0, :, :10]
    assert 0 < outside.min() and outside.max() < 1 and outside.diff(dim=-1).abs().mean() < 0.1


def test_source_pose_is_one_frame(painted, model):
    proxy = painted[3]
    vertices = camera_space(model, proxy.identity, SourcePose.of(proxy))
    assert vertices.shape == (1, model.vertex_count, 3)


def test_a_proxy_without_a_picture_is_the_same_person(model, painted):
    track, _, _, proxy = painted
    bare = source_proxy(track, model)
    assert bare.albedo.shape == (3, 1, 1) and not bare.albedo_confidence.any()
    for field in dataclasses.fields(proxy):
        if not field.name.startswith("albedo"):
            one, other = getattr(bare, field.name), getattr(proxy, field.name)
            assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    with pytest.raises(ValueError, match="frame 3 is not in the track"):
        source_proxy(track, model, 3)


def test_atlas_corners_are_what_it_interpolates_by(model):
    stage = Stage(model, make_track(model, 64, 64).camera)
    atlas = Atlas.of(stage, 64)
    points = dense_template(model)
    triangle, weights = atlas.corners()
    (expected,) = atlas.pixels(points)
    assert torch.allclose((points[stage.faces[triangle]] * weights[..., None]).sum(1), expected, atol=1e-6)
