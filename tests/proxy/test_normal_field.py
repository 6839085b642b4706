"""Outside normals of which the low frequencies are wrong, against those of a truth that the fit does not know."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

from expportrait.proxy.posing import Stage
from expportrait.proxy.refine import RefineSettings
from expportrait.proxy.refine.normal_field import LowPass, NormalField, carry
from expportrait.proxy.refine.observe import Observer
from expportrait.proxy.refine.outside_normals import camera_normals
from expportrait.proxy.refine.plain_fit import PlainFit
from expportrait.proxy.refine.surface import Skin
from expportrait.proxy.render_interior import dense_template
from expportrait.proxy.rotation import to_matrix

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track  # noqa: E402

SIDE, YAWS = 192, (-0.3, -0.1, 0.1, 0.3)
TILT = math.radians(12)
SETTINGS = RefineSettings()


@pytest.fixture(scope="module")
def observer(model):
    return Observer(model, make_track(model, SIDE, SIDE, YAWS))


@pytest.fixture(scope="module")
def relief(model, observer):
    """Waves [S] of 25 mm down the face."""
    points = dense_template(model)[observer.skin.vertices]
    face = model.regions["face"][observer.skin.vertices]
    return 0.001 * torch.sin(points[:, 1] * (2 * math.pi / 0.025)) * face


@pytest.fixture(scope="module")
def normals(model, observer, relief):
    """Normals [T, H, W, 3] of the displaced head, 0 beside it."""
    shot = Stage(model, observer.track.camera).shot(observer.posed(slice(None), (relief[:, None] * observer.skin.normals)[None]))
    return shot.raster.scatter(normalize(shot.pixels(shot.normals)[0], dim=-1))


def follow(observer, normals, **settings):
    """The field that follows normals [T, H, W, 3], and its log."""
    images = torch.where((normals != 0).any(-1, keepdim=True), (normals + 1) / 2, torch.zeros(()))
    field, log = NormalField(observer, RefineSettings(**settings)), {}
    field.run(camera_normals(images, PlainFit(observer)), log, lambda count: None)
    return field, log


def away(model, observer, field, relief) -> float:
    """RMS in metres of all frames' relief from the truth over the front of the face, each less its mean, which no normals show."""
    front = (model.regions["face"][observer.skin.vertices] > 0.9) & (observer.skin.normals[:, 2] > 0.7)
    error = (field.static + field.dynamic - relief)[:, front]
    return float((error - error.mean(1, keepdim=True)).square().mean().sqrt())


def test_low_frequencies_of_a_wave(model):
    skin = Skin.of(model, dense_template(model))
    x = dense_template(model)[skin.vertices][:, 0]
    face = (model.regions["face"][skin.vertices] > 0.9) & (skin.normals[:, 2] > 0.8)  # where a way along x is one along the skin
    weight = torch.rand(2, len(x), generator=torch.Generator().manual_seed(1)) + 0.2
    low_pass = LowPass(skin, 0.02)
    level = low_pass(torch.full((2, len(x), 1), 3.0) * weight[..., None], weight)
    torch.testing.assert_close(level, torch.full_like(level, 3.0), rtol=1e-4, atol=1e-4)
    even = torch.ones(1, len(x))
    fine, broad = (low_pass(torch.sin(x * (2 * math.pi / wave))[None, :, None], even)[0, :, 0] for wave in (0.012, 0.6))
    assert fine[face].abs().max() < 0.1
    assert (broad - torch.sin(x * (2 * math.pi / 0.6)))[face].abs().max() < 0.1


def test_sound_normals_are_followed_whole(model, observer, normals, relief):
    field, log = follow(observer, normals)
    assert log["normal_bias"][0] < math.degrees(SETTINGS.normal_bias)
    assert away(model, observer, field, relief) < 0.5 * away(model, observer, NormalField(observer, SETTINGS), relief)
    for name in ("normals", "high_pass_normals"):
        assert len(log[name]) == SETTINGS.normal_rounds and log[name][-1] < 0.6 * log[name][0]


def test_tilts_in_which_frames_disagree_are_left_out(model, observer, normals, relief):
    turns = TILT * torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, -1.0, 0.0]])
    tilted = torch.einsum("tij,thwj->thwi", to_matrix(turns), normals)
    field, log = follow(observer, tilted)
    assert log["normal_bias"][0] > 0.7 * math.degrees(TILT)
    believing, _ = follow(observer, tilted, normal_bias=10.0)
    assert away(model, observer, field, relief) < 0.5 * away(model, observer, believing, relief)
    assert log["high_pass_normals"][-1] < 0.6 * log["high_pass_normals"][0]


def test_what_nobody_sees_goes_along_with_what_is_around(model, observer):
    skin = observer.skin
    points = dense_template(model)[skin.vertices]
    off = (points - points[points[:, 2].argmax()]).norm(dim=1)
    hidden = off < 0.008
    relief = torch.where(hidden, 0.01, 0.004)
    carried, along = carry(skin, relief, (~hidden).float()), relief[:, None] * skin.normals
    assert (carried - along)[off > 0.012].norm(dim=1).mean() < 2e-4
    assert carried[hidden].norm(dim=1).max() < 0.0045
    assert carry(skin, relief, torch.zeros(len(points))).abs().max() == 0
    # What few frames of many show is known well enough to keep its shape.
    waves = 0.001 * torch.sin(points[:, 1] * (2 * math.pi / 0.02))
    half = carry(skin, waves, torch.full((len(points),), 0.5))
    assert (half * skin.normals).sum(-1) @ waves > 0.85 * waves @ waves


def test_lips_and_lids_rise_less(model, observer, normals):
    regions = {name: model.regions[name][observer.skin.vertices] for name in ("lips", "lids")}
    (near, _), (free, _) = (follow(observer, normals, meeting_reach=reach) for reach in (0.003, 0.06))
    for region in regions.values():
        assert near.static[0, region > 0.9].abs().mean() < 0.7 * free.static[0, region > 0.9].abs().mean()


def test_frames_without_a_face_blur_nothing(model, observer, normals):
    valid = torch.zeros(len(YAWS), dtype=torch.bool)
    valid[1] = True
    missing = Observer(model, dataclasses.replace(observer.track, valid=valid))
    alone = observer.at(torch.tensor([1]))
    shown = [follow(some, some_normals)[0].displacement(slice(0, 1)) for some, some_normals in ((missing, normals), (alone, normals[1:2]))]
    front = model.regions["face"][observer.skin.vertices] > 0.9
    moved = [(field[0] * observer.skin.normals).sum(-1)[front] for field in shown]
    assert (moved[0] - moved[1]).square().mean() < 0.01 * moved[1].square().mean()
