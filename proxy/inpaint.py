"""Pull-push: fills what a weight image leaves open with a smooth continuation of what is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SUMMED = 4  # radius from which a blur is made of running sums, which round more in small windows


def pull_push(image: Tensor, weight: Tensor) -> Tensor:
    """Fills an image [B, C, H, W] where weight [B, 1, H, W] (0..1) is below 1; where it is 1 the image stays exactly.

    Weighted averages are pulled up a pyramid until they meet and pushed down again where weight is missing (Gortler et
    al., The Lumigraph, 1996). An image of weight 0 everywhere becomes 0.
    """
    levels = [(image * weight, weight)]
    while max(levels[-1][0].shape[-2:]) > 1:
        colour, known = levels[-1]
        pad = (0, colour.shape[-1] % 2, 0, colour.shape[-2] % 2)
        total = 4 * F.avg_pool2d(F.pad(known, pad), 2)
        scale = total.clamp(max=1) / total.clamp(min=1e-12)
        levels.append((4 * F.avg_pool2d(F.pad(colour, pad), 2) * scale, total.clamp(max=1)))
    filled = levels[-1][0] / levels[-1][1].clamp(min=1e-12)
    for colour, known in reversed(levels[:-1]):
        filled = F.interpolate(filled, size=colour.shape[-2:], mode="bilinear", align_corners=False)
        filled = colour + (1 - known) * filled
    return torch.where(weight >= 1, image, filled)


def dilate(mask: Tensor, radius: int) -> Tensor:
    """Largest value within `radius` pixels (a square window), [B, 1, H, W]."""
    rows = F.max_pool2d(mask, (2 * radius + 1, 1), 1, (radius, 0))
    return F.max_pool2d(rows, (1, 2 * radius + 1), 1, (0, radius))


def box_blur(image: Tensor, radius: int) -> Tensor:
    """Mean over a square window of `radius` pixels, the border repeated, [B, C, H, W]."""
    if radius < 1:
        return image
    if radius < SUMMED:
        image = F.pad(image, (radius, radius, radius, radius), mode="replicate")
        return F.avg_pool2d(F.avg_pool2d(image, (2 * radius + 1, 1), 1), (1, 2 * radius + 1), 1)
    return _running_mean(_running_mean(image.mT, radius).mT, radius)


def _running_mean(image: Tensor, radius: int) -> Tensor:
    """Mean over 2 * radius + 1 pixels of a row, as differences of running sums: the same work for any radius."""
    sums = F.pad(image, (radius + 1, radius, 0, 0), mode="replicate").cumsum(-1)
    width = image.shape[-1]
    return (sums.narrow(-1, 2 * radius + 1, width) - sums.narrow(-1, 0, width)) / (2 * radius + 1)
