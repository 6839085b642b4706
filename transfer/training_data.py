"""Subjects to train expression transfer on: neutral faces and what expressions do to them beyond the linear blend shapes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..proxy.detail import low_rank
from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.head_proxy import HeadProxy
from .closure import closure
from .contact import Contact
from .deformation_transfer import DeformationTransfer
from .moving_skin import moving_controls
from .network import JAW, MILLIMETRE

SPREAD = (0.5, 1.1)  # of the identity coefficients, in standard deviations
SURFACE_SHARE, SURFACE_SIZE = 0.5, 0.0015  # share of subjects whose neutral is displaced as refined heads are, and RMS in metres
WAVE = 30.0  # radians per metre: standard deviation of the frequencies of that displacement
JAW_RANGE = ((-0.02, 0.25), (-0.08, 0.08), (-0.05, 0.05))  # radians
DRIVERS = 192
CONTACT_ENERGY, CONTACT_FIELDS = 0.98, 16  # share of the contact corrections that is kept, and the most fields for it


@dataclasses.dataclass(frozen=True)
class Drivers:
    """Expressions and joints that every subject is asked to show."""

    expression: Tensor  # [P, E]
    joints: Tensor  # [P, J, 3] rotation vectors, radians

    def __len__(self) -> int:
        return len(self.expression)


@dataclasses.dataclass(frozen=True)
class Subject:
    """One face: its neutral, and what is missing to the linear blend shapes, in millimetres and canonical space."""

    neutral: Tensor  # [V, 3] metres
    fields: Tensor  # [N, E, 3] float16, per unit of expression, at the moving control vertices
    contact: Tensor  # [K, L, 3] float16 fields that keep contact
    contact_vertices: Tensor  # [L] dense vertices where they are not zero
    contact_amount: Tensor  # [P, K] for each driver
    wrinkles: HeadProxy | None = None  # refined head whose detail comes on top


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """Every driver on every subject is a (subject, frame) pair."""

    drivers: Drivers
    subjects: list[Subject]


class SubjectMaker:
    """Solves how drivers look on a face: deformation transfer, then contact of lids, lips and teeth where the template has it."""

    def __init__(self, model: HeadModel, drivers: Drivers):
        self.model, self.drivers = model, drivers
        self._transfer = DeformationTransfer(model)
        self._still = model.template.new_zeros(1, len(model.expression_names))
        rest_joints = model.template.new_zeros(len(JOINTS), 3)
        self._closure = closure(model, drivers.expression, drivers.joints, self._still[0], rest_joints)

    def solve(self, identity: Tensor, displacement: Tensor | None, wrinkles: HeadProxy | None = None) -> Subject:
        """The subject of identity [I] and static displacement [V, 3] (metres, canonical space) or None."""
        model = self.model
        neutral = model.canonical(identity[None], self._still)[0]
        if displacement is not None:
            neutral = neutral + displacement
        missing = self._transfer.fields(neutral) - model.expression_basis  # [E, C, 3]
        contact = self._contact(identity, displacement, missing)
        fields = (missing[:, moving_controls(model)] / MILLIMETRE).transpose(0, 1).half().contiguous()
        return Subject(neutral, fields, *contact, wrinkles)

    def random(self, generator: torch.Generator) -> Subject:
        """A face of the model's prior, at times displaced as refined heads are."""
        low, high = SPREAD
        spread = low + (high - low) * torch.rand(1, generator=generator)
        identity = (spread * torch.randn(len(self.model.identity_names), generator=generator)).to(self.model.template)
        displacement = None
        if torch.rand(1, generator=generator) < SURFACE_SHARE:
            displacement = _smooth_displacement(self.model.canonical(identity[None], self._still)[0], generator)
        return self.solve(identity, displacement)

    def refined(self, proxy: HeadProxy) -> Subject:
        """A refined head, whose own detail comes on top. Raises ValueError if it has none that follows the expression."""
        if proxy.detail_basis is None or proxy.detail_by_expression is None:
            raise ValueError("this head proxy has no detail to learn from; refine it on a clip with expressions, or leave it out")
        return self.solve(proxy.identity, proxy.displacement, proxy)

    def _contact(self, identity: Tensor, displacement: Tensor | None, missing: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Contact's corrections of all drivers: few fields [K, L, 3] (millimetres), their vertices [L] and amounts [P, K]."""
        if self._closure is None:  # the model's lids and lips are not to be found
            none = torch.zeros(0, dtype=torch.int64, device=missing.device)
            return missing.new_zeros(0, 0, 3).half(), none, missing.new_zeros(len(self.drivers), 0)
        dense = torch.sparse.mm(self.model.stencil, missing.transpose(0, 1).flatten(1)).unflatten(1, (-1, 3)).transpose(0, 1)
        expression, joints = self.drivers.expression, self.drivers.joints
        contact = Contact(self.model, identity, displacement)
        _, fields, amount = contact.correct(expression, joints, *self._closure, dense, expression)
        # Few modes hold nearly all of them, and hundreds of subjects have to fit into memory.
        reached = fields.abs().amax((0, 2)).nonzero()[:, 0]
        moved = (amount @ fields[:, reached].flatten(1)).unflatten(1, (-1, 3)) / MILLIMETRE
        basis, amount, _ = low_rank(moved, CONTACT_ENERGY, CONTACT_FIELDS)
        return basis.half(), reached, amount


def make_training_set(
    model: HeadModel,
    count: int,
    generator: torch.Generator,
    proxies: tuple[HeadProxy, ...] = (),
    drivers: int = DRIVERS,
    progress: Callable[[int, int], None] | None = None,
) -> TrainingSet:
    """`count` random faces, and refined heads behind them, with random drivers solved on all; about two seconds a face."""
    maker = SubjectMaker(model, random_drivers(model, drivers, generator))
    subjects = []
    for done in range(count):
        subjects.append(maker.random(generator))
        if progress:
            progress(done + 1, count)
    return TrainingSet(maker.drivers, subjects + [maker.refined(proxy) for proxy in proxies])


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
