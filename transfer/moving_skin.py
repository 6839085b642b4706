"""The skin that expressions move: where an expression may look different on another face."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import PARTS, HeadModel

MOVING_PARTS = ("skin", "mouth")  # eyeballs, teeth, gums and tongue are rigid or move as the linear blend shapes say
STILL = 2e-5  # metres: control vertices that no expression moves farther stay pinned


def unit_expressions(model: HeadModel) -> Tensor:
    """How much [E] of each expression is looked at: one unit, or its bound if that is less."""
    return model.expression_bounds.abs().amax(1).clamp(max=1)


def moving_controls(model: HeadModel) -> Tensor:
    """Indices [N] int64 of the control vertices that shape skin or mouth lining, carry nothing rigid and are moved by some expression."""
    parts = model.vertex_parts()
    soft = torch.isin(parts, torch.tensor([PARTS.index(name) for name in MOVING_PARTS], device=parts.device))
    share = model.stencil.coalesce()
    vertex, control = share.indices()
    used = share.values() != 0
    count = len(model.template)
    shapes, carries = (torch.bincount(control[used & kind[vertex]], minlength=count) > 0 for kind in (soft, ~soft))
    moves = (model.expression_basis * unit_expressions(model)[:, None, None]).norm(dim=-1).amax(0) > STILL
    return (moves & shapes & ~carries).nonzero()[:, 0]


def moving_share(model: HeadModel) -> Tensor:
    """Share [V] 0..1 of each dense vertex that hangs on moving control vertices: fades out where the skin comes to rest."""
    chosen = torch.zeros(len(model.template), 1).to(model.template)
    chosen[moving_controls(model)] = 1
    return torch.sparse.mm(model.stencil, chosen)[:, 0].clamp(0, 1)
