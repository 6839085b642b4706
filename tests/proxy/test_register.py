import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import PARTS
from expportrait.proxy.image_filters import gaussian, gradient
from expportrait.proxy.landmark_points import FACE_OVAL
from expportrait.proxy.lighting import fit_light, shade
from expportrait.proxy.refine.observe import Observer
from expportrait.proxy.refine.register import Registration, SkinLandmarks, sample_face
from expportrait.proxy.refine.settings import RefineSettings
from expportrait.proxy.warp2d import sample_pixels

sys.path.insert(0, str(Path(__file__).parent))
from painted_head import make_track  # noqa: E402

SIDE, YAWS = 160, (-0.25, -0.1, 0.1, 0.25)
FRAMES = len(YAWS)
FAST = RefineSettings(levels=(2.0, 1.0))


@pytest.fixture(scope="module")
def observer(model):
    """A turning head with detections that lie on it exactly."""
    track = make_track(model, SIDE, SIDE, YAWS)
    bare = Observer(model, track)
    vertices = bare.posed(slice(0, FRAMES), torch.zeros(1, len(bare.skin.vertices), 3))
    return Observer(model, dataclasses.replace(track, landmarks=track.camera.project(model.landmarks.points(vertices, model.faces))))


def without(observer: Observer) -> torch.Tensor:
    return torch.zeros(1, len(observer.skin.vertices), 3)


def millimetre(observer: Observer) -> float:
    """In pixels, at the face."""
    view = observer.view(slice(0, 1), without(observer))
    face = observer.model.regions["face"][observer.skin.vertices] > 0.5
    return 1e-3 * observer.track.focal / float(-view.points[0, face, 2].mean())


def detected(observer: Observer, landmarks: torch.Tensor) -> Observer:
    return Observer(observer.model, dataclasses.replace(observer.track, landmarks=landmarks))


def registration_of(observer: Observer, **settings) -> Registration:
    return Registration(observer, dataclasses.replace(FAST, **settings), lambda part: without(observer))


class Still(Frames):
    """Grey pictures without any detail: all that moves the skin are landmarks and ties."""

    def chunks(self, size=16):
        for start in range(0, len(self), size):
            yield torch.full((min(size, len(self) - start), 3, self.height, self.width), 0.5)


def still(track) -> Still:
    return Still(len(track), track.width, track.height, 25.0)


# Landmarks


def test_landmarks_on_the_skin_leave_out_the_outline_and_other_parts(model, observer):
    chosen = SkinLandmarks(observer, FAST)
    assert not set(chosen.index.tolist()) & set(FACE_OVAL)
    assert (model.parts[model.landmarks.triangle[chosen.index]] == PARTS.index("skin")).all() and len(chosen.index) > 300
    view = observer.view(slice(0, FRAMES), without(observer))
    away, _ = chosen.residuals(slice(0, FRAMES), view.points)
    assert away.abs().max() < 1e-5


def test_the_skin_follows_its_landmarks(observer):
    """All detections lie 1 mm further to the picture's right: so does the skin, and the mean of the frames takes it."""
    moved = detected(observer, observer.track.landmarks + torch.tensor([millimetre(observer), 0.0]))
    registration = registration_of(moved, landmark=1e-4)
    registration.run(still(moved.track), {}, lambda count: None)
    view = moved.view(slice(0, FRAMES), registration.offsets(slice(0, FRAMES)))
    after = registration._landmarks.residuals(slice(0, FRAMES), view.points)[0].norm(dim=-1)
    plain = moved.view(slice(0, FRAMES), without(moved))
    before = registration._landmarks.residuals(slice(0, FRAMES), plain.points)[0].norm(dim=-1)
    assert before.mean() == pytest.approx(1e-3, rel=0.1) and after.mean() < 0.5 * before.mean()
    change = view.points - plain.points
    at = registration._landmarks.corners.flatten().unique()
    facing = plain.seen.amin(0)[at] > 0.9
    assert change[:, at][:, facing, 0].mean() == pytest.approx(1e-3, rel=0.3)


def test_far_off_landmarks_are_not_believed(observer):
    """Detections of something else, as far as the face is wide."""
    moved = detected(observer, observer.track.landmarks + 60)
    registration = registration_of(moved)
    registration.run(still(moved.track), {}, lambda count: None)
    assert registration.offsets(slice(None)).norm(dim=-1).max() < 1e-4


def test_landmarks_of_one_frame_move_that_frame(observer):
    landmarks = observer.track.landmarks.clone()
    landmarks[2, :, 0] += millimetre(observer)
    registration = registration_of(detected(observer, landmarks), landmark=1e-4)
    registration.run(still(observer.track), {}, lambda count: None)
    near = registration._landmarks.corners.flatten().unique()
    size = registration.shifts[:, near].norm(dim=-1).mean(1)
    assert size[2] > 2 * size[[0, 1, 3]].max()


def test_the_distance_of_the_landmarks_is_logged_and_falls(observer):
    """First as fitted, in pixels, then before each round."""
    pixels = 1.5 * millimetre(observer)
    moved = detected(observer, observer.track.landmarks + torch.tensor([pixels, 0.0]))
    log = {}
    registration_of(moved, landmark=1e-4).run(still(moved.track), log, lambda count: None)
    assert len(log["landmarks"]) == 1 + len(FAST.levels) and log["landmarks"][0] == pytest.approx(pixels, rel=1e-3)
    assert log["landmarks"][-1] < 0.6 * pixels


# Ties


def test_frames_without_a_face_are_tied_to_none(model, observer):
    track = dataclasses.replace(observer.track, valid=torch.tensor([True, False, True, True]))
    registration = registration_of(Observer(model, track), strain=0.2, strain_step=0.1)
    assert registration._ties.tolist() == pytest.approx([0, 0, 0, 4, 0])


# Light and pictures


def test_lights_of_several_frames_are_those_of_each_alone(generator):
    normals = torch.nn.functional.normalize(torch.randn(3, 500, 3, generator=generator), dim=-1)
    albedo = torch.rand(500, 3, generator=generator)
    colour = albedo * (0.7 + 0.2 * normals) + 0.05 * torch.randn(3, 500, 3, generator=generator)
    weight = torch.rand(3, 500, generator=generator)
    together = fit_light(colour, albedo, normals, weight)
    shading = shade(together, normals)
    for t in range(3):
        alone = fit_light(colour[t], albedo, normals[t], weight[t])
        assert torch.allclose(together[t], alone, atol=1e-5)
        assert torch.allclose(shading[t], shade(alone, normals[t]), atol=1e-5)


def test_light_is_weighed_by_the_area_of_the_skin(model, observer):
    """Light counts a patch by its size on the face, however finely the mesh divides it."""
    registration = registration_of(observer)
    skin = observer.skin
    area = torch.from_numpy(skin.mass()).float()
    face = registration.face == 1
    ratio = (registration._lit / area)[face]
    assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-4)
    assert registration._lit[registration.face == 0].abs().max() == 0
    # Dense vertices that are painted darker pull the light down less than their number would.
    dense = face & (area < area[face].median())
    assert registration._lit[dense].sum() < 0.5 * registration._lit[face].sum() < registration._lit[face & ~dense].sum()


@pytest.mark.parametrize("blur", [1.0, 4.0])
def test_pictures_of_the_face_alone_are_those_of_the_whole(generator, blur):
    images = torch.rand(2, 3, 60, 80, generator=generator)
    pixels = torch.rand(2, 100, 2, generator=generator) * torch.tensor([30.0, 40.0]) + torch.tensor([55.0, -5.0])
    weight = torch.ones(2, 100)
    whole = gaussian(images, blur)
    whole = torch.cat([whole, gradient(whole)], 1)
    expected = sample_pixels(whole, pixels.mT[..., None])[..., 0].mT
    assert torch.allclose(sample_face(images, pixels, weight, blur, True), expected, atol=1e-5)
    assert torch.allclose(sample_face(images, pixels, weight, blur, False), expected[..., :3], atol=1e-5)
