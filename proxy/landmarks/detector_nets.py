"""MediaPipe's two face detectors: BlazeFace for near faces (128 x 128) and the full-range one (192 x 192).

Both return, for every anchor, a raw box of 16 numbers (centre, size and six key points in input pixels, relative to the
anchor) and a score before the sigmoid. Weights: `proxy/assets/README.md`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import BlazeBlock, SameConv2d, depthwise, pointwise

VALUES = 16  # cx, cy, w, h and six key points


class ShortRange(nn.Module):
    """BlazeFace (arXiv:1907.05047): images [N, 3, 128, 128] in -1..1 to boxes [N, 896, 16] and scores [N, 896]."""

    size = 128

    def __init__(self):
        super().__init__()
        widths = (24, 24, 28, 32, 36, 42, 48, 56, 64, 72, 80, 88)
        strided = (28, 42)
        self.near = nn.Sequential(
            SameConv2d(3, 24, 5, 2),
            nn.ReLU(inplace=True),
            *(BlazeBlock(a, b, 2 if a in strided else 1) for a, b in pairwise(widths)),
        )
        self.far = nn.Sequential(BlazeBlock(88, 96, 2), *(BlazeBlock(96, 96) for _ in range(4)))
        self.near_scores, self.far_scores = pointwise(88, 2), pointwise(96, 6)
        self.near_boxes, self.far_boxes = pointwise(88, 2 * VALUES), pointwise(96, 6 * VALUES)
        self.register_buffer("anchors", torch.cat([_anchors(16, 2), _anchors(8, 6)]), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        near = self.near(images.contiguous(memory_format=torch.channels_last))  # [N, 88, 16, 16]
        far = self.far(near)  # [N, 96, 8, 8]
        scores = torch.cat([_rows(self.near_scores(near), 1), _rows(self.far_scores(far), 1)], 1)[..., 0]
        return torch.cat([_rows(self.near_boxes(near), VALUES), _rows(self.far_boxes(far), VALUES)], 1), scores


class Bottleneck(nn.Module):
    """relu(x + expand(squeeze(x))), each a depthwise and a pointwise convolution."""

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.squeeze = nn.Sequential(depthwise(channels), pointwise(channels, squeezed), nn.ReLU(inplace=True))
        self.expand = nn.Sequential(depthwise(squeezed), pointwise(squeezed, channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu_(self.expand(self.squeeze(x)) + x)


def _depthwise_half(channels: int) -> nn.Conv2d:
    """A depthwise convolution of stride 2 that is padded by one pixel on all sides."""
    return nn.Conv2d(channels, channels, 3, 2, 1, groups=channels)


def _stage(inputs: int, squeezed: int, outputs: int, count: int) -> nn.Sequential:
    return nn.Sequential(
        _depthwise_half(inputs),
        pointwise(inputs, squeezed),
        nn.ReLU(inplace=True),
        depthwise(squeezed),
        pointwise(squeezed, outputs),
        nn.ReLU(inplace=True),
        *(Bottleneck(outputs, squeezed) for _ in range(count)),
    )


def _lateral(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(pointwise(inputs, outputs), nn.ReLU(inplace=True))


class FullRange(nn.Module):
    """Images [N, 3, 192, 192] in -1..1 to boxes [N, 2304, 16] and scores [N, 2304]: an encoder and a decoder with shortcuts."""

    size = 192

    def __init__(self):
        super().__init__()
        self.stage1 = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1), nn.ReLU(inplace=True), Bottleneck(32, 8), Bottleneck(32, 8))
        self.stage2 = _stage(32, 16, 64, 2)
        self.lateral2 = _lateral(64, 48)
        self.stage3 = _stage(64, 32, 128, 2)
        self.lateral3 = _lateral(128, 64)
        self.stage4 = _stage(128, 48, 192, 2)
        self.lateral4 = _lateral(192, 96)
        self.stage5 = _stage(192, 96, 384, 3)
        self.lateral5 = _lateral(384, 96)
        self.up4 = nn.Sequential(Bottleneck(96, 48), Bottleneck(96, 48), _lateral(96, 64))
        self.up3 = nn.Sequential(Bottleneck(64, 32), Bottleneck(64, 32), _lateral(64, 48))
        self.up2 = Bottleneck(48, 24)
        self.scores = nn.Sequential(pointwise(48, 4), _depthwise_half(4))
        self.boxes = nn.Sequential(pointwise(48, 4 * VALUES), _depthwise_half(4 * VALUES))
        self.register_buffer("anchors", _anchors(48, 1), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x2 = self.stage2(self.stage1(images.contiguous(memory_format=torch.channels_last)))
        skip2 = self.lateral2(x2)
        x3 = self.stage3(x2)
        skip3 = self.lateral3(x3)
        x4 = self.stage4(x3)
        skip4 = self.lateral4(x4)
        x = self.up4(skip4 + _double(self.lateral5(self.stage5(x4))))
        x = self.up3(skip3 + _double(x))
        x = self.up2(skip2 + _double(x))
        scores, boxes = self.scores(x), self.boxes(x)
        return _rows(_depth_to_space(boxes), VALUES), _rows(_depth_to_space(scores), 1)[..., 0]


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def _depth_to_space(x: Tensor) -> Tensor:
    """[N, 4 C, H, W] -> [N, C, 2 H, 2 W]; TensorFlow keeps the pixel in the slow part of the channel."""
    n, c, h, w = x.shape
    return x.reshape(n, 2, 2, c // 4, h, w).permute(0, 3, 4, 1, 5, 2).reshape(n, c // 4, 2 * h, 2 * w)


def _rows(x: Tensor, values: int) -> Tensor:
    """[N, A * values, H, W] -> [N, H * W * A, values]."""
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, values)


def _anchors(cells: int, per_cell: int) -> Tensor:
    """Centres [cells * cells * per_cell, 2] in 0..1 of the anchors, row by row."""
    axis = (torch.arange(cells) + 0.5) / cells
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    return torch.stack([x, y], -1).reshape(-1, 1, 2).expand(-1, per_cell, -1).reshape(-1, 2)
