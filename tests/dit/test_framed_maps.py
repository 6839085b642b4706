"""Maps that are drawn through a framing's camera are what a cut of the whole map shows, only sharper."""

import sys
from pathlib import Path

import pytest
import torch

from expportrait.dit.families import family_named
from expportrait.dit.framing import crop_images, make_framing
from expportrait.proxy.build import build_proxy
from expportrait.proxy.render import render_maps

sys.path.insert(0, str(Path(__file__).parents[1] / "proxy"))
from painted_head import make_track, paint, skin_paint  # noqa: E402

WIDTH, HEIGHT = 240, 180


@pytest.fixture(scope="module")
def head(model):
    track = make_track(model, WIDTH, HEIGHT)
    return build_proxy(paint(model, track, skin_paint(model)), track, model, texture_size=64, person=torch.ones(HEIGHT, WIDTH))


def render(model, head, motion, name, *size, **options):
    return torch.cat([chunk[name] for chunk in render_maps(head, motion, model, (name,), *size, **options)])


@pytest.mark.parametrize("name", ["normals", "depth", "mask", "shaded"])
@pytest.mark.parametrize("size", [(240, 180), (480, 360), (200, 320)])
def test_a_map_through_the_framing_is_the_cut_of_the_map(model, head, name, size):
    motion = make_track(model, WIDTH, HEIGHT, yaws=(0.0, 0.3))
    whole = render(model, head, motion, name, *size)
    mask = render(model, head, motion, "mask", *size)[..., 0]
    mask[:, 3 * size[1] // 4 :] = 0
    framing = make_framing(family_named("Wan VACE"), whole, mask, 128, 96, margin=0.05)
    assert framing.box[2] < size[0] and framing.length == 5
    cut = torch.cat(list(crop_images(whole, framing)))[:2]
    drawn = render(model, head, motion, name, camera=framing.camera(head.camera))
    assert drawn.shape[1:3] == (96, 128)
    assert (drawn - cut[..., : drawn.shape[-1]]).abs().mean() < 0.01


def test_a_framed_map_is_sharper_than_a_cut(model, head):
    motion = make_track(model, WIDTH, HEIGHT)
    small = render(model, head, motion, "mask", 60, 45)
    framing = make_framing(family_named("Wan VACE"), small, small[..., 0], 512, 384, margin=0.0)
    drawn = render(model, head, motion, "mask", camera=framing.camera(head.camera))[..., 0]
    cut = torch.cat(list(crop_images(small.expand(-1, -1, -1, 3), framing)))[..., 0]
    soft = [float(((mask > 0.1) & (mask < 0.9)).float().mean()) for mask in (drawn, cut)]
    assert soft[0] < 0.3 * soft[1]
