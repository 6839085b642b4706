"""Building blocks shared by the face detectors and the face mesh.

All networks were trained in TensorFlow, whose "same" padding of a strided convolution puts the odd pixel after the
picture; PyTorch's own puts it before. `SamePad2d` restores that.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding before and after an axis of `size` pixels."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding; square kernel and stride."""

    def forward(self, x: Tensor) -> Tensor:  # [N, C, H, W] -> [N, C', ceil(H / stride), ceil(W / stride)]
        kernel, stride = self.kernel_size[0], self.stride[0]
        top, bottom = same_padding(x.shape[2], kernel, stride)
        left, right = same_padding(x.shape[3], kernel, stride)
        weight = self.weight
        if self.groups > 1 and (top + 1, left + 1) == (bottom, right):
            # A kernel with a row and a column of zeros before it needs as much padding before as after: cheaper than padding x.
            weight, top, left = F.pad(weight, (1, 0, 1, 0)), bottom, right
        if (top, left) != (bottom, right):
            x, top, left = F.pad(x, (left, right, top, bottom)), 0, 0
        return F.conv2d(x, weight, self.bias, self.stride, (top, left), 1, self.groups)


def depthwise(channels: int, stride: int = 1, kernel: int = 3) -> SameConv2d:
    """One filter per channel."""
    return SameConv2d(channels, channels, kernel, stride, groups=channels)


def pointwise(inputs: int, outputs: int) -> nn.Conv2d:
    """A 1x1 convolution."""
    return nn.Conv2d(inputs, outputs, 1)


class BlazeBlock(nn.Module):
    """activation(shortcut + pointwise(depthwise(x))), after BlazeFace (arXiv:1907.05047, section 3.2).

    The shortcut is max-pooled where the block strides, and lacks the channels that the block adds.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, prelu: bool = False):
        super().__init__()
        self.stride, self.inputs = stride, inputs
        self.depthwise = depthwise(inputs, stride)
        self.pointwise = pointwise(inputs, outputs)
        self.activation = nn.PReLU(outputs) if prelu else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        y[:, : self.inputs] += x if self.stride == 1 else F.max_pool2d(x, self.stride)
        return self.activation(y)
