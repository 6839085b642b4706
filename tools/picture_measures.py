"""How alike two pictures are, with nothing to download: PSNR, SSIM, and a distance of edges at several scales."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from expportrait.proxy.image_filters import gaussian

SIGMA, REACH = 1.5, 5  # of SSIM's window, pixels
LUMA, CONTRAST = 0.01**2, 0.03**2
STEADY = 0.0026  # GMSD's constant 170, for pictures in 0..1
SCALES = (0.096, 0.596, 0.289, 0.019)  # weights of MS-GMSD


def psnr(result: Tensor, truth: Tensor, mask: Tensor | None = None) -> Tensor:
    """[t] dB between pictures [t, 3, H, W] in 0..1, where mask [t, 1, H, W] is 1 or everywhere."""
    mask = torch.ones_like(truth[:, :1]) if mask is None else mask
    error = ((result - truth).square().mean(1, keepdim=True) * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp(min=1)
    return -10 * error.clamp(min=1e-10).log10()


def ssim(result: Tensor, truth: Tensor) -> Tensor:
    """[t] structural similarity of pictures [t, 3, H, W], mean of the channels, where the window fits (Wang et al. 2004)."""
    mean, other = gaussian(result, SIGMA), gaussian(truth, SIGMA)
    variance = gaussian(result * result, SIGMA) - mean.square()
    variance_other = gaussian(truth * truth, SIGMA) - other.square()
    shared = gaussian(result * truth, SIGMA) - mean * other
    light = (2 * mean * other + LUMA) / (mean.square() + other.square() + LUMA)
    alike = light * (2 * shared + CONTRAST) / (variance + variance_other + CONTRAST)
    return alike[..., REACH:-REACH, REACH:-REACH].mean((1, 2, 3))


def edge_distance(result: Tensor, truth: Tensor) -> Tensor:
    """[t] multi-scale gradient magnitude similarity deviation of pictures [t, 3, H, W]: 0 for equal ones, larger is worse.

    Luma only. Xue et al., "Gradient Magnitude Similarity Deviation", IEEE TIP 2014; scales and their weights: Zhang et al.,
    "Gradient Magnitude Similarity Deviation on Multiple Scales", ICASSP 2017.
    """
    weights = truth.new_tensor([0.299, 0.587, 0.114])[None, :, None, None]
    result, truth = ((picture * weights).sum(1, keepdim=True) for picture in (result, truth))
    total = torch.zeros(len(truth), device=truth.device)
    for weight in SCALES:
        result, truth = F.avg_pool2d(result, 2), F.avg_pool2d(truth, 2)
        first, second = _strength(result), _strength(truth)
        alike = (2 * first * second + STEADY) / (first.square() + second.square() + STEADY)
        total = total + weight * alike.flatten(1).var(1, correction=0)
    return total.sqrt()


def _strength(picture: Tensor) -> Tensor:
    """Magnitude of Prewitt's gradients of [t, 1, H, W]."""
    across = picture.new_tensor([[1.0, 0.0, -1.0]]).repeat(3, 1)[None, None] / 3
    padded = F.pad(picture, [1] * 4, mode="replicate")
    return (F.conv2d(padded, across).square() + F.conv2d(padded, across.mT).square() + 1e-12).sqrt()
