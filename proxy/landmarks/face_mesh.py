"""MediaPipe's attention mesh: 478 face points from a 192 x 192 crop.

Architecture after "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time" (arXiv:2006.10962): a trunk predicts 468
points of the whole face; lips and eyes are then sampled out of an early feature map, upright and at one size, and refined
by networks of their own. Weights: `proxy/assets/README.md`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import BlazeBlock, SameConv2d, pointwise

CROP = 192
FEATURE = 48
REGION = 16
# Points of the whole-face mesh that a region network refines, in the order of its output.
LIPS = (
    61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 185, 40, 39, 37, 0, 267, 269, 270, 409, 78, 95, 88, 178, 87, 14, 317,
    402, 318, 324, 308, 191, 80, 81, 82, 13, 312, 311, 310, 415, 76, 77, 90, 180, 85, 16, 315, 404, 320, 307, 306, 184, 74, 73,
    72, 11, 302, 303, 304, 408, 62, 96, 89, 179, 86, 15, 316, 403, 319, 325, 292, 183, 42, 41, 38, 12, 268, 271, 272, 407,
)  # fmt: skip
# "Left" is the left of the picture here (the subject's right eye), as in MediaPipe's own names of the outputs.
LEFT_EYE = (
    33, 7, 163, 144, 145, 153, 154, 155, 133, 246, 161, 160, 159, 158, 157, 173, 130, 25, 110, 24, 23, 22, 26, 112, 243, 247, 30,
    29, 27, 28, 56, 190, 226, 31, 228, 229, 230, 231, 232, 233, 244, 113, 225, 224, 223, 222, 221, 189, 35, 124, 46, 53, 52, 65,
    143, 111, 117, 118, 119, 120, 121, 128, 245, 156, 70, 63, 105, 66, 107, 55, 193,
)  # fmt: skip
RIGHT_EYE = (
    263, 249, 390, 373, 374, 380, 381, 382, 362, 466, 388, 387, 386, 385, 384, 398, 359, 255, 339, 254, 253, 252, 256, 341, 463,
    467, 260, 259, 257, 258, 286, 414, 446, 261, 448, 449, 450, 451, 452, 453, 464, 342, 445, 444, 443, 442, 441, 413, 265, 353,
    276, 283, 282, 295, 372, 340, 346, 347, 348, 349, 350, 357, 465, 383, 300, 293, 334, 296, 336, 285, 417,
)  # fmt: skip
IRIS_POINTS = 5
# The widest feature maps of more crops than this outgrow the cache, and what the allocator keeps: half of their time on CPUs.
CPU_BATCH = 4
LID_POINTS = 16  # the first points of an eye run along its lids; an iris has their mean depth


def _blocks(channels: int, count: int) -> list[BlazeBlock]:
    return [BlazeBlock(channels, channels, prelu=True) for _ in range(count)]


def _head(inputs: int, width: int) -> nn.Sequential:
    return nn.Sequential(pointwise(inputs, width), nn.PReLU(width), *_blocks(width, 1))


class PointHead(nn.Module):
    """From a region's 4x4 features to `points` positions in units of a 64 x 64 picture of the region."""

    def __init__(self, points: int):
        super().__init__()
        self.body = nn.Sequential(*_blocks(128, 2), BlazeBlock(128, 128, 2, prelu=True), *_blocks(128, 2), _head(128, 32))
        self.points = nn.Conv2d(32, points * 2, 2)

    def forward(self, x: Tensor) -> Tensor:  # [N, 128, 4, 4] -> [N, points, 2]
        return self.points(self.body(x)).reshape(x.shape[0], -1, 2)


class RegionNet(nn.Module):
    """Refines a region: its features [N, 32, 16, 16], upright and at one size, to one point list [N, P, 2] per head."""

    def __init__(self, *points: int):
        super().__init__()
        self.trunk = nn.Sequential(
            *_blocks(32, 2),
            BlazeBlock(32, 64, 2, prelu=True),
            *_blocks(64, 2),
            BlazeBlock(64, 128, 2, prelu=True),
        )
        self.heads = nn.ModuleList(PointHead(count) for count in points)

    def forward(self, features: Tensor) -> list[Tensor]:
        shared = self.trunk(features)  # [N, 128, 4, 4]
        return [head(shared) for head in self.heads]


def region_transform(points: Tensor, start: int, end: int, subset: Tensor) -> Tensor:
    """Affine maps [N, 2, 3] from the 16 x 16 grid of a region to the pixels of its feature map.

    The grid spans 1.5 times the bounding box of the points `subset`, taken along the line from point `start` to point
    `end`. `points` [N, 468, 2] are in feature-map pixels.
    """
    along = points[:, end] - points[:, start]
    angle = torch.atan2(along[:, 1], along[:, 0])
    cos, sin = angle.cos(), angle.sin()
    axes = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)  # [N, 2, 2], columns: region axes
    local = points[:, subset] @ axes
    low, high = local.amin(1), local.amax(1)
    linear = axes * ((high - low) * (1.5 / REGION))[:, None]
    centre = (axes @ ((low + high) / 2)[..., None])[..., 0]
    offset = centre - linear.sum(-1) * (REGION / 2)
    return torch.cat([linear, offset[..., None]], -1)


def sample_region(features: Tensor, transform: Tensor) -> Tensor:
    """Samples features [N, C, H, W] through `transform` [N, 2, 3] into [N, C, 16, 16]; zero outside."""
    height, width = features.shape[2:]
    axis = torch.arange(REGION, device=features.device, dtype=features.dtype) + 0.5
    y, x = torch.meshgrid(axis, axis, indexing="ij")
    grid = torch.stack([x, y, torch.ones_like(x)], -1)  # [16, 16, 3]
    where = torch.einsum("hwk,nck->nhwc", grid, transform)
    where = where * (2 / where.new_tensor([width, height])) - 1
    return F.grid_sample(features, where, mode="bilinear", padding_mode="zeros", align_corners=False)


class FaceMesh(nn.Module):
    """Crops [N, 3, 192, 192] in 0..1 to points [N, 478, 3] and the score [N] in 0..1 that there is a face.

    x, y and z are in crop pixels (origin top left, pixel centres at +0.5); z grows away from the camera, 0 at the head's centre.
    Points 468..472 and 473..477 are the irises, centre first.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(SameConv2d(3, 16, 3, 2), nn.PReLU(16), *_blocks(16, 2), BlazeBlock(16, 32, 2, prelu=True))
        self.early = nn.Sequential(*_blocks(32, 2), BlazeBlock(32, 64, 2, prelu=True))
        self.trunk = nn.Sequential(
            *_blocks(64, 2),
            BlazeBlock(64, 128, 2, prelu=True),
            *_blocks(128, 2),
            BlazeBlock(128, 128, 2, prelu=True),
            *_blocks(128, 2),
            BlazeBlock(128, 128, 2, prelu=True),
            *_blocks(128, 2),
            _head(128, 32),
        )
        self.mesh = nn.Conv2d(32, 468 * 3, 3)
        self.flag = nn.Conv2d(32, 1, 3)
        self.lips = RegionNet(len(LIPS))
        self.left_eye = RegionNet(len(LEFT_EYE), IRIS_POINTS)
        self.right_eye = RegionNet(len(RIGHT_EYE), IRIS_POINTS)
        for name, subset in (("lips", LIPS), ("left_eye", LEFT_EYE), ("right_eye", RIGHT_EYE)):
            self.register_buffer(f"{name}_index", torch.tensor(subset), persistent=False)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        features, early = self._early(crops)
        face = self.trunk(early)  # [N, 32, 3, 3]
        points = self.mesh(face).reshape(-1, 468, 3)
        result = torch.cat([points, points.new_zeros(len(points), 2 * IRIS_POINTS, 3)], 1)
        regions = (
            (self.lips, self.lips_index, 61, 291, None),
            (self.left_eye, self.left_eye_index, 33, 133, slice(468, 473)),
            (self.right_eye, self.right_eye_index, 362, 263, slice(473, 478)),
        )
        for net, index, start, end, iris in regions:
            transform = region_transform(points[..., :2] * (FEATURE / CROP), start, end, index)
            refined = [_to_crop(found, transform) for found in net(sample_region(features, transform))]
            result[:, index, :2] = refined[0]
            if iris is not None:
                result[:, iris, :2] = refined[1]
                result[:, iris, 2] = points[:, index[:LID_POINTS], 2].mean(1, keepdim=True)
        return result, torch.sigmoid(self.flag(face).reshape(-1))

    def _early(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """The feature maps [N, 32, 48, 48], from which regions are sampled, and [N, 64, 24, 24]."""
        features, early = [], []
        for part in crops.split(CPU_BATCH if crops.device.type == "cpu" else len(crops)):
            features.append(self.stem(part.contiguous(memory_format=torch.channels_last)))
            early.append(self.early(features[-1]))
        return torch.cat(features), torch.cat(early)


def _to_crop(points: Tensor, transform: Tensor) -> Tensor:
    """Region points [N, P, 2] (64 units across) to crop pixels. The feature map has a quarter of the crop's size."""
    return points @ transform[..., :2].transpose(1, 2) + 4 * transform[:, None, :, 2]
