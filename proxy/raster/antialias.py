"""Outlines with gradients: silhouette edges are walked directly ("edge list").

The triangle that owns an outline edge need not be visible at a pixel centre, so the outline of a dense mesh is found in full,
where blends that look at pairs of visible triangles lose most of it.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from .projection import screen, usable
from .topology import Edges

# Tolerances in z/w as shares of the mesh's own range of z/w in the frame, so that near and far planes do not matter.
BEHIND = 2e-4  # what lies beyond an outline is farther than the outline by at least this
HIDDEN = 2e-2  # the surface inside an outline is not farther than the outline by more than this
TIE_BITS = 20


class _Blend(torch.autograd.Function):
    """out = colour, plus at each pair's target alpha (colour[second] - colour[first]); colour [N,C], alpha [K]."""

    @staticmethod
    def forward(ctx, colour, alpha, first, second):
        difference = colour.index_select(0, second) - colour.index_select(0, first)
        target = torch.where(alpha > 0, first, second)
        ctx.save_for_backward(alpha, first, second, target, difference)
        return colour.clone().index_add_(0, target, alpha[:, None] * difference)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        alpha, first, second, target, difference = ctx.saved_tensors
        at_target = gradient.index_select(0, target)
        colour_gradient = None
        if ctx.needs_input_grad[0]:
            moved = alpha[:, None] * at_target
            colour_gradient = gradient.clone().index_add_(0, second, moved).index_add_(0, first, moved, alpha=-1)
        return colour_gradient, (at_target * difference).sum(1) if ctx.needs_input_grad[1] else None, None, None


def antialias(colour: Tensor, ids: Tensor, zw: Tensor, clip: Tensor, faces: Tensor, edges: Edges, cull: bool) -> Tensor:
    """Blends colour [B,H,W,C] across the outlines of the mesh, with gradient to colour and to clip x, y and w."""
    size = ids.shape[1:]
    with torch.no_grad():
        frame, vertices, along_column, line, cell, first = _outline(ids, zw, clip, faces, edges, cull)
        second = first + torch.where(along_column, size[1], 1)
    corner = clip.reshape(-1, 4).index_select(0, (vertices + (frame * clip.shape[1])[:, None]).reshape(-1))  # [2K,4]
    start, end = screen(corner.view(-1, 2, 4), size)[0].unbind(1)  # [K,2] each
    flip = along_column[:, None]
    start, end = torch.where(flip, start.flip(1), start), torch.where(flip, end.flip(1), end)
    share = (line + 0.5 - start[:, 1]) / (end[:, 1] - start[:, 1])
    crossing = start[:, 0] + share * (end[:, 0] - start[:, 0])
    alpha = (cell + 1 - crossing).to(colour.dtype)  # > 0: the far part of the first pixel shows what the second shows
    return _Blend.apply(colour.reshape(-1, colour.shape[-1]), alpha, first, second).view(colour.shape)


def _facing(position: Tensor, keep: Tensor, faces: Tensor, cull: bool) -> Tensor:
    """Sign of the screen area per triangle and frame, int8 [F+1,B]; 0 for triangles that are not drawn, and in the last row."""
    x = torch.where(keep, position[..., 0], torch.nan).T.contiguous()  # [V,B]: gathers then copy whole rows
    y = position[..., 1].T.contiguous()
    points = torch.cat([x, y], 1)
    first, second, third = (points.index_select(0, corner) for corner in faces.long().unbind(1))
    side, other = second - first, third - first
    batch = x.shape[1]
    area = side[:, :batch] * other[:, batch:] - side[:, batch:] * other[:, :batch]
    facing = (area > 0).to(torch.int8)
    facing = -(area < 0).to(torch.int8) if cull else facing - (area < 0).to(torch.int8)
    return torch.cat([facing, facing.new_zeros(1, batch)])


def _outline(ids: Tensor, zw: Tensor, clip: Tensor, faces: Tensor, edges: Edges, cull: bool):
    """Pixel pairs that an outline passes between, one crossing each.

    Returns frame [K], edge vertices [K,2], along_column [K] (the pair lies in a column, not in a row), line [K] (the row, or
    column, whose pixel centres the edge crosses), cell [K] (first pixel of the pair along that line) and its flat index [K].
    """
    height, width = ids.shape[1:]
    position, depth = screen(clip, (height, width))
    keep = usable(clip, position, depth)
    facing = _facing(position, keep, faces, cull)
    beside = facing.index_select(0, edges.triangles[:, 0])
    edge, frame = (beside != facing.index_select(0, edges.triangles[:, 1])).nonzero().unbind(1)
    ends = edges.vertices.index_select(0, edge) + (frame * clip.shape[1])[:, None]  # [N,2], flat
    whole = keep.reshape(-1)[ends].all(1)
    edge, frame, ends = edge[whole], frame[whole], ends[whole]

    points = position.reshape(-1, 2)[ends]  # [N,2 ends,2]
    extent = (points[:, 1] - points[:, 0]).abs()
    along_column = extent[:, 1] < extent[:, 0]
    points = torch.where(along_column[:, None, None], points.flip(-1), points)
    low, high = points[..., 1].amin(1), points[..., 1].amax(1)
    lines = torch.where(along_column, width, height)
    start = torch.ceil(low - 0.5).clamp(min=0).long()
    count = (torch.ceil(high - 0.5).long().minimum(lines) - start).clamp(min=0)  # half open: chained edges count once
    # the inside lies left of the first triangle's directed edge if that triangle's area is positive
    sign = facing[edges.triangles[edge, 0], frame]
    sign = torch.where(sign != 0, sign, -facing[edges.triangles[edge, 1], frame])
    downward = (points[:, 1, 1] > points[:, 0, 1]) != along_column
    first_inside = (sign > 0) == downward

    n = torch.repeat_interleave(count)  # the edge of each sample
    line = start[n] + torch.arange(len(n), device=n.device) - (count.cumsum(0) - count)[n]
    a, b = points[n].unbind(1)
    share = (line + 0.5 - a[:, 1]) / (b[:, 1] - a[:, 1])
    crossing = a[:, 0] + share * (b[:, 0] - a[:, 0])
    cell = torch.floor(crossing - 0.5).long()
    frame, along_column, first_inside = frame[n], along_column[n], first_inside[n]
    fits = (cell >= 0) & (cell + 1 < torch.where(along_column, height, width))
    first = frame * (height * width) + torch.where(along_column, cell * width + line, line * width + cell)
    first = torch.where(fits, first, 0)
    second = torch.where(fits, first + torch.where(along_column, width, 1), 0)

    inner, outer = torch.where(first_inside, first, second), torch.where(first_inside, second, first)
    id_inner, id_outer = ids.reshape(-1)[inner], ids.reshape(-1)[outer]
    far = torch.finfo(zw.dtype).max
    z_inner = zw.reshape(-1)[inner]
    z_outer = torch.where(id_outer > 0, zw.reshape(-1)[outer], far)
    z_edge = depth.reshape(-1)[ends[n]]
    z_edge = torch.lerp(z_edge[:, 0], z_edge[:, 1], share)  # z/w is linear on screen
    span = (torch.where(keep, depth, -far).amax(1) - torch.where(keep, depth, far).amin(1))[frame]
    seen = fits & (id_inner > 0) & (id_inner != id_outer) & (z_inner < z_outer)
    seen &= (z_outer > z_edge + BEHIND * span) & (z_inner < z_edge + HIDDEN * span)
    index = seen.nonzero()[:, 0]

    # of several crossings between two pixels the outermost counts
    offset = torch.where(first_inside, cell + 1.5 - crossing, crossing - cell - 0.5)[index]
    order = ((first * 2 + along_column)[index] << TIE_BITS) + (offset.clamp(0, 1) * (2**TIE_BITS - 1)).long()
    order, place = order.sort(stable=True)
    pair = order >> TIE_BITS
    fresh = torch.ones_like(pair, dtype=torch.bool)
    fresh[1:] = pair[1:] != pair[:-1]
    index = index[place[fresh]]
    return frame[index], edges.vertices[edge[n[index]]], along_column[index], line[index], cell[index], first[index]
