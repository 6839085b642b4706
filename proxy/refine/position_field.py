"""Where the skin has to lie, from depth maps and silhouettes: a smooth static displacement along the normals.

Evidence of both kinds is an offset and a weight per vertex and frame (`positions`). Their weighted mean over the clip is what a
random field with a prior of smoothness follows, one sparse solve per round. What no frame saw follows the other side of the head.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy.sparse as sparse
import torch
from torch import Tensor

from ..frames import Frames
from ..landmarks import load_landmarker
from . import energies
from .expression_modes import calmness
from .observe import Observer
from .outside_depth import DepthTargets
from .outside_maps import chunks
from .person import PersonMask, person_silhouette
from .positions import depth_offsets, mirror_pairs, outline_offsets, unseen_weight
from .settings import RefineSettings
from .surface import factor, field_precision, mirror_precision

ROUNDS = 2
PATCH = 0.01  # metres: within such a patch the errors of a depth map or a silhouette are alike


class PositionField:
    """Static offsets [S] of one head in metres along the resting normals."""

    def __init__(self, observer: Observer, settings: RefineSettings):
        self.observer, self.settings = observer, settings
        self.static = observer.skin.normals.new_zeros(len(observer.skin.vertices))

    def displacement(self, frames: slice) -> Tensor:
        """Canonical displacements [1, S, 3]."""
        return (self.static[:, None] * self.observer.skin.normals)[None]

    def run(
        self,
        frames: Frames,
        mask: PersonMask | None,
        depth: DepthTargets | None,
        log: dict[str, list[float]],
        tick: Callable[[int], None],
    ) -> None:
        """Follows the silhouette and, if given, depth.

        Without a mask the person is found in the frames. Some frames are looked at, spread over those with a face; `tick` is told the
        number of frames done.
        """
        skin, settings = self.observer.skin, self.settings
        chosen = self.observer.spread(settings.position_frames)
        observer, pictures = self.observer.at(chosen), frames.pick(chosen.tolist()).to(self.static)
        landmarker = load_landmarker(self.static.device)
        person = person_silhouette(pictures, landmarker, None if mask is None else mask.at(chosen))
        calm = calmness(observer.model, observer.track)[:, None]
        distance, trust = (None, None) if depth is None else depth.at(chosen)
        area = torch.from_numpy(skin.mass()).to(self.static)
        prior = field_precision(skin, settings.position, settings.position_length)
        pairs = mirror_pairs(observer.model, skin.vertices)
        kinds = ("silhouette", settings.outline_noise, energies.silhouette), ("depth", settings.depth_noise, energies.depth)
        for _ in range(ROUNDS):
            sights, evidence = [], {"silhouette": [], "depth": []}
            for part in chunks(len(chosen)):
                shot = observer.stage.shot(observer.posed(part, self.displacement(part)))
                view = observer.view_of(shot, part)
                sights.append(view.seen)
                evidence["silhouette"].append(outline_offsets(shot, skin.vertices, pictures[part], person[part]))
                if depth is not None:
                    evidence["depth"].append(depth_offsets(view, distance[part, None], trust[part, None]))
            total, pulled = torch.zeros_like(self.static), torch.zeros_like(self.static)
            for name, noise, energy in kinds:
                if evidence[name]:
                    offset, weight = (torch.cat(values) for values in zip(*evidence[name]))
                    weight = weight * calm
                    log.setdefault(name, []).append(float(energy(offset, weight)))
                    total, pulled = total + weight.sum(0) / noise**2, pulled + (weight * offset).sum(0) / noise**2
            # As for shading, frames beyond a few tell the same again.
            share = area / PATCH**2 * min(settings.position_independent, len(chosen)) / len(chosen)
            unseen = (unseen_weight(torch.cat(sights)) * area / (2 * np.pi * (settings.position * settings.position_length) ** 2)).cpu()
            mirror = mirror_precision(skin, pairs, unseen.double().numpy())
            weight, right = ((value * share).double().cpu().numpy() for value in (total, pulled))
            present = self.static.double().cpu().numpy()
            system = sparse.diags(weight) + prior + mirror
            change = factor(system).solve(right - (prior + mirror) @ present)
            self.static = self.static + torch.from_numpy(change).to(self.static)
        tick(len(self.observer.track))
        log["symmetry"] = [float(energies.symmetry(self.static, pairs, unseen.to(self.static)))]
