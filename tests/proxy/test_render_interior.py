import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.build import build_proxy
from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS, PARTS
from expportrait.proxy.posing import Stage, camera_space
from expportrait.proxy.preview import render_preview
from expportrait.proxy.render_interior import dense_template, interior_light, part_vertices

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track, move, paint, skin_paint  # noqa: E402

SIZE = 256
STRENGTHS = (("mouthStretch", 0.5), ("mouthUpperUp", 0.3), ("mouthLowerDown", 0.5))
BARED = {f"{name}{side}": weight for name, weight in STRENGTHS for side in ("Left", "Right")}
LAUGH = {f"{name}{side}": weight for name, weight in (("mouthSmile", 0.9), ("mouthUpperUp", 0.4)) for side in ("Left", "Right")}


def seen_inside(model, yaw=0.0, **weights):
    """Share of the mouth's opening that each of its parts takes, as a camera in front of the head sees it."""
    expression, joints = torch.zeros(1, len(model.expression_names)), torch.zeros(1, len(JOINTS), 3)
    joints[0, JOINTS.index("head"), 1] = yaw
    for name, weight in weights.items():
        expression[0, model.expression_index(name)] = weight
    vertices = model(torch.zeros(1, model.identity_basis.shape[0]), expression, joints) - torch.tensor([0.0, 0.67, 1.1])
    stage = Stage(model, Camera.centred(4000.0, 420, 300))
    ids = stage.shot(vertices).raster.ids.flatten().long()
    count = torch.bincount(stage.parts[ids[ids > 0] - 1], minlength=len(PARTS))[PARTS.index("upper_teeth") :]
    return dict(zip(PARTS[PARTS.index("upper_teeth") :], (count / count.sum().clamp(min=1)).tolist()))


def test_incisors_meet_as_in_a_healthy_bite(model):
    points = dense_template(model)
    middle = points[:, 0].abs() < 0.008
    upper = points[part_vertices(model, "upper_teeth") & middle]
    lower = points[part_vertices(model, "lower_teeth") & middle]
    lip = model.landmarks.points(points[None], model.faces)[0, [13, 14], 1].mean()
    assert 0.002 < lower[:, 1].max() - upper[:, 1].min() < 0.004
    assert 0.001 < lip - upper[:, 1].min() < 0.004
    assert upper[:, 2].max() > lower[:, 2].max()


def test_a_nearly_shut_jaw_bares_both_rows(model):
    seen = seen_inside(model, jawOpen=0.1, **BARED)
    assert seen["upper_teeth"] > 0.35 and seen["lower_teeth"] > 0.25
    assert seen["tongue"] + seen["mouth"] < 0.15


@pytest.mark.parametrize("yaw", [-0.5, 0.0, 0.5])
def test_teeth_fill_a_laugh_to_its_corners(model, yaw):
    seen = seen_inside(model, yaw, jawOpen=0.2, **LAUGH)
    assert seen["upper_teeth"] > 0.75
    assert seen["mouth"] < 0.05 and seen["gums"] < 0.13


def test_light_falls_smoothly_with_the_way_from_the_lips(model):
    points, light = dense_template(model), interior_light(model)
    teeth = part_vertices(model, "upper_teeth", "lower_teeth")
    depth = points[teeth][:, 2]
    assert light[~part_vertices(model, "upper_teeth", "lower_teeth", "gums", "tongue", "mouth")].min() == 1
    assert light[teeth][depth > 0.135].mean() > 0.97
    assert 0.4 < light[teeth][depth < 0.105].mean() < 0.7
    throat = part_vertices(model, "mouth") & (points[:, 2] < 0.06)
    assert 0.15 < light[throat].mean() < 0.35
    edges = model.faces[torch.isin(model.parts, torch.tensor([PARTS.index("mouth"), PARTS.index("tongue")]))]
    assert (light[edges] - light[edges.roll(1, 1)]).abs().max() < 0.25


def test_a_head_without_lips_is_lit_inside(model):
    bare = dataclasses.replace(model, regions={**model.regions, "lips": torch.zeros_like(model.regions["lips"])})
    assert interior_light(bare).min() == 1


@pytest.mark.parametrize("exposure", [1.0, 0.4])
def test_drawn_teeth_have_the_exposure_of_the_picture(model, exposure):
    track = make_track(model, SIZE, SIZE, focal=4 * SIZE)
    picture = exposure * paint(model, track, skin_paint(model))
    person = torch.ones(SIZE, SIZE)
    proxy = build_proxy(picture, track, model, texture_size=256, person=person)
    laugh = move(track, model, jawOpen=0.2, **LAUGH)
    frame = next(render_preview(picture, proxy, laugh, model, person=person))[0]
    stage = Stage(model, laugh.camera)
    raster = stage.shot(camera_space(model, laugh.identity, laugh, 0, 1)).raster
    part = stage.parts_and_empty[raster.ids[0].long()]
    teeth = frame[part == PARTS.index("upper_teeth")]
    skin = frame[part == PARTS.index("skin")].mean(0)
    assert len(teeth) > 100
    bright = teeth[teeth.mean(-1) >= teeth.mean(-1).quantile(0.5)].mean(0)
    assert 1.05 < bright.mean() / skin.mean() < 1.6
    assert bright[0] > bright[1] > bright[2] > 0.6 * bright[0]  # warm, not yellow
