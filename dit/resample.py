"""A rectangle of pictures, at any place and of any size, resampled to whole pixels of another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CUBIC, LINEAR = 2, 1  # taps to each side of a sample


def resample_box(images: Tensor, box: tuple[float, float, float, float], size: tuple[int, int], order: int = CUBIC) -> Tensor:
    """The rectangle `box` (x, y, width, height in pixels) of images [T, H, W, C] at `size` (width, height) -> [T, h, w, C].

    Where the box leaves the picture its border is repeated. CUBIC is Catmull-Rom's kernel (Keys 1981, a = -1/2), LINEAR the
    tent; both widened where the picture shrinks, so that nothing aliases. Values stay in 0..1. A box of whole pixels at its
    own size comes back bit by bit.
    """
    x, y, width, height = box
    left, across = _taps(images.shape[2], x, width, size[0], order)
    top, down = _taps(images.shape[1], y, height, size[1], order)
    part = images[:, top : top + down.shape[1], left : left + across.shape[1]]
    frames, rows, columns, channels = part.shape
    part = (down.to(part) @ part.reshape(frames, rows, columns * channels)).view(frames, size[1], columns, channels)
    part = part.transpose(2, 3).reshape(-1, columns) @ across.to(part).mT  # one large product is many times faster than small ones
    return part.view(frames, size[1], channels, size[0]).transpose(2, 3).clamp(0, 1).contiguous()


def _taps(count: int, start: float, extent: float, out: int, order: int) -> tuple[int, Tensor]:
    """First of the pixels that are read, and weights [out, pixels read] of each for every sample."""
    step = extent / out
    widen = max(1.0, step)
    centres = start + (torch.arange(out, dtype=torch.float64) + 0.5) * step - 0.5  # in pixel numbers
    reach = order * widen
    taps = math.ceil(2 * reach) + 1
    index = (centres - reach).ceil()[:, None] + torch.arange(taps)
    distance = (index - centres[:, None]).abs() / widen
    weight = _cubic(distance) if order == CUBIC else (1 - distance).clamp(min=0)
    weight = weight / weight.sum(1, keepdim=True)
    index = index.long().clamp(0, count - 1)
    first, last = int(index.min()), int(index.max())
    weights = torch.zeros(out, last + 1 - first, dtype=torch.float64).scatter_add_(1, index - first, weight)
    return first, weights


def _cubic(distance: Tensor) -> Tensor:
    near = (1.5 * distance - 2.5) * distance**2 + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))
