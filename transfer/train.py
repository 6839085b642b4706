"""Training of the transfer network on (subject, frame) pairs, and its measures on subjects it never saw."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel
from .local_geometry import LocalGeometry
from .moving_skin import moving_controls
from .network import MILLIMETRE, Surface, TransferNetwork
from .training_data import Drivers, Subject, random_drivers

SUBJECTS_AT_ONCE, VERTICES_AT_ONCE, DRIVERS_AT_ONCE = 4, 400, 18
SOFT = 0.05  # millimetres: errors below count by their square
AVERAGED = 0.998  # share of the running mean of the weights that stays at every step
DECAY = 1e-3
CLIP = 1.0


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How long and how fast."""

    steps: int = 3200
    rate: float = 3e-3  # of Adam, at its highest

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; train for at least 1 step")
        if not (math.isfinite(self.rate) and self.rate > 0):
            raise ValueError(f"rate is {self.rate}; give a number above 0")


class Truth:
    """What the network is asked and what it should answer, for subjects of one model."""

    def __init__(self, model: HeadModel, subjects: list[Subject]):
        self.model, self.subjects = model, subjects
        self.surface = Surface(model)
        self.moving = self.surface.moving  # [M]
        controls = moving_controls(model)
        places = torch.full((len(model.template),), -1, device=controls.device)
        places[controls] = torch.arange(len(controls), device=controls.device)
        slot = places[self.surface.control]
        self._slot, self._share = slot.clamp(min=0), self.surface.weight * (slot >= 0)  # [V, K] each
        self.local = [self.surface.template.describe(subject.neutral).at(self.moving) for subject in subjects]
        regions, motion = model.regions, self.surface.expression.square().sum(-1).mean(-1).sqrt()  # [V]
        weight = self.surface.share * (0.3 + (motion / motion.max()).sqrt()) * (1 + 2 * torch.maximum(regions["lids"], regions["lips"]))
        self.weight = weight[self.moving].float()  # how often each of the moving vertices is asked for

    def displacement(self, subject: int, index: Tensor, expression: Tensor) -> Tensor:
        """True displacement [T, N, 3] in millimetres at the dense vertices `index` [N] of expressions [T, E]."""
        truth = self.subjects[subject]
        fields = (self._share[index][..., None] * truth.fields.flatten(1)[self._slot[index]]).sum(1)  # [N, E * 3]
        out = torch.einsum("te,nec->tnc", expression, fields.unflatten(1, (-1, 3)))
        if truth.wrinkles is not None:
            basis = truth.wrinkles.detail_basis[:, index] * self.surface.share[index, None]
            detail = expression @ truth.wrinkles.detail_by_expression
            out += torch.einsum("tk,knc->tnc", detail, basis) / MILLIMETRE
        return out


def train_network(
    model: HeadModel,
    subjects: list[Subject],
    settings: TrainSettings,
    generator: torch.Generator,
    progress: Callable[[int, int], None] | None = None,
    **sizes: int,
) -> TransferNetwork:
    """A transfer network trained on subjects and random expressions; returns the running mean of its weights.

    Each step draws subjects, vertices (more on lids, lips and where much moves) and drivers, and lowers the smooth absolute
    error (Charbonnier) in millimetres with AdamW under a cosine schedule. Gradients are computed even inside inference mode.

    Raises ValueError without a subject.
    """
    if not subjects:
        raise ValueError("there is no subject to train on; ask for at least one identity")
    with torch.inference_mode(False), torch.enable_grad():
        truth = Truth(model, subjects)
        network = TransferNetwork.create(model, generator, **sizes)
        network.whole.bias.requires_grad_(False)  # the first layer has one
        mean = TransferNetwork.create(model, generator, **sizes).requires_grad_(False)
        mean.load_state_dict(network.state_dict())
        optimiser = torch.optim.AdamW(network.parameters(), settings.rate, weight_decay=DECAY)
        warm = max(1, settings.steps // 30)
        for step in range(settings.steps):
            cosine = 0.5 * (1 + math.cos(math.pi * step / settings.steps))
            optimiser.param_groups[0]["lr"] = settings.rate * min(1, (step + 1) / warm) * cosine
            loss = _loss(network, truth, generator)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimiser.step()
            kept = min(AVERAGED, (1 + step) / (10 + step))
            with torch.no_grad():
                for averaged, current in zip(mean.parameters(), network.parameters()):
                    averaged.lerp_(current, 1 - kept)
            if progress:
                progress(step + 1, settings.steps)
        return mean.eval()


def _loss(network: TransferNetwork, truth: Truth, generator: torch.Generator) -> Tensor:
    chosen = torch.randint(len(truth.subjects), (SUBJECTS_AT_ONCE,), generator=generator).tolist()
    drivers = random_drivers(truth.model, DRIVERS_AT_ONCE, generator)
    rows = torch.multinomial(truth.weight.cpu(), min(VERTICES_AT_ONCE, len(truth.moving)), generator=generator).to(truth.moving)
    index = truth.moving[rows]
    parts = [truth.local[k].at(rows) for k in chosen]
    local = LocalGeometry(*(torch.cat([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(LocalGeometry)))
    neutral = torch.stack([truth.subjects[k].neutral for k in chosen])
    fields = network.fields_at(local, network.describe_whole(neutral, truth.surface), truth.surface, index)
    predicted = torch.einsum("tk,snkc->stnc", network.encode(drivers.expression, drivers.joints), fields) / MILLIMETRE
    wanted = torch.stack([truth.displacement(k, index, drivers.expression) for k in chosen])
    return ((predicted - wanted).square().sum(-1) + SOFT**2).sqrt().mean() - SOFT


@torch.no_grad()
def evaluate(
    network: TransferNetwork, model: HeadModel, subjects: list[Subject], drivers: Drivers
) -> dict[str, dict[str, float]]:
    """Mean vertex errors in millimetres, weighted by how far the blend shapes move each vertex, per region of the face.

    `blend_shapes` adds nothing, `copied_offsets` adds the true displacement of another subject, `network` is the network's
    own, and `other_neutral` the network's when it is shown another subject's neutral. The subjects should be none that the
    network was trained on. Raises ValueError for fewer than two.
    """
    if len(subjects) < 2:
        raise ValueError(f"{len(subjects)} subjects were given; measuring needs at least 2, to copy from one to another")
    truth = Truth(model, subjects)
    code = network.encode(drivers.expression, drivers.joints)
    index = truth.moving
    regions = {name: model.regions[name][index] for name in ("face", "lids", "lips")}
    skin = model.vertex_parts()[index] == 0
    blended = truth.surface.expression[index].flatten(1)  # [M, E * 3]
    motion = torch.einsum("te,nec->tnc", drivers.expression, blended.unflatten(1, (-1, 3))).norm(dim=-1) * skin
    errors: dict[str, dict[str, list[Tensor]]] = {}
    fields = [network.fields(subject.neutral, model)[:, index] / MILLIMETRE for subject in subjects]
    for k in range(len(subjects)):
        other = (k + 1) % len(subjects)
        true = truth.displacement(k, index, drivers.expression)
        guesses = {
            "blend_shapes": torch.zeros_like(true),
            "copied_offsets": truth.displacement(other, index, drivers.expression),
            "network": torch.einsum("tk,knc->tnc", code, fields[k]),
            "other_neutral": torch.einsum("tk,knc->tnc", code, fields[other]),
        }
        for name, guess in guesses.items():
            error = (guess - true).norm(dim=-1)
            for region, mask in regions.items():
                weight = motion * mask
                errors.setdefault(name, {}).setdefault(region, []).append((weight * error).sum() / weight.sum())
    return {name: {region: float(torch.stack(v).mean()) for region, v in found.items()} for name, found in errors.items()}
