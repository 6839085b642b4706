"""Expression code of a face picture: a face alignment network (Bulat and Tzimiropoulos 2017, FAN) whose end is a vector, as in X-NeMo and
DeX-Portrait. Its hourglass sees a face at every scale; where the face is and how large it is has been cut away before."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIZE = 224  # pixels of a face crop
STEM, CHANNELS = 64, 192
DEPTH = 4  # halvings inside the hourglass
GROUPS = 8
AT_ONCE = 32  # faces


class FaceEncoder(nn.Module):
    """Face crops [B, F, 3, SIZE, SIZE] in -1..1 to codes [B, F, code size]."""

    def __init__(self, code_size: int, operations=nn):
        super().__init__()
        self.stem = operations.Conv2d(3, STEM, 7, stride=2, padding=3)
        self.rise = nn.ModuleList([_Residual(STEM, CHANNELS // 2, operations), _Residual(CHANNELS // 2, CHANNELS, operations)])
        self.hourglass = _Hourglass(DEPTH, operations)
        self.after = _Residual(CHANNELS, CHANNELS, operations)
        self.out = operations.Linear(4 * CHANNELS, code_size)  # quarters of the face: where something happens is told

    def forward(self, faces: Tensor) -> Tensor:
        batch, frames = faces.shape[:2]
        codes = [self._encode(part) for part in faces.flatten(0, 1).split(AT_ONCE)]
        return torch.cat(codes).unflatten(0, (batch, frames))

    def _encode(self, faces: Tensor) -> Tensor:
        x = F.silu(self.stem(faces))
        for block in self.rise:
            x = F.avg_pool2d(block(x), 2)  # to 28 x 28
        x = self.after(x + self.hourglass(x))
        return self.out(F.adaptive_avg_pool2d(x, 2).flatten(1))


class _Residual(nn.Module):
    """FAN's block: three convolutions, each seeing the one before, side by side, around a shortcut."""

    def __init__(self, channels: int, out: int, operations):
        super().__init__()
        widths = (out // 2, out // 4, out // 4)
        inputs = (channels, *widths[:2])
        self.norms = nn.ModuleList(operations.GroupNorm(GROUPS, width) for width in inputs)
        self.convs = nn.ModuleList(operations.Conv2d(a, b, 3, padding=1) for a, b in zip(inputs, widths))
        self.shortcut = operations.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        parts, inner = [], x
        for norm, conv in zip(self.norms, self.convs):
            inner = conv(F.silu(norm(inner)))
            parts.append(inner)
        return torch.cat(parts, 1) + self.shortcut(x)


class _Hourglass(nn.Module):
    """The same map seen at half the size, and so on `depth` times, each scale added back."""

    def __init__(self, depth: int, operations):
        super().__init__()
        self.beside, self.down, self.up = (_Residual(CHANNELS, CHANNELS, operations) for _ in range(3))
        self.inner = _Hourglass(depth - 1, operations) if depth > 1 else _Residual(CHANNELS, CHANNELS, operations)

    def forward(self, x: Tensor) -> Tensor:
        low = self.up(self.inner(self.down(F.avg_pool2d(x, 2, ceil_mode=True))))
        return self.beside(x) + F.interpolate(low, size=x.shape[2:], mode="nearest")
