"""What a motion displaces on a target's skin: detail as predicted for it, the performer's own wrinkles, and contact."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from .closure import closure
from .contact import Contact
from .contact_fields import smoothstep
from .contact_rims import find_rims
from .detail import Detail
from .motion import HeadMotion
from .network import TransferNetwork, load_transfer_network
from .performance import Performance, neutral_vertices
from .settings import TransferSettings
from .wrinkles import transfer_fields

FEWEST_ACTED, WHOLLY_ACTED = 0.5, 0.9  # strength of an expression below which a shut eye is not held shut, and above which it is


def with_detail(
    motion: HeadMotion,
    proxy: HeadProxy,
    model: HeadModel,
    settings: TransferSettings,
    performance: Performance | None = None,
    network: TransferNetwork | None = None,
) -> HeadMotion:
    """The motion with all that it displaces on this proxy's skin; its jaw kept in range.

    Predicted detail is that of the target's own refined skin, or of the transfer network (the shipped one if none is given);
    a performer with a refined head brings wrinkles, and `settings.detail` blends from one to the other. Contact comes last, on
    top of both. Without a performance what is shut follows the motion itself.
    """
    detail = predicted_detail(motion, proxy, model, network)
    wrinkles = None if performance is None else performed_wrinkles(performance, proxy, model, settings)
    if wrinkles is not None:
        detail = detail * (1 - settings.detail) + wrinkles * settings.detail
    return _in_contact(motion, detail, proxy, model, settings, performance)


def with_edited_detail(edited: HeadMotion, before: HeadMotion, proxy: HeadProxy, model: HeadModel) -> HeadMotion:
    """An edited motion with its skin made to follow: what the motion `before` the edit displaced, by what the prediction changes.

    Lids and lips that the edit shuts are shut, and contact is solved anew.
    """
    detail = predicted_detail(edited, proxy, model)
    if before.detail_id == proxy.detail_id:
        basis = proxy.detail_basis if before.detail_basis is None else before.detail_basis
        detail = detail + predicted_detail(before, proxy, model) * -1 + Detail(basis, edited.detail)
    return _in_contact(edited, detail, proxy, model, TransferSettings(), None)


def _in_contact(
    motion: HeadMotion,
    detail: Detail,
    proxy: HeadProxy,
    model: HeadModel,
    settings: TransferSettings,
    performance: Performance | None,
) -> HeadMotion:
    """The motion with this detail and, if wanted, with contact on top."""
    if settings.contact and find_rims(model) is not None:
        lids, lips = _closure(motion, proxy, model, settings, performance)
        contact = Contact(model, proxy.identity, proxy.displacement)
        joints, fields, coefficients = contact.correct(
            motion.expression, motion.joints, lids, lips, detail.fields, detail.coefficients
        )
        motion, detail = dataclasses.replace(motion, joints=joints), detail + Detail(fields, coefficients)
    detail = detail.shortened()
    return dataclasses.replace(motion, detail=detail.coefficients, detail_basis=detail.fields, detail_id=proxy.detail_id)


def predicted_detail(motion: HeadMotion, proxy: HeadProxy, model: HeadModel, network: TransferNetwork | None = None) -> Detail:
    """Displacements that the target's face is expected to have: Df = G(neutral, E(expression, jaw)), none at its neutral.

    A head that was refined on a clip knows its own: there detail follows the expression as that clip showed it. Without that,
    and without a network for this head model, there are none.
    """
    away = motion.expression - proxy.neutral
    if proxy.detail_basis is not None and len(proxy.detail_basis) and proxy.detail_by_expression is not None:
        return Detail(proxy.detail_basis, away @ proxy.detail_by_expression)
    network = network or load_transfer_network(model)
    if network is None:
        return Detail(away.new_zeros(0, model.vertex_count, 3), away.new_zeros(len(away), 0))
    still = torch.zeros_like(motion.joints[:1])
    fields = network.fields(neutral_vertices(model, proxy, torch.zeros_like(proxy.neutral)), model)
    codes = network.encode(motion.expression, motion.joints) - network.encode(proxy.neutral[None], still)
    return Detail(fields, codes)


def performed_wrinkles(performance: Performance, proxy: HeadProxy, model: HeadModel, settings: TransferSettings) -> Detail | None:
    """The performer's own displacements on the target's skin, relative to its rest; None if the performer is not refined."""
    motion = performance.motion
    if motion.detail is None:
        return None
    target = neutral_vertices(model, proxy, proxy.neutral)
    fields = transfer_fields(motion.detail_basis, performance.neutral, target, model)
    offset = motion.detail - performance.detail_at_rest if settings.mode == "relative" else motion.detail
    return Detail(fields, settings.acted * offset)


def _closure(
    motion: HeadMotion, proxy: HeadProxy, model: HeadModel, settings: TransferSettings, performance: Performance | None
) -> tuple[Tensor, Tensor]:
    """How far lids [T, 2] and lips [T, N] are to be shut: as far as the performer's, if they are to act as strongly."""
    if performance is None:
        still = torch.zeros_like(motion.joints[0])
        return closure(model, motion.expression, motion.joints, proxy.neutral, still, proxy.identity, proxy.displacement)
    acted, rest = performance.motion, performance.rest
    lids, lips = closure(
        model, acted.expression, acted.joints, rest.expression, rest.joints, performance.identity, performance.displacement
    )
    gains = settings.gains
    return lids * _held_shut(settings.acted * gains.lids), lips * _held_shut(settings.acted * min(gains.mouth, gains.jaw))


def _held_shut(strength: float) -> float:
    share = (strength - FEWEST_ACTED) / (WHOLLY_ACTED - FEWEST_ACTED)
    return float(smoothstep(torch.tensor(share)))
