"""Gains by region of the face, for expressions that have names and for those that do not."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel
from .settings import REGIONS, RegionGains

# ARKit's names by what they begin with.
PREFIXES = {
    "brow": "brows", "eyeBlink": "lids", "eyeSquint": "lids", "eyeWide": "lids", "eyeLook": "gaze", "cheek": "cheeks",
    "nose": "nose", "mouth": "mouth", "jaw": "jaw", "tongue": "tongue",
}  # fmt: skip
MASKS = {"brows": "brows", "lids": "lids", "nose": "nose", "mouth": "lips", "tongue": "tongue"}  # names in HeadModel.regions
FOREHEAD = 0.01  # metres below the brows at which the forehead begins
RIDGE = 1e-4  # of the mean energy of an expression: what the mesh cannot tell apart stays as it is


def region_of(name: str) -> str | None:
    """Region that an ARKit expression belongs to; None for another name."""
    return next((region for prefix, region in PREFIXES.items() if name.startswith(prefix)), None)


def scale_expression(expression: Tensor, gains: RegionGains, model: HeadModel) -> Tensor:
    """Expression [T, E], as a difference from rest, with each region's gain.

    With ARKit's names every coefficient has its region's gain; mouthClose takes back what jawOpen opens, so the jaw's counts
    too. Expressions without names (SMPL-X) act on several regions at once: the result is the least-squares solution that
    moves each vertex gain times as far.
    """
    if gains == RegionGains():
        return expression
    regions = [region_of(name) for name in model.expression_names]
    if all(regions):
        scale = [getattr(gains, region) for region in regions]
        if "mouthClose" in model.expression_names:
            scale[model.expression_names.index("mouthClose")] *= gains.jaw
        return expression * expression.new_tensor(scale)
    return expression @ _mixing(gains, model).to(expression)


def region_amounts(expression: Tensor, model: HeadModel) -> dict[str, Tensor]:
    """Largest coefficient [T] of each region in expression [T, E], as a share of its bound; empty without ARKit's names."""
    share = expression.abs() / model.expression_bounds.abs().amax(1).to(expression)
    regions = [region_of(name) for name in model.expression_names]
    if not all(regions):
        return {}
    return {region: share[:, [k for k, of in enumerate(regions) if of == region]].amax(1) for region in REGIONS if region in regions}


def multiply(gains: RegionGains, factors: dict[str, float]) -> RegionGains:
    """Gains times further factors of some regions."""
    return dataclasses.replace(gains, **{name: getattr(gains, name) * factor for name, factor in factors.items()})


def _mixing(gains: RegionGains, model: HeadModel) -> Tensor:
    """Matrix [E, E] for expressions as rows: (B'B + ridge) X = B' diag(gain) B + ridge, solved for X, transposed."""
    rows = model.dense(model.expression_basis).double()  # [E, V, 3]
    masks = {region: model.regions[name] for region, name in MASKS.items()}
    rest = (model.regions["face"] - sum(masks.values())).clamp(min=0)
    height = model.dense(model.template[None])[0, :, 1]
    brows = (masks["brows"] * height).sum() / masks["brows"].sum()
    forehead = ((height - brows) / FOREHEAD + 1).clamp(0, 1)  # what moves the brows moves the skin above them
    masks["brows"], rest = masks["brows"] + rest * forehead, rest * (1 - forehead)
    weights = torch.stack([*masks.values(), rest]).double()  # [R, V]
    amount = weights.new_tensor([getattr(gains, name) for name in (*masks, "cheeks")])
    total = weights.sum(0)
    gain = torch.where(total > 0, (amount @ weights) / total.clamp(min=1e-6), torch.ones_like(total))
    whole = rows.flatten(1) @ rows.flatten(1).mT
    scaled = (rows * gain[:, None]).flatten(1) @ rows.flatten(1).mT
    ridge = RIDGE * whole.diagonal().mean() * torch.eye(len(whole)).to(whole)
    return torch.linalg.solve(whole + ridge, scaled + ridge).mT
