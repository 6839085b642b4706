"""What the plain fit looks like in its frames: the measure that outside maps are read by."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from .observe import Observer


@dataclasses.dataclass(frozen=True)
class FitView:
    """t frames of the plain fit; nothing is covered in frames without a face."""

    normals: Tensor  # [t, H, W, 3] unit, camera space, 0 off the skin
    distance: Tensor  # [t, H, W] metres along the view axis, 0 off the head
    covered: Tensor  # [t, H, W] bool: skin
    head: Tensor  # [t, H, W] bool


class PlainFit:
    """The T frames of a fit, drawn when asked for: no picture of the whole clip is kept."""

    def __init__(self, observer: Observer):
        self.observer = observer
        self.count, self.size = len(observer.track), (observer.stage.camera.height, observer.stage.camera.width)

    def at(self, frames: Tensor) -> FitView:
        """Some frames [t] (int64) of the fit."""
        observer = self.observer.at(frames)
        stage, skin = observer.stage, observer.skin
        shot = stage.shot(observer.posed(slice(None), skin.normals.new_zeros(1, len(skin.vertices), 3)))
        normals, distance = shot.pixels(shot.normals, -shot.vertices[..., 2:])
        image = shot.raster.scatter(torch.cat([F.normalize(normals, dim=-1), distance], -1))
        covered = stage.parts_and_empty[shot.raster.ids.long()] == 0
        valid = observer.track.valid[:, None, None]
        return FitView(image[..., :3] * covered[..., None], image[..., 3], covered & valid, shot.raster.mask & valid)
