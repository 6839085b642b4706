"""The networks against MediaPipe's own points, and what every network of ours has to keep."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut, chelsea

from expportrait.proxy.landmarks import landmarker as module
from expportrait.proxy.landmarks import load_landmarker
from expportrait.proxy.landmarks.face_detector import detect_in
from expportrait.proxy.landmarks.regions import cut, region_matrix, to_image, whole_image

REFERENCE = Path(__file__).parent / "data/mediapipe_points.npz"


@pytest.fixture(scope="module")
def landmarker():
    return load_landmarker()


def picture(array) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)[None].float() / 255


def reference() -> tuple[torch.Tensor, torch.Tensor]:
    """MediaPipe's crops [3, 3, 192, 192] and its points [3, 478, 3] on them (tools/make_landmark_reference.py)."""
    stored = np.load(REFERENCE)
    return torch.from_numpy(stored["crops"]).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(stored["points"])


def test_mesh_gives_mediapipes_points_on_its_crops(landmarker):
    crops, theirs = reference()
    ours, score = landmarker.mesh(crops)
    assert score.min() > 0.99
    distance = (ours - theirs).norm(dim=-1)  # z too
    assert distance.mean() < 0.01
    assert distance.max() < 0.1


def test_a_batch_gives_what_single_crops_give(landmarker):
    crops = torch.cat([reference()[0], torch.rand(2, 3, 192, 192, generator=torch.Generator().manual_seed(0))])
    together, scores = landmarker.mesh(crops)
    alone = [landmarker.mesh(crop[None]) for crop in crops]
    assert torch.allclose(together, torch.cat([points for points, _ in alone]), atol=1e-2)
    assert torch.allclose(scores, torch.cat([score for _, score in alone]), atol=1e-4)


def test_mesh_scores_tell_a_face_from_noise(landmarker):
    noise = torch.rand(4, 3, 192, 192, generator=torch.Generator().manual_seed(1))
    assert landmarker.mesh(noise)[1].max() < 0.1


def test_mesh_refuses_other_sizes(landmarker):
    with pytest.raises(ValueError, match="192"):
        landmarker.mesh(torch.rand(1, 3, 128, 128))


def test_detector_finds_the_eyes(landmarker):
    found = landmarker.detect(picture(astronaut()))[0]
    assert len(found) == 1
    # The irises of the subject's right and left eye, read off the picture; the detector is coarse (its face is 94 pixels wide).
    eyes = torch.tensor([[203.5, 101.5], [246.5, 103.5]])
    assert (found.keypoints[0, :2] - eyes).norm(dim=-1).max() < 8
    assert found.score[0] > 0.8


def test_detections_are_sorted_by_size_and_follow_the_picture(landmarker):
    small = torch.nn.functional.interpolate(picture(astronaut()[:300, 60:360]), scale_factor=0.7, mode="bilinear", antialias=True)
    wide = torch.zeros(1, 3, 300, 620)
    wide[..., :300, :300] = picture(astronaut()[:300, 60:360])
    wide[..., 40:250, 380:590] = small
    found = landmarker.detect(wide, faces=2)[0]
    assert len(found) == 2
    assert found.boxes[0, 2] > found.boxes[1, 2]
    assert found.boxes[0, 0] < 300 < found.boxes[1, 0]


def test_full_range_detector_agrees_with_short_range(landmarker):
    image, whole = picture(astronaut()), whole_image(512, 512)
    near = detect_in(landmarker._near, image, whole, 0.5)[0]
    far = detect_in(landmarker._far, image, whole, 0.5)[0]
    assert len(near) == len(far) == 1
    assert (near.keypoints[0, :2] - far.keypoints[0, :2]).norm(dim=-1).max() < 10


def test_segmentation_separates_the_astronaut_from_the_background(landmarker):
    mask = landmarker.segment(picture(astronaut()))[0]
    assert mask.shape == (512, 512)
    assert mask[60:180, 190:260].mean() > 0.95  # face
    assert mask[350:480, 120:330].mean() > 0.9  # suit
    assert mask[10:120, 10:100].mean() < 0.1  # flag behind her


def test_a_crop_and_the_way_back_agree():
    """A bright dot at a known place appears where the inverse of `to_image` says."""
    image = torch.zeros(1, 1, 200, 300)
    image[..., 99:102, 149:152] = 1  # centred on (150.5, 100.5)
    region = torch.tensor([[140.0, 90.0, 120.0, 0.6]])
    crop = cut(image, region, 96)[0, 0]
    y, x = torch.meshgrid(torch.arange(96) + 0.5, torch.arange(96) + 0.5, indexing="ij")
    centre = torch.stack([(crop * x).sum(), (crop * y).sum()]) / crop.sum()
    assert torch.allclose(to_image(centre[None, None], region, 96)[0, 0], torch.tensor([150.5, 100.5]), atol=0.05)
    assert torch.allclose(region_matrix(region, 96)[0, :, :2].det(), torch.tensor((120 / 96) ** 2))


def test_shrinking_averages_instead_of_skipping_pixels():
    checks = (torch.arange(800)[:, None] + torch.arange(800)) % 2
    crop = cut(checks[None, None].float(), torch.tensor([[400.0, 400.0, 800.0, 0.0]]), 100)
    assert (crop - 0.5).abs().max() < 1e-5


@pytest.fixture
def unloaded():
    """No landmarker is loaded before the test, nor left over from it."""
    module._load_landmarker.cache_clear()
    yield
    module._load_landmarker.cache_clear()


def test_a_device_has_one_landmarker_that_cannot_be_changed(landmarker):
    assert load_landmarker(torch.device("cpu")) is load_landmarker("cpu") is load_landmarker()
    assert load_landmarker().device == torch.device("cpu")
    assert load_landmarker("meta") is not load_landmarker("cpu")
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_landmarker().device = torch.device("meta")
    nets = (landmarker._near, landmarker._far, landmarker._mesh, landmarker._person)
    before = [value.clone() for net in nets for value in net.state_dict().values()]
    landmarker.detect(picture(astronaut()))
    landmarker.mesh(reference()[0])
    landmarker.segment(picture(astronaut()))
    after = [value for net in nets for value in net.state_dict().values()]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True)), "looking at pictures leaves the weights as they are"


def test_missing_weights_are_told_every_time(unloaded, monkeypatch, tmp_path):
    with monkeypatch.context() as patch:
        patch.setattr(module, "WEIGHTS", tmp_path / "landmarks.safetensors")
        for _ in range(2):
            with pytest.raises(FileNotFoundError, match="landmarks.safetensors is missing; install the package again"):
                load_landmarker()
    assert load_landmarker().mesh(reference()[0])[1].min() > 0.99


def test_works_inside_inference_mode_and_leaves_gradients_usable(unloaded):
    with torch.inference_mode():
        landmarker = load_landmarker()
        points, _ = landmarker.mesh(reference()[0])
        assert landmarker.detect(picture(chelsea())) is not None
    assert not any(value.is_inference() for value in landmarker._mesh.parameters())
    weight = torch.ones(3, requires_grad=True)
    (points.clone() * weight).sum().backward()
    assert weight.grad.abs().sum() > 0
