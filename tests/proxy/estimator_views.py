"""What estimators of normals and depth are shown: a person's own head from four sides, and the rougher plain fit to it."""

import dataclasses

import torch
import torch.nn.functional as F
from painted_head import make_track

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS, HeadModel
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.posing import Stage, camera_space
from expportrait.proxy.refine.plain_fit import FitView

SIZE = 192
YAWS = (-0.5, -0.2, 0.1, 0.4)


@dataclasses.dataclass
class Views:
    """T frames of a head, which stand for a `PlainFit` too."""

    normals: torch.Tensor  # [T, H, W, 3] unit, zero outside
    distance: torch.Tensor  # [T, H, W] metres, 0 outside
    mask: torch.Tensor  # [T, H, W] bool: the face

    @property
    def count(self) -> int:
        return len(self.mask)

    @property
    def size(self) -> tuple[int, int]:
        return tuple(self.mask.shape[1:])

    def at(self, frames: torch.Tensor) -> FitView:
        return FitView(self.normals[frames], self.distance[frames], self.mask[frames], self.mask[frames])

    def within(self, mask: torch.Tensor) -> "Views":
        return dataclasses.replace(self, mask=mask)


def render(model: HeadModel, track: HeadTrack, size: int = SIZE) -> Views:
    camera = Camera.centred(track.focal, track.width, track.height).viewport(0, 0, track.width, track.height, size, size)
    shot = Stage(model, camera).shot(camera_space(model, track.identity, track))
    normals, distance, face = shot.pixels(shot.normals, -shot.vertices[..., 2:], model.regions["face"][None, :, None])
    face = shot.raster.scatter(face)[..., 0] > 0.5
    return Views(shot.raster.scatter(F.normalize(normals, dim=-1)), shot.raster.scatter(distance)[..., 0], face)


def fit_track(model: HeadModel) -> HeadTrack:
    """The plain fit."""
    return make_track(model, SIZE, SIZE, YAWS)


def true_track(model: HeadModel) -> HeadTrack:
    """The person's own head: another identity than the plain fit's, and two degrees off its pose."""
    generator = torch.Generator().manual_seed(3)
    track = fit_track(model)
    joints = track.joints.clone()
    joints[:, JOINTS.index("head")] += torch.tensor([0.03, 0.02, 0.0])
    identity = 0.6 * torch.randn(track.identity.shape, generator=generator)
    return dataclasses.replace(track, identity=identity, joints=joints)


def inner(mask: torch.Tensor, radius: int = 3) -> torch.Tensor:
    """The pixels of masks [T, H, W] that have `radius` more of them on every side."""
    return -F.max_pool2d(-mask[:, None].float(), 2 * radius + 1, 1, radius)[:, 0] > 0.5
