"""Enlarging a small picture by the detail of a large one that shows nearly the same."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ...proxy.inpaint import box_blur

RADIUS = 2  # pixels of the small picture
FLAT = 1e-4  # variance below which the guide tells nothing
GAINS = (0.0, 1.5)  # how far detail of the guide may be weakened or strengthened


def guided_upsample(picture: Tensor, guide: Tensor) -> Tensor:
    """Picture [B, 3, h, w] enlarged to the size of its guide [B, 3, H, W], whose fine detail it takes where the two agree.

    Fast guided filter, each channel by its own (He and Sun, arXiv 1505.00996): around each pixel the picture is a gain times the guide
    plus an offset; both are enlarged and applied to the large guide. What the filter does not explain is added, so that nothing of
    the picture is lost. A guide of the picture's size gives the picture itself.
    """
    size = guide.shape[-2:]
    small = shrink(guide, picture.shape[-2:])
    mean_guide, mean = box_blur(small, RADIUS), box_blur(picture, RADIUS)
    variance = box_blur(small * small, RADIUS) - mean_guide.square()
    covariance = box_blur(small * picture, RADIUS) - mean_guide * mean
    gain = ((covariance + FLAT) / (variance.clamp(min=0) + FLAT)).clamp(*GAINS)
    gain = box_blur(gain, RADIUS)
    rest = picture - gain * small
    return (enlarge(gain, size) * guide + enlarge(rest, size)).clamp(0, 1)


def shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images [B, C, H, W] at another size, averaged where that is smaller."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)


def enlarge(images: Tensor, size: tuple[int, int]) -> Tensor:
    return images if images.shape[-2:] == size else F.interpolate(images, size=size, mode="bilinear", align_corners=False)
