import math

import pytest
import torch

from expportrait.proxy.camera import FAR, NEAR, Camera

CAMERAS = [Camera.centred(700, 640, 480), Camera(523.5, 300, 501, 171.25, 40.0), Camera(90, 7, 5, -3.0, 11.0)]


@pytest.fixture
def points(generator) -> torch.Tensor:
    """Points [200, 3] in front of the camera, double precision."""
    spread = torch.rand(200, 3, generator=generator, dtype=torch.float64)
    return (spread - torch.tensor([0.5, 0.5, 0.0])) * torch.tensor([1.0, 1.0, -4.0]) - torch.tensor([0, 0, 0.2])


def test_projection_by_hand():
    camera = Camera.centred(500, 640, 480)
    seen = camera.project(torch.tensor([[0.0, 0, -1], [0.1, 0, -1], [0, 0.1, -1], [0.1, 0.1, -2]]))
    # The subject's left is at the right of the picture, up is a smaller row.
    assert seen.tolist() == [[320, 240], [370, 240], [320, 190], [345, 215]]
    assert camera.field_of_view == pytest.approx(2 * math.atan(240 / 500))


@pytest.mark.parametrize("camera", CAMERAS)
def test_clip_agrees_with_projection(camera, points):
    clip = camera.clip(points)
    ndc = clip[:, :3] / clip[:, 3:]
    size = torch.tensor([camera.width, camera.height])
    # Row 0 of the image lies at y = -1.
    torch.testing.assert_close((ndc[:, :2] + 1) / 2 * size, camera.project(points))
    torch.testing.assert_close(clip[:, 3], -points[:, 2])


@pytest.mark.parametrize("camera", CAMERAS)
def test_depth(camera, points):
    ends = camera.clip(torch.tensor([[0.0, 0, -NEAR], [0, 0, -FAR]], dtype=torch.float64))
    torch.testing.assert_close(ends[:, 2] / ends[:, 3], torch.tensor([-1.0, 1.0], dtype=torch.float64))
    clip = camera.clip(points)
    zw = clip[:, 2] / clip[:, 3]
    order = points[:, 2].argsort(descending=True)
    assert (zw[order].diff() >= 0).all()
    torch.testing.assert_close(camera.inverse_depth(zw), -1 / points[:, 2])
    assert camera.inverse_depth(torch.tensor([1.0, 1.5])).tolist() == [0, 0]


@pytest.mark.parametrize("camera", CAMERAS)
@pytest.mark.parametrize("rectangle", [(10.0, 20.0, 40.0, 30.0), (-50.5, -3.0, 200.0, 150.0)])
def test_viewport_shows_the_rectangle(camera, rectangle, points):
    x, y, width, height = rectangle
    view = camera.viewport(x, y, width, height, 80, 60)
    assert (view.width, view.height) == (80, 60)
    wanted = (camera.project(points) - torch.tensor([x, y])) * (80 / width)
    torch.testing.assert_close(view.project(points), wanted)


def test_viewport_never_stretches():
    camera = CAMERAS[0]
    camera.viewport(0, 0, 100, 101, 100, 100)
    with pytest.raises(ValueError, match="same aspect ratio"):
        camera.viewport(0, 0, 100, 110, 100, 100)


def test_batches_and_gradients(points):
    camera = CAMERAS[1]
    single = points.float().requires_grad_()
    assert camera.project(single.reshape(2, 10, 10, 3)).shape == (2, 10, 10, 2)
    assert camera.clip(single).dtype == torch.float32
    (camera.project(single).sum() + camera.clip(single).sum()).backward()
    assert single.grad.abs().min() > 0
