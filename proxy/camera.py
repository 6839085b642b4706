"""Pinhole camera: the only place that converts between camera space, clip space and pixels.

Camera space is OpenGL's (x right, y up, the camera looks along -z), pixels have their origin at the top left with
x right, y down and centres at +0.5. Clip space has row 0 of the image at y = -1, so images come out top-down.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

NEAR, FAR = 0.05, 20.0


@dataclasses.dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels. `cx`, `cy` is the principal point, measured from the top-left corner of the image."""

    focal: float
    width: int
    height: int
    cx: float
    cy: float

    @staticmethod
    def centred(focal: float, width: int, height: int) -> Camera:
        """Camera whose principal point is the centre of the image."""
        return Camera(float(focal), int(width), int(height), width / 2, height / 2)

    @property
    def field_of_view(self) -> float:
        """Vertical field of view in radians."""
        return 2 * math.atan(self.height / 2 / self.focal)

    def viewport(self, x: float, y: float, width: float, height: float, out_width: int, out_height: int) -> Camera:
        """Camera of the rectangle at (x, y), resampled to out_width x out_height with one scale for both axes.

        The rectangle may leave the image. Raises ValueError if its aspect ratio differs from the output's by more
        than two pixels of the output.
        """
        scale = out_width / width
        if abs(height * scale - out_height) > 2:
            raise ValueError(
                f"a viewport of {width:g} x {height:g} cannot fill {out_width} x {out_height} pixels without stretching; "
                f"give it the same aspect ratio"
            )
        return Camera(self.focal * scale, int(out_width), int(out_height), (self.cx - x) * scale, (self.cy - y) * scale)

    def project(self, points: Tensor) -> Tensor:
        """Camera space [..., 3] to pixels [..., 2]."""
        scale = self.focal / -points[..., 2:3]
        flip = points.new_tensor([1.0, -1.0])
        return points[..., :2] * flip * scale + points.new_tensor([self.cx, self.cy])

    def clip(self, points: Tensor, near: float = NEAR, far: float = FAR) -> Tensor:
        """Camera space [..., 3] to clip coordinates [..., 4] (|x|, |y|, |z| <= w inside; z/w grows with distance)."""
        x, y, z = points.unbind(-1)
        w = -z
        return torch.stack(
            [
                2 * self.focal / self.width * x + (2 * self.cx / self.width - 1) * w,
                -2 * self.focal / self.height * y + (2 * self.cy / self.height - 1) * w,
                (far + near) / (far - near) * w - 2 * far * near / (far - near),
                w,
            ],
            dim=-1,
        )

    def inverse_depth(self, zw: Tensor, near: float = NEAR, far: float = FAR) -> Tensor:
        """1 / distance along the view axis from z/w of `clip`; 0 on the far plane, where a raster is empty."""
        inverse = ((far + near) / (far - near) - zw) * ((far - near) / (2 * far * near))
        return torch.where(zw < 1, inverse, torch.zeros_like(zw))
