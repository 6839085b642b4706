"""Small builders shared by the transfer tests."""

import dataclasses

import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.head_track import HeadTrack


def make_proxy(model, generator) -> HeadProxy:
    count = len(model.expression_names)
    joints = 0.1 * torch.randn(len(JOINTS), 3, generator=generator)
    joints[0] = 0
    return HeadProxy(
        model_id=model.model_id,
        identity=torch.randn(model.identity_basis.shape[0], generator=generator),
        albedo=torch.rand(3, 8, 8, generator=generator),
        albedo_confidence=torch.ones(1, 8, 8),
        neutral=0.1 * torch.rand(count, generator=generator),
        source_expression=0.3 * torch.rand(count, generator=generator),
        source_joints=joints,
        source_translation=torch.tensor([0.02, -0.3, -0.8]),
        focal=700.0,
        width=512,
        height=384,
        crop=(10.0, 20.0, 300.0, 300.0),
    )


def make_track(model, generator, frames=40) -> HeadTrack:
    count = len(model.expression_names)
    time = torch.linspace(0, 6.28, frames)[:, None]
    phase = 6.28 * torch.rand(count, generator=generator)
    joints = 0.2 * torch.sin(time[:, :, None] + 6.28 * torch.rand(len(JOINTS), 3, generator=generator))
    joints[:, 0] = 0
    return HeadTrack(
        model_id=model.model_id,
        identity=torch.randn(model.identity_basis.shape[0], generator=generator),
        expression=0.4 * (1 + torch.sin(time + phase)) / 2,
        joints=joints,
        translation=torch.tensor([0.0, -0.3, -1.2]) + 0.05 * torch.sin(time + torch.tensor([0.0, 1.0, 2.0])),
        focal=900.0,
        width=640,
        height=480,
        fps=25.0,
        valid=torch.ones(frames, dtype=torch.bool),
        confidence=torch.ones(frames),
        landmarks=torch.zeros(frames, 478, 2),
        landmarks_fit=torch.zeros(frames, 478, 2),
    )


def refine(proxy, model, generator, frames=8, count=3) -> HeadProxy:
    """The proxy with a static displacement and `count` smooth fields of detail on its face, as a refinement leaves them."""
    places = torch.sparse.mm(model.stencil, model.template)
    waves = torch.sin(places @ (60 * torch.randn(3, count + 1, generator=generator))).T[..., None]  # [K + 1, V, 1]
    fields = 1e-3 * waves * model.vertex_normals(places[None]) * model.regions["face"][:, None]
    return dataclasses.replace(
        proxy,
        displacement=fields[0].contiguous(),
        detail_basis=fields[1:].contiguous(),
        detail=torch.randn(frames, count, generator=generator),
        detail_by_expression=torch.randn(len(proxy.neutral), count, generator=generator),
        detail_kept=1.0,
    )
