"""A motion of toy size for the tests of the motion tools."""

import torch

from expportrait.proxy.head_model import JOINTS
from expportrait.transfer.motion import HeadMotion


def make_motion(generator, frames=40, fps=25.0, detail=3, expressions=5) -> HeadMotion:
    """A smoothly waving head with `detail` fields of its own on 7 vertices."""
    phase = torch.linspace(0, 6.28, frames)[:, None]

    def waves(size):
        return torch.sin(phase + 6.28 * torch.rand(size, generator=generator))

    return HeadMotion(
        model_id="toy",
        expression=0.5 + 0.4 * waves(expressions),
        joints=0.3 * waves(len(JOINTS) * 3).unflatten(1, (-1, 3)),
        translation=torch.tensor([0.0, -0.3, -1.2]) + 0.05 * waves(3),
        valid=torch.ones(frames, dtype=torch.bool),
        fps=fps,
        detail=waves(detail) if detail else None,
        detail_id="somebody" if detail else None,
        detail_basis=0.001 * torch.randn(detail, 7, 3, generator=generator) if detail else None,
    )
