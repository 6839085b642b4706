"""How wrinkled the skin of a posed head is: the fine part of its normals, away from lips, lids and all that is fine without wrinkles."""

from __future__ import annotations

import dataclasses

import torch
from refine_metrics import normal_images
from torch import Tensor
from torch.nn.functional import conv2d, pad

from expportrait.proxy.head_model import HeadModel
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.posing import Stage, camera_space

SIDE = 320  # pixels of a square around the head: some 1 mm each
FINE = 4.0  # pixels, standard deviation of the blur that takes the coarse shape
OTHER = ("lips", "lids", "eyes", "teeth", "tongue", "nose", "ears", "neck", "scalp")
SKIN, MOST_OTHER = 0.95, 0.05  # of a pixel's region masks: inside the face, and outside all others
FACING = 0.5  # least z of a normal: at the outline all is fine
CHUNK = 8  # frames drawn together


@dataclasses.dataclass(frozen=True)
class FineNormals:
    """Normals minus their blur, of the face's still skin."""

    normals: Tensor  # [T, H, W, 3], 0 outside
    inside: Tensor  # [T, H, W] bool: the skin

    def __sub__(self, other: FineNormals) -> FineNormals:
        inside = self.inside & other.inside
        return FineNormals((self.normals - other.normals) * inside[..., None], inside)

    def since(self, calm: Tensor) -> FineNormals:
        """What has changed since the frames `calm` [N], taken together. A face's own relief, which is no wrinkle, drops out."""
        return self - FineNormals(self.normals[calm].mean(0)[None], self.inside[calm].all(0)[None])

    @property
    def energy(self) -> Tensor:
        """Mean square [T] over the pixels that show skin in all frames."""
        return self.normals.square().sum(-1)[:, self.inside.all(0)].mean(1)


class Skin:
    """A proxy's head in the camera of its source picture, cut out around it."""

    def __init__(self, proxy: HeadProxy, model: HeadModel):
        x, y, width, height = proxy.crop
        self.proxy, self.model = proxy, model
        self.stage = Stage(model, proxy.camera.viewport(x, y, width, height, SIDE, SIDE))

    def fine_normals(self, motion) -> FineNormals:
        """Of each frame of a motion in which the head stays still. What lies outside the skin has no part in the blur."""
        vertices = camera_space(self.model, self.proxy, motion)
        normals = normal_images(self.stage, vertices)
        inside = self._inside(vertices) & (normals[..., 2] > FACING)
        weight = inside[..., None].float()
        coarse = blur(normals * weight, FINE) / blur(weight, FINE).clamp(min=1e-6)
        return FineNormals((normals - coarse) * weight, inside)

    def _inside(self, vertices: Tensor) -> Tensor:
        other = torch.stack([self.model.regions[name] for name in OTHER]).amax(0)
        shares = torch.stack([self.model.regions["face"], other], 1)[None]
        masks = []
        for part in vertices.split(CHUNK):
            shot = self.stage.shot(part)
            face, elsewhere = shot.pixels(shares)[0].unbind(-1)
            masks.append(shot.raster.scatter(((face > SKIN) & (elsewhere < MOST_OTHER)).float()[:, None])[..., 0] > 0)
        return torch.cat(masks)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of images [T, H, W, C]; beyond their border they are 0."""
    reach = round(3 * sigma)
    at = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = pad(images.permute(0, 3, 1, 2).flatten(0, 1)[:, None], (reach,) * 4)
    flat = conv2d(conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None])
    return flat[:, 0].unflatten(0, (images.shape[0], images.shape[3])).permute(0, 2, 3, 1)
