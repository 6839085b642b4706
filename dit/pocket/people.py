"""Random people for training: shape, colours and hair on the embedded head. Nothing in them comes from a photograph."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ...proxy.head_model import HeadModel
from ...proxy.render_interior import INNER, dense_template, part_vertices
from ...proxy.render_regions import IRIS_ANGLE, eye_angle, eye_surround
from .waves import Dice, Waves

LIGHT_SKIN, DARK_SKIN = (0.66, 0.43, 0.34), (0.07, 0.035, 0.022)  # linear albedo
PUPIL = 0.19  # radians from the eye's axis
SEGMENTS = 7  # of a lock of hair
LOCKS = 320


@dataclasses.dataclass(frozen=True)
class Locks:
    """Ribbons of hair in canonical space, which move with the skull."""

    points: Tensor  # [H, 3] metres
    normals: Tensor  # [H, 3]
    colour: Tensor  # [H, 3] linear albedo


@dataclasses.dataclass(frozen=True)
class Person:
    """One random person on the embedded head of V dense vertices."""

    identity: Tensor  # [I]
    displacement: Tensor  # [1, V, 3] metres: volume of the hair, and what no coefficient of identity says
    colour: Tensor  # [V, 3] linear albedo
    gloss: Tensor  # [V, 1] 0..1
    hairy: Tensor  # [V, 1] 0..1 how much of the surface is hair
    grain: Waves  # fine pattern of the skin
    grain_strength: float
    strands: Waves  # fine pattern of the hair
    strand_strength: float
    locks: Locks | None


class PeopleMaker:
    """Draws random people on one head model."""

    def __init__(self, model: HeadModel):
        self.model = model
        self.points = dense_template(model)
        self.skin = part_vertices(model, "skin").float()
        self.eyes = part_vertices(model, "left_eye", "right_eye")
        self.teeth = part_vertices(model, "upper_teeth", "lower_teeth")
        self.inner = part_vertices(model, *INNER)
        self.angle = eye_angle(model)
        self.surround = eye_surround(model)
        self.normals = model.vertex_normals(self.points[None])[0]
        skull = (model.weights[:, model.pivot] > 0.5) & (self.skin > 0) & (model.regions["ears"] < 0.1)
        low, high = self.points[skull].amin(0), self.points[skull].amax(0)
        self.centre, self.radii = (low + high) / 2, (high - low) / 2
        self.lock_faces = _ribbon_faces()

    def random(self, generator: torch.Generator) -> Person:
        """A person of random identity, skin, hair, brows, lips, eyes, make-up, beard and clothes."""
        dice, model = Dice(generator), self.model
        identity = dice.uniform(0.5, 1.1) * dice.normal(len(model.identity_names))
        hair = torch.tensor([0.10, 0.06, 0.035]) ** dice.uniform(0.35, 1.6) * (1 + 0.12 * dice.normal(3)).clamp(0.6, 1.5)
        hair = dice.colour(0.2, 0.7) if dice.chance(0.1) else hair.clamp(0.004, 0.85)
        bald = dice.chance(0.12)
        scalp = self._scalp(dice) * (0 if bald else 1)
        volume = dice.uniform(0.001, 0.025) * (1 + 0.3 * Waves.of(dice, 0.04, 0.15, 6).at(self.points)).clamp(min=0)
        bumps = 0.0012 * Waves.of(dice, 0.05, 0.25, 6).at(self.points) * self.skin[:, None]
        displacement = (scalp * volume + bumps) * self.normals
        colour = self._colours(dice, hair, scalp)
        skin_gloss = self.skin * dice.uniform(0.02, 0.25) * (1 + model.regions["lips"])
        gloss = torch.where(self.eyes, torch.ones_like(skin_gloss), torch.where(self.inner, 0.5, skin_gloss))
        return Person(
            identity=identity,
            displacement=displacement[None],
            colour=colour,
            gloss=gloss[:, None],
            hairy=scalp,
            grain=Waves.of(dice, 0.0015, 0.008, 16),
            grain_strength=dice.uniform(0.01, 0.09),
            strands=Waves.of(dice, 0.0012, 0.004, 16, (1, 6, 2) if dice.chance(0.7) else (2, 2, 2)),
            strand_strength=dice.uniform(0.05, 0.35),
            locks=None if bald or dice.chance(0.25) else self._locks(dice, hair, scalp[:, 0], volume[:, 0]),
        )

    def _scalp(self, dice: Dice) -> Tensor:
        """Hairline [V, 1], wavy and somewhat higher or lower than the model's."""
        line = self.model.regions["scalp"][:, None] + 0.15 * Waves.of(dice, 0.02, 0.08, 6).at(self.points)
        above = (self.points[:, 1:2] - dice.uniform(0.755, 0.785)) / 0.02 + 4 * (0.09 - self.points[:, 2:3]).clamp(0, 0.05) / 0.05
        covered = ((line - dice.uniform(0.2, 0.6)) / 0.15).clamp(0, 1) * above.clamp(0, 1)
        return covered * self.skin[:, None] * (1 - self.model.regions["ears"][:, None])

    def _colours(self, dice: Dice, hair: Tensor, scalp: Tensor) -> Tensor:
        model, points, regions = self.model, self.points, {name: v[:, None] for name, v in self.model.regions.items()}
        tone = dice.uniform(0, 1) ** 1.7
        skin = torch.tensor(LIGHT_SKIN) ** (1 - tone) * torch.tensor(DARK_SKIN) ** tone * (1 + 0.04 * dice.normal(3))
        colour = skin * (1 + dice.uniform(0.02, 0.15) * Waves.of(dice, 0.015, 0.07).at(points))
        flush = (regions["nose"] + regions["ears"]).clamp(0, 1) * dice.uniform(0, 0.5)
        colour = colour * (1 - flush * torch.tensor([0.0, 0.3, 0.3]))
        if dice.chance(0.3):
            spots = ((Waves.of(dice, 0.003, 0.008, 24).at(points) - dice.uniform(1.2, 2.0)) / 0.3).clamp(0, 1)
            colour = colour * (1 - spots * torch.tensor([0.3, 0.45, 0.5]))
        tint = dice.colour(0.1, 0.6) if dice.chance(0.25) else skin * torch.tensor([1.0, 0.55, 0.55]) * dice.uniform(0.6, 1.1)
        colour = _mix(colour, tint, regions["lips"] * dice.uniform(0.5, 1))
        around = self.surround[:, None] * dice.uniform(0, 0.7 if dice.chance(0.35) else 0.2)
        colour = _mix(colour, dice.colour(0.01, 0.4) if dice.chance(0.3) else skin * 0.5, around * (1 - regions["lips"]))
        brow = (regions["brows"] * dice.uniform(1, 3) * (1 + 0.3 * Waves.of(dice, 0.002, 0.006).at(points))).clamp(0, 1)
        colour = _mix(colour, hair, brow * dice.uniform(0.3, 1))
        if dice.chance(0.35):
            low = ((dice.uniform(0.66, 0.69) - points[:, 1:2]) / 0.012).clamp(0, 1) * ((points[:, 2:3] - 0.06) / 0.03).clamp(0, 1)
            pattern = (0.75 + 0.35 * Waves.of(dice, 0.002, 0.01, 16).at(points)).clamp(0, 1)
            beard = low * pattern * (1 - regions["lips"]).clamp(0, 1) * ((points[:, 1:2] - 0.60) / 0.02).clamp(0, 1)
            colour = _mix(colour, hair, beard * dice.uniform(0.1, 0.9))
        colour = _mix(colour, hair, scalp)
        cloth = dice.colour() * (1 + 0.5 * (Waves.of(dice, 0.01, 0.08, 3).at(points) > 0) * dice.chance(0.5))
        collar = ((dice.uniform(0.54, 0.60) - points[:, 1:2]) / 0.004).clamp(0, 1) * (points[:, 1:2] < 0.63)
        colour = _mix(colour, cloth, collar)
        return self._eyes_and_mouth(dice, torch.where(self.skin[:, None] > 0, colour, model.albedo.pow(2.2))).clamp(0.003, 0.95)

    def _eyes_and_mouth(self, dice: Dice, colour: Tensor) -> Tensor:
        eyes, iris, pupil = self.eyes, self.angle < IRIS_ANGLE, self.angle < PUPIL * dice.uniform(0.7, 1.3)
        white = torch.tensor([0.72, 0.68, 0.65]) * dice.uniform(0.7, 1.15) * (1 + 0.03 * dice.normal(3))
        ring = dice.colour(0.015, 0.3)
        rays = ring * (1 + 0.35 * Waves.of(dice, 0.001, 0.004).at(self.points))
        rim = ((IRIS_ANGLE - self.angle) / 0.08).clamp(0.3, 1)[:, None]
        colour = torch.where(eyes[:, None], white.expand_as(colour), colour)
        colour = torch.where(iris[:, None], rays * rim, colour)
        colour = torch.where(pupil[:, None], torch.full_like(colour, 0.005), colour)
        teeth = torch.tensor([0.75, 0.70, 0.58]) ** dice.uniform(0.6, 1.8)
        colour = torch.where(self.teeth[:, None], teeth.expand_as(colour), colour)
        return torch.where((self.inner & ~self.teeth)[:, None], colour * (dice.uniform(0.5, 1.4) * (1 + 0.1 * dice.normal(3))), colour)

    def _locks(self, dice: Dice, hair: Tensor, scalp: Tensor, volume: Tensor) -> Locks:
        """Ribbons that leave the scalp along a combed direction, sink, and stay outside the skull."""
        root = torch.multinomial(scalp + 1e-9, LOCKS, replacement=True, generator=dice.generator)
        place, out = self.points[root], self.normals[root]
        comb = torch.tensor([dice.uniform(-0.7, 0.7), dice.uniform(-0.4, 0.5), dice.uniform(-1, 0.35)])
        length = dice.uniform(0.015, 0.09) if dice.chance(0.6) else dice.uniform(0.09, 0.28)
        length = length * (0.6 + 0.8 * torch.rand(LOCKS, 1, generator=dice.generator))
        curl, sink = dice.uniform(0.05, 0.9), torch.tensor([0.0, -dice.uniform(0.1, 0.8), 0.0])
        way = torch.nn.functional.normalize(dice.uniform(0.1, 0.6) * out + comb + curl * 0.4 * dice.normal(LOCKS, 3), dim=-1)
        points = [place + out * (volume[root] * scalp[root])[:, None]]
        for _ in range(SEGMENTS - 1):
            way = torch.nn.functional.normalize(way + 0.45 * sink + 0.25 * curl * dice.normal(LOCKS, 3), dim=-1)
            here = (points[-1] + way * length / (SEGMENTS - 1) - self.centre) / self.radii
            here = here * (1.04 / here.norm(dim=-1, keepdim=True)).clamp(min=1)
            points.append(here * self.radii + self.centre)
        path = torch.stack(points, 1)  # [N, S, 3]
        tangent = torch.nn.functional.normalize(path.diff(dim=1, append=2 * path[:, -1:] - path[:, -2:-1]), dim=-1)
        outward = torch.nn.functional.normalize((path - self.centre) / self.radii.square(), dim=-1)
        side = torch.nn.functional.normalize(torch.linalg.cross(tangent, outward), dim=-1)
        taper = torch.linspace(1, 0.25, SEGMENTS)[:, None] * dice.uniform(0.003, 0.011)
        ribbon = torch.stack([path - side * taper, path + side * taper], 2)  # [N, S, 2, 3]
        shade = (1 + 0.3 * dice.normal(LOCKS, 1, 1, 1)).clamp(0.4, 1.7) * (1 + 0.15 * dice.normal(LOCKS, SEGMENTS, 1, 1))
        colour = (hair * shade).clamp(0.003, 0.9).expand_as(ribbon)
        return Locks(ribbon.reshape(-1, 3), outward[:, :, None].expand_as(ribbon).reshape(-1, 3), colour.reshape(-1, 3))


def _mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return first + share.clamp(0, 1) * (second - first)


def _ribbon_faces() -> Tensor:
    """Triangles of all locks, from 0."""
    k = torch.arange(SEGMENTS - 1)
    strip = torch.cat([torch.stack([2 * k, 2 * k + 1, 2 * k + 2], 1), torch.stack([2 * k + 1, 2 * k + 3, 2 * k + 2], 1)])
    return (strip + (2 * SEGMENTS * torch.arange(LOCKS))[:, None, None]).reshape(-1, 3)
