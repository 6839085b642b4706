"""The mouth's lining, which lies close behind the skin and follows it; else it would show through lips and cheeks that move inwards."""

from __future__ import annotations

import torch
from scipy.spatial import cKDTree
from torch import Tensor

from ..head_model import JOINTS, PARTS, HeadModel

NEIGHBOURS = 12  # vertices of the skin that each of the lining follows
NEAR, FAR = 0.004, 0.02  # metres: sigma of how far off these are, and distance at which the lining stays where it is
JAW = 0.02  # metres that what the jaw carries is taken to be off what it does not: closed lips touch


class Lining:
    """How the I vertices of the mouth's lining follow the S vertices of the skin."""

    def __init__(self, model: HeadModel, skin: Tensor, points: Tensor):
        """`skin` [S]: indices of its vertices; `points` [V, 3]: the head at rest, metres."""
        mouth = model.faces[model.parts == PARTS.index("mouth")].unique()
        self.vertices = mouth[~torch.isin(mouth, skin)]  # [I] indices into the model's dense vertices
        place = torch.cat([points, JAW * model.weights[:, JOINTS.index("jaw"), None]], 1).cpu()
        distance, near = cKDTree(place[skin.cpu()].numpy()).query(place[self.vertices.cpu()].numpy(), NEIGHBOURS)
        distance = torch.from_numpy(distance).to(points)
        weight = (-0.5 * (distance / NEAR).square()).softmax(-1)
        self._near = torch.from_numpy(near).to(skin)
        self._weight = weight * (1 - distance[:, :1] / FAR).clamp(min=0)

    def follow(self, displacement: Tensor) -> Tensor:
        """Displacements [t, I, 3] of the lining for those of the skin [t, S, 3]."""
        return torch.stack([(frame[self._near] * self._weight[..., None]).sum(1) for frame in displacement])
