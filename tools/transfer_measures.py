"""What a face does, read from 478 detected points alone: mouth, smile, brows, lids and gaze in the head's own frame, and its turn.

Nothing here knows the fit: the points are brought upright by the rigid head closest to those that expressions hardly move.
"""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from expportrait.proxy.camera import Camera
from expportrait.proxy.fit_settings import FitSettings
from expportrait.proxy.fit_start import DEPTH_SHARE, place, seen_place, still_weight
from expportrait.proxy.head_model import HeadModel
from expportrait.proxy.landmark_points import LEFT_CORNER, RIGHT_CORNER, LandmarkPoints

# MediaPipe's point numbers; left and right are the subject's.
UPPER_LIP, LOWER_LIP = (82, 13, 312), (87, 14, 317)  # inner rims
MOUTH_CORNERS = (61, 291)
BROWS = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55, 300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
EYE_CORNERS = {"left": (362, 263), "right": (33, 133)}  # from the subject's right to the subject's left
UPPER_LIDS = {"left": (385, 386, 387), "right": (158, 159, 160)}
LOWER_LIDS = {"left": (380, 374, 373), "right": (153, 145, 144)}
IRIS = {"left": 473, "right": 468}  # centres

SIDES = ("left", "right")
EXPRESSIONS = ("mouth opening", "smile width", "brow height", "left lid", "right lid", "gaze x", "gaze y")
TURNS = ("pitch", "yaw", "roll")
MIRRORED = {"left lid": "right lid", "right lid": "left lid"}
REVERSED = ("gaze x", "yaw", "roll")  # what changes its sign in a mirror


@dataclasses.dataclass(frozen=True)
class Ruler:
    """The mean head, which detected points are held against."""

    points: Tensor  # [478, 3] at rest, metres
    weight: Tensor  # [478] of a point in the head's rotation

    @staticmethod
    def of(model: HeadModel) -> Ruler:
        """Raises ValueError if the model has no landmark table."""
        maps = LandmarkPoints.of(model)
        nobody = torch.zeros(1, model.identity_basis.shape[0])
        still = torch.zeros(1, len(model.expression_names))
        points = maps.posed(nobody, still, torch.zeros(1, maps.joint_template.shape[0], 3)).points[0]
        return Ruler(points, still_weight(maps, model.expression_bounds, FitSettings().expression))

    @property
    def eyes(self) -> float:
        """Distance of the outer eye corners, metres."""
        return float((self.points[LEFT_CORNER] - self.points[RIGHT_CORNER]).norm())

    def upright(self, points: Tensor, camera: Camera) -> Tensor:
        """Detected points [T, 478, 3] (pixels, depth away from the camera) in the frame of the head, perspective taken out.

        [T, 478, 3] in shares of the mean head's eye distance: x to the subject's left, y up, z to the front. Sizes are those of
        the rigid head that fits each frame, so they do not change with the distance to the camera.
        """
        found = seen_place(self.points, points, self.weight, camera)
        share = (self.weight / self.weight.sum())[:, None]
        depth = DEPTH_SHARE * points[..., 2:]
        depth = depth - (share * depth).sum(1, keepdim=True)
        offset = points[..., :2] - points.new_tensor([camera.cx, camera.cy])
        seen = torch.cat([offset * (1 + depth / camera.focal), depth], 2) * points.new_tensor([1.0, -1.0, -1.0])
        seen = seen - (share * seen).sum(1, keepdim=True)
        return seen @ found.rotation / (found.scale * self.eyes)[:, None, None]

    def measure(self, points: Tensor, camera: Camera) -> dict[str, Tensor]:
        """EXPRESSIONS and TURNS [T] each of detected points [T, 478, 3].

        Mouth opening, smile width, brow height and lids in percent of the mean head's eye distance; gaze in percent of each eye's
        width, x to the subject's left, y up, mean of both eyes; turns in degrees about the camera's axes.
        """
        at = self.upright(points, camera)
        eyes = [self._eye(at, side) for side in SIDES]
        rotation = place(self.points, points, self.weight, camera).rotation
        lengths = {
            "mouth opening": _mean(at, UPPER_LIP)[:, 1] - _mean(at, LOWER_LIP)[:, 1],
            "smile width": (at[:, MOUTH_CORNERS[1]] - at[:, MOUTH_CORNERS[0]]).norm(dim=-1),
            "brow height": _mean(at, BROWS)[:, 1],  # not above the eyes' corners, which a blink lowers
            "left lid": eyes[0][0],
            "right lid": eyes[1][0],
            "gaze x": (eyes[0][1] + eyes[1][1]) / 2,
            "gaze y": (eyes[0][2] + eyes[1][2]) / 2,
        }
        return {name: 100 * length for name, length in lengths.items()} | turns_of(rotation)

    def _eye(self, at: Tensor, side: str) -> tuple[Tensor, Tensor, Tensor]:
        """Opening of one eye, and where its iris is across and above the line of its corners, in shares of its width."""
        start, end = (at[:, k, :2] for k in EYE_CORNERS[side])
        line = end - start
        width = line.norm(dim=-1, keepdim=True)
        along = line / width
        above = torch.stack([-along[:, 1], along[:, 0]], 1)
        opening = ((_mean(at, UPPER_LIDS[side]) - _mean(at, LOWER_LIDS[side]))[:, :2] * above).sum(1)
        iris = (at[:, IRIS[side], :2] - (start + end) / 2) / width
        return opening, (iris * along).sum(1), (iris * above).sum(1)


def turns_of(rotation: Tensor) -> dict[str, Tensor]:
    """TURNS [T] in degrees of rotations [T, 3, 3] from the head's frame to the camera's: roll first, then pitch, then yaw."""
    angles = (
        -rotation[:, 1, 2].clamp(-1, 1).asin(),
        torch.atan2(rotation[:, 0, 2], rotation[:, 2, 2]),
        torch.atan2(rotation[:, 1, 0], rotation[:, 1, 1]),
    )
    return {name: angle * (180 / math.pi) for name, angle in zip(TURNS, angles)}


def _mean(at: Tensor, points: tuple[int, ...]) -> Tensor:
    return at[:, list(points)].mean(1)


def unmirrored(measures: dict[str, Tensor]) -> dict[str, Tensor]:
    """Measures of mirrored pictures as those of the pictures themselves."""
    swapped = {MIRRORED.get(name, name): value for name, value in measures.items()}
    return {name: -value if name in REVERSED else value for name, value in swapped.items()}


def detector_noise(measures: dict[str, Tensor], mirrored: dict[str, Tensor], used: dict[str, Tensor]) -> dict[str, float]:
    """Standard deviation of one reading's error: two readings of the same frames, of which the second is of their mirror images.

    A constant difference of the two is no noise: only what varies over the frames `used` [T] bool.
    """
    again = unmirrored(mirrored)
    return {name: float((value - again[name])[used[name]].std()) / math.sqrt(2) for name, value in measures.items()}


def attenuation(values: Tensor, noise: float) -> float:
    """What is left of a perfect correlation when one series [T] is read with that noise: the root of its reliability (Spearman 1904)."""
    variance = float(values.var())
    return math.sqrt(max(1 - noise**2 / variance, 0.0)) if variance > 0 else 0.0


def pearson(first: Tensor, second: Tensor) -> float:
    """Correlation of two series [T]; 0 if one of them does not vary."""
    first, second = first.double() - first.double().mean(), second.double() - second.double().mean()
    spread = (first.square().sum() * second.square().sum()).sqrt()
    return float((first * second).sum() / spread) if spread > 1e-12 else 0.0
