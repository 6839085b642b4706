import itertools

import pytest
import torch

from expportrait.dit.families import FAMILIES, family_named
from expportrait.dit.framing import Framing, crop_images, crop_mask, make_framing
from expportrait.proxy.camera import Camera
from expportrait.proxy.posing import output_camera

VACE = family_named("Wan VACE")


def discs(centres, radius, width, height):
    """A mask [T, height, width] with a disc in each frame."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    return torch.stack([((x - cx) ** 2 + (y - cy) ** 2 < radius**2).float() for cx, cy in centres])


def all_of(chunks):
    return torch.cat(list(chunks))


@pytest.mark.parametrize("family", FAMILIES.values(), ids=list(FAMILIES))
@pytest.mark.parametrize(("width", "height"), [(640, 360), (300, 500), (256, 256), (97, 203)])
@pytest.mark.parametrize("margin", [0.0, 0.35, 3.0])
def test_the_box_holds_the_head_in_all_frames(family, width, height, margin):
    for edge in (0.2, 0.5, 0.95):
        mask = discs([(width * edge, height * 0.3), (width * 0.5, height * edge)], 0.12 * height, width, height)
        framing = make_framing(family, torch.zeros(2, height, width, 3), mask, margin=margin)
        x, y, w, h = framing.box
        seen = mask.any(0).nonzero()
        assert x - 1e-4 <= seen[:, 1].min() and seen[:, 1].max() + 1 <= x + w + 1e-4
        assert y - 1e-4 <= seen[:, 0].min() and seen[:, 0].max() + 1 <= y + h + 1e-4
        assert w / h == pytest.approx(framing.size[0] / framing.size[1], rel=1e-6)


def test_the_box_stays_in_the_picture_where_it_can():
    mask = discs([(40, 40)], 20, 640, 360)
    framing = make_framing(VACE, torch.zeros(1, 360, 640, 3), mask, 480, 480, margin=0.5)
    assert framing.box == (0.0, 0.0, 80.0, 80.0)
    tall = discs([(320, 90), (320, 270)], 80, 640, 360)
    x, y, w, h = make_framing(VACE, torch.zeros(1, 360, 640, 3), tall, 480, 480, margin=0.5).box
    assert (y, h) == (0.0, 360.0) and w == pytest.approx(360) and x == pytest.approx(140)


def test_without_a_mask_the_whole_picture_is_in():
    framing = make_framing(VACE, torch.zeros(5, 700, 500, 3))
    x, y, w, h = framing.box
    assert x <= 0 and y <= 0 and x + w >= 500 and y + h >= 700
    assert w * h < 1.06 * 500 * 700


def test_a_picture_with_a_mask_of_a_clip_gets_the_clips_length():
    mask = discs([(100, 100)] * 10, 50, 200, 200)
    framing = make_framing(VACE, torch.rand(1, 200, 200, 3), mask, 64, 64)
    assert (framing.frames, framing.kept, framing.length) == (10, 10, 13)
    assert all_of(crop_images(torch.rand(1, 200, 200, 3), framing)).shape == (1, 64, 64, 3)
    assert all_of(crop_mask(mask, framing)).shape == (13, 64, 64)


def test_a_mask_of_another_size_is_scaled():
    small, large = discs([(50, 40)], 20, 100, 80), discs([(150, 120)], 60, 300, 240)
    boxes = [make_framing(VACE, torch.zeros(1, 240, 300, 3), mask, 64, 64).box for mask in (small, large)]
    assert boxes[0] == pytest.approx(boxes[1], abs=3)


def test_grey_and_alpha_become_three_channels(generator):
    grey = torch.rand(1, 40, 60, 1, generator=generator)
    framing = make_framing(VACE, grey)
    with_alpha = torch.cat([grey.expand(-1, -1, -1, 3), torch.zeros_like(grey)], -1)
    cut = all_of(crop_images(grey, framing))
    assert cut.shape[-1] == 3 and torch.equal(cut, all_of(crop_images(with_alpha, framing)))


@pytest.mark.parametrize("source", [(997, 3001), (3001, 997), (1333, 750), (500, 701)])
@pytest.mark.parametrize("side", [{"height": 64}, {"width": 512}])
def test_maps_rendered_smaller_still_frame_the_picture(source, side):
    small = output_camera(Camera.centred(500.0, *source), **side)
    mask = torch.zeros(1, small.height, small.width)
    mask[:, small.height // 4 : small.height // 2, small.width // 4 : small.width // 2] = 1
    x, y, w, h = make_framing(VACE, torch.zeros(1).expand(1, source[1], source[0], 3), mask, margin=0.0).box
    assert x <= 0.26 * source[0] and x + w >= 0.47 * source[0] and y <= 0.26 * source[1] and y + h >= 0.47 * source[1]


@pytest.mark.parametrize(
    ("policy", "frames", "longest", "expected"),
    [
        ("hold", 6, 0, [0, 1, 2, 3, 4, 5, 5, 5, 5]),
        ("ping-pong", 6, 0, [0, 1, 2, 3, 4, 5, 4, 3, 2]),
        ("ping-pong", 2, 0, [0, 1, 0, 1, 0]),
        ("trim", 6, 0, [0, 1, 2, 3, 4]),
        ("hold", 90, 8, [0, 1, 2, 3, 4]),
        ("ping-pong", 1, 0, [0]),
        ("hold", 3, 2, [0]),
    ],
)
def test_frames_become_four_n_plus_one(policy, frames, longest, expected):
    images = (torch.arange(frames) / 100)[:, None, None, None].expand(-1, 32, 32, 3)
    framing = make_framing(VACE, images, None, 32, 32, policy=policy, longest=longest)
    assert framing.frame_numbers() == expected and framing.length == len(expected)
    shown = all_of(crop_images(images, framing, chunk=3))[:, 16, 16, 0]
    assert torch.allclose(shown, torch.tensor(expected) / 100, atol=1e-6)


def test_the_familys_longest_clip_is_kept_by_default():
    images = torch.zeros(1, 32, 32, 3).expand(200, -1, -1, -1)
    for name, longest in (("Wan VACE", 81), ("Wan-Animate", 77), ("Wan 2.2 TI2V-5B", 121)):
        assert make_framing(family_named(name), images).length == longest


def test_the_camera_sees_the_box():
    camera = Camera.centred(400.0, 300, 400)
    framing = Framing((300, 400), (60.5, 40.25, 120.0, 160.0), (480, 640), 1, 1, 1)
    points = torch.tensor([[0.02, 0.05, -0.6], [-0.05, 0.1, -0.8]])
    expected = (camera.project(points) - torch.tensor([60.5, 40.25])) * 4
    assert torch.allclose(framing.camera(camera).project(points), expected, atol=1e-3)


def test_the_same_box_of_larger_pictures(generator):
    images = torch.rand(1, 40, 60, 3, generator=generator)
    framing = make_framing(VACE, images, discs([(20, 20)], 8, 60, 40), 32, 32)
    twice = images.repeat_interleave(2, 1).repeat_interleave(2, 2)
    assert torch.allclose(all_of(crop_images(images, framing)), all_of(crop_images(twice, framing)), atol=0.25)
    assert framing.box_in((120, 80)) == tuple(2 * value for value in framing.box)


@pytest.mark.parametrize(
    ("images", "mask", "options", "words"),
    [
        ((0, 20, 20, 3), None, {}, "empty"),
        ((2, 20, 20, 3), (0, 20, 20), {}, "no frames"),
        ((2, 20, 20, 3), (3, 20, 20), {}, "2 pictures, but the mask has 3 frames"),
        ((2, 20, 20, 3), (2, 30, 20), {}, "20 x 30 pixels, but the pictures have 20 x 20"),
        ((2, 20, 20, 3), (2, 20, 20), {}, "the mask is empty"),
        ((2, 20, 20, 3), None, {"width": 100}, "choose 96"),
        ((2, 20, 20, 3), None, {"margin": -1.0}, "below 0"),
        ((2, 20, 20, 3), None, {"policy": "loop"}, "choose from hold, ping-pong, trim"),
    ],
)
def test_bad_input_is_one_sentence(images, mask, options, words):
    with pytest.raises(ValueError) as caught:
        make_framing(VACE, torch.zeros(images), None if mask is None else torch.zeros(mask), **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_a_framing_of_another_clip_is_told():
    framing = make_framing(VACE, torch.zeros(6, 40, 60, 3))
    with pytest.raises(ValueError, match="there are 7 frames, but the framing was made for 6"):
        crop_images(torch.zeros(7, 40, 60, 3), framing)
    with pytest.raises(ValueError, match="60 x 60 pixels, but the framing was made for 60 x 40"):
        crop_images(torch.zeros(6, 60, 60, 3), framing)
    with pytest.raises(ValueError, match="empty"):
        crop_mask(torch.zeros(0, 40, 60), framing)
    still = make_framing(VACE, torch.zeros(1, 40, 60, 3))
    with pytest.raises(ValueError, match="give Prepare Clip the mask of all frames"):
        crop_images(torch.zeros(7, 40, 60, 3), still)


def test_works_inside_inference_mode():
    with torch.inference_mode():
        images, mask = torch.rand(3, 50, 40, 3), discs([(20, 20)] * 3, 9, 40, 50)
        framing = make_framing(VACE, images, mask, 48, 64)
        for chunk, masks in itertools.zip_longest(crop_images(images, framing, 2), crop_mask(mask, framing, 2)):
            assert chunk.shape[1:] == (64, 48, 3) and masks.shape == chunk.shape[:3]
