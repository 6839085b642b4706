"""The eyelids of the preview as they close: their lashes come together to a line, and below it shows skin alone.

In the photo a fitted lid rarely ends to the pixel where the lid does. What the lower one carries of the eye is right as
long as the eye is open, but would show below a closed one.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .head_model import HeadModel
from .inpaint import box_blur
from .photo_light import face_skin, sample_at, vertex_colours
from .posing import Shot
from .render_interior import dense_template, part_vertices

# MediaPipe's points along the lids' margins, from corner to corner; left and right are the subject's.
UPPER = ((263, 466, 388, 387, 386, 385, 384, 398, 362), (33, 246, 161, 160, 159, 158, 157, 173, 133))
LOWER = ((263, 249, 390, 373, 374, 380, 381, 382, 362), (33, 7, 163, 144, 145, 153, 154, 155, 133))
UPWARDS = (168, 10)  # between the eyes and above them on the forehead, which expressions hardly move
LASHES = 0.0012  # metres from the margins over which lashes fade
STRONG = 0.85  # cover of lashes on the margin
DARK = 0.35  # most of the skin's brightness that they have
RIM = 0.006  # metres from the lower margin within which a fitted lid may miss the photo's
STAINED = (0.08, 0.2)  # difference from bare skin, in the face's brightness: skin .. surely something else
LEAST = 0.003  # metres of opening below which an eye in the source picture counts as hardly open
CLOSED = (0.15, 0.75)  # share of the source picture's opening that is gone: eyes still open .. as good as closed


@dataclasses.dataclass(frozen=True)
class PreviewLids:
    """Both eyes' lids in the source picture (V vertices)."""

    lashes: Tensor  # [2, V] 0..1 how much of a vertex they cover when an eye is closed
    stain: Tensor  # [2, V] 0..1 where the photo shows something else than skin on a lower lid
    colour: Tensor  # [4] of the lashes, and 1
    opening: Tensor  # [2] metres

    @staticmethod
    def of(photo: Tensor, drawn: Tensor, shot: Shot) -> PreviewLids | None:
        """Lids of a photo [1, 3, H, W] whose pose is `shot`; `drawn` [P, 3] is its mesh with bare lids. None without landmarks."""
        model = shot.stage.model
        if model.landmarks is None:
            return None
        skin = part_vertices(model, "skin")
        colours, weight = vertex_colours(photo, shot), face_skin(model) * shot.visibility[0]
        usual = (colours * weight[:, None]).sum(0) / weight.sum().clamp(min=1e-6)
        picture, mask = shot.raster.scatter(torch.cat([drawn, torch.ones_like(drawn[:, :1])], 1)).permute(0, 3, 1, 2).split([3, 1], 1)
        strange = ((photo - picture).abs().mean(1, keepdim=True) * mask) / usual.mean().clamp(min=0.05)
        strange = sample_at(box_blur(strange, 1), shot.stage.camera.project(shot.vertices[0]))[:, 0]
        strange = ((strange - STAINED[0]) / (STAINED[1] - STAINED[0])).clamp(0, 1)

        rest = dense_template(model)
        points = model.landmarks.points(rest[None], model.faces)[0]
        margins = sample_at(photo, shot.stage.camera.project(model.landmarks.points(shot.vertices, model.faces)[0]))
        lashes, stain, colour = [], [], []
        for upper, lower in zip(UPPER, LOWER):
            above, below = (_distance(rest, points[list(line)]) for line in (upper, lower))
            away = torch.minimum(above, below)  # a closed lid's margin may lie behind the other's
            lashes.append(STRONG * torch.exp(-(away / LASHES).square()) * skin)
            stain.append(strange * torch.exp(-(below / RIM).square()) * skin * (below < above))  # above are the photo's own lashes
            rim = margins[list(upper)]
            darkest = rim[rim.mean(1) <= rim.mean(1).median()].mean(0)
            colour.append(darkest * (DARK * usual.mean() / darkest.mean().clamp(min=1e-3)).clamp(max=1))
        colour = torch.nn.functional.pad(torch.stack(colour).mean(0), (0, 1), value=1.0)
        return PreviewLids(torch.stack(lashes), torch.stack(stain), colour, _opening(model, shot.vertices)[0])

    def closed(self, shot: Shot) -> Tensor:
        """How far each eye has closed since the source picture, 0..1, [t, 2]."""
        gone = (self.opening - _opening(shot.stage.model, shot.vertices)) / self.opening.clamp(min=LEAST)
        share = ((gone - CLOSED[0]) / (CLOSED[1] - CLOSED[0])).clamp(0, 1)
        return share.square() * (3 - 2 * share)


def _opening(model: HeadModel, vertices: Tensor) -> Tensor:
    """Metres [t, 2] from the middle of each lower lid up to that of the upper one; 0 where they overlap."""
    points = model.landmarks.points(vertices, model.faces)
    upper, lower = (points[:, torch.tensor(lines)[:, 3:6]].mean(2) for lines in (UPPER, LOWER))
    up = torch.nn.functional.normalize(points[:, UPWARDS[1]] - points[:, UPWARDS[0]], dim=-1)
    return ((upper - lower) * up[:, None]).sum(-1).clamp(min=0)


def _distance(points: Tensor, line: Tensor) -> Tensor:
    """Distance [V] of points [V, 3] from a polyline [K, 3]."""
    start, way = line[:-1], line[1:] - line[:-1]
    along = ((points[:, None] - start) * way).sum(-1) / way.square().sum(-1).clamp(min=1e-12)
    return (points[:, None] - start - along.clamp(0, 1)[..., None] * way).norm(dim=-1).amin(1)
