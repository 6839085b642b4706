"""MediaPipe's selfie segmentation (general model): which pixels of a picture belong to a person.

A MobileNetV3-like encoder with squeeze-and-excite, and a decoder that weighs its shortcuts. Weights: `proxy/assets/README.md`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import SameConv2d, depthwise, pointwise


class Gate(nn.Module):
    """Channel weights in 0..1 from the mean of a feature map (squeeze and excite, arXiv:1709.01507)."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.layers = nn.Sequential(pointwise(channels, squeezed), nn.ReLU(), pointwise(squeezed, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C, 1, 1]
        return self.layers(x.mean((2, 3), keepdim=True))


class InvertedResidual(nn.Module):
    """project(gate(depthwise(expand(x)))), plus x where the shape is kept (MobileNetV3, arXiv:1905.02244)."""

    def __init__(self, inputs: int, wide: int, outputs: int, kernel: int, stride: int, squeezed: int = 0):
        super().__init__()
        activation = nn.Hardswish if kernel == 5 else nn.ReLU
        self.expand = nn.Sequential(pointwise(inputs, wide), activation())
        self.depthwise = nn.Sequential(depthwise(wide, stride, kernel), activation())
        self.gate = Gate(wide, squeezed) if squeezed else None
        self.project = pointwise(wide, outputs)
        self.keeps = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        if self.gate is not None:
            y = y * self.gate(y)
        y = self.project(y)
        return y + x if self.keeps else y


class Merge(nn.Module):
    """Doubles the deep features, weighs the shallow ones by both, and refines their sum."""

    def __init__(self, deep: int, channels: int):
        super().__init__()
        self.reduce = pointwise(deep, channels)
        self.gate = Gate(channels, channels)
        self.blend = nn.Sequential(pointwise(channels, channels), nn.ReLU())
        self.refine = nn.Sequential(depthwise(channels), nn.ReLU())

    def forward(self, deep: Tensor, shallow: Tensor) -> Tensor:
        deep = self.reduce(F.interpolate(deep, scale_factor=2, mode="bilinear", align_corners=False))
        y = self.blend(shallow * self.gate(shallow + deep) + deep)
        return y + self.refine(y)


class PersonSegmentation(nn.Module):
    """Images [N, 3, 256, 256] in 0..1 to the mask [N, 256, 256] in 0..1 of all persons."""

    size = 256

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(SameConv2d(3, 16, 3, 2), nn.Hardswish())
        self.stage2 = InvertedResidual(16, 16, 16, 3, 2, squeezed=8)
        self.stage3 = nn.Sequential(InvertedResidual(16, 72, 24, 3, 2), InvertedResidual(24, 88, 24, 3, 1))
        self.stage4 = nn.Sequential(
            InvertedResidual(24, 96, 32, 5, 2, squeezed=24),
            InvertedResidual(32, 128, 32, 5, 1, squeezed=32),
            InvertedResidual(32, 128, 32, 5, 1, squeezed=32),
            InvertedResidual(32, 96, 32, 5, 1, squeezed=24),
            InvertedResidual(32, 96, 32, 5, 1, squeezed=24),
        )
        self.context = nn.Sequential(pointwise(32, 128), nn.ReLU())
        self.context_gate = nn.Sequential(pointwise(32, 128), nn.Sigmoid())
        self.merge_quarter, self.merge_half, self.merge_stem = Merge(128, 24), Merge(24, 16), Merge(16, 16)
        self.mask = nn.ConvTranspose2d(16, 1, 2, 2)

    def forward(self, images: Tensor) -> Tensor:
        stem = self.stem(images.contiguous(memory_format=torch.channels_last))  # [N, 16, 128, 128]
        half = self.stage2(stem)  # [N, 16, 64, 64]
        quarter = self.stage3(half)  # [N, 24, 32, 32]
        deep = self.stage4(quarter)  # [N, 32, 16, 16]
        deep = self.context(deep) * self.context_gate(deep.mean((2, 3), keepdim=True))
        y = self.merge_quarter(deep, quarter)
        y = self.merge_stem(self.merge_half(y, half), stem)
        return torch.sigmoid(self.mask(y)[:, 0])
