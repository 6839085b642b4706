"""Blurs and fills."""

import pytest
import torch
import torch.nn.functional as F

from expportrait.proxy.inpaint import SUMMED, box_blur, dilate, pull_push


@pytest.mark.parametrize("radius", [1, SUMMED - 1, SUMMED, 19, 60])
def test_box_blur_is_the_mean_of_a_square_window(generator, radius):
    image = torch.rand(2, 3, 37, 50, generator=generator)
    padded = F.pad(image, [radius] * 4, mode="replicate")
    windows = padded.unfold(2, 2 * radius + 1, 1).unfold(3, 2 * radius + 1, 1)
    assert torch.allclose(box_blur(image, radius), windows.mean((-1, -2)), atol=2e-5)


@pytest.mark.parametrize("radius", [2, SUMMED])
def test_box_blur_lets_gradients_through(generator, radius):
    image = torch.rand(1, 1, 9, 7, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: box_blur(x, radius), image)


def test_no_radius_changes_nothing(generator):
    image = torch.rand(1, 2, 5, 5, generator=generator)
    assert torch.equal(box_blur(image, 0), image)


def test_dilation_takes_the_largest_value_around(generator):
    mask = torch.zeros(1, 1, 9, 9)
    mask[..., 4, 4] = 1
    assert dilate(mask, 2).sum() == 25


def test_filling_keeps_what_is_known_and_continues_it(generator):
    image = torch.full((1, 1, 8, 8), 0.25)
    weight = torch.zeros(1, 1, 8, 8)
    weight[..., 2:4, 2:4] = 1
    image[..., 5, 5] = 9
    filled = pull_push(image, weight)
    assert torch.equal(filled[..., 2:4, 2:4], image[..., 2:4, 2:4])
    assert torch.allclose(filled, torch.full_like(filled, 0.25))
