"""Depth maps as estimators give them, rendered from a known head in every convention, against a rougher plain fit."""

import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.refine.outside_depth import depth_targets, scale_shift

sys.path.insert(0, str(Path(__file__).parent))
from estimator_views import fit_track, inner, render, true_track  # noqa: E402


@pytest.fixture(scope="module")
def seen(model):
    return render(model, true_track(model))


@pytest.fixture(scope="module")
def fit(model):
    return render(model, fit_track(model))


def inverse_picture(distance, far=0.0):
    """Relative inverse depth of a whole clip, near is white."""
    near = torch.where(distance > 0, 1 / distance.clamp(min=0.1), torch.zeros_like(distance))
    low, high = near[near > 0].min(), near.max()
    return torch.where(near > 0, 0.2 + 0.8 * (near - low) / (high - low), torch.full_like(near, far))[..., None]


def metric_picture(distance, far=0.0):
    return torch.where(distance > 0, distance, torch.full_like(distance, far))[..., None]


def found_depth(images, fit, convention="auto"):
    """Distance and weight [T, H, W] of all frames."""
    return depth_targets(images, fit, convention).at(torch.arange(fit.count))


PICTURES = {
    "inverse": inverse_picture,
    "metric": metric_picture,
    "inverted inverse": lambda distance: 1 - inverse_picture(distance),
    "inverted metric": lambda distance: 2 - metric_picture(distance),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_any_depth_of_the_fit_itself_comes_back(fit, kind):
    distance, weight = found_depth(PICTURES[kind](fit.distance), fit)
    assert distance.shape == weight.shape == fit.distance.shape
    assert (weight[fit.mask] == 1).all() and not weight[~fit.mask].any()
    assert (distance - fit.distance)[fit.mask].abs().max() < 2e-4


@pytest.mark.parametrize("kind", ["inverse", "metric"])
@pytest.mark.parametrize("stated", [False, True])
def test_relief_of_a_depth_map_is_kept(seen, fit, kind, stated, generator):
    """What comes back is the person's relief, up to the scale and shift that a plain fit can tell."""
    images = PICTURES[kind](seen.distance)
    noise = 0.002 * torch.randn(images.shape, generator=generator)
    distance, weight = found_depth((images + noise).expand(-1, -1, -1, 3), fit, kind if stated else "auto")
    both = seen.mask & fit.mask
    value, target = (1 / distance.clamp(min=0.1), 1 / seen.distance.clamp(min=0.1)) if kind == "inverse" else (distance, seen.distance)
    used = (weight > 0.5) & both
    assert used[both].float().mean() > 0.97
    scale, shift = scale_shift(value, target, used.float())
    assert ((scale - 1).abs() < 0.15).all()
    error = (scale[:, None, None] * value + shift[:, None, None] - target)[used]
    error = error * (0.75**2 if kind == "inverse" else 1)  # metres
    assert error.abs().mean() < (0.0006 if kind == "inverse" else 0.0025)
    assert (distance - fit.distance)[used].abs().mean() < 0.006


@pytest.mark.parametrize("size", [131, 250, 385])
def test_depth_of_another_size_lands_within_a_millimetre(model, fit, size):
    other = render(model, fit_track(model), size)
    distance, weight = found_depth(inverse_picture(other.distance), fit)
    chosen = inner(fit.mask, 4)
    assert (weight[chosen] > 0.9).all()
    assert (distance - fit.distance)[chosen].abs().mean() < 1e-3


def test_a_hand_and_holes_in_a_depth_map(fit):
    images = inverse_picture(fit.distance)
    hidden = torch.zeros_like(fit.mask)
    hidden[:, 60:100, 70:100] = True
    images[hidden] = 1.4  # a hand well before the face
    images[:, 100:104] = torch.nan
    images[1] = torch.nan
    images[2] = 0.3
    distance, weight = found_depth(images, fit)
    assert not weight[hidden].any() and not weight[:, 100:104].any() and not weight[1:3].any()
    rest = fit.mask & ~hidden & (weight > 0)
    assert rest[[0, 3]].sum() > 0.6 * fit.mask[[0, 3]].sum()
    assert (distance - fit.distance)[rest].abs().max() < 5e-4
    assert distance.isfinite().all()


def test_depth_maps_that_do_not_fit_are_refused(fit, generator):
    noise = torch.rand(4, 50, 50, 1, generator=generator)
    with pytest.raises(ValueError, match=r"does not follow the fitted face: the correlation with its nearness is at best -?0\.\d\d"):
        depth_targets(noise, fit)
    with pytest.raises(ValueError, match=r"near is white in the depth map \(correlation 1\.00.* is not metric; choose inverse or auto"):
        depth_targets(inverse_picture(fit.distance), fit, "metric")
    with pytest.raises(ValueError, match=r"near is dark in the depth map \(correlation -1\.00.* is not inverse; choose metric or auto"):
        depth_targets(metric_picture(fit.distance), fit, "inverse")
    with pytest.raises(ValueError, match="no depth convention 'linear'; choose auto, inverse or metric"):
        depth_targets(noise, fit, "linear")
    coloured = torch.cat([noise, 1 - noise, noise.square()], -1)
    with pytest.raises(ValueError, match=r"coloured \(its channels differ by 0\.\d\d on average\); connect the estimator's grey"):
        depth_targets(coloured, fit)
    flat = torch.full((4, 50, 50, 1), 0.5)
    flat[0] = torch.nan
    mask = fit.mask.clone()
    mask[1] = False
    with pytest.raises(
        ValueError,
        match=r"no frame of the depth map can be used \(frame 0: no finite value; frame 1: nothing inside the mask; "
        r"frames 2 to 3: fewer than 50 pixels of different values on the face\)",
    ):
        depth_targets(flat, fit.within(mask))


def test_scale_and_shift_are_the_least_squares_ones(generator):
    prediction = torch.rand(3, 5, 7, generator=generator, dtype=torch.float64)
    target = torch.rand(3, 5, 7, generator=generator, dtype=torch.float64)
    weight = torch.rand(3, 5, 7, generator=generator, dtype=torch.float64)
    scale, shift = scale_shift(prediction, target, weight)
    for t in range(3):
        root = weight[t].flatten().sqrt()
        rows = torch.stack([prediction[t].flatten(), torch.ones(35, dtype=torch.float64)], 1) * root[:, None]
        expected = torch.linalg.lstsq(rows, (target[t].flatten() * root)[:, None]).solution[:, 0]
        torch.testing.assert_close(torch.stack([scale[t], shift[t]]), expected)
    inputs = [x.requires_grad_() for x in (prediction, target, weight)]
    assert torch.autograd.gradcheck(lambda *x: torch.stack(scale_shift(*x)), inputs)


def test_scale_and_shift_of_nothing_are_finite():
    flat = torch.full((2, 9), 3.0, requires_grad=True)
    weight = torch.stack([torch.ones(9), torch.zeros(9)])
    scale, shift = scale_shift(flat, torch.arange(18.0).view(2, 9), weight)
    assert scale.tolist() == [0, 0] and shift.tolist() == [4, 0]
    (scale.sum() + shift.sum()).backward()
    assert flat.grad.isfinite().all()
