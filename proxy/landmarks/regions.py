"""Rotated squares of an image: how crops are cut and how points come back.

A region is (centre x, centre y, side, angle) in image pixels and radians; a positive angle turns the square's x axis towards
the image's y axis (clockwise on screen). Crop coordinates run from 0 to the crop's size across the square.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def region_matrix(regions: Tensor, size: int) -> Tensor:
    """Affine maps [N, 2, 3] from crop to image coordinates of regions [N, 4] cut at `size` x `size` pixels."""
    centre, scale, angle = regions[:, :2], regions[:, 2] / size, regions[:, 3]
    cos, sin = angle.cos() * scale, angle.sin() * scale
    linear = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    return torch.cat([linear, (centre - linear.sum(-1) * (size / 2))[..., None]], -1)


def to_image(points: Tensor, regions: Tensor, size: int) -> Tensor:
    """Crop points [N, P, 2 or 3] to image pixels; a third coordinate is only scaled."""
    matrix = region_matrix(regions, size)
    flat = points[..., :2] @ matrix[..., :2].transpose(1, 2) + matrix[:, None, :, 2]
    return torch.cat([flat, points[..., 2:] * (regions[:, None, 2:3] / size)], -1)


def cut(images: Tensor, regions: Tensor, size: int, frame: Tensor | None = None, padding: str = "border") -> Tensor:
    """Crops [M, 3, size, size] of images [N, 3, H, W] along regions [M, 4].

    Crop m comes from image `frame[m]`, or m itself. Beyond the image lies its border, or black if padding is "zeros". A region
    larger than the crop is averaged over whole pixels first, so that shrinking does not alias.
    """
    frame = torch.arange(len(regions), device=images.device) if frame is None else frame
    factors = (regions[:, 2] / size).floor().clamp(1, max(1, min(images.shape[2:]))).long()
    crops = images.new_empty(len(regions), images.shape[1], size, size)
    for factor in factors.unique().tolist():
        chosen = (factors == factor).nonzero()[:, 0]
        used, source = frame[chosen].unique(return_inverse=True)
        reduced = images if len(used) == len(images) else images[used]
        if factor > 1:
            reduced = F.avg_pool2d(reduced, factor, ceil_mode=True, count_include_pad=False)
        if len(source) != len(reduced) or (source[1:] <= source[:-1]).any():
            reduced = reduced[source]
        crops[chosen] = _sample(reduced, regions[chosen], size, factor, padding)
    return crops


def _sample(images: Tensor, regions: Tensor, size: int, factor: int, padding: str) -> Tensor:
    """Bilinear crops of images that were reduced by `factor`; `regions` are in pixels of the whole images."""
    axis = torch.arange(size, device=images.device, dtype=regions.dtype) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    where = torch.einsum("hwk,nck->nhwc", torch.stack([x, y, torch.ones_like(x)], -1), region_matrix(regions, size))
    extent = where.new_tensor([images.shape[3] * factor, images.shape[2] * factor])
    return F.grid_sample(images, where * (2 / extent) - 1, mode="bilinear", padding_mode=padding, align_corners=False)


def whole_image(width: int, height: int) -> Tensor:
    """The smallest centred square [1, 4] that holds the whole image."""
    return torch.tensor([[width / 2, height / 2, max(width, height), 0.0]])


def eye_line_region(box: Tensor, start: Tensor, end: Tensor, scale: float = 1.5) -> Tensor:
    """Regions [N, 4] around boxes [N, 4] (x, y, w, h), upright along the line from `start` to `end` [N, 2].

    MediaPipe's rule: the square has `scale` times the longer side of the box.
    """
    along = end - start
    side = box[:, 2:].amax(1) * scale
    return torch.stack([box[:, 0] + box[:, 2] / 2, box[:, 1] + box[:, 3] / 2, side, torch.atan2(along[:, 1], along[:, 0])], -1)


def bounding_box(points: Tensor) -> Tensor:
    """Boxes [N, 4] (x, y, w, h) of points [N, P, 2 or more]."""
    low, high = points[..., :2].amin(-2), points[..., :2].amax(-2)
    return torch.cat([low, high - low], -1)


def landmark_region(points: Tensor) -> Tensor:
    """The region [N, 4] in which to look for the same face again; points [N, 478, 3], 33 and 263 are the outer eye corners."""
    return eye_line_region(bounding_box(points[:, :468]), points[:, 33, :2], points[:, 263, :2])
