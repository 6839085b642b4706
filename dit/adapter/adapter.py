"""The adapter as one module: what is encoded once for a clip, and what is added to the base's tokens at every step.

All of it is additive. Before training, the last layer of every branch is zero, and so is what it adds.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from .config import AdapterConfig
from .encoders import LatentControlEncoder, PixelControlEncoder, ReferenceEncoder
from .expression import ExplicitCode, ExpressionAttention, ExpressionTokens
from .face_encoder import SIZE as FACE
from .face_encoder import FaceEncoder


@dataclasses.dataclass(frozen=True)
class PortraitCondition:
    """What a clip's head is encoded to, for latents of T frames, h x w. None where the adapter has no such branch or nothing was given."""

    control: Tensor | None = None  # [B, C, T, h, w]
    reference: Tensor | None = None  # [B, C, 1, h, w], or half that size for tokens
    expression: Tensor | None = None  # [B, C, T, N]


class PortraitAdapter(nn.Module):
    """Branches of an adapter, by its config; layers are taken from `operations` (torch.nn, or a runtime's own)."""

    def __init__(self, config: AdapterConfig, operations=nn):
        super().__init__()
        self.config = config
        encoder = {"pixel": PixelControlEncoder, "latent": LatentControlEncoder, "none": None}[config.control]
        self.control = None if encoder is None else encoder(config, operations)
        self.reference = None if config.reference == "none" else ReferenceEncoder(config, operations)
        self.explicit = ExplicitCode(config, operations) if config.code == "explicit" else None
        self.face = FaceEncoder(config.code_size, operations) if config.code == "face" else None
        self.expression = None if config.code == "none" else ExpressionTokens(config, operations)
        self.attention = nn.ModuleDict({str(block): ExpressionAttention(config, operations) for block in config.expression_blocks})

    def reset(self) -> PortraitAdapter:
        """Random layers, as each kind of layer starts, but zero where a branch ends. Returns itself."""
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.GroupNorm)):
                module.reset_parameters()
        last = [] if self.control is None else [self.control.project]
        last += [] if self.reference is None else [self.reference.stack[-1]]
        for layer in last:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for attention in self.attention.values():
            nn.init.normal_(attention.nothing, std=0.02)
            nn.init.zeros_(attention.gate)
        return self

    # -- once for a clip ---------------------------------------------------------------------------------------------

    def encode(
        self,
        control: Tensor | None = None,
        reference: Tensor | None = None,
        numbers: Tensor | None = None,
        faces: Tensor | None = None,
    ) -> PortraitCondition:
        """Encodes what is given.

        control [B, C, F, H, W] (or latents of it, for the latent kind), reference [B, C, H, W], numbers [B, F, N] of the explicit
        code or faces [B, F, 3, 224, 224] in -1..1 for the face encoder. Raises ValueError for a part that the adapter has no branch
        for, or that has the wrong shape.
        """
        self._check(control, reference, numbers, faces)
        codes = self.explicit(numbers) if numbers is not None else self.face(faces) if faces is not None else None
        return PortraitCondition(
            control=None if control is None else self.control.features(control),
            reference=None if reference is None else self.reference(reference),
            expression=None if codes is None else self.expression(codes),
        )

    def _check(self, control: Tensor | None, reference: Tensor | None, numbers: Tensor | None, faces: Tensor | None) -> None:
        config = self.config
        for name, given, branch in (
            ("control video", control, self.control),
            ("reference", reference, self.reference),
            ("explicit expression", numbers, self.explicit),
            ("face", faces, self.face),
        ):
            if given is not None and branch is None:
                raise ValueError(f"a {name} was given, but this adapter has no part that reads it; leave it unconnected")
        if control is not None and self.config.control == "pixel":
            if control.ndim != 5 or control.shape[1] != config.control_channels:
                raise ValueError(
                    f"the control video has shape {list(control.shape)}, but this adapter reads {config.control_channels} channels "
                    f"({', '.join(config.inputs)}) as [batch, channels, frames, height, width]"
                )
            frames, height, width = control.shape[2:]
            if frames % 4 != 1:
                raise ValueError(f"the control video has {frames} frames; give 4n + 1 of them, such as {4 * (frames // 4) + 1}")
            step = 2 * config.spatial
            if height % step or width % step:
                raise ValueError(f"the control video is {width} x {height} pixels; both must be multiples of {step}")
        for name, given, shape in (
            ("explicit expression", numbers, (config.explicit_size,)),
            ("face crops", faces, (3, FACE, FACE)),
        ):
            if given is not None and (given.ndim < 2 or tuple(given.shape[2:]) != shape or given.shape[1] % 4 != 1):
                wanted = ", ".join(map(str, shape))
                raise ValueError(f"the {name} has shape {list(given.shape)}; this adapter reads [batch, 4n + 1 frames, {wanted}]")

    # -- at every step -----------------------------------------------------------------------------------------------

    def add_control(self, tokens: Tensor, features: Tensor, strength: Tensor | float = 1.0) -> Tensor:
        """Base tokens [B, S, width] before the first block, with the control's added to the last of them: reference frames that a
        base puts in front have none. Raises ValueError if the control has more tokens than the base."""
        return _add_last(tokens, self.control.tokens(features.to(tokens)), strength)

    def add_reference(self, tokens: Tensor, reference: Tensor, frames: int, strength: Tensor | float = 1.0) -> Tensor:
        """For the token kind: adds the reference to the first of the last `frames` latent frames' tokens."""
        added = reference.to(tokens).flatten(2).mT  # [B, S, width]
        added = torch.nn.functional.pad(added, (0, 0, 0, (frames - 1) * added.shape[1]))
        return _add_last(tokens, added, strength)

    def add_expression(self, block: int, tokens: Tensor, expression: Tensor, grid: int, strength: Tensor | float = 1.0) -> Tensor:
        """Base tokens after a block; `grid` is how many tokens a latent frame has. Tokens in front of the clip's have no expression."""
        key = str(block)
        if key not in self.attention:
            return tokens
        count = expression.shape[2] * grid
        if count > tokens.shape[1]:
            raise ValueError(
                f"the expression has {expression.shape[2]} latent frames of {grid} tokens, but the video has {tokens.shape[1]} tokens; "
                f"make both of the same length"
            )
        own = tokens[:, tokens.shape[1] - count :]
        return _add_last(tokens, self.attention[key](own, expression.to(tokens)), strength)


def _add_last(tokens: Tensor, added: Tensor, strength: Tensor | float) -> Tensor:
    """tokens [B, S, D] with added [B, s, D] on the last s; strength is a number or [B]."""
    before = tokens.shape[1] - added.shape[1]
    if before < 0:
        raise ValueError(
            f"the control covers {added.shape[1]} tokens, but the video has {tokens.shape[1]}; make the control of the latent's size "
            f"and length"
        )
    if isinstance(strength, Tensor):
        strength = strength.to(added).reshape(-1, 1, 1)
    added = added * strength
    return torch.cat([tokens[:, :before], tokens[:, before:] + added], 1) if before else tokens + added
