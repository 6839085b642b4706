"""Expression cross-attention (DeX-Portrait 3.3): each latent frame's tokens look at that frame's expression alone."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..families import TIME_STRIDE
from .config import AdapterConfig

HEAD = 64  # channels of an attention head
CAUSAL = 3  # frames that the first convolution sees, the last of them its own
HIDDEN = 256  # of the map from explicit numbers to the code


class ExplicitCode(nn.Module):
    """Expression code [B, F, code size] from a head model's own numbers [B, F, N]: expression, jaw and gaze."""

    def __init__(self, config: AdapterConfig, operations=nn):
        super().__init__()
        self.map = nn.Sequential(
            operations.Linear(config.explicit_size, HIDDEN), nn.SiLU(), operations.Linear(HIDDEN, config.code_size)
        )

    def forward(self, numbers: Tensor) -> Tensor:
        return self.map(numbers)


class ExpressionTokens(nn.Module):
    """Codes [B, F, code size] of F = 4n + 1 frames to tokens [B, width, n + 1, N]. A latent frame sees its own and earlier frames."""

    def __init__(self, config: AdapterConfig, operations=nn):
        super().__init__()
        self.count, width = config.expression_tokens, config.expression_width
        self.smooth = operations.Conv1d(config.code_size, width, CAUSAL)
        self.gather = operations.Conv1d(width, self.count * width, TIME_STRIDE, stride=TIME_STRIDE)

    def forward(self, codes: Tensor) -> Tensor:
        codes = torch.cat([codes[:, :1].expand(-1, TIME_STRIDE - 1 + CAUSAL - 1, -1), codes], 1).mT
        tokens = self.gather(F.silu(self.smooth(codes)))  # [B, N * width, T]
        return tokens.unflatten(1, (self.count, -1)).permute(0, 2, 3, 1)


class ExpressionAttention(nn.Module):
    """What one cross-attention adds to the base's tokens. Its gate starts at 0, where it adds nothing."""

    def __init__(self, config: AdapterConfig, operations=nn):
        super().__init__()
        width = config.expression_width
        self.heads = max(1, width // HEAD)
        self.query = operations.Linear(config.width, width)
        self.key_value = operations.Linear(width, 2 * width)
        self.out = operations.Linear(width, config.width)
        self.nothing = nn.Parameter(torch.zeros(width))  # token that a frame can look at instead of its expression
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: Tensor, expression: Tensor) -> Tensor:
        """tokens [B, T * S, base width] in the order of frames, expression [B, width, T, N] -> the same shape as tokens."""
        batch, frames = tokens.shape[0], expression.shape[2]
        look = F.layer_norm(tokens, tokens.shape[-1:]).reshape(batch * frames, -1, tokens.shape[-1])
        seen = expression.permute(0, 2, 3, 1).flatten(0, 1).to(tokens)  # [B T, N, width]
        seen = torch.cat([seen, self.nothing.to(seen).expand(len(seen), 1, -1)], 1)
        key, value = self.key_value(seen).chunk(2, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query(look), key, value))
        mixed = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return torch.tanh(self.gate.to(tokens)) * self.out(mixed).reshape(tokens.shape)
