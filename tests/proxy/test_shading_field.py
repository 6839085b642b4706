"""Relief from shading, on the embedded head with a relief and a light that are known."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.lighting import sh_basis, sh_slopes
from expportrait.proxy.posing import Stage, camera_space
from expportrait.proxy.refine import RefineSettings
from expportrait.proxy.refine.observe import Observer
from expportrait.proxy.refine.shading_field import GAMMA, ShadingField, head_turn, own_lights, shared_light
from expportrait.proxy.render_interior import dense_template
from expportrait.proxy.rotation import to_matrix

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track, skin_paint  # noqa: E402

SIDE = 224
YAWS = (-0.3, 0.0, 0.3)
FAST = RefineSettings(shading_rounds=3, still=dataclasses.replace(RefineSettings().still, relief=0.002))


@pytest.fixture(scope="module")
def model():
    return load_head_model()


def side_light(model) -> torch.Tensor:
    light = torch.zeros(9, 3)
    light[0], light[1], light[2], light[3] = 0.5, 0.2, 0.3, 0.4
    return light


def hills(model, height: float = 0.002) -> torch.Tensor:
    """Round hills [V] on both cheeks and the forehead, alike on both sides."""
    points = dense_template(model)
    face = model.regions["face"] > 0.5
    nose = points[model.regions["nose"] > 0.9].mean(0)
    field = torch.zeros(len(points))
    for x, y in ((0.04, 0.0), (-0.04, 0.0), (0.012, 0.065), (-0.012, 0.065), (0.03, -0.03), (-0.03, -0.03)):
        away = points[:, :2] - nose[:2] - torch.tensor([x, y])
        field += height * torch.exp(-0.5 * (away.norm(dim=1) / 0.006) ** 2)
    return field * face * (points[:, 2] > nose[2] - 0.09)


def slow_paint(model) -> torch.Tensor:
    """A skin [V, 3] whose brightness changes by 5 % over some centimetres."""
    waves = torch.sin(dense_template(model) * torch.tensor([60.0, 50.0, 40.0])).mean(-1, keepdim=True)
    return torch.tensor([0.7, 0.5, 0.4]) * (1 + 0.05 * waves)


def filmed(model, relief: torch.Tensor, yaws=YAWS, expression: torch.Tensor | None = None) -> tuple[Frames, object]:
    """Frames of the mean head with a relief [V] or [T, V] under a light from one side, and the track of a fit that knows no relief."""
    track = make_track(model, SIDE, SIDE, yaws)
    if expression is not None:
        track = dataclasses.replace(track, expression=expression)
    normals = model.vertex_normals(dense_template(model)[None])[0]
    raised = relief.expand(len(track), -1)[..., None] * normals
    posed = model.forward(track.identity[None], track.expression, track.joints, raised) + track.translation[:, None]
    shot = Stage(model, track.camera).shot(posed)
    normal, paint = shot.pixels(shot.normals, slow_paint(model)[None])
    shading = (sh_basis(torch.nn.functional.normalize(normal, dim=-1)) @ side_light(model)).clamp(min=0.05)
    return Frames.from_images(shot.raster.scatter((paint * shading).clamp(0, 1) ** (1 / GAMMA), 0.2)), track


def found(model, frames, track, settings=FAST) -> tuple[torch.Tensor, ShadingField, dict]:
    field, log = ShadingField(Observer(model, track), settings), {}
    field.run(frames, log, lambda count: None)
    whole = torch.zeros(model.vertex_count)
    whole[field.observer.skin.vertices] = field.static
    return whole, field, log


def plain_skin(model, points) -> torch.Tensor:
    """Weight [V] of the middle of the face, where all frames see the skin."""
    return model.regions["face"] * (1 - model.regions["nose"]) * (model.vertex_normals(points[None])[0, :, 2] > 0.5)


def tilt(model, relief) -> torch.Tensor:
    """Mean angle in degrees that a relief [V] turns the normals of the middle of the face by."""
    points = dense_template(model)
    normals = model.vertex_normals(points[None])[0]
    moved = model.vertex_normals((points + relief[:, None] * normals)[None])[0]
    weight = plain_skin(model, points)
    angle = torch.rad2deg(torch.atan2(torch.linalg.cross(normals, moved).norm(dim=-1), (normals * moved).sum(-1)))
    return float((weight * angle).sum() / weight.sum())


@pytest.mark.parametrize("yaws, share, risen", [(YAWS, 0.85, 0.4), ((0.0,), 0.97, 0.2)])
def test_hills_rise_where_they_are(model, yaws, share, risen):
    relief = hills(model)
    whole, _, log = found(model, *filmed(model, relief, yaws))
    assert tilt(model, relief - whole) < share * tilt(model, relief)
    weight = plain_skin(model, dense_template(model))
    assert (weight * whole * relief).sum() > risen * (weight * relief**2).sum()
    assert log["shading"][-1] < log["shading"][0]


def test_a_head_without_relief_stays_nearly_as_it_is(model):
    whole, _, _ = found(model, *filmed(model, torch.zeros(model.vertex_count)))
    assert tilt(model, whole) < 0.35 * tilt(model, hills(model))


def test_unlit_paint_is_no_relief(model):
    frames, track = filmed(model, hills(model))
    posed = camera_space(model, track.identity, track)
    shot = Stage(model, track.camera).shot(posed)
    (paint,) = shot.pixels(skin_paint(model)[None].expand(len(track), -1, -1))
    whole, _, _ = found(model, Frames.from_images(shot.raster.scatter(paint, 0.2)), track)
    assert tilt(model, whole) < 1.0


def smiling(model, frames: int) -> torch.Tensor:
    """Expressions [frames, E] of two smiles."""
    expression = torch.zeros(frames, len(model.expression_names))
    acted = [number for number, name in enumerate(model.expression_names) if "smile" in name.lower()]
    expression[:, acted] = 0.8 * torch.sin(torch.linspace(0, 2 * torch.pi, frames)).abs()[:, None]
    return expression


@pytest.mark.parametrize("turn, risen", [(0.3, 0.2), (0.0, 0.1)])
def test_wrinkles_come_with_the_expression(model, turn, risen):
    frames = 9
    expression = smiling(model, frames)
    strength = expression.amax(1) / expression.max()
    relief = strength[:, None] * hills(model)
    yaws = (turn * torch.cos(torch.linspace(0, torch.pi, frames))).tolist()
    _, field, _ = found(model, *filmed(model, relief, yaws, expression))
    moving = torch.zeros(frames, model.vertex_count)
    moving[:, field.observer.skin.vertices] = field.wrinkles.at(model, field.observer.track)
    assert moving.mean(0).abs().max() < 1e-6
    weight, true = plain_skin(model, dense_template(model)), relief - relief.mean(0)
    assert (weight * moving * true).sum() > risen * (weight * true.square()).sum()
    assert (weight * (true - moving).square()).sum() < (1 - risen) * (weight * true.square()).sum()


def test_expressions_without_wrinkles_make_none(model):
    frames = 9
    expression = smiling(model, frames)
    _, field, _ = found(model, *filmed(model, torch.zeros(model.vertex_count), (0.0,) * frames, expression))
    moving = torch.zeros(frames, model.vertex_count)
    moving[:, field.observer.skin.vertices] = field.wrinkles.at(model, field.observer.track)
    assert max(tilt(model, frame) for frame in moving) < 0.35 * tilt(model, hills(model))


def test_unlit_paint_has_no_wrinkles(model):
    frames = 9
    pictures, track = filmed(model, hills(model), torch.linspace(-0.3, 0.3, frames).tolist(), smiling(model, frames))
    shot = Stage(model, track.camera).shot(camera_space(model, track.identity, track))
    (paint,) = shot.pixels(skin_paint(model)[None].expand(frames, -1, -1))
    _, field, _ = found(model, Frames.from_images(shot.raster.scatter(paint, 0.2)), track)
    moving = torch.zeros(frames, model.vertex_count)
    moving[:, field.observer.skin.vertices] = field.wrinkles.at(model, track)
    assert max(tilt(model, frame) for frame in moving) < 1.0


def test_a_still_head_is_believed_less(model):
    relief = hills(model)
    turned, _, _ = found(model, *filmed(model, relief))
    still, _, _ = found(model, *filmed(model, relief, (0.0, 0.0, 0.0)))
    assert still.square().sum() < 0.5 * turned.square().sum()


def test_head_turn_is_the_rotations_spread(model):
    track = make_track(model, SIDE, SIDE, (-0.3, 0.0, 0.3))
    assert head_turn(model, track) == pytest.approx((0.18 / 3) ** 0.5, abs=1e-3)
    invalid = dataclasses.replace(track, valid=torch.tensor([False, True, False]))
    assert head_turn(model, invalid) == pytest.approx(0.0, abs=1e-3)


def test_own_lights_take_up_a_turn_that_the_fit_has_wrong(model):
    normals = torch.nn.functional.normalize(torch.randn(1, 500, 3, generator=torch.Generator().manual_seed(3)), dim=-1)
    light = side_light(model)[:, 0]
    turn = to_matrix(torch.tensor([0.0, 0.1, 0.0]))
    brightness, albedo, weight = sh_basis(normals @ turn.T) @ light, torch.ones(500), torch.ones(1, 500)
    own = own_lights(light[None], brightness, albedo, normals, weight, 0.1)
    before, after = ((sh_basis(normals) @ found[0] - brightness).square().mean().sqrt() for found in (light[None], own))
    assert after < 0.15 * before


def test_relief_ends_at_the_face(model):
    whole, field, _ = found(model, *filmed(model, hills(model)))
    assert not whole[model.regions["face"] == 0].any()
    assert field.displacement(slice(None)).shape == (len(YAWS), len(field.observer.skin.vertices), 3)


def test_frames_without_a_face_have_no_say(model):
    frames, track = filmed(model, hills(model))
    pictures = torch.cat(list(frames.chunks())).permute(0, 2, 3, 1).clone()
    pictures[1] = torch.rand(pictures[1].shape, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([True, False, True])
    whole, _, _ = found(model, Frames.from_images(pictures), dataclasses.replace(track, valid=valid))
    kept = torch.tensor([0, 2])
    alone, _, _ = found(model, Frames.from_images(pictures[kept]), track.at(kept))
    assert torch.equal(whole, alone)


def test_works_in_inference_mode(model):
    frames, track = filmed(model, hills(model), (0.0,))
    outside, _, _ = found(model, frames, track)
    with torch.inference_mode():
        inside, _, _ = found(model, frames, track)
    assert torch.allclose(inside, outside, atol=1e-6)


def test_shared_light_is_that_of_all_frames(model):
    generator = torch.Generator().manual_seed(1)
    normals = torch.nn.functional.normalize(torch.randn(3, 400, 3, generator=generator), dim=-1)
    albedo, light = 0.5 + 0.5 * torch.rand(400, generator=generator), torch.randn(9, generator=generator)
    light[4:] *= 0.1  # as under a lamp and a sky; stronger quadratic terms are not believed
    brightness = albedo * (sh_basis(normals) @ light)
    weight = torch.ones(3, 400)
    brightness[0, :20] = 30.0  # lamps
    assert torch.allclose(shared_light(brightness, albedo, normals, weight), light, atol=0.1 * float(light.abs().max()))


def test_slopes_are_the_basis_derivatives():
    normals = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    slopes = torch.autograd.functional.jacobian(sh_basis, normals)  # [5, 9, 5, 3]
    assert torch.allclose(sh_slopes(normals), slopes[torch.arange(5), :, torch.arange(5)])


def test_priors_between_two_are_geometric_means():
    still, turned = RefineSettings().still, RefineSettings().turned
    assert still.toward(turned, 0.0) == still
    assert dataclasses.astuple(still.toward(turned, 1.0)) == pytest.approx(dataclasses.astuple(turned))
    assert still.toward(turned, 0.5).relief == pytest.approx((still.relief * turned.relief) ** 0.5)
