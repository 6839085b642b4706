"""Offsets along the normals that bring the fitted head to a displaced one, from its distances and its silhouette."""

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from expportrait.proxy.inpaint import dilate
from expportrait.proxy.posing import Shot
from expportrait.proxy.refine.observe import Observer, View
from expportrait.proxy.refine.positions import depth_offsets, mirror_pairs, outline_offsets, unseen_weight
from expportrait.proxy.render_interior import dense_template
from expportrait.proxy.warp2d import sample_pixels

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track  # noqa: E402

SIZE, YAWS = 256, (-0.5, 0.0, 0.4)
SKIN, HAIR, WALL = (0.75, 0.55, 0.45), (0.12, 0.08, 0.06), (0.35, 0.5, 0.4)


@pytest.fixture(scope="module")
def observer(model):
    return Observer(model, make_track(model, SIZE, SIZE, YAWS))


@pytest.fixture(scope="module")
def relief(observer):
    """Hills and valleys [S] of 3 mm, some 10 cm wide."""
    points = dense_template(observer.model)[observer.skin.vertices]
    return 0.003 * torch.sin(60 * points[:, 0].abs()) * torch.cos(60 * points[:, 1])


def shoot(observer: Observer, relief: torch.Tensor) -> Shot:
    return observer.stage.shot(observer.posed(slice(None), (relief[:, None] * observer.skin.normals)[None]))


def look(observer: Observer) -> View:
    return observer.view(slice(None), torch.zeros(1, len(observer.skin.vertices), 3))


def face(observer: Observer) -> torch.Tensor:
    """Skin [S] bool of the face without the folds at eyes and lips, where the surfaces of two heads hide different parts."""
    regions = {name: region[observer.skin.vertices] for name, region in observer.model.regions.items()}
    folds = torch.stack([regions[name] for name in ("lips", "lids", "eyes", "mouth")]).amax(0)
    return (regions["face"] > 0.5) & (folds < 0.1)


# Depth


def distances(shot: Shot) -> torch.Tensor:
    """Distance [t, 1, H, W] along the view axis, 0 outside."""
    return shot.raster.scatter(shot.pixels(-shot.vertices[..., 2:])[0]).permute(0, 3, 1, 2)


def test_depth_finds_the_relief(observer, relief):
    distance = distances(shoot(observer, relief))
    offset, weight = depth_offsets(look(observer), distance, (distance > 0).float())
    assert offset.shape == weight.shape == (len(YAWS), len(relief))
    assert weight.min() >= 0 and weight.max() <= 1
    chosen = (weight > 0.3) & face(observer)
    error = (offset - relief)[chosen]
    assert chosen.sum() > 5000
    assert error.square().mean().sqrt() < 0.2 * relief.expand_as(offset)[chosen].square().mean().sqrt()
    assert error.abs().mean() < 2e-4


def test_depth_of_the_same_head_asks_for_nothing(observer, relief):
    shot = shoot(observer, 0 * relief)
    offset, weight = depth_offsets(look(observer), distances(shot), shot.raster.mask[:, None].float())
    assert offset[(weight > 0.3) & face(observer)].abs().quantile(0.95) < 3e-4


def test_a_surface_that_turns_away_counts_little(observer, relief):
    shot = shoot(observer, 0 * relief)
    weight = depth_offsets(look(observer), distances(shot), shot.raster.mask[:, None].float())[1]
    facing = shot.facing[:, observer.skin.vertices]
    grazing = (facing > 0.05) & (facing < 0.3)
    frontal = (facing > 0.95) & face(observer)
    assert weight[grazing].max() < 0.1 and weight[frontal].median() > 0.9
    assert not weight[facing < 0].any()


def test_unknown_depth_has_no_weight_up_to_its_border(observer, relief):
    distance = distances(shoot(observer, relief))
    view, known = look(observer), distance > 0
    left = torch.arange(SIZE) < SIZE // 2
    reference = depth_offsets(view, distance, known.float())
    for broken in (torch.nan, torch.inf, 0.0):
        offset, weight = depth_offsets(view, torch.where(left, distance, broken), known.float())
        x = view.pixels[..., 0]
        assert offset.isfinite().all() and weight.isfinite().all()
        assert not weight[x > SIZE // 2].any() and not offset[x > SIZE // 2].any()
        inside = x < SIZE // 2 - 1
        torch.testing.assert_close(offset[inside], reference[0][inside])
    offset, weight = depth_offsets(view, distance, 0.5 * known * left)
    torch.testing.assert_close(weight[inside], 0.5 * reference[1][inside])
    assert not weight[x > SIZE // 2].any()


def test_a_border_that_is_sure_does_not_mix_with_the_unknown(observer, relief):
    """A hundredth of an unknown 0 would be 7 mm."""
    distance = distances(shoot(observer, relief))
    view, known = look(observer), distance > 0
    reference, mixed = depth_offsets(view, distance, known.float())[0], 0
    for column in range(90, 166, 4):
        offset, weight = depth_offsets(view, distance * (torch.arange(SIZE) < column), known.float())
        border = (view.pixels[..., 0] > column - 0.495) & (weight > 0.3)
        assert ((offset - reference)[border].abs() < 0.001).all()
        mixed += int(border.sum())
    assert mixed > 10


def test_a_hand_before_the_face_is_an_outlier(observer, relief):
    distance = distances(shoot(observer, 0 * relief))
    near = distance.clone()
    near[..., SIZE // 2 :, :] -= 0.04
    view = look(observer)
    weight = depth_offsets(view, near, (distance > 0).float())[1]
    below = view.pixels[..., 1] > SIZE // 2 + 1
    assert weight[below].max() < 0.05 and weight[below].mean() < 0.005
    assert weight[~below].max() > 0.9


def test_frames_without_a_face_have_no_depth(observer, relief):
    distance = distances(shoot(observer, relief))
    view = dataclasses.replace(look(observer), valid=torch.tensor([1.0, 0.0, 1.0]))
    offset, weight = depth_offsets(view, distance, (distance > 0).float())
    assert not weight[1].any() and not offset[1].any()
    assert weight[0].max() > 0.9 and weight[2].max() > 0.9


# The outline


def portrait(shot: Shot) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames [t, 3, H, W] of shaded skin before a wall, and the person's mask [t, H, W]."""
    shade = 0.55 + 0.45 * (shot.normals @ F.normalize(torch.tensor([0.4, 0.3, 0.8]), dim=0)).clamp(min=0)
    image = shot.raster.scatter(shot.pixels(shade[..., None] * torch.tensor(SKIN))[0])
    image = torch.where(shot.raster.mask[..., None], image, torch.tensor(WALL))
    mask = shot.stage.rasterizer.antialias(shot.raster.mask[..., None].float(), shot.raster, shot.clip)
    return image.permute(0, 3, 1, 2), mask[..., 0].clamp(0, 1)


@pytest.mark.parametrize("grow", [-0.003, 0.0, 0.003, None])
def test_the_outline_is_brought_to_that_of_the_displaced_head(observer, relief, grow):
    """Far below a pixel, which covers 1.5 mm."""
    relief = relief if grow is None else torch.full_like(relief, grow)
    offset, weight = outline_offsets(shoot(observer, 0 * relief), observer.skin.vertices, *portrait(shoot(observer, relief)))
    assert offset.shape == weight.shape == (len(YAWS), len(relief)) and weight.min() >= 0 and weight.max() <= 1
    sure = weight > 0.3
    assert (sure.sum(1) > 300).all()
    error = (offset - relief)[sure]
    assert error.abs().mean() < 3e-4 and error.mean().abs() < 1.5e-4


def test_a_mask_of_hard_edges_is_as_exact(observer, relief):
    relief = torch.full_like(relief, 0.003)
    frames, person = portrait(shoot(observer, relief))
    offset, weight = outline_offsets(shoot(observer, 0 * relief), observer.skin.vertices, frames, (person > 0.5).float())
    error = (offset - relief)[weight > 0.3]
    assert error.abs().mean() < 6e-4 and error.mean().abs() < 2e-4


def test_frames_of_another_size_show_the_same_outline(observer, relief):
    relief = torch.full_like(relief, 0.003)
    frames, person = portrait(shoot(observer, relief))
    frames = F.interpolate(frames, scale_factor=1.5, mode="bilinear")
    person = F.interpolate(person[:, None], scale_factor=1.5, mode="bilinear")[:, 0]
    offset, weight = outline_offsets(shoot(observer, 0 * relief), observer.skin.vertices, frames, person)
    error = (offset - relief)[weight > 0.3]
    assert len(error) > 900 and error.abs().mean() < 4e-4


def test_only_vertices_of_the_outline_have_weight(observer, relief):
    shot = shoot(observer, 0 * relief)
    weight = outline_offsets(shot, observer.skin.vertices, *portrait(shot))[1]
    pixels = shot.stage.camera.project(shot.vertices[:, observer.skin.vertices])
    empty = dilate(1 - shot.raster.mask[:, None].float(), 5)
    near = sample_pixels(empty, pixels.mT[..., None])[:, 0, :, 0]
    assert not weight[near == 0].any()
    assert not weight[shot.facing[:, observer.skin.vertices].abs() > 0.25].any()


def test_hair_is_left_alone(observer, relief):
    """A cap that goes down to the ears, 1 cm thick, and thin or skin-coloured hair that goes down the temples."""
    model, vertices = observer.model, observer.skin.vertices
    shot = shoot(observer, 0 * relief)
    frames, person = portrait(shot)
    points = dense_template(model)[None]
    scalp, height = shot.pixels(model.regions["scalp"][None, :, None], points[..., 1:2])
    lids = model.regions["lids"] @ points[0, :, 1] / model.regions["lids"].sum()
    sides = (model.vertex_normals(points)[0, vertices, 0].abs() > 0.9) & (model.regions["ears"][vertices] < 0.01)
    temples = sides & (points[0, vertices, 1] > lids + 0.01)
    assert (outline_offsets(shot, vertices, frames, person)[1][:, temples] > 0.1).sum() > 5  # bare they have some weight
    for thick, colour, region in ((6, HAIR, scalp > 0.3), (6, HAIR, height > lids), (3, SKIN, height > lids + 0.01)):
        hair = dilate(shot.raster.scatter(region.float()).permute(0, 3, 1, 2), thick)
        picture = torch.where(hair > 0, torch.tensor(colour)[:, None, None], frames)
        offset, weight = outline_offsets(shot, vertices, picture, torch.maximum(person, hair[:, 0]))
        skull = model.regions["scalp"][vertices] > 0.5
        assert not weight[:, skull].any()
        assert (weight * (offset > 0))[:, temples].max() < 0.01


def test_an_edge_far_off_pulls_nothing(observer, relief):
    shot = shoot(observer, 0 * relief)
    frames, person = portrait(shoot(observer, torch.full_like(relief, 0.015)))
    offset, weight = outline_offsets(shot, observer.skin.vertices, frames, person)
    fitting = outline_offsets(shot, observer.skin.vertices, *portrait(shot))[1]
    assert not weight[offset.abs() > 0.01].any() and weight.sum() < 0.1 * fitting.sum()
    for person in (torch.zeros_like(person), torch.ones_like(person)):
        assert not outline_offsets(shot, observer.skin.vertices, frames, person)[1].any()


# Symmetry


def test_partners_lie_on_the_other_side(observer):
    points = dense_template(observer.model)[observer.skin.vertices]
    pairs = mirror_pairs(observer.model, observer.skin.vertices)
    assert (pairs[pairs] == torch.arange(len(pairs))).float().mean() > 0.99
    assert (points[pairs] * torch.tensor([-1.0, 1.0, 1.0]) - points).norm(dim=1).max() < 0.002
    assert (pairs != torch.arange(len(pairs))).float().mean() > 0.9


def test_a_vertex_whose_partner_is_left_out_is_its_own(observer):
    whole = observer.skin.vertices
    points = dense_template(observer.model)[whole]
    left = whole[points[:, 0] > 0.01]
    assert mirror_pairs(observer.model, left).tolist() == list(range(len(left)))


def test_what_one_frame_saw_is_not_unseen():
    seen = torch.tensor([[0.0, 0.0, 0.3, 1.0], [0.0, 1.0, 0.2, 0.0]])
    torch.testing.assert_close(unseen_weight(seen), torch.tensor([1.0, 0.0, 0.7, 0.0]))
