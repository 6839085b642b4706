"""The explicit expression code: what a face does, in numbers of the head model, for the pocket model and for adapters."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.head_model import JOINTS, HeadModel

TURN = 4.0  # what a radian of jaw and eyes counts in the code, where a full expression counts 1
TURNED = ("jaw", "left_eye", "right_eye")


def code_size(model: HeadModel) -> int:
    """How many numbers `expression_code` has for a head model."""
    return len(model.expression_names) + 3 * len(TURNED)


def expression_code(pose) -> Tensor:
    """Explicit expression code [t, E + 9] of anything with expression [t, E] and joints [t, J, 3]: expression, jaw, both eyes."""
    turns = pose.joints[:, [JOINTS.index(name) for name in TURNED]]
    return torch.cat([pose.expression, TURN * turns.flatten(1)], dim=1)
