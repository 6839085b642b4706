"""Following a face through pictures and clips, with what can be wrong about them."""

import math

import pytest
import torch
from skimage.data import astronaut, chelsea

from expportrait.proxy.frames import Frames
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.landmarks.track import fill, follow, smooth_regions

FACE = (slice(0, 300), slice(60, 360))  # of the astronaut


@pytest.fixture(scope="module")
def landmarker():
    return load_landmarker()


@pytest.fixture(scope="module")
def face() -> torch.Tensor:
    """The astronaut's face [300, 300, 3]."""
    return torch.from_numpy(astronaut()[FACE].copy()).float() / 255


@pytest.fixture(scope="module")
def still(landmarker, face):
    return landmarker.track(Frames.from_images(face[None]))


def grey(like: torch.Tensor) -> torch.Tensor:
    return torch.full_like(like, 0.5)


def test_a_picture(still):
    assert still.points.shape == (1, 478, 3) and still.box.shape == (1, 4)
    assert still.valid.all() and still.confidence.min() > 0.99
    assert (still.width, still.height) == (300, 300)
    # Irises read off the picture; the nose is nearer than the ears.
    irises = torch.tensor([[143.5, 101.5], [186.5, 103.5]])
    assert (still.points[0, [468, 473], :2] - irises).norm(dim=-1).max() < 2
    assert still.points[0, 1, 2] < still.points[0, [234, 454], 2].min()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_points_turn_with_the_picture(landmarker, face, still, turns):
    turned = landmarker.track(Frames.from_images(torch.rot90(face, turns, (0, 1))[None])).points[0, :, :2]
    angle = -turns * math.pi / 2
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = (still.points[0, :, :2] - 150) @ matrix.T + 150
    assert (turned - expected).norm(dim=-1).mean() < 1.5


def test_points_move_with_the_picture_when_it_is_not_square(landmarker, face, still):
    wide = torch.full((1, 340, 640, 3), 0.5)
    wide[0, 30:330, 290:590] = face
    moved = landmarker.track(Frames.from_images(wide)).points[0]
    assert (moved[:, :2] - still.points[0, :, :2] - torch.tensor([290.0, 30.0])).norm(dim=-1).mean() < 1


def test_a_large_picture_gives_the_same_points(landmarker, face, still):
    large = torch.nn.functional.interpolate(face.permute(2, 0, 1)[None], scale_factor=6, mode="bilinear").permute(0, 2, 3, 1)
    points = landmarker.track(Frames.from_images(large)).points[0] / 6
    assert (points - still.points[0])[:, :2].norm(dim=-1).mean() < 1


@pytest.mark.parametrize("missing", ["interpolate", "previous", "empty"])
def test_frames_without_the_face(landmarker, face, missing):
    clip = torch.stack([grey(face), face, grey(face), grey(face), face.roll(9, 1), grey(face)])
    done = []
    result = landmarker.track(Frames.from_images(clip), missing=missing, progress=lambda *step: done.append(step))
    assert result.valid.tolist() == [False, True, False, False, True, False]
    assert (result.confidence > 0).tolist() == result.valid.tolist()
    first, last = result.points[1], result.points[4]
    assert ((last - first)[:, 0].mean() - 9).abs() < 1
    expected = {
        "interpolate": [first, first, first + (last - first) / 3, first + (last - first) * 2 / 3, last, last],
        "previous": [first, first, first, first, last, last],
        "empty": [first * 0, first, first * 0, first * 0, last, first * 0],
    }[missing]
    assert torch.allclose(result.points, torch.stack(expected), atol=1e-3)
    assert done == sorted(done) and done[-1] == (12, 12)


def test_two_faces_keep_their_index_when_their_sizes_swap(landmarker, face):
    def both(left: float, right: float) -> torch.Tensor:
        frame = torch.full((320, 640, 3), 0.5)
        for scale, x in ((left, 0), (right, 320)):
            size = round(300 * scale)
            frame[:size, x : x + size] = torch.nn.functional.interpolate(
                face.permute(2, 0, 1)[None], (size, size), mode="bilinear", antialias=True
            )[0].permute(1, 2, 0)
        return frame

    clip = Frames.from_images(torch.stack([both(1, 0.8), both(0.9, 0.9), both(0.8, 1)]))
    for index, side in ((0, 0), (1, 1)):
        found = landmarker.track(clip, face_index=index)
        assert found.valid.all()
        assert ((found.box[:, 0] > 320).long() == side).all()
    with pytest.raises(ValueError, match="face_index is 2"):
        landmarker.track(clip, face_index=2)


def test_a_face_that_leaves_the_frame(landmarker, face):
    frames = [torch.cat([face[:, shift:], grey(face)[:, :shift]], 1) for shift in (0, 60, 120, 300)]
    result = landmarker.track(Frames.from_images(torch.stack(frames), fps=4.0))
    assert result.valid[0] and not result.valid[3]
    assert result.points.isfinite().all()


@pytest.mark.parametrize(
    "picture",
    [torch.from_numpy(chelsea().copy())[None] / 255.0, torch.zeros(1, 1, 1, 3), torch.full((2, 64, 48, 3), 0.5)],
    ids=["cat", "1x1", "grey"],
)
def test_no_face_is_one_sentence(landmarker, picture):
    with pytest.raises(ValueError, match="no face was found"):
        landmarker.track(Frames.from_images(picture))


def test_wrong_arguments(landmarker, face):
    frames = Frames.from_images(face[None])
    with pytest.raises(ValueError, match="interpolate, previous, empty"):
        landmarker.track(frames, missing="skip")
    with pytest.raises(ValueError, match="face_index is -1"):
        landmarker.track(frames, face_index=-1)


def test_progress_can_cancel(landmarker, face):
    def cancel(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        landmarker.track(Frames.from_images(face[None]), progress=cancel)


def test_inside_inference_mode(landmarker, face, still):
    with torch.inference_mode():
        result = landmarker.track(Frames.from_images(face[None]))
    assert torch.allclose(result.points, still.points, atol=1e-3)


def test_follow_stays_with_the_nearest_face():
    a, b = torch.tensor([100.0, 100, 80, 0]), torch.tensor([300.0, 100, 70, 0])
    faces = [torch.zeros(0, 4), torch.stack([a, b]), torch.stack([b + 5]), torch.stack([b * 1.1, a])]
    regions, found = follow(faces, 0)
    assert found.tolist() == [False, True, False, True]
    assert torch.equal(regions[3], a)


def test_smoothing_calms_a_still_region_but_keeps_a_cut_and_a_full_turn():
    generator = torch.Generator().manual_seed(3)
    regions = torch.tensor([100.0, 100, 80, math.pi - 0.01]).repeat(40, 1)
    regions[:, 0] += torch.randn(40, generator=generator)
    regions[1::2, 3] -= 2 * math.pi - 0.02  # the same direction but for 0.02
    regions[20:, 1] += 200
    smooth = smooth_regions(regions, torch.ones(40, dtype=torch.bool), 50.0)
    assert smooth[:, 0].diff().abs().mean() < 0.4 * regions[:, 0].diff().abs().mean()
    assert torch.allclose(smooth[:, 1], regions[:, 1], atol=0.1)
    assert torch.allclose(torch.cos(smooth[:, 3]), torch.tensor(-1.0), atol=1e-3)


def test_fill_holds_the_ends():
    values, valid = torch.tensor([[0.0], [1.0], [0.0], [3.0], [0.0]]), torch.tensor([False, True, False, True, False])
    assert fill(values, valid, "interpolate")[:, 0].tolist() == [1, 1, 2, 3, 3]
    assert fill(values, valid, "previous")[:, 0].tolist() == [1, 1, 1, 3, 3]
    assert fill(values, valid, "empty")[:, 0].tolist() == [0, 1, 0, 3, 0]


def test_portraits_and_cat_of_the_shared_data(landmarker, shared_data):
    for path in sorted((shared_data / "portraits").glob("*.jpg")):
        if path.stem == "s39":  # a cat
            with pytest.raises(ValueError, match="no face was found"):
                landmarker.track(Frames.open(path))
        else:
            assert landmarker.track(Frames.open(path)).confidence[0] > 0.9, path.name
