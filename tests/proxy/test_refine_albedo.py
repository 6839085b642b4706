import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.frames import Frames
from expportrait.proxy.lighting import shade
from expportrait.proxy.refine import RefineSettings, albedo
from expportrait.proxy.refine.albedo import clip_albedo, texture_frames
from expportrait.proxy.refine.observe import Observer
from expportrait.proxy.render_interior import dense_template, part_vertices
from expportrait.proxy.render_regions import IRIS_ANGLE, eye_angle
from expportrait.proxy.texture import mirror_vertices

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track, move, skin_paint  # noqa: E402
from test_texture import texture_at_vertices  # noqa: E402

SIDE = 256
SETTINGS = RefineSettings(texture_frames=3, texture_size=256)
BLUE = (0.1, 0.3, 0.7)


@pytest.fixture(autouse=True)
def everyone(monkeypatch):
    """Paint is no person to the segmentation."""
    monkeypatch.setattr(albedo, "person_mask", lambda photo: torch.ones_like(photo[:1]))


def filmed(model, yaws, colours, lights=None, **expression):
    """Track and pictures [T, 3, H, W] of a head painted with [V, 3] that turns, each frame in its own light [9, 3]."""
    track = move(make_track(model, SIDE, SIDE, yaws=yaws), model, **expression)
    observer = Observer(model, track)
    shot = observer.stage.shot(observer.posed(slice(None), still(observer)))
    shading = torch.ones_like(shot.normals) if lights is None else torch.stack([shade(*pair) for pair in zip(lights, shot.normals)])
    pictures = shot.raster.scatter(shot.pixels(colours * shading)[0], 0.3)
    return observer, pictures.permute(0, 3, 1, 2).clamp(0, 1)


def still(observer):
    return torch.zeros(1, len(observer.skin.vertices), 3)


def gathered(observer, pictures, colours, source=0, settings=SETTINGS, tick=lambda count: None):
    frames = Frames.from_images(pictures.permute(0, 2, 3, 1))
    with torch.no_grad():
        return clip_albedo(frames, observer, colours[observer.skin.vertices], lambda part: still(observer), source, settings, tick)


def at_vertices(model, texture, confidence):
    return texture_at_vertices(model, texture), texture_at_vertices(model, confidence)[:, 0]


def skin_error(model, texture, confidence, colours):
    """Mean difference to the paint [V, 3] on seen skin of the face, up to one factor per channel, which is the light's."""
    found, sure = at_vertices(model, texture, confidence)
    seen = (sure > 0.8) & (model.regions["face"] > 0.9) & part_vertices(model, "skin")
    assert int(seen.sum()) > 1000
    ratio = found[seen] / colours[seen]
    return float((ratio / ratio.median(0).values - 1).abs().mean())


def side_lights():
    lights = torch.zeros(3, 9, 3)
    lights[:, 0] = 1
    lights[0, 3], lights[2, 3], lights[1, 1] = 0.35, -0.35, 0.2
    return lights


def spotted(model):
    """Skin with spots too fine to pass for light."""
    points = dense_template(model)
    return skin_paint(model) * (1 + 0.25 * torch.sin(points * 400).prod(-1, keepdim=True))


def test_each_frame_is_freed_of_its_own_light(model):
    colours = spotted(model)
    observer, pictures = filmed(model, (-0.3, 0.0, 0.3), colours, side_lights())
    error = skin_error(model, *gathered(observer, pictures, colours, source=1), colours)
    assert error < 0.06
    flat = torch.full_like(colours, 0.5)  # what is registered says nothing of the spots: only the frames do
    assert skin_error(model, *gathered(observer, pictures, flat, source=1), colours) < 0.08


def test_a_hand_over_the_face_leaves_no_trace(model):
    colours = spotted(model)
    observer, pictures = filmed(model, (-0.1, 0.0, 0.1), colours)
    clean, _ = at_vertices(model, *gathered(observer, pictures, colours))
    pictures[2, :, SIDE // 2 : 3 * SIDE // 4, SIDE // 2 :] = torch.tensor([0.0, 0.9, 0.0])[:, None, None]
    covered, _ = at_vertices(model, *gathered(observer, pictures, colours))
    face = (model.regions["face"] > 0.95) & part_vertices(model, "skin")
    assert (covered - clean)[face].abs().mean() < 0.02


def test_eyes_are_the_ones_that_were_seen(model):
    colours = torch.full((model.vertex_count, 3), 0.6)
    angle = eye_angle(model)
    colours[angle < 1.5] = 0.75
    left = (angle < IRIS_ANGLE) & part_vertices(model, "left_eye")
    colours[angle < IRIS_ANGLE], colours[left] = torch.tensor(BLUE), torch.tensor(BLUE).flip(0)
    observer, pictures = filmed(model, (-0.1, 0.0, 0.1), colours)
    texture, confidence = gathered(observer, pictures, colours, settings=dataclasses.replace(SETTINGS, texture_size=512))
    found = texture_at_vertices(model, texture)
    for name, red, blue in (("left_eye", 0, 2), ("right_eye", 2, 0)):
        iris = found[(angle < 0.8 * IRIS_ANGLE) & part_vertices(model, name)].mean(0)
        assert iris[red] > 1.5 * iris[1] > 1.5 * iris[blue]
    assert not (texture_at_vertices(model, confidence)[left] > 0).any()  # it is of the skin


@pytest.mark.parametrize(("paint", "least", "most"), [((0.8, 0.8, 0.2), 0.0, 0.6), ((0.8, 0.2, 0.2), 0.8, 1.2)])
def test_teeth_take_the_tint_that_was_seen_unless_it_is_a_lips(model, paint, least, most):
    colours = torch.full((model.vertex_count, 3), 0.6)
    teeth = part_vertices(model, "lower_teeth")
    observer, pictures = filmed(model, (-0.1, 0.0, 0.1), colours, jawOpen=0.8)
    plain = texture_at_vertices(model, gathered(observer, pictures, colours)[0])
    colours[teeth] = torch.tensor(paint)
    observer, pictures = filmed(model, (-0.1, 0.0, 0.1), colours, jawOpen=0.8)
    found = texture_at_vertices(model, gathered(observer, pictures, colours)[0])
    shot = observer.stage.shot(observer.posed(slice(1, 2), still(observer)))
    seen = teeth & (shot.visibility[0] > 0.9)
    assert int(seen.sum()) > 50
    ratio = (found / plain)[seen].mean(0)
    assert least < float(ratio[2] / ratio[:2].max()) < most


def test_a_side_that_no_frame_shows_is_the_mirrored_one(model):
    points = dense_template(model)
    spot = ((points[:, 0].abs() > 0.035) & (points[:, 1] > points[model.regions["nose"] > 0.9, 1].min())).float()
    colours = 0.6 * (1 - 0.5 * spot[:, None] * torch.tensor([0.0, 1.0, 1.0]))  # red cheeks
    observer, pictures = filmed(model, (0.9, 1.0), colours)
    found, confidence = at_vertices(model, *gathered(observer, pictures, colours))
    hidden = (confidence < 0.02) & (confidence[mirror_vertices(model)] > 0.8) & (spot > 0) & (model.regions["face"] > 0.9)
    assert int(hidden.sum()) > 50
    assert (found[hidden, 0] / found[hidden, 1]).median() > 1.5


def test_the_texture_has_the_exposure_of_its_source(model):
    colours = skin_paint(model)
    observer, pictures = filmed(model, (-0.1, 0.0, 0.1), colours)
    pictures[1] *= 0.5
    bright, dark = (at_vertices(model, *gathered(observer, pictures, colours, source))[0] for source in (0, 1))
    face = (model.regions["face"] > 0.9) & part_vertices(model, "skin")
    assert float(dark[face].mean() / bright[face].mean()) == pytest.approx(0.5, abs=0.05)


def test_frames_are_spread_over_those_with_a_face(model):
    track = make_track(model, SIDE, SIDE, yaws=(0.0,) * 10)
    valid = torch.ones(10, dtype=torch.bool)
    valid[:3] = False
    observer = Observer(model, dataclasses.replace(track, valid=valid))
    assert texture_frames(observer, 5, 2) == [3, 5, 9]
    assert texture_frames(observer, 3, 100) == [3, 4, 5, 6, 7, 8, 9]


def test_progress_counts_the_whole_clip_and_a_frame_without_a_person_does_no_harm(model, monkeypatch):
    colours = skin_paint(model)
    observer, pictures = filmed(model, (-0.1, 0.0, 0.05, 0.1), colours)
    ticks = []
    texture, confidence = gathered(observer, pictures, colours, tick=ticks.append)
    assert sum(ticks) == 4
    monkeypatch.setattr(albedo, "person_mask", lambda photo: torch.zeros_like(photo[:1]))
    texture, confidence = gathered(observer, pictures, colours)
    assert bool(texture.isfinite().all()) and not confidence.any()
