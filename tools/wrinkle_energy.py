"""How wrinkled the skin of a posed head is: the fine part of its normals, away from lips, lids and all that is fine without wrinkles."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize, pad

from expportrait.proxy.head_model import HeadModel
from expportrait.proxy.head_proxy import HeadProxy
from expportrait.proxy.posing import SourcePose, Stage, camera_space

SIDE = 320  # pixels of a square around the head: some 1 mm each
FINE = 4.0  # pixels, standard deviation of the blur that takes the coarse shape
OTHER = ("lips", "lids", "eyes", "teeth", "tongue", "nose", "ears", "neck", "scalp")
SKIN, MOST_OTHER = 0.95, 0.05  # of a pixel's region masks: inside the face, and outside all others
FACING = 0.5  # least z of a normal: at the outline all is fine
CHUNK = 16  # frames at once


class Skin:
    """The P pixels in which the source's camera sees the skin of a proxy's face at rest.

    The normals of every frame are drawn where their skin is at rest: a face's own relief that a jaw carries along is no wrinkle.
    """

    def __init__(self, proxy: HeadProxy, model: HeadModel):
        x, y, width, height = proxy.crop
        self.proxy, self.model = proxy, model
        stage = Stage(model, proxy.camera.viewport(x, y, width, height, SIDE, SIDE))
        rest = SourcePose(proxy.neutral[None], proxy.source_joints[None], proxy.source_translation[None])
        self.shot = stage.shot(camera_space(model, proxy, rest))
        other = torch.stack([model.regions[name] for name in OTHER]).amax(0)
        face, elsewhere, facing = self.shot.pixels(model.regions["face"][None, :, None], other[None, :, None], self.shot.normals[..., 2:])
        self.inside = ((face > SKIN) & (elsewhere < MOST_OTHER) & (facing > FACING))[:, 0]  # [covered pixels]

    def fine_normals(self, motion) -> Tensor:
        """Normals minus their Gaussian blur [T, P, 3] of a motion in which the head stays still. Other pixels have no part in the blur."""
        weight = self.inside[:, None].float()
        share = blur(self.shot.raster.scatter(weight), FINE).flatten(0, 2)[self.shot.raster.pixels].clamp(min=1e-6)
        parts = []
        for start in range(0, len(motion), CHUNK):
            normals = self.model.vertex_normals(camera_space(self.model, self.proxy, motion, start, start + CHUNK))
            (drawn,) = self.shot.pixels(normals.transpose(0, 1).flatten(1)[None])
            drawn = normalize(drawn.unflatten(1, (-1, 3)), dim=-1).flatten(1)
            coarse = blur(self.shot.raster.scatter(drawn * weight), FINE).flatten(0, 2)[self.shot.raster.pixels] / share
            parts.append((drawn - coarse)[self.inside].unflatten(1, (-1, 3)))
        return torch.cat(parts, dim=1).transpose(0, 1)

    def picture(self, values: Tensor) -> Tensor:
        """Values [P, C] in their places [SIDE, SIDE, C], 0 elsewhere."""
        covered = values.new_zeros(len(self.inside), values.shape[1])
        covered[self.inside] = values
        return self.shot.raster.scatter(covered)[0]


def since(fine: Tensor, calm: Tensor) -> Tensor:
    """What has changed in fine normals [T, P, 3] since the frames `calm` [N], taken together."""
    return fine - fine[calm].mean(0)


def energy(fine: Tensor) -> Tensor:
    """Mean square [T] of fine normals [T, P, 3] over the pixels."""
    return fine.square().sum(-1).mean(1)


def blur(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of images [T, H, W, C]; beyond their border they are 0."""
    reach = round(3 * sigma)
    at = torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = kernel / kernel.sum()
    flat = pad(images.permute(0, 3, 1, 2).flatten(0, 1)[:, None], (reach,) * 4)
    flat = conv2d(conv2d(flat, kernel[None, None, :, None]), kernel[None, None, None])
    return flat[:, 0].unflatten(0, (images.shape[0], images.shape[3])).permute(0, 2, 3, 1)
