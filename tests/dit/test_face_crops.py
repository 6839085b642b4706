import pytest
import torch

from expportrait.dit.face_crops import face_crops
from expportrait.proxy.frames import Frames


def points_at(x, y, size, angle=0.0):
    """Landmarks of a face that is a square of points."""
    side = torch.linspace(-size / 2, size / 2, 21)
    grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1).flatten(0, 1)
    points = torch.cat([grid, grid[:37]])
    points[33], points[263] = torch.tensor([-size / 3, 0.0]), torch.tensor([size / 3, 0.0])
    angle = torch.tensor(angle)
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    return points @ turn.T + torch.tensor([x, y])


def pictures():
    """Two frames of one blob pattern, small and large, at different places."""
    y, x = torch.meshgrid(torch.arange(400.0), torch.arange(600.0), indexing="ij")

    def face(cx, cy, size):
        u, v = (x - cx) / size, (y - cy) / size
        return torch.stack([blob(u, v, 8), blob(u - 0.2, v, 30), blob(u, v - 0.2, 30)], -1)

    def blob(u, v, sharp):
        return torch.exp(-sharp * (u**2 + v**2))

    images = torch.stack([face(200, 150, 120), face(380, 220, 240)])
    return Frames.from_images(images, fps=25.0), torch.stack([points_at(200, 150, 120), points_at(380, 220, 240)])


def test_place_and_size_do_not_show():
    frames, landmarks = pictures()
    crops = face_crops(frames, landmarks, [0, 1])
    assert crops.shape == (1, 2, 3, 224, 224) and crops.min() >= -1 and crops.max() <= 1
    assert (crops[0, 0] - crops[0, 1]).abs().mean() < 0.02


def test_frames_are_taken_by_number():
    frames, landmarks = pictures()
    crops = face_crops(frames, landmarks, [1, 0, 1, 1, 1])
    assert torch.equal(crops[0, 0], crops[0, 4]) and crops.shape[1] == 5


def test_a_clip_of_another_length_is_told():
    frames, landmarks = pictures()
    with pytest.raises(ValueError, match="2 frames, but its track has 1"):
        face_crops(frames, landmarks[:1], [0])
