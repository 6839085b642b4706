"""Depth and silhouettes as a static displacement: the embedded head, wider and with a hill, against the fit that knows neither."""

import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.posing import Stage
from expportrait.proxy.refine import OutsideMaps, RefineSettings, refine_head
from expportrait.proxy.render_interior import dense_template

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track, skin_paint  # noqa: E402

SIDE = 256
SETTINGS = RefineSettings(levels=(2.0,), shading_rounds=0, texture_frames=1, texture_size=64)


@pytest.fixture(scope="module")
def model():
    return load_head_model()


def truth(model, offset):
    """Frames, depth [T, H, W, 1] (near is white), mask [T, H, W] and track of the mean head displaced along its normals by [V] metres."""
    track = make_track(model, SIDE, SIDE, (-0.2, 0.0, 0.2))
    normals = model.vertex_normals(dense_template(model)[None])[0]
    identity = torch.zeros(1, model.identity_basis.shape[0])
    posed = model.forward(identity, track.expression, track.joints, (offset[:, None] * normals)[None]) + track.translation[:, None]
    shot = Stage(model, track.camera).shot(posed)
    paint, distance = shot.pixels(skin_paint(model)[None].expand(3, -1, -1), -shot.vertices[..., 2:])
    images = shot.raster.scatter(paint, 0.3)
    return Frames.from_images(images), shot.raster.scatter(0.5 / distance), shot.raster.mask.float(), track


def broad_jaw(model) -> torch.Tensor:
    """3 mm [V] more on both cheeks and the jaw, fading to the middle of the face and upwards."""
    points = dense_template(model)
    nose = points[model.regions["nose"] > 0.9].mean(0)
    side = ((points[:, 0].abs() - 0.02) / 0.03).clamp(0, 1)
    return 0.003 * side * ((nose[1] + 0.03 - points[:, 1]) / 0.03).clamp(0, 1) * model.regions["face"]


def low_cheek(model) -> torch.Tensor:
    """Where a broad jaw is at its broadest, [V] bool."""
    return broad_jaw(model) > 0.002


def along(model, static):
    return (static * model.vertex_normals(dense_template(model)[None])[0]).sum(-1)


def test_silhouette_moves_the_outline(model):
    frames, _, mask, track = truth(model, broad_jaw(model))
    refined = refine_head(frames, track, model, SETTINGS, OutsideMaps(mask=mask))
    moved = along(model, refined.fields.static)
    assert 0.0008 < moved[low_cheek(model)].mean() < 0.004
    assert moved[model.regions["nose"] > 0.9].abs().mean() < 0.0005
    assert refined.log["silhouette"][-1] < 0.7 * refined.log["silhouette"][0]


def test_depth_moves_the_face(model):
    points = dense_template(model)
    nose = model.regions["nose"] > 0.9
    hill = 0.004 * torch.exp(-0.5 * ((points[:, :2] - points[nose][:, :2].mean(0) - torch.tensor([0.0, 0.06])).norm(dim=1) / 0.02) ** 2)
    hill = hill * model.regions["face"]
    frames, depth, mask, track = truth(model, hill)
    refined = refine_head(frames, track, model, SETTINGS, OutsideMaps(depth=depth, mask=mask))
    moved = along(model, refined.fields.static)
    assert moved[hill > 0.003].mean() > moved[(model.regions["face"] > 0.5) & (hill < 0.0003)].mean() + 0.001
    assert refined.log["depth"][-1] < refined.log["depth"][0]
    inverted = refine_head(frames, track, model, SETTINGS, OutsideMaps(depth=1 - depth, mask=1 - mask))
    assert torch.allclose(along(model, inverted.fields.static), moved, atol=2e-4)


def test_a_head_that_fits_stays(model):
    frames, depth, mask, track = truth(model, torch.zeros(model.vertex_count))
    refined = refine_head(frames, track, model, SETTINGS, OutsideMaps(depth=depth, mask=mask))
    assert along(model, refined.fields.static).abs()[model.regions["face"] > 0.5].mean() < 0.0003


def test_maps_of_something_else_are_refused_in_one_sentence(model):
    frames, depth, mask, track = truth(model, torch.zeros(model.vertex_count))
    with pytest.raises(ValueError, match="the person mask is empty"):
        refine_head(frames, track, model, SETTINGS, OutsideMaps(mask=torch.zeros_like(mask)))
    with pytest.raises(ValueError, match="no frame of the depth map can be used"):
        refine_head(frames, track, model, SETTINGS, OutsideMaps(depth=torch.full_like(depth, float("nan"))))
    with pytest.raises(ValueError, match="the depth map has 2 frames"):
        refine_head(frames, track, model, SETTINGS, OutsideMaps(depth=depth[:2]))
