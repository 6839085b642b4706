"""The source picture as the output's camera sees it."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from .camera import Camera
from .head_proxy import HeadProxy
from .inpaint import pull_push
from .landmarks import load_landmarker
from .warp2d import pixel_grid, sample_pixels


def frame_source(source: Tensor, camera: Camera, output: Camera) -> Tensor:
    """Source [C, H, W] of `camera` resampled to `output`, a viewport of it: [1, C, H', W'], smoothly continued outside.

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
    framed = sample_pixels(picture, pixels, mode).clamp(0, 1)
    inside = (x >= 0) & (x <= camera.width) & (y >= 0) & (y <= camera.height)
    return framed if bool(inside.all()) else pull_push(framed, inside[:, None].to(framed))


def person_mask(source: Tensor, person: Tensor | None = None) -> Tensor:
    """Mask [1, H, W] of the person in source [3, H, W]: the one given as [H, W], or found by segmentation.

    Raises ValueError if the given mask is not of the picture's size.
    """
    if person is None:
        return load_landmarker(source.device).segment(source[None])
    if person.shape != source.shape[1:]:
        raise ValueError(f"the person mask has shape {list(person.shape)}; expected {list(source.shape[1:])}, the picture's")
    return person[None].to(source)


def one_source(source: Tensor, proxy: HeadProxy) -> Tensor:
    """The source picture [3, H, W] of [3, H, W] or [1, 3, H, W]. Raises ValueError if it has not the size of the proxy's."""
    source = source[0] if source.ndim == 4 and len(source) == 1 else source
    if source.ndim != 3 or tuple(source.shape) != (3, proxy.height, proxy.width):
        raise ValueError(
            f"the source picture has shape {list(source.shape)}, but the proxy was built from one of "
            f"{[3, proxy.height, proxy.width]}; give the picture that the proxy was built from"
        )
    return source
