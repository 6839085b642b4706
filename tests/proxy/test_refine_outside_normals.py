"""Normal maps as estimators give them, rendered from a known head in every convention, against a rougher plain fit."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.refine.outside_depth import depth_targets
from expportrait.proxy.refine.outside_normals import camera_normals
from expportrait.proxy.rotation import to_matrix

sys.path.insert(0, str(Path(__file__).parent))
from estimator_views import SIZE, YAWS, Views, fit_track, inner, render, true_track  # noqa: E402
from painted_head import make_track  # noqa: E402

FLIPS = {"opengl": (1, 1, 1), "directx": (1, -1, 1), "opencv": (1, -1, -1), "x": (-1, 1, 1), "xy": (-1, -1, 1), "z": (1, 1, -1)}


@pytest.fixture(scope="module")
def seen(model):
    return render(model, true_track(model))


@pytest.fixture(scope="module")
def fit(model):
    return render(model, fit_track(model))


def encode(normals, signs=(1, 1, 1), background=(0.0, 0.0, 0.0)):
    """As an estimator's picture, in eight bits."""
    empty = normals.square().sum(-1, keepdim=True) < 0.5
    colours = (normals * torch.tensor(signs, dtype=torch.float32) + 1) / 2
    return torch.where(empty, torch.tensor(background), colours).mul(255).round() / 255


def found_normals(images, fit, convention="auto"):
    """Normals [T, 3, H, W] and weight [T, 1, H, W] of all frames."""
    parts = [values for _, *values in camera_normals(images, fit, convention).chunks()]
    return tuple(torch.cat(values) for values in zip(*parts))


def degrees(found, expected, chosen):
    """Mean angle between found [T, 3, H, W] and expected [T, H, W, 3] over the chosen pixels [T, H, W]."""
    cosine = (found.permute(0, 2, 3, 1) * expected).sum(-1)[chosen]
    return float(cosine.clamp(-1, 1).acos().rad2deg().mean())


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("background", [(0.0, 0.0, 0.0), (0.5, 0.5, 1.0), (0.5, 0.5, 0.5)])
def test_the_signs_of_a_normal_map_are_found(seen, fit, flip, background):
    normals, weight = found_normals(encode(seen.normals, FLIPS[flip], background), fit)
    assert normals.shape == (4, 3, SIZE, SIZE) and weight.shape == (4, 1, SIZE, SIZE)
    both = seen.mask & fit.mask
    assert degrees(normals, seen.normals, both) < 0.3
    assert (weight[:, 0][inner(both)] > 0.999).float().mean() > 0.999
    outside = fit.mask & (seen.distance == 0)
    assert not weight[:, 0][~fit.mask].any()
    if background == (0.5, 0.5, 1.0):
        assert (weight[:, 0][outside] > 0).float().mean() < 0.2  # the rim beside the head is not five pixels wide everywhere
    else:
        assert not weight[:, 0][outside].any()


def test_a_stated_convention_is_used_and_checked(seen, fit):
    normals, _ = found_normals(encode(seen.normals, FLIPS["directx"]), fit, "directx")
    assert degrees(normals, seen.normals, seen.mask & fit.mask) < 0.3
    with pytest.raises(ValueError, match=r"is directx, not opengl \(mean cosine .* 0\.9\d as directx.*\); choose directx"):
        camera_normals(encode(seen.normals, FLIPS["directx"]), fit, "opengl")
    with pytest.raises(ValueError, match="is opencv, not opengl .*; choose auto$"):
        camera_normals(encode(seen.normals, FLIPS["opencv"]), fit, "opengl")
    with pytest.raises(ValueError, match="no normal convention 'blender'; choose auto, opengl or directx"):
        camera_normals(encode(seen.normals), fit, "blender")


@pytest.mark.parametrize("size", [131, 250, 518])
def test_normals_of_another_size_land_within_a_degree(model, seen, fit, size):
    other = render(model, true_track(model), size)
    normals, weight = found_normals(encode(other.normals), fit)
    mean = F.avg_pool2d(seen.normals.permute(0, 3, 1, 2), 3, 1, 1).norm(dim=1)
    chosen = inner(seen.mask & fit.mask & (mean > 0.97), 1)  # off the outline and the nose's, where a pixel sees two surfaces
    assert chosen.sum() > 0.7 * seen.mask.sum()
    assert degrees(normals, seen.normals, chosen) < 0.7
    length = normals.norm(dim=1)[weight[:, 0] > 0]
    torch.testing.assert_close(length, torch.ones_like(length))


def test_signed_floats_noise_holes_and_alpha(seen, fit, generator):
    both = seen.mask & fit.mask
    noisy = seen.normals + 0.05 * torch.randn(seen.normals.shape, generator=generator)
    normals, _ = found_normals(noisy * torch.tensor([1.0, -1.0, 1.0]), fit)
    assert degrees(normals, seen.normals, both) < 5  # of its own noise

    images = encode(seen.normals)
    hole = torch.zeros(4, SIZE, SIZE, dtype=torch.bool)
    hole[:, 80:110, 80:90] = True
    images[hole] = torch.nan
    images[0] = torch.inf
    images[1] = 0
    images = torch.cat([images, torch.ones_like(images[..., :1])], -1)
    normals, weight = found_normals(images, fit)
    assert not weight[:2].any() and not weight[:, 0][hole].any() and not normals[:2].any()
    assert normals.isfinite().all()
    assert degrees(normals, seen.normals, both & ~hole & (torch.arange(4) > 1)[:, None, None]) < 0.3
    half = F.interpolate(images.permute(0, 3, 1, 2), size=(97, 97)).permute(0, 2, 3, 1)
    resized, weight = found_normals(half, fit)
    assert resized.isfinite().all() and weight.isfinite().all() and weight[2:].any()


def test_a_frame_that_disagrees_is_left_out(seen, fit):
    images = encode(seen.normals)
    images[2] = encode(seen.normals, (-1, -1, 1))[2]
    _, weight = found_normals(images, fit)
    assert weight.flatten(1).any(1).tolist() == [True, True, False, True]


def test_one_map_serves_all_frames(seen, fit):
    still = fit.at(torch.ones(3, dtype=torch.int64))
    still = Views(still.normals, still.distance, still.covered)
    normals, weight = found_normals(encode(seen.normals[1:2]), still)
    assert normals.shape == (3, 3, SIZE, SIZE) and weight.flatten(1).any(1).all()
    torch.testing.assert_close(normals[0], normals[2])


def turned(normals, vector):
    return normals @ to_matrix(torch.tensor(vector)).mT


def test_normals_of_other_axes_are_refused(model, seen, fit):
    with pytest.raises(ValueError, match=r"not in camera space: one rotation by (4\d|50) degrees .* cosine of 0\.9.*world-space"):
        camera_normals(encode(turned(seen.normals, [0.0, 0.8, 0.0])), fit)
    with pytest.raises(ValueError, match=r"not in camera space: red, green and blue hold x, -z and y"):
        camera_normals(encode(turned(seen.normals, [math.pi / 2, 0.0, 0.0])), fit)
    with pytest.raises(ValueError, match=r"not in camera space: red, green and blue hold z, y and x"):
        camera_normals(encode(seen.normals.flip(-1)), fit)
    head = to_matrix(make_track(model, SIZE, SIZE, (-0.9, -0.5, 0.5, 0.9)).joints[:, JOINTS.index("head")])
    moved = render(model, make_track(model, SIZE, SIZE, (-0.9, -0.5, 0.5, 0.9)))
    own = torch.einsum("tji,thwj->thwi", head, moved.normals)
    with pytest.raises(ValueError, match=r"not in camera space: a rotation of its own in every frame, by \d\d degrees"):
        camera_normals(encode(own), moved)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_fit_whose_pose_is_twelve_degrees_off_is_no_other_axes(model, seen, axis):
    track = make_track(model, SIZE, SIZE, YAWS)
    joints = track.joints.clone()
    joints[:, JOINTS.index("head"), axis] += 0.2
    rough = render(model, dataclasses.replace(track, joints=joints))
    normals, weight = found_normals(encode(seen.normals, FLIPS["directx"]), rough)
    assert degrees(normals, seen.normals, seen.mask & rough.mask) < 0.3
    assert weight.flatten(1).any(1).all()


def test_maps_that_tell_nothing_are_refused(seen, fit, generator):
    noise = F.normalize(torch.randn(4, 60, 60, 3, generator=generator), dim=-1)
    with pytest.raises(ValueError, match=r"does not agree with the fit \(mean.* as opengl, .* as directx.*0\.8 is needed.*connect"):
        camera_normals((noise + 1) / 2, fit)
    flat = torch.zeros(4, 60, 60, 3)
    flat[..., 2], flat[..., 0] = 1, 0.02 * torch.rand(4, 60, 60, generator=generator)
    frontal = fit.normals[..., 2] > 0.85
    with pytest.raises(ValueError, match=r"too flat to tell its convention .*-?0\.\d\d in red, .*choose opengl or directx"):
        camera_normals((F.normalize(flat, dim=-1) + 1) / 2, fit.within(fit.mask & frontal))
    black = torch.zeros(4, 60, 60, 3)
    nan = black.clone()
    nan[:2] = torch.nan
    mask = fit.mask.clone()
    mask[3] = False
    with pytest.raises(
        ValueError,
        match=r"no frame of the normal map can be used \(frames 0 to 1: no finite value; frame 3: nothing inside the mask; "
        r"frame 2: no vector of length 1 on the face\); connect",
    ):
        camera_normals(nan, fit.within(mask))


@pytest.mark.parametrize("estimate", ["normal", "depth"])
def test_maps_of_another_number_or_shape_are_refused(seen, fit, estimate):
    def give(images):
        if estimate == "normal":
            return camera_normals(images, fit)
        return depth_targets(images, fit)

    with pytest.raises(ValueError, match=f"{estimate} map has 3 frames, but the track has 4"):
        give(encode(seen.normals)[:3])
    with pytest.raises(ValueError, match=f"{estimate} map has 192 x 96 pixels, .* the frames' 192 x 192"):
        give(encode(seen.normals)[:, :96])
    with pytest.raises(ValueError, match=rf"expected a {estimate} map of shape \[T, H, W, C\], found \[192, 192, 3\]"):
        give(encode(seen.normals)[0])
    with pytest.raises(ValueError, match="2 channels"):
        give(encode(seen.normals)[..., :2])
