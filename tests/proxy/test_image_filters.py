import torch

from expportrait.proxy.image_filters import gaussian, gradient


def test_blur_and_gradient_of_a_ramp():
    x = torch.arange(40.0)
    ramp = (3 * x[None, :] - 2 * x[:, None])[None, None]
    slopes = gradient(gaussian(ramp, 1.5))[0, :, 10:-10, 10:-10]
    assert torch.allclose(slopes[0], torch.tensor(3.0), atol=1e-4) and torch.allclose(slopes[1], torch.tensor(-2.0), atol=1e-4)
