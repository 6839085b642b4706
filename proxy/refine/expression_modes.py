"""How a clip's expressions differ, in a few numbers per frame: what a face's wrinkles are told by."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..head_model import JOINTS, HeadModel
from ..head_track import HeadTrack
from .outside_maps import chunks

LEAST = 1e-4  # metres: expressions that move the face by less are noise of the fit
EVERY = 4  # one vertex of so many tells how the face moves
CALM = 0.002  # metres: a frame says half as much of the face at rest where its mean square move is so far (squared) above the least


@dataclasses.dataclass(frozen=True)
class ExpressionModes:
    """Principal components of the shapes that expression and jaw give one face; K modes, N of the model's vertices."""

    vertices: Tensor  # [N] indices into the model's dense vertices
    mean: Tensor  # [N, 3] metres
    fields: Tensor  # [K, N, 3] metres
    size: Tensor  # [K] metres: RMS length of each field, strongest first

    @staticmethod
    def of(model: HeadModel, track: HeadTrack, most: int) -> ExpressionModes:
        """At most `most` modes of the frames of a track with a face; fewer if their expressions differ in less."""
        vertices = _telling(model)
        shapes = _shapes(model, track, vertices)[track.valid]
        mean = shapes.mean(0)
        away = (shapes - mean).flatten(1)
        values, vectors = torch.linalg.eigh((away @ away.mT).double() / (len(vertices) * len(shapes)))
        size = values.flip(0)[:most].clamp(min=0).sqrt()
        count = int((size > LEAST).sum())
        scores = vectors.flip(1)[:, :count].to(mean) * len(shapes) ** 0.5
        fields = (scores.mT @ away / len(shapes)).unflatten(1, mean.shape)
        return ExpressionModes(vertices, mean, fields, size[:count].to(mean))

    def __len__(self) -> int:
        return len(self.size)

    def scores(self, model: HeadModel, track: HeadTrack) -> Tensor:
        """Scores [T, K] of a track's frames; over those that the modes are of their mean is 0 and their RMS 1."""
        away = _shapes(model, track, self.vertices) - self.mean
        return torch.einsum("tnx,knx->tk", away, self.fields) / (len(self.vertices) * self.size.square())


def calmness(model: HeadModel, track: HeadTrack) -> Tensor:
    """How much frames [T] say of the model's face at rest, 1 on average over those with a face, 0 in the others.

    A fit errs the more, the farther expression and jaw have moved the face; what it has wrong would pass for the person's own shape, and
    another clip of the same person would show another.
    """
    vertices = _telling(model)
    rest = model.forward(track.identity[None], torch.zeros_like(track.expression[:1]), torch.zeros_like(track.joints[:1]))[:, vertices]
    moved = (_shapes(model, track, vertices) - rest).square().sum(-1).mean(1)
    beyond = moved - moved[track.valid].min()
    calm = torch.where(track.valid, 1 / (1 + beyond / CALM**2), torch.zeros_like(beyond))
    return calm / calm[track.valid].mean()


def _telling(model: HeadModel) -> Tensor:
    """Vertices [N] of the face that tell how it moves."""
    return (model.regions["face"] > 0.5).nonzero()[::EVERY, 0]


def _shapes(model: HeadModel, track: HeadTrack, vertices: Tensor) -> Tensor:
    """Vertices [T, N, 3] of the face that does not turn: only expression and jaw act."""
    jaw = torch.zeros_like(track.joints)
    jaw[:, JOINTS.index("jaw")] = track.joints[:, JOINTS.index("jaw")]
    identity = track.identity[None]
    return torch.cat([model.forward(identity, track.expression[part], jaw[part])[:, vertices] for part in chunks(len(track))])


@dataclasses.dataclass(frozen=True)
class Wrinkles:
    """Relief that comes and goes with the expression, of mean 0 over the frames it was found in; S vertices of skin."""

    modes: ExpressionModes
    centre: Tensor  # [K] mean score of those frames
    relief: Tensor  # [K, S] metres along the resting normals, by score

    def at(self, model: HeadModel, track: HeadTrack) -> Tensor:
        """Relief [T, S] in metres of a track's frames."""
        return (self.modes.scores(model, track) - self.centre) @ self.relief
