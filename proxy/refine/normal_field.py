"""Outside normals into relief: how far the normals of the posed skin are from the wanted ones, integrated over the mesh.

A displacement d along the normal tilts the normal by -grad d, so wanted changes of the normals are the gradient of a relief (the linear
form of Nehab et al., Efficiently Combining Positions and Normals for Precise 3D Geometry, SIGGRAPH 2005). What all frames share is
static, what a frame has beyond that is dynamic; each is one solve for all frames.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from . import energies
from .observe import Observer, View
from .outside_maps import chunks
from .outside_normals import CameraNormals
from .settings import RefineSettings
from .surface import Integrator

STEEPEST = 0.2  # least of 1 + cosine between a posed normal and the resting one that still turns one into the other
SURE = 0.98  # of a map's weight at a vertex: beyond its border it mixes with the background


class NormalField:
    """Relief of one head: static [S] and dynamic [T, S], metres along the resting normals."""

    def __init__(self, observer: Observer, settings: RefineSettings):
        self.observer, self.settings = observer, settings
        count, size = len(observer.track), len(observer.skin.vertices)
        self.static = observer.skin.normals.new_zeros(1, size)
        self.dynamic = observer.skin.normals.new_zeros(count, size)
        self._face = observer.model.regions["face"][observer.skin.vertices]

    def displacement(self, frames: slice) -> Tensor:
        """Canonical displacements [t, S, 3]."""
        return (self.static + self.dynamic[frames])[..., None] * self.observer.skin.normals

    def run(self, normals: CameraNormals, log: dict[str, list[float]], tick: Callable[[int], None]) -> None:
        """Follows an estimator's normals; `tick` is told the number of frames done."""
        skin, settings, count = self.observer.skin, self.settings, len(self.dynamic)
        changes, trusts = skin.normals.new_zeros(count, len(skin.vertices), 3), torch.zeros_like(self.dynamic)
        seen: Tensor | None = None
        solvers: tuple[Integrator, Integrator] | None = None
        for _ in range(settings.normal_rounds):
            sights, angle = [], 0.0
            for part, wanted, weight in normals.chunks():
                view = self.observer.view(part, self.displacement(part), None if seen is None else seen[part])
                change, trust, error = self._change(view, wanted, weight)
                changes[part], trusts[part] = change * trust[..., None], trust
                sights.append(view.seen)
                angle += float(error) * len(change) / count
                tick(len(change))
            seen = torch.cat(sights)
            log.setdefault("normals", []).append(angle)
            total = skin.at_faces(trusts.sum(0)[:, None])
            shared = skin.at_faces(changes.sum(0)) / total.clamp(min=1e-3)
            if solvers is None:
                inside = skin.at_faces(self._face[:, None])[:, 0] * total[:, 0] / count
                solvers = (
                    Integrator(skin, total[:, 0] / (total[:, 0] + 1), settings.bend, settings.static_reach),
                    Integrator(skin, inside, settings.bend, settings.dynamic_reach),
                )
            self.static = self.static + solvers[0].solve(-shared[None], self.static)
            for part in chunks(count):
                own = skin.at_faces(changes[part]) - shared * skin.at_faces(trusts[part, :, None])  # 0 where a frame sees nothing
                self.dynamic[part] += solvers[1].solve(-own, self.dynamic[part])
            mean = self.dynamic.mean(0, keepdim=True)
            self.dynamic, self.static = self.dynamic - mean, self.static + mean

    def _change(self, view: View, normals: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Wanted changes [t, S, 3] of the resting normals, their weight [t, S], and the mean angle in degrees."""
        values = view.sample(torch.cat([normals, weight], 1))
        trust = view.seen * (values[..., 3] > SURE) * view.valid[:, None]
        wanted = F.normalize(values[..., :3], dim=-1)
        change = wanted - view.normals
        robust = 1 / (1 + change.square().sum(-1) / self.settings.normal_outlier**2)
        return self._at_rest(view, change), trust * robust, energies.normals(wanted, view.normals, trust * robust)

    def _at_rest(self, view: View, change: Tensor) -> Tensor:
        """Camera-space changes of the normals, turned with the skin back to the head at rest, across its normals."""
        rest = self.observer.skin.normals.expand_as(change)
        change = (view.turns.mT @ change[..., None])[..., 0]
        now = F.normalize((view.turns.mT @ view.normals[..., None])[..., 0], dim=-1)
        change = change - (change * now).sum(-1, keepdim=True) * now
        axis, cosine = torch.linalg.cross(now, rest), (now * rest).sum(-1, keepdim=True)
        turned = cosine * change + torch.linalg.cross(axis, change)
        return turned + axis * (axis * change).sum(-1, keepdim=True) / (1 + cosine).clamp(min=STEEPEST)
