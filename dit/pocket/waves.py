"""Random numbers by name, and smooth random patterns in space, for synthetic people."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Dice:
    """Random numbers of one generator."""

    generator: torch.Generator

    def uniform(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def chance(self, share: float) -> bool:
        return self.uniform(0, 1) < share

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def colour(self, low: float = 0.02, high: float = 0.9) -> Tensor:
        """[3] of any hue; its lightness and each channel are drawn apart."""
        light = self.uniform(low, high)
        return (light * (1 + self.uniform(0, 0.6) * (2 * torch.rand(3, generator=self.generator) - 1))).clamp(low, 1)


@dataclasses.dataclass(frozen=True)
class Waves:
    """A sum of sines in space with a variance of 1."""

    frequency: Tensor  # [K, 3] radians per metre
    phase: Tensor  # [K]

    @staticmethod
    def of(dice: Dice, shortest: float, longest: float, count: int = 12, stretch: tuple[float, float, float] = (1, 1, 1)) -> Waves:
        """Waves in random directions, their lengths in metres; a stretch above 1 makes them longer along that axis."""
        length = shortest * (longest / shortest) ** torch.rand(count, 1, generator=dice.generator)
        way = torch.nn.functional.normalize(dice.normal(count, 3), dim=-1)
        phase = 2 * math.pi * torch.rand(count, generator=dice.generator)
        return Waves(2 * math.pi / length * way / torch.tensor(stretch), phase)

    def at(self, points: Tensor) -> Tensor:
        """Values [..., 1] at points [..., 3] in metres."""
        waves = torch.sin(points @ self.frequency.to(points).T + self.phase.to(points))
        return math.sqrt(2 / len(self.phase)) * waves.sum(-1, keepdim=True)
