"""Normal and depth maps as estimators give them, rendered from a known head in every convention, against a rougher plain fit."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.inpaint import dilate, pull_push
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.posing import Shot, Stage, camera_space
from expportrait.proxy.refine.outside_depth import depth_targets, scale_shift
from expportrait.proxy.refine.outside_normals import camera_normals
from expportrait.proxy.refine.person import check_person_mask, person_silhouette, silhouette_weight
from expportrait.proxy.render_interior import part_vertices
from expportrait.proxy.rotation import to_matrix
from expportrait.proxy.warp2d import sample_pixels

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track  # noqa: E402

SIZE = 192
YAWS = (-0.5, -0.2, 0.1, 0.4)
FLIPS = {"opengl": (1, 1, 1), "directx": (1, -1, 1), "opencv": (1, -1, -1), "x": (-1, 1, 1), "xy": (-1, -1, 1), "z": (1, 1, -1)}


@dataclasses.dataclass
class Views:
    normals: torch.Tensor  # [T, H, W, 3] unit, zero outside
    distance: torch.Tensor  # [T, H, W] metres, 0 outside
    mask: torch.Tensor  # [T, H, W] bool: the face


def render(model, track, size=SIZE) -> Views:
    camera = Camera.centred(track.focal, track.width, track.height).viewport(0, 0, track.width, track.height, size, size)
    shot = Stage(model, camera).shot(camera_space(model, track.identity, track))
    normals, distance, face = shot.pixels(shot.normals, -shot.vertices[..., 2:], model.regions["face"][None, :, None])
    face = shot.raster.scatter(face)[..., 0] > 0.5
    return Views(shot.raster.scatter(F.normalize(normals, dim=-1)), shot.raster.scatter(distance)[..., 0], face)


@pytest.fixture(scope="module")
def truth(model):
    """The person's own head: another identity than the plain fit's, and two degrees off its pose."""
    generator = torch.Generator().manual_seed(3)
    track = make_track(model, SIZE, SIZE, YAWS)
    joints = track.joints.clone()
    joints[:, JOINTS.index("head")] += torch.tensor([0.03, 0.02, 0.0])
    identity = 0.6 * torch.randn(track.identity.shape, generator=generator)
    return dataclasses.replace(track, identity=identity, joints=joints)


@pytest.fixture(scope="module")
def seen(model, truth):
    return render(model, truth)


@pytest.fixture(scope="module")
def fit(model):
    return render(model, make_track(model, SIZE, SIZE, YAWS))


def encode(normals, signs=(1, 1, 1), background=(0.0, 0.0, 0.0)):
    """As an estimator's picture, in eight bits."""
    empty = normals.square().sum(-1, keepdim=True) < 0.5
    colours = (normals * torch.tensor(signs, dtype=torch.float32) + 1) / 2
    return torch.where(empty, torch.tensor(background), colours).mul(255).round() / 255


def degrees(found, expected, chosen):
    """Mean angle between found [T, 3, H, W] and expected [T, H, W, 3] over the chosen pixels [T, H, W]."""
    cosine = (found.permute(0, 2, 3, 1) * expected).sum(-1)[chosen]
    return float(cosine.clamp(-1, 1).acos().rad2deg().mean())


def inner(mask, radius=3):
    return -F.max_pool2d(-mask[:, None].float(), 2 * radius + 1, 1, radius)[:, 0] > 0.5


@pytest.mark.parametrize("flip", FLIPS)
@pytest.mark.parametrize("background", [(0.0, 0.0, 0.0), (0.5, 0.5, 1.0), (0.5, 0.5, 0.5)])
def test_the_signs_of_a_normal_map_are_found(seen, fit, flip, background):
    normals, weight = camera_normals(encode(seen.normals, FLIPS[flip], background), fit.normals, fit.mask)
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
    normals, _ = camera_normals(encode(seen.normals, FLIPS["directx"]), fit.normals, fit.mask, "directx")
    assert degrees(normals, seen.normals, seen.mask & fit.mask) < 0.3
    with pytest.raises(ValueError, match=r"is directx, not opengl \(mean cosine .* 0\.9\d as directx.*\); choose directx"):
        camera_normals(encode(seen.normals, FLIPS["directx"]), fit.normals, fit.mask, "opengl")
    with pytest.raises(ValueError, match="is opencv, not opengl .*; choose auto$"):
        camera_normals(encode(seen.normals, FLIPS["opencv"]), fit.normals, fit.mask, "opengl")
    with pytest.raises(ValueError, match="no normal convention 'blender'; choose auto, opengl or directx"):
        camera_normals(encode(seen.normals), fit.normals, fit.mask, "blender")


@pytest.mark.parametrize("size", [131, 250, 518])
def test_normals_of_another_size_land_within_a_degree(model, truth, seen, fit, size):
    other = render(model, truth, size)
    normals, weight = camera_normals(encode(other.normals), fit.normals, fit.mask)
    mean = F.avg_pool2d(seen.normals.permute(0, 3, 1, 2), 3, 1, 1).norm(dim=1)
    chosen = inner(seen.mask & fit.mask & (mean > 0.97), 1)  # off the outline and the nose's, where a pixel sees two surfaces
    assert chosen.sum() > 0.7 * seen.mask.sum()
    assert degrees(normals, seen.normals, chosen) < 0.7
    length = normals.norm(dim=1)[weight[:, 0] > 0]
    torch.testing.assert_close(length, torch.ones_like(length))


def test_signed_floats_noise_holes_and_alpha(seen, fit, generator):
    both = seen.mask & fit.mask
    noisy = seen.normals + 0.05 * torch.randn(seen.normals.shape, generator=generator)
    normals, _ = camera_normals(noisy * torch.tensor([1.0, -1.0, 1.0]), fit.normals, fit.mask)
    assert degrees(normals, seen.normals, both) < 5  # of its own noise

    images = encode(seen.normals)
    hole = torch.zeros(4, SIZE, SIZE, dtype=torch.bool)
    hole[:, 80:110, 80:90] = True
    images[hole] = torch.nan
    images[0] = torch.inf
    images[1] = 0
    images = torch.cat([images, torch.ones_like(images[..., :1])], -1)
    normals, weight = camera_normals(images, fit.normals, fit.mask)
    assert not weight[:2].any() and not weight[:, 0][hole].any() and not normals[:2].any()
    assert normals.isfinite().all()
    assert degrees(normals, seen.normals, both & ~hole & (torch.arange(4) > 1)[:, None, None]) < 0.3
    half = F.interpolate(images.permute(0, 3, 1, 2), size=(97, 97)).permute(0, 2, 3, 1)
    resized, weight = camera_normals(half, fit.normals, fit.mask)
    assert resized.isfinite().all() and weight.isfinite().all() and weight[2:].any()


def test_a_frame_that_disagrees_is_left_out(seen, fit):
    images = encode(seen.normals)
    images[2] = encode(seen.normals, (-1, -1, 1))[2]
    _, weight = camera_normals(images, fit.normals, fit.mask)
    assert weight.flatten(1).any(1).tolist() == [True, True, False, True]


def test_one_map_serves_all_frames(seen, fit):
    still = fit.normals[1:2].expand(3, -1, -1, -1)
    normals, weight = camera_normals(encode(seen.normals[1:2]), still, fit.mask[1:2].expand(3, -1, -1))
    assert normals.shape == (3, 3, SIZE, SIZE) and weight.flatten(1).any(1).all()
    torch.testing.assert_close(normals[0], normals[2])


def turned(normals, vector):
    return normals @ to_matrix(torch.tensor(vector)).mT


def test_normals_of_other_axes_are_refused(model, seen, fit):
    with pytest.raises(ValueError, match=r"not in camera space: one rotation by (4\d|50) degrees .* cosine of 0\.9.*world-space"):
        camera_normals(encode(turned(seen.normals, [0.0, 0.8, 0.0])), fit.normals, fit.mask)
    with pytest.raises(ValueError, match=r"not in camera space: red, green and blue hold x, -z and y"):
        camera_normals(encode(turned(seen.normals, [math.pi / 2, 0.0, 0.0])), fit.normals, fit.mask)
    with pytest.raises(ValueError, match=r"not in camera space: red, green and blue hold z, y and x"):
        camera_normals(encode(seen.normals.flip(-1)), fit.normals, fit.mask)
    head = to_matrix(make_track(model, SIZE, SIZE, (-0.9, -0.5, 0.5, 0.9)).joints[:, JOINTS.index("head")])
    moved = render(model, make_track(model, SIZE, SIZE, (-0.9, -0.5, 0.5, 0.9)))
    own = torch.einsum("tji,thwj->thwi", head, moved.normals)
    with pytest.raises(ValueError, match=r"not in camera space: a rotation of its own in every frame, by \d\d degrees"):
        camera_normals(encode(own), moved.normals, moved.mask)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_fit_whose_pose_is_twelve_degrees_off_is_no_other_axes(model, seen, axis):
    track = make_track(model, SIZE, SIZE, YAWS)
    joints = track.joints.clone()
    joints[:, JOINTS.index("head"), axis] += 0.2
    rough = render(model, dataclasses.replace(track, joints=joints))
    normals, weight = camera_normals(encode(seen.normals, FLIPS["directx"]), rough.normals, rough.mask)
    assert degrees(normals, seen.normals, seen.mask & rough.mask) < 0.3
    assert weight.flatten(1).any(1).all()


def test_maps_that_tell_nothing_are_refused(seen, fit, generator):
    noise = F.normalize(torch.randn(4, 60, 60, 3, generator=generator), dim=-1)
    with pytest.raises(ValueError, match=r"does not agree with the fit \(mean.* as opengl, .* as directx.*0\.8 is needed.*connect"):
        camera_normals((noise + 1) / 2, fit.normals, fit.mask)
    flat = torch.zeros(4, 60, 60, 3)
    flat[..., 2], flat[..., 0] = 1, 0.02 * torch.rand(4, 60, 60, generator=generator)
    frontal = fit.normals[..., 2] > 0.85
    with pytest.raises(ValueError, match=r"too flat to tell its convention .*-?0\.\d\d in red, .*choose opengl or directx"):
        camera_normals((F.normalize(flat, dim=-1) + 1) / 2, fit.normals, fit.mask & frontal)
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
        camera_normals(nan, fit.normals, mask)


@pytest.mark.parametrize("estimate", ["normal", "depth"])
def test_maps_of_another_number_or_shape_are_refused(seen, fit, estimate):
    def give(images):
        if estimate == "normal":
            return camera_normals(images, fit.normals, fit.mask)
        return depth_targets(images, fit.distance, fit.mask)

    with pytest.raises(ValueError, match=f"{estimate} map has 3 frames, but the track has 4"):
        give(encode(seen.normals)[:3])
    with pytest.raises(ValueError, match=f"{estimate} map has 192 x 96 pixels, .* the frames' 192 x 192"):
        give(encode(seen.normals)[:, :96])
    with pytest.raises(ValueError, match=rf"expected a {estimate} map of shape \[T, H, W, C\], found \[192, 192, 3\]"):
        give(encode(seen.normals)[0])
    with pytest.raises(ValueError, match="2 channels"):
        give(encode(seen.normals)[..., :2])


def inverse_picture(distance, far=0.0):
    """Relative inverse depth of a whole clip, near is white."""
    near = torch.where(distance > 0, 1 / distance.clamp(min=0.1), torch.zeros_like(distance))
    low, high = near[near > 0].min(), near.max()
    return torch.where(near > 0, 0.2 + 0.8 * (near - low) / (high - low), torch.full_like(near, far))[..., None]


def metric_picture(distance, far=0.0):
    return torch.where(distance > 0, distance, torch.full_like(distance, far))[..., None]


PICTURES = {
    "inverse": inverse_picture,
    "metric": metric_picture,
    "inverted inverse": lambda distance: 1 - inverse_picture(distance),
    "inverted metric": lambda distance: 2 - metric_picture(distance),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_any_depth_of_the_fit_itself_comes_back(fit, kind):
    distance, weight = depth_targets(PICTURES[kind](fit.distance), fit.distance, fit.mask)
    assert distance.shape == weight.shape == fit.distance.shape
    assert (weight[fit.mask] == 1).all() and not weight[~fit.mask].any()
    assert (distance - fit.distance)[fit.mask].abs().max() < 2e-4


@pytest.mark.parametrize("kind", ["inverse", "metric"])
@pytest.mark.parametrize("stated", [False, True])
def test_relief_of_a_depth_map_is_kept(seen, fit, kind, stated, generator):
    """What comes back is the person's relief, up to the scale and shift that a plain fit can tell."""
    images = PICTURES[kind](seen.distance)
    noise = 0.002 * torch.randn(images.shape, generator=generator)
    distance, weight = depth_targets((images + noise).expand(-1, -1, -1, 3), fit.distance, fit.mask, kind if stated else "auto")
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
    other = render(model, make_track(model, SIZE, SIZE, YAWS), size)
    distance, weight = depth_targets(inverse_picture(other.distance), fit.distance, fit.mask)
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
    distance, weight = depth_targets(images, fit.distance, fit.mask)
    assert not weight[hidden].any() and not weight[:, 100:104].any() and not weight[1:3].any()
    rest = fit.mask & ~hidden & (weight > 0)
    assert rest[[0, 3]].sum() > 0.6 * fit.mask[[0, 3]].sum()
    assert (distance - fit.distance)[rest].abs().max() < 5e-4
    assert distance.isfinite().all()


def test_depth_maps_that_do_not_fit_are_refused(fit, generator):
    noise = torch.rand(4, 50, 50, 1, generator=generator)
    with pytest.raises(ValueError, match=r"does not follow the fitted face: the correlation with its nearness is at best -?0\.\d\d"):
        depth_targets(noise, fit.distance, fit.mask)
    with pytest.raises(ValueError, match=r"near is white in the depth map \(correlation 1\.00.* is not metric; choose inverse or auto"):
        depth_targets(inverse_picture(fit.distance), fit.distance, fit.mask, "metric")
    with pytest.raises(ValueError, match=r"near is dark in the depth map \(correlation -1\.00.* is not inverse; choose metric or auto"):
        depth_targets(metric_picture(fit.distance), fit.distance, fit.mask, "inverse")
    with pytest.raises(ValueError, match="no depth convention 'linear'; choose auto, inverse or metric"):
        depth_targets(noise, fit.distance, fit.mask, "linear")
    coloured = torch.cat([noise, 1 - noise, noise.square()], -1)
    with pytest.raises(ValueError, match=r"coloured \(its channels differ by 0\.\d\d on average\); connect the estimator's grey"):
        depth_targets(coloured, fit.distance, fit.mask)
    flat = torch.full((4, 50, 50, 1), 0.5)
    flat[0] = torch.nan
    mask = fit.mask.clone()
    mask[1] = False
    with pytest.raises(
        ValueError,
        match=r"no frame of the depth map can be used \(frame 0: no finite value; frame 1: nothing inside the mask; "
        r"frames 2 to 3: fewer than 50 pixels of different values on the face\)",
    ):
        depth_targets(flat, fit.distance, mask)


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


# The silhouette: the head with hair, clothes and a body of other colours around it


SKIN, HAIR, CLOTH, WALL = (0.75, 0.55, 0.45), (0.12, 0.08, 0.06), (0.1, 0.2, 0.5), (0.35, 0.5, 0.4)


@dataclasses.dataclass
class Portrait:
    shot: Shot
    frames: torch.Tensor  # [t, 3, H, W]
    person: torch.Tensor  # [t, H, W]


def portrait(model, yaws=(0.0,), size=256, long_hair=False, wider=0) -> Portrait:
    """Shaded skin before a wall, a cap of hair over the scalp, at will locks down to the neck, and clothes on the shoulders.

    `wider`: pixels by which the person is broader than the head that the shot shows.
    """
    track = make_track(model, size, size, yaws)
    stage = Stage(model, Camera.centred(track.focal, size, size))
    shot = stage.shot(camera_space(model, track.identity, track))
    shade = 0.55 + 0.45 * (shot.normals @ F.normalize(torch.tensor([0.4, 0.3, 0.8]), dim=0)).clamp(min=0)
    painted, scalp, shoulders = shot.pixels(
        shade[..., None] * torch.tensor(SKIN), model.regions["scalp"][None, :, None], model.regions["shoulders"][None, :, None]
    )
    image = shot.raster.scatter(painted).permute(0, 3, 1, 2)
    mask = shot.raster.mask[:, None].float()
    scalp, shoulders = (shot.raster.scatter((x > 0.5).float()).permute(0, 3, 1, 2) for x in (scalp, shoulders))
    body = dilate(mask, wider) if wider else mask
    image = pull_push(image, mask)  # the skin goes on in what is wider
    hair = dilate(scalp, 10)
    if long_hair:
        rows = torch.arange(size)[:, None]
        below = (rows > 0.35 * size) & (rows < 0.9 * size)
        hair = torch.maximum(hair, (dilate(mask, 10) - mask).clamp(0) * below)
        hair[:, :, round(0.9 * size) :] = 0
    head = torch.where(hair > 0, torch.tensor(HAIR)[:, None, None], image)
    head = torch.where(shoulders > 0, torch.tensor(CLOTH)[:, None, None], head)
    person = torch.maximum(body, hair)
    return Portrait(shot, torch.where(person > 0, head, torch.tensor(WALL)[:, None, None]), person[:, 0])


def outline(model, shot, *regions):
    """Vertices [t, V] bool of the regions that lie on the outline of the picture's head."""
    rim = shot.facing.abs() < 0.2
    mask = shot.raster.mask[:, None].float()
    edge = dilate(1 - mask, 2)  # around the outline, on both sides
    near = sample_pixels(edge, shot.stage.camera.project(shot.vertices).mT[..., None])[:, 0, :, 0] > 0.5
    region = torch.stack([model.regions[name] for name in regions]).amax(0) > 0.9
    return rim & near & region & part_vertices(model, "skin")


def mean_weight(model, made, *regions):
    weight = silhouette_weight(made.shot, made.frames, made.person)
    assert weight.shape == made.shot.facing.shape and weight.min() >= 0 and weight.max() <= 1
    chosen = outline(model, made.shot, *regions)
    assert chosen.sum() > 20
    return float(weight[chosen].mean())


def test_the_outline_of_skin_is_pulled_and_that_of_hair_and_clothes_is_not(model):
    made = portrait(model)
    assert mean_weight(model, made, "face", "neck") > 0.9
    assert mean_weight(model, made, "ears") > 0.5
    assert mean_weight(model, made, "scalp") < 0.02
    assert mean_weight(model, made, "shoulders") < 0.02


@pytest.mark.parametrize("wider", [4, 8])
def test_a_broader_face_pulls_the_outline_as_far_as_it_is_skin(model, wider):
    assert mean_weight(model, portrait(model, wider=wider), "face", "neck") > 0.85


def test_a_narrower_face_pulls_the_outline_inwards(model):
    made = portrait(model)
    narrow = 1 - dilate(1 - made.person[:, None], 5)
    wall = torch.tensor(WALL)[:, None, None]
    thin = Portrait(made.shot, torch.where(narrow > 0, made.frames, wall), narrow[:, 0])
    assert mean_weight(model, thin, "face", "neck") > 0.85


def test_hair_beside_the_face_is_no_face(model):
    made = portrait(model, long_hair=True)
    assert mean_weight(model, made, "neck") < 0.1
    assert mean_weight(model, made, "ears") < 0.1
    assert mean_weight(model, made, "face") < 0.25


def test_a_silhouette_far_away_or_absent_pulls_nothing(model):
    made = portrait(model)
    for person in (torch.ones_like(made.person), torch.zeros_like(made.person)):
        assert not silhouette_weight(made.shot, made.frames, person).any()


def test_without_colours_the_outline_of_ears_and_neck_stays(model):
    """A head seen from behind shows no skin of the face to compare with."""
    made = portrait(model, yaws=(math.pi,))
    assert mean_weight(model, made, "ears") < 0.02
    made = portrait(model)
    covered = dataclasses.replace(made, person=made.person * 0.6)  # a segmentation so unsure that no vertex counts as skin
    assert mean_weight(model, covered, "neck") < 0.02 and mean_weight(model, covered, "face") > 0.9


def test_frames_of_another_size_and_masks_in_chunks(model):
    made = portrait(model, yaws=(0.0, 0.5))
    small = F.interpolate(made.frames, scale_factor=0.75, mode="bilinear", antialias=True)
    mask = F.interpolate(made.person[:, None], scale_factor=0.75, mode="area")[:, 0]
    chosen = outline(model, made.shot, "face", "neck")
    assert silhouette_weight(made.shot, small, mask)[chosen].mean() > 0.8
    resized = person_silhouette(made.frames, None, mask)
    assert resized.shape == made.person.shape and (resized - made.person).abs().mean() < 0.02


def test_the_segmentation_is_the_default():
    picture = torch.from_numpy(data.astronaut()[:256, 96:352].copy()).permute(2, 0, 1)[None].float() / 255
    mask = person_silhouette(picture.expand(2, -1, -1, -1), load_landmarker())
    assert mask.shape == (2, 256, 256) and mask[:, 90:140, 110:150].min() > 0.8


def test_a_person_mask_is_checked_against_the_head(model):
    made = portrait(model, yaws=(0.0, 0.4))
    head = made.shot.raster.mask
    torch.testing.assert_close(check_person_mask(made.person, head), made.person)
    torch.testing.assert_close(check_person_mask(1 - made.person, head), made.person)
    small = F.interpolate(made.person[:1, None], size=(101, 101), mode="area")[:, 0]
    assert check_person_mask(small, head).shape == (2, 101, 101)
    broken = made.person.clone()
    broken[0, :4] = torch.nan
    assert check_person_mask(broken, head).isfinite().all()
    half = made.person.clone()
    half[:, :, 128:] = 0
    with pytest.raises(ValueError, match=r"covers \d\d% of the fitted head and \d+% of what is beside and above it, which is neither"):
        check_person_mask(half, head)
    other = torch.zeros_like(made.person)
    other[:, :, :30] = 1  # somebody else, at the border
    with pytest.raises(ValueError, match=r"white on the person, or none"):
        check_person_mask(other, head)
    with pytest.raises(ValueError, match=r"person mask is empty \(frames 0 to 1\); connect a mask that is white on the person"):
        check_person_mask(torch.zeros_like(made.person), head)
    with pytest.raises(ValueError, match=r"person mask has 3 frames, but the track has 2"):
        check_person_mask(made.person[:1].expand(3, -1, -1), head)
    with pytest.raises(ValueError, match=r"expected a person mask of shape \[T, H, W\], found \[256, 256\]"):
        check_person_mask(made.person[0], head)
