"""Subjects to train expression transfer on: neutral faces and what expressions do to them beyond the linear blend shapes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.head_proxy import HeadProxy
from .deformation_transfer import DeformationTransfer
from .moving_skin import moving_controls
from .network import JAW, MILLIMETRE

SPREAD = (0.5, 1.1)  # of the identity coefficients, in standard deviations
SURFACE_SHARE, SURFACE_SIZE = 0.5, 0.0015  # share of subjects whose neutral is displaced as refined heads are, and RMS in metres
WAVE = 30.0  # radians per metre: standard deviation of the frequencies of that displacement
JAW_RANGE = ((-0.02, 0.25), (-0.08, 0.08), (-0.05, 0.05))  # radians


@dataclasses.dataclass(frozen=True)
class Drivers:
    """Expressions and joints that a face is asked to show."""

    expression: Tensor  # [P, E]
    joints: Tensor  # [P, J, 3] rotation vectors, radians


@dataclasses.dataclass(frozen=True)
class Subject:
    """One face: its neutral, and what is missing to the linear blend shapes, in canonical space."""

    neutral: Tensor  # [V, 3] metres
    fields: Tensor  # [N, E, 3] float16, millimetres per unit of expression, at the moving control vertices
    wrinkles: HeadProxy | None = None  # refined head whose detail comes on top


class SubjectMaker:
    """Solves how expressions look on a face: deformation transfer with lids that close, lips that seal and eyes that stay covered.

    Contact beyond that depends on the frame as a whole and is solved for every frame by `contact.py`, which needs no learning.
    """

    def __init__(self, model: HeadModel):
        self.model, self._transfer = model, DeformationTransfer(model)
        self._still = model.template.new_zeros(1, len(model.expression_names))

    def solve(self, neutral: Tensor, wrinkles: HeadProxy | None = None) -> Subject:
        """The subject of a neutral [V, 3] in canonical space, metres."""
        missing = self._transfer.fields(neutral) - self.model.expression_basis  # [E, C, 3]
        fields = (missing[:, moving_controls(self.model)] / MILLIMETRE).transpose(0, 1).half().contiguous()
        return Subject(neutral, fields, wrinkles)

    def random(self, generator: torch.Generator) -> Subject:
        """A face of the model's prior, at times displaced as refined heads are."""
        low, high = SPREAD
        spread = low + (high - low) * torch.rand(1, generator=generator)
        identity = spread * torch.randn(1, len(self.model.identity_names), generator=generator)
        neutral = self.model.canonical(identity.to(self.model.template), self._still)[0]
        if torch.rand(1, generator=generator) < SURFACE_SHARE:
            neutral = neutral + _smooth_displacement(neutral, generator)
        return self.solve(neutral)

    def refined(self, proxy: HeadProxy) -> Subject:
        """A refined head, whose own detail comes on top. Raises ValueError if it has none that follows the expression."""
        if proxy.detail_basis is None or proxy.detail_by_expression is None:
            raise ValueError("this head proxy has no detail to learn from; refine it on a clip with expressions, or leave it out")
        neutral = self.model.canonical(proxy.identity[None], self._still)[0]
        return self.solve(neutral if proxy.displacement is None else neutral + proxy.displacement, proxy)


def make_subjects(
    model: HeadModel,
    count: int,
    generator: torch.Generator,
    proxies: tuple[HeadProxy, ...] = (),
    progress: Callable[[int, int], None] | None = None,
) -> list[Subject]:
    """Refined heads, and `count` random faces behind them; about a second a face."""
    maker = SubjectMaker(model)
    subjects = [maker.refined(proxy) for proxy in proxies]
    for done in range(count):
        subjects.append(maker.random(generator))
        if progress:
            progress(done + 1, count)
    return subjects


def random_drivers(model: HeadModel, count: int, generator: torch.Generator) -> Drivers:
    """Single shapes (every one of them in turn), sparse mixes and faint blends of all, a third each; some jaws turn."""
    low, high = model.expression_bounds.cpu().unbind(1)
    names, third = len(low), count // 3
    amount = torch.rand(count, names, generator=generator)
    toward = torch.where(torch.rand(count, names, generator=generator) < high / (high - low), high, low)
    active = torch.randint(2, 7, (count, 1), generator=generator)
    chosen = (torch.rand(count, names, generator=generator).argsort(1).argsort(1) < active).float()
    chosen[:third] = torch.eye(names)[torch.randperm(max(third, names), generator=generator)[:third] % names]
    amount[:third] = amount[:third].sqrt()  # single shapes mostly in full
    chosen[count - third :] = (chosen + 0.3)[count - third :].clamp(max=1)
    joints = torch.zeros(count, len(JOINTS), 3)
    least, most = torch.tensor(JAW_RANGE).unbind(1)
    turn = least + (most - least) * torch.rand(count, 3, generator=generator)
    joints[:, JAW] = turn * (torch.rand(count, 1, generator=generator) < 0.4)
    return Drivers((amount * toward * chosen).to(model.template), joints.to(model.template))


def _smooth_displacement(points: Tensor, generator: torch.Generator) -> Tensor:
    """A displacement [V, 3] of a few long waves, as fitting a head to pictures leaves."""
    waves = 6
    frequency = (WAVE * torch.randn(waves, 3, generator=generator)).to(points)
    phase = (2 * math.pi * torch.rand(waves, generator=generator)).to(points)
    direction = torch.randn(waves, 3, generator=generator).to(points)
    return SURFACE_SIZE * math.sqrt(2 / (3 * waves)) * torch.sin(points @ frequency.T + phase) @ direction
