import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
from skimage.data import astronaut

from expportrait.proxy.build import build_proxy
from expportrait.proxy.preview import render_preview
from expportrait.proxy.preview_flow import fit_similarity
from expportrait.proxy.render import MAPS, render_maps
from expportrait.proxy.warp2d import complete_flow, pixel_grid, sample_pixels

sys.path.insert(0, str(Path(__file__).parent))
from displaced_head import displace  # noqa: E402
from painted_head import make_track, move, paint, skin_paint  # noqa: E402
from toy_head import make_model  # noqa: E402

SIZE = 192


@pytest.fixture(scope="module")
def scene(model):
    """A painted head before a chequered wall: track, picture, person mask and proxy."""
    track = make_track(model, SIZE, SIZE)
    picture = paint(model, track, skin_paint(model), background=-1)
    person = (picture[0] >= 0).float()
    grid = pixel_grid(SIZE, SIZE)[0] // 12
    wall = 0.3 + 0.4 * (grid.sum(0) % 2)
    picture = torch.where(person > 0, picture, wall)
    proxy = build_proxy(picture, track, model, texture_size=256, person=person)
    return track, picture, person, proxy


def preview(scene, motion, model, **options):
    _, picture, person, proxy = scene
    return torch.cat(list(render_preview(picture, proxy, motion, model, person=person, **options)))


def psnr(a, b):
    return -10 * math.log10(float((a - b).square().mean()) + 1e-12)


def test_the_source_pose_gives_the_source_picture(model, scene):
    track, picture, _, _ = scene
    frame = preview(scene, track, model)[0].permute(2, 0, 1)
    assert (frame - picture).abs().mean() < 1e-3
    assert psnr(frame, picture) > 50


def test_a_photo_is_reproduced_too_with_the_person_found(model):
    picture = torch.from_numpy(astronaut()).permute(2, 0, 1).float() / 255
    track = make_track(model, 512, 512)
    track = dataclasses.replace(track, translation=track.translation + torch.tensor([-0.06, 0.13, -0.2]))
    track = move(track, model, jawOpen=0.2, mouthSmileLeft=0.6, mouthSmileRight=0.6)
    proxy = build_proxy(picture, track, model, texture_size=128)
    with torch.inference_mode():
        frame = next(render_preview(picture[None], proxy, track, model))[0].permute(2, 0, 1)
    assert (frame - picture).abs().mean() < 1e-3
    assert psnr(frame, picture) > 50


def test_a_turned_head_carries_its_own_colours(model, scene):
    turned = make_track(model, SIZE, SIZE, yaws=(0.25,))
    frame = preview(scene, turned, model)[0].permute(2, 0, 1)
    truth = paint(model, turned, skin_paint(model), background=-1)
    points = model.landmarks.points(model(turned.identity[None], turned.expression, turned.joints), model.faces)
    pixels = turned.camera.project(points + turned.translation)[0, [151, 9, 4, 50, 280, 152, 1, 199]]
    found, expected, before = (
        sample_pixels(image[None], pixels.mT[None, :, None])[0, :, 0] for image in (frame, truth, scene[1])
    )
    assert (found - expected).abs().mean() < 0.03


def test_displacement_moves_the_head_that_carries_the_picture(model, scene, generator):
    """A head moved by its displacement and moved back by its place is the same head; one of zeros is the same to the bit."""
    track, picture, person, proxy = scene
    motion = move(track, model, mouthSmileLeft=0.6, browInnerUp=0.5)
    motion = dataclasses.replace(motion, translation=motion.translation + torch.tensor([0.01, 0.0, 0.02]))
    expected = preview(scene, motion, model)
    displaced = displace(proxy, model, generator)
    nothing = {name: torch.zeros_like(getattr(displaced, name)) for name in ("displacement", "detail_basis")}
    assert torch.equal(preview((track, picture, person, dataclasses.replace(displaced, **nothing)), motion, model), expected)

    shift = torch.tensor([0.006, -0.004, 0.03])
    displaced = dataclasses.replace(
        proxy, displacement=shift.repeat(model.vertex_count, 1), source_translation=proxy.source_translation - shift
    )
    back = dataclasses.replace(motion, translation=motion.translation - shift)
    found = preview((track, picture, person, displaced), back, model)
    assert (found - expected).abs().mean() < 1e-3
    assert (preview(scene, back, model) - expected).abs().mean() > 1e-2


def test_a_displaced_head_gives_the_source_picture_at_its_pose(model, scene, generator):
    track, picture, person, proxy = scene
    frame = preview((track, picture, person, displace(proxy, model, generator)), track, model)[0].permute(2, 0, 1)
    assert psnr(frame, picture) > 50


def test_the_wall_stays_at_rest(model, scene):
    _, picture, person, _ = scene
    frames = preview(scene, make_track(model, SIZE, SIZE, yaws=(0.2, -0.2)), model).permute(0, 3, 1, 2)
    far = torch.nn.functional.max_pool2d(person[None, None], 49, 1, 24)[0, 0] == 0
    assert int(far.sum()) > 1500
    assert (frames - picture)[:, :, far].abs().max() < 1e-3


def test_an_opened_mouth_shows_its_dark_inside_not_stretched_lips(model, scene):
    track, picture, _, _ = scene
    opened = move(track, model, jawOpen=0.8)
    frame = preview(scene, opened, model)[0].permute(2, 0, 1)
    points = model.landmarks.points(model(opened.identity[None], opened.expression, opened.joints), model.faces)
    upper, lower = opened.camera.project(points + opened.translation)[0, [13, 14]]
    assert lower[1] - upper[1] > 6
    x, y = (0.35 * upper + 0.65 * lower).long().tolist()
    inside = frame[:, y - 1 : y + 2, x - 3 : x + 4].mean()
    assert inside < 0.75 * picture[:, y - 1 : y + 2, x - 3 : x + 4].mean()


def test_closed_lids_cover_the_eyes(model):
    track = make_track(model, SIZE, SIZE, focal=3 * SIZE)
    colours = torch.full((model.vertex_count, 3), 0.6)
    colours[model.regions["eyes"] > 0.5] = torch.tensor([0.0, 0.9, 0.0])
    picture = paint(model, track, colours)
    person = torch.ones(SIZE, SIZE)
    proxy = build_proxy(picture, track, model, texture_size=256, person=person)
    closed = move(track, model, eyeBlinkLeft=1.0, eyeBlinkRight=1.0)

    def greens(image):
        return int((image[..., 1] - image[..., 0] > 0.15).sum())

    frame = next(render_preview(picture, proxy, closed, model, person=person))[0]
    assert greens(picture.permute(1, 2, 0)) > 100
    assert greens(frame) < 0.1 * greens(picture.permute(1, 2, 0))


def test_sizes_and_chunks(model, scene):
    motion = make_track(model, SIZE, SIZE, yaws=(0.0, 0.1, 0.2))
    done = []
    one = preview(scene, motion, model, chunk=2, size=(96, 160), progress=lambda *at: done.append(at))
    two = preview(scene, motion, model, chunk=3, size=(96, 160))
    assert one.shape == (3, 160, 96, 3) and done == [(2, 3), (3, 3)]
    assert (one - two).abs().mean() < 1e-3
    assert one.min() >= 0 and one.max() <= 1
    large = preview(scene, scene[0], model, size=(2 * SIZE, 2 * SIZE))[0].permute(2, 0, 1)
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    assert (shrunk - scene[1]).abs().mean() < 0.02


def test_bad_input_is_named(model, scene):
    track, picture, person, proxy = scene
    with pytest.raises(ValueError, match="give the picture that the proxy was built from"):
        render_preview(picture[:, :-1], proxy, track, model)
    with pytest.raises(ValueError, match="made with head model another"):
        render_preview(picture, proxy, dataclasses.replace(track, model_id="another"), model)
    with pytest.raises(ValueError, match="cannot render 0 x 64"):
        render_preview(picture, proxy, track, model, size=(0, 64))
    with pytest.raises(ValueError, match="no frames"):
        render_preview(picture, proxy, make_track(model, SIZE, SIZE, yaws=()), model)
    with pytest.raises(ValueError, match="the person mask has shape"):
        next(render_preview(picture, proxy, track, model, person=person[:-1]))


def test_flow_between_samples_is_a_membrane(generator):
    """Against the dense solution of the same equations."""
    height, width, smoothness = 24, 20, 0.02
    weight = torch.zeros(1, 1, height, width)
    weight[..., 6:14, 5:12] = 0.8
    weight[..., -3:, :] = 0.01
    grid = pixel_grid(height, width)
    flow = torch.sin(0.15 * grid + torch.tensor([0.0, 1.0])[None, :, None, None])
    count = height * width
    matrix = torch.diag(weight.flatten().double())
    index = torch.arange(count).view(height, width)
    for a, b in ((index[:, 1:], index[:, :-1]), (index[1:], index[:-1])):
        a, b = a.flatten(), b.flatten()
        for i, j in ((a, b), (b, a)):
            matrix.index_put_((i, i), torch.tensor(smoothness, dtype=torch.float64), accumulate=True)
            matrix.index_put_((i, j), torch.tensor(-smoothness, dtype=torch.float64), accumulate=True)
    exact = torch.linalg.solve(matrix, (flow * weight)[0].flatten(1).mT.double()).mT.view(1, 2, height, width)
    found = complete_flow(flow, weight, smoothness)
    assert (found - exact).abs().mean() < 0.06 * exact.abs().mean()  # a few sweeps per level
    assert not complete_flow(torch.zeros_like(flow), weight, smoothness).any()


def test_similarity_is_recovered(generator):
    points = torch.randn(2, 50, 2, generator=generator)
    turn = 1.3 * torch.tensor([[0.8, -0.6], [0.6, 0.8]])
    moved = points @ turn.mT + torch.tensor([3.0, -2.0])
    found_turn, shift = fit_similarity(points, moved, torch.rand(50, generator=generator))
    assert torch.allclose(found_turn, turn.expand(2, 2, 2), atol=1e-4)
    assert torch.allclose(shift, torch.tensor([[3.0, -2.0]]).expand(2, 2), atol=1e-4)


def test_a_head_without_eyes_and_mouth_works(generator):
    """As an SMPL-X body has no teeth; the toy head is skin alone."""
    model = make_model(generator)
    track = make_track(model, 96, 96, yaws=(0.0, 0.2))
    picture = torch.rand(3, 96, 96, generator=generator)
    proxy = build_proxy(picture, track, model, texture_size=64, person=torch.ones(96, 96))
    frames = next(render_preview(picture, proxy, track, model, person=torch.ones(96, 96)))
    maps = next(render_maps(proxy, track, model, MAPS))
    assert all(bool(value.isfinite().all()) for value in (proxy.albedo, frames, *maps.values()))
    assert (frames[0].permute(2, 0, 1) - picture).abs().mean() < 1e-3
