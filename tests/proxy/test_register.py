import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import PARTS
from expportrait.proxy.landmark_points import FACE_OVAL
from expportrait.proxy.lighting import fit_light, shade
from expportrait.proxy.refine.observe import Observer
from expportrait.proxy.refine.register import (
    CHUNK,
    TOLERANCE,
    Membrane,
    Pins,
    Registration,
    SkinLandmarks,
    Ties,
    gaussian,
    gradient,
    sample_face,
    solve_shifts,
)
from expportrait.proxy.refine.settings import RefineSettings
from expportrait.proxy.refine.surface import Skin, control_basis
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


def test_ties_take_out_flicker_and_keep_what_moves_as_a_whole(model, generator):
    """Frames of several chunks that are each told another shift: one of the whole skin that jumps, and noise of each vertex."""
    skin = Skin.of(model, model.stencil @ model.template)
    count, frames = len(skin.vertices), 2 * CHUNK
    data, rounds = 1e6, 6
    whole = torch.tensor([5e-4, -3e-4]).expand(frames, 1, 2).clone()
    whole[CHUNK + 2 :] += 1e-3
    told = whole + 5e-4 * torch.randn(frames, count, 2, generator=generator)
    blocks = data * torch.eye(2).expand(CHUNK, count, 2, 2)

    def solved(tie: float) -> list[torch.Tensor]:
        weight = torch.full((frames + 1,), tie)
        weight[0] = weight[-1] = 0
        membrane = Membrane(skin, 0.3, 0.1, data)
        shifts, after = torch.zeros(frames, count, 2), []
        for _ in range(rounds):
            for start in range(0, frames, CHUNK):
                part = slice(start, start + CHUNK)
                ties = Ties(weight[start : start + CHUNK + 1], shifts[max(start - 1, 0)], shifts[min(start + CHUNK, frames - 1)])
                right = data * (told[part] - shifts[part])
                shifts[part] += solve_shifts(membrane, blocks, right, shifts[part], ties=ties)
            after.append(shifts.clone())
        return after

    tied = solved(9.0)
    free, steady = ((field - whole).diff(dim=0).square().mean((1, 2)).sqrt() for field in (solved(0.0)[-1], tied[-1]))
    assert steady.mean() < 0.6 * free.mean() and steady[CHUNK - 1] < 0.6 * free[CHUNK - 1]
    assert torch.allclose(tied[-1].mean(1), told.mean(1), atol=3e-5)
    moves = [float((b - a).square().mean().sqrt()) for a, b in zip(tied, tied[1:])]
    assert moves[-1] < 0.02 * float(tied[0].square().mean().sqrt())


def test_frames_without_a_face_are_tied_to_none(model, observer):
    track = dataclasses.replace(observer.track, valid=torch.tensor([True, False, True, True]))
    registration = registration_of(Observer(model, track), strain=0.2, strain_step=0.1)
    assert registration._ties.tolist() == pytest.approx([0, 0, 0, 4, 0])


# The system


def test_shifts_with_landmarks_and_ties_solve_the_dense_system(model, generator):
    skin = Skin.of(model, model.stencil @ model.template)
    place = (model.stencil @ model.template)[skin.vertices]
    tip = place[place[:, 2].argmax()]
    keep = ((place - tip).norm(dim=1) < 0.012)[skin.faces].all(1)
    vertices, faces = torch.unique(skin.faces[keep], return_inverse=True)
    small = Skin(skin.vertices[vertices], faces, skin.hats[keep], skin.area[keep], skin.normals[vertices])
    count, frames, landmarks = len(vertices), 2, 7
    assert 30 < count < 400
    rows = 300 * torch.randn(frames, count, 3, 2, generator=generator)
    blocks, right = rows.mT @ rows, torch.randn(frames, count, 2, generator=generator)
    present = 1e-3 * torch.randn(frames, count, 2, generator=generator)
    corners = small.faces[torch.randint(len(small.faces), (landmarks,), generator=generator)]
    pulls = 1000 * torch.randn(frames, landmarks, 2, 6, generator=generator)
    pins = Pins(corners, pulls.mT @ pulls, torch.randn(frames, landmarks, 6, generator=generator))
    outside = 1e-3 * torch.randn(2, count, 2, generator=generator)
    ties = Ties(torch.tensor([2.0, 5.0, 3.0]), *outside)
    membrane = Membrane(small, 0.3, 0.004, float(blocks.diagonal(dim1=-2, dim2=-1).mean()))
    found = solve_shifts(membrane, blocks, right, present, pins, ties, steps=400, tolerance=1e-12)

    size = frames * count * 2
    at = torch.arange(size).view(frames, count, 2)
    system, side = np.zeros((size, size)), np.zeros(size)
    stiffness = membrane.apply(torch.eye(count)).double().numpy()
    for t in range(frames):
        for axis in (0, 1):
            own = at[t, :, axis].numpy()
            system[np.ix_(own, own)] += stiffness
            side[own] -= stiffness @ present[t, :, axis].double().numpy()
        for v in range(count):
            own = at[t, v].numpy()
            system[np.ix_(own, own)] += blocks[t, v].double().numpy()
            side[own] += right[t, v].double().numpy()
        for landmark in range(landmarks):
            own = at[t, corners[landmark]].flatten().numpy()
            system[np.ix_(own, own)] += pins.blocks[t, landmark].double().numpy()
            side[own] += pins.right[t, landmark].double().numpy()
    stretch = membrane.stretch(torch.eye(count)).double().numpy()
    for first, second, weight in ((None, 0, 2), (0, 1, 5), (1, None, 3)):
        now = [outside[0 if second == 0 else 1] if t is None else present[t] for t in (first, second)]
        for axis in (0, 1):
            pull = weight * stretch @ (now[1] - now[0])[:, axis].double().numpy()
            own = [None if t is None else at[t, :, axis].numpy() for t in (first, second)]
            for place, sign in zip(own, (1, -1)):
                if place is not None:
                    side[place] += sign * pull
                    system[np.ix_(place, place)] += weight * stretch
            if first is not None and second is not None:
                system[np.ix_(own[0], own[1])] -= weight * stretch
                system[np.ix_(own[1], own[0])] -= weight * stretch
    exact = torch.from_numpy(np.linalg.solve(system, side)).view(frames, count, 2)
    assert (found - exact).norm() < 1e-3 * exact.norm()


def test_shifts_of_the_control_mesh_solve_the_system_of_the_skin(model, generator):
    """Few coefficients and data at some vertices only: nothing of the whole skin's residual is left that they could take."""
    skin = Skin.of(model, model.stencil @ model.template)
    basis = control_basis(model, skin)
    count, controls, frames = *basis.shape, 3
    some = (model.regions["face"][skin.vertices] > 0).nonzero()[:, 0]
    rows = torch.zeros(frames, count, 3, 2)
    trust = torch.rand(frames, len(some), 1, 1, generator=generator)
    rows[:, some] = 3000 * trust * torch.randn(frames, len(some), 3, 2, generator=generator)
    blocks = rows.mT @ rows
    right = (rows.mT @ torch.randn(frames, count, 3, 1, generator=generator))[..., 0]
    ties = Ties(torch.tensor([100.0, 100, 100, 0]), *torch.zeros(2, controls, 2))
    present = torch.zeros(frames, controls, 2)
    diagonal = blocks.diagonal(dim1=-2, dim2=-1).mean((0, -1))[some]
    membrane = Membrane(skin, 0.3, 0.004, diagonal, basis, some)

    def left_over(tolerance: float) -> tuple[torch.Tensor, float]:
        found = solve_shifts(membrane, blocks[:, some], right[:, some], present, ties=ties, tolerance=tolerance)
        shifts = torch.from_numpy(basis @ found.transpose(0, 1).flatten(1).double().numpy()).float().unflatten(1, (frames, 2))  # [S, t, 2]
        strain = whole.stretch((ties.matrix() @ shifts).flatten(1)) + whole.apply(shifts.flatten(1))
        forces = (right - (blocks @ shifts.transpose(0, 1)[..., None])[..., 0]).transpose(0, 1).flatten(1) - strain
        start = basis.T @ right.transpose(0, 1).flatten(1).double().numpy()
        return found, float(np.linalg.norm(basis.T @ forces.double().numpy()) / np.linalg.norm(start))

    whole = Membrane(skin, 0.3, 0.004, 1.0)
    exact, residual = left_over(1e-9)
    assert residual < 1e-3
    # The preconditioner knows the ties and where the data is: the default tolerance is enough, and takes few steps.
    assert (left_over(TOLERANCE)[0] - exact).norm() < 0.1 * exact.norm()


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
