"""A proxy with displacement: smooth random fields of a few millimetres."""

import dataclasses
import math

import torch

from expportrait.proxy.head_model import HeadModel
from expportrait.proxy.head_proxy import HeadProxy


def fields(model: HeadModel, count: int, generator: torch.Generator, size: float = 0.002) -> torch.Tensor:
    """Smooth random fields [count, V, 3] of the given RMS in metres."""
    points = model.canonical(*(torch.zeros(1, len(basis)) for basis in (model.identity_basis, model.expression_basis)))
    frequency = 40 * torch.randn(count, 1, 3, generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, 1, generator=generator)
    wave = torch.sin((points * frequency).sum(-1, keepdim=True) + phase) * torch.randn(count, 1, 3, generator=generator)
    return size * wave / wave.square().sum(-1).mean(-1).sqrt()[:, None, None]


def displace(proxy: HeadProxy, model: HeadModel, generator: torch.Generator, count: int = 4, frames: int = 5) -> HeadProxy:
    """The same person with a static displacement and `count` detail fields that every expression calls up."""
    return dataclasses.replace(
        proxy,
        displacement=fields(model, 1, generator)[0],
        detail_basis=fields(model, count, generator, 0.001),
        detail=torch.randn(frames, count, generator=generator),
        detail_by_expression=torch.randn(len(model.expression_names), count, generator=generator),
        detail_kept=0.9991,
    )
