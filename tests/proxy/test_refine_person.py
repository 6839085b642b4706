"""The silhouette: the head with hair, clothes and a body of other colours around it."""

import dataclasses
import math
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from expportrait.proxy.camera import Camera
from expportrait.proxy.inpaint import dilate, pull_push
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.posing import Shot, Stage, camera_space
from expportrait.proxy.refine.person import check_person_mask, person_silhouette, silhouette_weight
from expportrait.proxy.render_interior import part_vertices
from expportrait.proxy.warp2d import sample_pixels

sys.path.insert(0, str(Path(__file__).parent))
from estimator_views import Views  # noqa: E402
from painted_head import make_track  # noqa: E402

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
    fit = Views(made.shot.vertices, made.shot.vertices, head)  # of which the mask alone is looked at
    both = torch.arange(2)
    torch.testing.assert_close(check_person_mask(made.person, fit).at(both), made.person)
    torch.testing.assert_close(check_person_mask(1 - made.person, fit).at(both), made.person)
    small = F.interpolate(made.person[:1, None], size=(101, 101), mode="area")[:, 0]
    assert check_person_mask(small, fit).at(both).shape == (2, 101, 101)
    broken = made.person.clone()
    broken[0, :4] = torch.nan
    assert check_person_mask(broken, fit).at(both).isfinite().all()
    half = made.person.clone()
    half[:, :, 128:] = 0
    with pytest.raises(ValueError, match=r"covers \d\d% of the fitted head and \d+% of what is beside and above it, which is neither"):
        check_person_mask(half, fit)
    other = torch.zeros_like(made.person)
    other[:, :, :30] = 1  # somebody else, at the border
    with pytest.raises(ValueError, match=r"white on the person, or none"):
        check_person_mask(other, fit)
    with pytest.raises(ValueError, match=r"person mask is empty \(frames 0 to 1\); connect a mask that is white on the person"):
        check_person_mask(torch.zeros_like(made.person), fit)
    with pytest.raises(ValueError, match=r"person mask has 3 frames, but the track has 2"):
        check_person_mask(made.person[:1].expand(3, -1, -1), fit)
    with pytest.raises(ValueError, match=r"expected a person mask of shape \[T, H, W\], found \[256, 256\]"):
        check_person_mask(made.person[0], fit)
