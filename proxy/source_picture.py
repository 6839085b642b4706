"""The source picture as the output's camera sees it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .camera import Camera
from .warp2d import pixel_grid, sample_pixels


def frame_source(source: Tensor, camera: Camera, output: Camera) -> Tensor:
    """Source [3, H, W] of `camera` resampled to `output`, a viewport of it: [1, 3, H', W'], its border repeated outside.

    Where the two cameras agree the picture comes back untouched; where the output is smaller it is filtered first.
    """
    picture = source[None].float()
    if camera == output:
        return picture
    scale = output.focal / camera.focal
    if scale < 1:
        height, width = max(1, round(camera.height * scale)), max(1, round(camera.width * scale))
        picture = F.interpolate(picture, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    ratio_x, ratio_y = picture.shape[-1] / camera.width, picture.shape[-2] / camera.height
    pixels = pixel_grid(output.height, output.width, source.device)
    x = (pixels[:, 0] - output.cx) / scale + camera.cx
    y = (pixels[:, 1] - output.cy) / scale + camera.cy
    pixels[:, 0], pixels[:, 1] = x * ratio_x, y * ratio_y
    mode = "bicubic" if scale > 1 else "bilinear"
    return sample_pixels(picture, pixels, mode).clamp(0, 1)
