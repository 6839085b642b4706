"""What frames show of a posed head's skin, vertex by vertex."""

from __future__ import annotations

import copy
import dataclasses

import torch
from torch import Tensor

from ..fit_jacobian import projection_rows
from ..head_model import HeadModel
from ..head_track import HeadTrack
from ..mesh import vertex_normals
from ..posing import Shot, Stage
from ..warp2d import sample_pixels
from .lining import Lining
from .surface import Skin


@dataclasses.dataclass(frozen=True)
class View:
    """t frames of a posed head; S vertices of its skin, all or some."""

    points: Tensor  # [t, S, 3] camera space, metres
    turns: Tensor  # [t, S, 3, 3] blended rotations from canonical to camera space
    normals: Tensor  # [t, S, 3] unit, camera space
    seen: Tensor  # [t, S] 0..1
    pixels: Tensor  # [t, S, 2]
    valid: Tensor  # [t] 0 or 1: the track has a face in this frame

    def sample(self, maps: Tensor) -> Tensor:
        """Maps [t or 1, C, H, W] at the vertices, [t, S, C]."""
        return sample_pixels(maps, self.pixels.mT[..., None])[..., 0].mT

    def image_motion(self, stage: Stage) -> Tensor:
        """Pixels by canonical displacement [t, S, 2, 3]."""
        return projection_rows(stage.camera, self.points) @ self.turns


class Observer:
    """Poses one head of a track with displacements and says what its camera sees."""

    def __init__(self, model: HeadModel, track: HeadTrack):
        device = model.template.device
        self.model, self.track = model, track.to(device)
        self.stage = Stage(model, track.camera)
        rest = model.canonical(self.track.identity[None], torch.zeros_like(self.track.expression[:1]))[0]
        self.skin = Skin.of(model, rest)
        self._lining = Lining(model, self.skin.vertices, rest)
        self.under = torch.zeros_like(self.skin.normals)[None]  # [1, S, 3] displacement that all others come on top of

    def over(self, displacement: Tensor) -> Observer:
        """The same head, its skin displaced by [1, S, 3] to begin with."""
        some = copy.copy(self)
        some.under = self.under + displacement
        return some

    def at(self, frames: Tensor) -> Observer:
        """The same head in some frames [N] of the track."""
        some = copy.copy(self)
        some.track = self.track.at(frames)
        return some

    def spread(self, count: int) -> Tensor:
        """At most `count` of the frames with a face, spread over the clip from the first to the last: [N] int64, ascending, on the CPU."""
        valid = self.track.valid.nonzero()[:, 0].cpu()
        return valid[torch.linspace(0, len(valid) - 1, min(count, len(valid))).round().long()].unique()

    def posed(self, frames: slice, displacement: Tensor) -> Tensor:
        """All vertices [t, V, 3] in camera space, the skin displaced by [t or 1, S, 3] and what is `under` that; see `whole`."""
        track, whole = self.track, self.whole(displacement + self.under)
        posed = self.model.forward(track.identity[None], track.expression[frames], track.joints[frames], whole)
        return posed + track.translation[frames, None]

    def whole(self, displacement: Tensor) -> Tensor:
        """Displacements [t, V, 3] of all vertices for those of the skin [t, S, 3]: the mouth's lining follows, eyes and teeth do not."""
        whole = displacement.new_zeros(len(displacement), self.model.vertex_count, 3)
        whole[:, self.skin.vertices] = displacement
        whole[:, self._lining.vertices] = self._lining.follow(displacement)
        return whole

    def view(self, frames: slice, displacement: Tensor, seen: Tensor | None = None, among: Tensor | None = None) -> View:
        """Frames of the track with displacement [t or 1, S, 3] of the skin.

        `among` [N] are the vertices of the skin to look at (default: all, N = S); `seen` [t, N] skips finding out what is hidden.
        """
        posed = self.posed(frames, displacement)
        if seen is None:
            return self.view_of(self.stage.shot(posed), frames, among)
        model, chosen = self.model, self._chosen(among)
        around = torch.zeros(model.vertex_count, dtype=torch.bool, device=chosen.device)
        around[chosen] = True
        normals = vertex_normals(posed, model.faces[around[model.faces].any(1)])
        return self._view(frames, chosen, posed, normals, seen)

    def view_of(self, shot: Shot, frames: slice, among: Tensor | None = None) -> View:
        """The view of frames of the track that are already posed and rasterised; `among` as in `view`."""
        chosen = self._chosen(among)
        return self._view(frames, chosen, shot.vertices, shot.normals, shot.visibility[:, chosen])

    def _chosen(self, among: Tensor | None) -> Tensor:
        return self.skin.vertices if among is None else self.skin.vertices[among]

    def _view(self, frames: slice, chosen: Tensor, posed: Tensor, normals: Tensor, seen: Tensor) -> View:
        """Of vertices and normals [t, V, 3] those of the chosen [N], which are seen [t, N]."""
        model, track = self.model, self.track
        transforms = model.joint_transforms(track.identity[None], track.expression[frames], track.joints[frames])
        turns = (model.weights[chosen] @ transforms[:, :, :3, :3].flatten(2)).unflatten(-1, (3, 3))
        points = posed[:, chosen]
        valid = track.valid[frames].to(seen)
        return View(points, turns, normals[:, chosen], seen, self.stage.camera.project(points), valid)
