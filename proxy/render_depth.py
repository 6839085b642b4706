"""The one range of depth of a whole motion, found before anything is rendered."""

from __future__ import annotations

import torch
from torch import Tensor

from .head_model import HeadModel
from .head_proxy import HeadProxy

SAMPLES = 600
MARGIN = 0.05  # of the range, at both ends: the samples skip the very nearest point and the expressions


def depth_range(proxy: HeadProxy, motion, model: HeadModel) -> tuple[float, float]:
    """Inverse distances (1/m) of the farthest and nearest visible surface over all frames of a motion.

    Skins a few hundred vertices of the proxy at rest in every frame, keeping those that face the camera: exact to the
    expression's own depth, at no more than a few thousand products per frame.
    """
    device = model.template.device
    identity = proxy.identity.to(device)[None]
    rest = model.canonical(identity, torch.zeros_like(motion.expression[:1]).to(device))  # [1, V, 3]
    if proxy.displacement is not None:
        rest = rest + proxy.displacement.to(device)
    chosen = torch.arange(0, rest.shape[1], max(1, rest.shape[1] // SAMPLES), device=device)
    normals = model.vertex_normals(rest)[0, chosen]  # [S, 3]
    points, weights = rest[0, chosen], model.weights[chosen]
    transforms = model.joint_transforms(identity, motion.expression.to(device), motion.joints.to(device))  # [T, J, 4, 4]
    row = transforms[..., 2, :]  # [T, J, 4] what makes z
    z = _blend(row[..., :3], points, weights) + row[..., 3] @ weights.mT + motion.translation.to(device)[:, 2:]
    facing = _blend(row[..., :3], normals, weights) > 0.1
    inverse = 1 / (-z).clamp(min=1e-2)  # [T, S]
    low = torch.where(facing, inverse, torch.inf).min()
    high = torch.where(facing, inverse, -torch.inf).max()
    if not bool(low < high):
        low, high = inverse.min(), inverse.max() + 1e-6
    margin = MARGIN * (high - low)
    return float(low - margin), float(high + margin)


def _blend(row: Tensor, points: Tensor, weights: Tensor) -> Tensor:
    """z of points [S, 3] turned by the joints' rows [T, J, 3], mixed by weights [S, J] -> [T, S]."""
    return torch.einsum("tjx,sx,sj->ts", row, points, weights)
