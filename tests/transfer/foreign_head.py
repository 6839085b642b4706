"""A head model whose expressions have no names: the embedded head's, mixed at random as principal components are."""

import dataclasses

import torch

from expportrait.proxy.head_model import JOINTS

SCALE = 1.3


def make_foreign(model, generator, scale: float = SCALE):
    """The embedded head, larger, its expression shapes orthogonally mixed; jaw and eyes turn by their joints only."""
    count = len(model.expression_names)
    mix = torch.linalg.qr(torch.randn(count, count, generator=generator)).Q
    basis = scale * (mix @ model.expression_basis.flatten(1)).unflatten(1, (-1, 3))
    return dataclasses.replace(
        model,
        model_id="foreign-head",
        template=scale * model.template,
        identity_basis=scale * model.identity_basis,
        expression_basis=basis,
        expression_names=tuple(f"component_{k:03d}" for k in range(count)),
        expression_bounds=torch.tensor([[-3.0, 3.0]]).repeat(count, 1),
        joint_template=scale * model.joint_template,
        joint_identity=scale * model.joint_identity,
        expression_joints=torch.zeros(count, len(JOINTS), 3),
    )
