import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from bench_pocket import held_out, mouth_box, swap  # noqa: E402
from picture_measures import edge_distance, psnr, ssim  # noqa: E402

from expportrait.dit.pocket.conditions import CONTROL  # noqa: E402
from expportrait.proxy.image_filters import gaussian  # noqa: E402


@pytest.fixture
def picture(generator):
    return gaussian(torch.rand(2, 3, 96, 80, generator=generator), 2.0).sub(0.5).mul(6).add(0.5).clamp(0, 1)


def test_psnr_counts_masked_pixels_alone(picture):
    mask = torch.zeros(2, 1, 96, 80)
    mask[..., :40] = 1
    assert torch.allclose(psnr(picture + 0.1, picture), torch.tensor(20.0))
    assert torch.allclose(psnr(picture + 0.1 * mask, picture, mask), torch.tensor(20.0))
    assert (psnr(picture + 0.1 * mask, picture, 1 - mask) == 100).all()


def test_ssim_is_that_of_scikit_image(picture, generator):
    metrics = pytest.importorskip("skimage.metrics")
    noisy = (picture + 0.1 * torch.randn(picture.shape, generator=generator)).clamp(0, 1)
    theirs = [
        metrics.structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(noisy, picture)
    ]
    assert torch.allclose(ssim(noisy, picture), torch.tensor(theirs), atol=1e-3)
    assert torch.allclose(ssim(picture, picture), torch.ones(2))


def test_edge_distance_grows_with_blur_and_not_with_light(picture):
    blurred = [edge_distance(gaussian(picture, sigma), picture) for sigma in (0.5, 1.0, 3.0)]
    assert (blurred[0] > 0).all() and (blurred[1] > blurred[0]).all() and (blurred[2] > blurred[1]).all()
    assert edge_distance(picture, picture).max() < 1e-6
    assert (edge_distance(0.9 * picture + 0.05, picture) < 0.3 * blurred[1]).all()


def test_swapping_takes_the_named_channels_alone(generator):
    first, second = torch.rand(2, 2, CONTROL, 4, 4, generator=generator)
    swapped = swap(first, second, "normals", "regions")
    assert torch.equal(swapped[:, 4:10], second[:, 4:10])
    assert torch.equal(swapped[:, :4], first[:, :4]) and torch.equal(swapped[:, 10:], first[:, 10:])


def test_mouth_box_is_upright_around_lips_and_mouth():
    control = torch.zeros(1, CONTROL, 100, 100)
    control[0, 7, 60, 40:60] = 1  # lips
    control[0, 8, 70, 50] = 1  # mouth
    control[0, 9, 20, 20] = 1  # an eye
    rows, columns = mouth_box(control)[0, 0].nonzero().unbind(1)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (57, 73, 37, 62)
    assert len(rows) == 17 * 26


def test_held_out_people_come_person_by_person(model, monkeypatch):
    monkeypatch.setattr("bench_pocket.PEOPLE", 2)
    with torch.inference_mode():
        batch = held_out(model, 64)
    assert batch["control"].shape == (4, CONTROL, 64, 64) and batch["reference"].shape[0] == 4
    assert torch.equal(batch["reference"][0], batch["reference"][1]) and not torch.equal(batch["reference"][1], batch["reference"][2])
