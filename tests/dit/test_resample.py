import pytest
import torch
import torch.nn.functional as F

from expportrait.dit.resample import CUBIC, LINEAR, resample_box


def noise(generator, *shape):
    return torch.rand(shape, generator=generator)


@pytest.mark.parametrize("order", [CUBIC, LINEAR])
def test_a_box_of_whole_pixels_at_its_own_size_is_a_cut(generator, order):
    images = noise(generator, 2, 40, 50, 3)
    assert torch.equal(resample_box(images, (7, 5, 20, 30), (20, 30), order), images[:, 5:35, 7:27])


@pytest.mark.parametrize("order", [CUBIC, LINEAR])
def test_outside_the_picture_its_edge_goes_on(generator, order):
    images = noise(generator, 1, 20, 30, 3)
    out = resample_box(images, (-10, -4, 50, 28), (50, 28), order)
    expected = F.pad(images.permute(0, 3, 1, 2), (10, 10, 4, 4), mode="replicate").permute(0, 2, 3, 1)
    assert torch.equal(out, expected)


@pytest.mark.parametrize("order", [CUBIC, LINEAR])
@pytest.mark.parametrize("size", [(13, 11), (64, 48), (90, 31)])
def test_a_ramp_stays_a_ramp(order, size):
    x = (torch.arange(80) + 0.5) / 80
    images = x.expand(1, 60, 80)[..., None]
    box = (20.3, 10.7, 31.5, 22.25)
    out = resample_box(images, box, size, order)
    places = (box[0] + (torch.arange(size[0]) + 0.5) * box[2] / size[0]) / 80
    assert torch.allclose(out[0, :, :, 0], places.expand(size[1], -1), atol=2e-3)


def test_shrinking_does_not_alias():
    stripes = (torch.arange(256) % 2).float().expand(1, 8, 256)[..., None]
    assert resample_box(stripes, (0, 0, 256, 8), (37, 8)).std() < 0.02


def test_agrees_with_torch_on_an_enlargement(generator):
    images = noise(generator, 1, 12, 16, 3)
    expected = F.interpolate(images.permute(0, 3, 1, 2), scale_factor=3, mode="bicubic", antialias=True).permute(0, 2, 3, 1).clamp(0, 1)
    inner = (slice(None), slice(6, -6), slice(6, -6))  # torch does not repeat the border
    assert torch.allclose(resample_box(images, (0, 0, 16, 12), (48, 36))[inner], expected[inner], atol=1e-5)
