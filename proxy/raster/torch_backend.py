"""Reference back-end in plain torch: any device, slow, readable. Tests compare the fast back-end with it."""

from __future__ import annotations

import torch
from torch import Tensor

from .projection import DROPPED, SUBPIXELS

DEPTH_STEPS = 2**30  # z/w in [-1, 1] is stored in 31 bits above the triangle number
EMPTY = (2**31 - 1) << 32  # farther than any depth, triangle number 0
FRAGMENTS = 1 << 21  # pixels tested at once


def draw(position: Tensor, depth: Tensor, faces: Tensor, cull: bool, packed: Tensor) -> None:
    """Draws triangles into packed [B,H,W], in place.

    position [B,V,2] int32 and depth [B,V] from projection.snap; faces [F,3]. packed int64 holds the depth in the upper and
    triangle number + 1 in the lower 32 bits, so that the smallest value is the nearest, then the lowest triangle; begin with EMPTY.
    """
    height, width = size = packed.shape[1:]
    faces = faces.long()
    for frame, image in enumerate(packed.view(-1, height * width)):
        setup = _setup(position[frame].long()[faces], depth[frame][faces], size, cull)
        ends = (setup["columns"] * setup["rows"]).cumsum(0)
        first = 0
        while first < len(ends):  # as many triangles at once as fit, at least one
            done = int(ends[first - 1]) if first else 0
            last = max(int(torch.searchsorted(ends, done + FRAGMENTS)), first + 1)
            _draw_boxes({name: value[first:last] for name, value in setup.items()}, image, width)
            first = last


def _setup(corners: Tensor, depth: Tensor, size: tuple[int, int], cull: bool) -> dict[str, Tensor]:
    """Edge functions, depth plane and pixel box of the triangles that can be seen; corners [F,3,2] int64, depth [F,3]."""
    height, width = size
    first, second, third = corners.unbind(1)
    area = (second - first)[:, 0] * (third - first)[:, 1] - (second - first)[:, 1] * (third - first)[:, 0]
    low = corners.amin(1).add(SUBPIXELS - 1).div(SUBPIXELS, rounding_mode="floor").clamp(min=0)
    limit = torch.tensor([width - 1, height - 1], device=corners.device)
    high = corners.amax(1).div(SUBPIXELS, rounding_mode="floor").minimum(limit)
    seen = ((area < 0) if cull else (area != 0)) & (depth < DROPPED).all(1) & (high >= low).all(1)
    index = seen.nonzero()[:, 0]
    # counter-clockwise in pixels (y down), so that the inside of every edge is positive
    turn = (area[index] < 0)[:, None]
    corners, depth, low, high = corners[index], depth[index], low[index], high[index]
    corners = torch.where(turn[..., None], corners.flip(1), corners)
    depth = torch.where(turn, depth.flip(1), depth)
    start, end = corners.roll(-1, 1), corners.roll(-2, 1)  # edge i lies opposite corner i
    slope_x = start[..., 1] - end[..., 1]  # [F,3]
    slope_y = end[..., 0] - start[..., 0]
    owns = (slope_x > 0) | ((slope_x == 0) & (slope_y < 0))  # of two triangles exactly one owns the pixels on their edge
    inverse_area = area[index].abs().float().reciprocal()
    return {
        "id": index + 1,
        "low": low,
        "columns": high[:, 0] - low[:, 0] + 1,
        "rows": high[:, 1] - low[:, 1] + 1,
        "start": start,
        "slope": torch.stack([slope_x, slope_y], -1),
        "bias": (~owns).long(),
        "depth": depth[:, 0],
        "depth_slope": (depth[:, 1:] - depth[:, :1]) * inverse_area[:, None],
    }


def _draw_boxes(triangles: dict[str, Tensor], packed: Tensor, width: int) -> None:
    """Tests every pixel of every box and keeps the nearest fragment; packed [H*W] is changed in place."""
    count = triangles["columns"] * triangles["rows"]
    owner = torch.repeat_interleave(count)
    local = torch.arange(len(owner), device=owner.device) - (count.cumsum(0) - count)[owner]
    columns = triangles["columns"][owner]
    pixel = triangles["low"][owner] + torch.stack([local % columns, local // columns], 1)  # [N,2]
    edge = ((pixel[:, None] * SUBPIXELS - triangles["start"][owner]) * triangles["slope"][owner]).sum(-1)  # [N,3]
    depth = triangles["depth"][owner] + (edge[:, 1:].float() * triangles["depth_slope"][owner]).sum(-1)
    inside = (edge >= triangles["bias"][owner]).all(1) & (depth >= -1) & (depth <= 1)
    steps = ((depth[inside] + 1) * DEPTH_STEPS).long().clamp(max=2**31 - 2)
    value = (steps << 32) | triangles["id"][owner[inside]]
    target = pixel[inside, 1] * width + pixel[inside, 0]
    packed.scatter_reduce_(0, target, value, "amin")


def barycentric(clip: Tensor, ids: Tensor, pixels: Tensor, faces: Tensor) -> Tensor:
    """Perspective-correct barycentric coordinates [P,3] of the covered pixels, with gradient to clip x, y and w.

    clip [B,V,4]; ids [B,H,W] int32; pixels [P] flat indices. Pixel centre (fx, fy) in clip units, x_i = X_i - fx W_i,
    y_i = Y_i - fy W_i, a_0 = x_1 y_2 - y_1 x_2 and cyclic, b_i = a_i / sum(a). Values are clamped to [0,1] and sum to one;
    the gradient ignores the clamp.
    """
    height, width = ids.shape[1:]
    frame = pixels.div(height * width, rounding_mode="floor")
    row = pixels.remainder(height * width).div(width, rounding_mode="floor")
    column = pixels.remainder(width)
    triangle = ids.reshape(-1)[pixels].long() - 1
    corners = faces.long()[triangle] + (frame * clip.shape[1])[:, None]  # [P,3]
    corner = clip.reshape(-1, 4)[corners]  # [P,3,4]
    centre_x = (2 * column + 1).to(clip.dtype) / width - 1
    centre_y = (2 * row + 1).to(clip.dtype) / height - 1
    w = corner[..., 3]
    x = corner[..., 0] - centre_x[:, None] * w
    y = corner[..., 1] - centre_y[:, None] * w
    a = x.roll(-1, 1) * y.roll(-2, 1) - y.roll(-1, 1) * x.roll(-2, 1)
    total = a.sum(1, keepdim=True)
    with torch.no_grad():
        sign = torch.where(total < 0, -1, 1).to(a.dtype)
        positive = (a * sign).clamp(min=0)
        span = positive.sum(1, keepdim=True)
        clamped = torch.where(span > 0, positive / span.clamp(min=torch.finfo(a.dtype).tiny), 1 / 3)
        guarded = sign * total.abs().maximum(w[:, :1] ** 2 * smallest_area(height, width))
    raw = a / (total + (guarded - total).detach())
    return raw + (clamped - raw).detach()


def smallest_area(height: int, width: int) -> float:
    """Twice a thousandth of a pixel's area in clip units: thinner triangles get the gradient of one that large."""
    return 8e-3 / (height * width)


def interpolate(attributes: Tensor, clip: Tensor, ids: Tensor, pixels: Tensor, faces: Tensor, attribute_faces: Tensor) -> Tensor:
    """Attributes [B or 1,A,C] at the covered pixels: [P,C], with gradient to attributes and clip."""
    height, width = ids.shape[1:]
    triangle = ids.reshape(-1)[pixels].long() - 1
    corners = attribute_faces.long()[triangle]  # [P,3]
    if len(attributes) > 1:
        corners = corners + (pixels.div(height * width, rounding_mode="floor") * attributes.shape[1])[:, None]
    weights = barycentric(clip, ids, pixels, faces)
    return (attributes.reshape(-1, attributes.shape[-1])[corners] * weights[..., None]).sum(1)
