"""Pairs of synthetic persons who act the same: one is filmed and drives, of the other only a still is known, and the truth."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from refine_metrics import Surface, align_points, barycentric
from synthetic_head import DetailedHead, KnownClip, Person, turns, wave
from torch import Tensor

from expportrait.proxy.build import source_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.head_model import PARTS, HeadModel
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmarks import Landmarker
from expportrait.proxy.posing import SourcePose, camera_space
from expportrait.transfer.motion import HeadMotion

SEEDS = (51, 52, 53, 54, 55, 56)
RESTING, ACTING = 6, 24  # frames before the performer begins, and frames of acting
TURN = (5.0, 10.0, 4.0)  # degrees of pitch, yaw and roll that the filmed head turns to either side
ROUNDS = 5  # of the alignment
MATCHED = 0.01  # metres: a true point farther from the fitted head after alignment has no match there (ears, neck)


@dataclasses.dataclass(frozen=True)
class Pair:
    """Performer A, filmed over T frames and fitted, and target B, fitted to a still of its neutral."""

    clip: KnownClip
    track: HeadTrack
    target: HeadProxy
    truth: Tensor  # [T, P, 3] points of B's face acting as A, in the place and size of the fitted B
    vertices: Tensor  # [P, 3] int64, of the head model's triangle under each point at rest
    share: Tensor  # [P, 3] barycentric coordinates there

    def points(self, model: HeadModel, motion) -> Tensor:
        """The same points [T, P, 3] of the target's mesh in a motion."""
        posed = camera_space(model, self.target, motion)
        return (posed[:, self.vertices] * self.share[..., None]).sum(2)

    def errors(self, model: HeadModel, motion: HeadMotion) -> tuple[float, float]:
        """Mean distance from the truth in millimetres: of the points, and of their movement since the still."""
        at_rest = self.points(model, SourcePose.of(self.target))
        found = self.points(model, motion)
        moved = (found - at_rest) - (self.truth - self.truth[:1])
        return tuple(float(1e3 * away.norm(dim=-1).mean()) for away in (found - self.truth, moved))


@functools.lru_cache(maxsize=1)
def _head(path: Path) -> DetailedHead:
    return DetailedHead(path)


def known_pairs(data: Path, model: HeadModel, landmarker: Landmarker, seeds: tuple[int, ...] = SEEDS) -> Iterator[tuple[int, Pair]]:
    """Seeded pairs of ICT-FaceKit's persons. The performer rests in the first frames, as in any take."""
    head = _head(Path(data) / "heads" / "ict_facekit_light.npz")
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        performer, other = head.person(generator), head.person(generator)
        acting = head.expressions(generator, ACTING)
        expression = torch.cat([acting[:1].expand(RESTING, -1), acting])
        time = torch.linspace(0, 2 * math.pi, len(expression))[:, None]
        clip = head.shot(performer, expression, turns(wave(time, 3, generator) * torch.tensor(TURN)))
        yield seed, _pair(head, clip, other, expression, model, landmarker)


def _pair(
    head: DetailedHead, clip: KnownClip, other: Person, expression: Tensor, model: HeadModel, landmarker: Landmarker
) -> Pair:
    still = head.shot(other, torch.zeros_like(expression[:1]), torch.eye(3)[None])
    fitted = fit_frames(still.frames, model, landmarker)
    target = source_proxy(fitted, model, 0, fitted.expression[0])  # the still is known to be the neutral
    truth = head.posed(other, expression, torch.eye(3).expand(len(expression), 3, 3))[:, still.seen[0]]
    skin = model.faces[model.parts == PARTS.index("skin")]
    vertices = camera_space(model, target, SourcePose.of(target))[0]
    surface = Surface(vertices, skin)
    # One camera tells neither size nor distance, so the truth is brought to the fitted head once, at rest.
    known = still.vertices[0, still.seen[0]]
    nearer = vertices[model.regions["face"] > 0.5][:, 2].mean() / known[:, 2].mean()
    moved = known * nearer
    for _ in range(ROUNDS):
        near = surface.nearest(moved)
        matched = near.distance < MATCHED
        placed = align_points(known[matched], near.points[matched], scaled=True)
        moved = placed(known).float()
    near = surface.nearest(moved)
    matched = near.distance < MATCHED
    corners = skin[near.triangle[matched]]
    share = barycentric(near.points[matched], vertices[corners].double()).float()
    there = torch.stack([placed(frame).float() for frame in truth[:, matched]])
    return Pair(clip, fit_frames(clip.frames, model, landmarker), target, there, corners, share)
