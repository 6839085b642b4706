"""What a refinement makes small, one function each; weights are those of `RefineSettings`. Masked means over vertices and frames."""

from __future__ import annotations

import torch
from torch import Tensor

from .surface import Skin


def weighted_mean(values: Tensor, weight: Tensor) -> Tensor:
    return (values * weight).sum() / weight.sum().clamp(min=1e-6)


def photometric(expected: Tensor, found: Tensor, weight: Tensor) -> Tensor:
    """Root mean square of colour differences [t, S, 3], weight [t, S]."""
    return weighted_mean((expected - found).square().mean(-1), weight).sqrt()


def normals(expected: Tensor, found: Tensor, weight: Tensor) -> Tensor:
    """Mean angle in degrees between unit normals [t, S, 3], weight [t, S]."""
    angle = torch.atan2(torch.linalg.cross(expected, found).norm(dim=-1), (expected * found).sum(-1))
    return torch.rad2deg(weighted_mean(angle, weight))


def magnitude(displacement: Tensor, weight: Tensor) -> Tensor:
    """Root mean square length in metres of displacements [t, S, 3], weight [S] or [t, S]."""
    return weighted_mean(displacement.square().sum(-1), weight.expand(displacement.shape[:-1])).sqrt()


def depth(offset: Tensor, weight: Tensor) -> Tensor:
    """Mean distance in metres of the skin from the measured surface along its normals: `positions.depth_offsets`, both [t, S]."""
    return weighted_mean(offset.abs(), weight)


def silhouette(offset: Tensor, weight: Tensor) -> Tensor:
    """Mean distance in metres of the outline from the silhouette's edge: `positions.outline_offsets`, both [t, S]."""
    return weighted_mean(offset.abs(), weight)


def high_pass_normals(difference: Tensor, weight: Tensor) -> Tensor:
    """Mean L1 length, summed over x, y and z, of differences of normals [t, S, 3] less their own low frequencies, weight [t, S].

    The term of Grassal et al., Neural Head Avatars from Monocular RGB Videos, CVPR 2022, with low frequencies taken along the skin.
    """
    return weighted_mean(difference.abs().sum(-1), weight)


def landmarks(projected: Tensor, detected: Tensor, weight: Tensor) -> Tensor:
    """Mean distance of points [t, L, 2] in their own unit (pixels), weight [t, L]."""
    return weighted_mean((projected - detected).norm(dim=-1), weight)


def temporal(displacement: Tensor, weight: Tensor) -> Tensor:
    """Root mean square length in metres of what changes from frame to frame in displacements [T, S, 3], weight [T, S].

    A change counts as much as the lesser of its two frames' weights; 0 for a single frame.
    """
    return magnitude(displacement.diff(dim=0), torch.minimum(weight[1:], weight[:-1]))


def symmetry(relief: Tensor, pairs: Tensor, weight: Tensor) -> Tensor:
    """Root mean square difference in metres between a relief [S] and that of the other side, `positions.mirror_pairs` [S], weight [S]."""
    return weighted_mean((relief - relief[pairs]).square(), weight).sqrt()


def roughness(skin: Skin, displacement: Tensor) -> Tensor:
    """Root mean square gradient, metres by metre, of displacements [t, S, 3] along the base mesh, by area.

    The energy of the Laplacian relative to the base mesh: its square, times the area, is what `Skin.stiffness` measures.
    """
    slopes = torch.einsum("fka,tfkc->tfac", skin.hats, displacement[:, skin.faces])  # [t, F, 3, 3]
    return weighted_mean(slopes.square().sum((-2, -1)), skin.area.expand(slopes.shape[:2])).sqrt()


def zero_mean(dynamic: Tensor, valid: Tensor, weight: Tensor) -> Tensor:
    """Root mean square length in metres of the mean of dynamic displacements [T, S, 3] over the valid frames [T], weight [S]."""
    share = valid.to(dynamic) / valid.sum().clamp(min=1)
    return magnitude((share[:, None, None] * dynamic).sum(0), weight)
