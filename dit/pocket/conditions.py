"""What the pocket model is shown: the warped source, and maps of the driven proxy, one raster per frame."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from ...proxy.camera import Camera
from ...proxy.head_model import JOINTS, HeadModel
from ...proxy.head_proxy import HeadProxy
from ...proxy.posing import Shot, SourcePose, Stage, camera_space
from ...proxy.preview import SEEN, compose
from ...proxy.preview_source import PreviewSource, seen_area
from ...proxy.render_interior import INNER, part_vertices
from ...proxy.render_regions import IRIS_ANGLE, eye_angle
from ...proxy.source_picture import one_source
from ..expression_code import expression_code

CHANNELS = {"warp": 3, "validity": 1, "normals": 3, "regions": 3, "background": 3}  # of the control picture, in this order
CONTROL = sum(CHANNELS.values())
REFERENCE = 9  # channels of the reference picture: colours, normals, regions
TEETH, BALL = 1.0, 0.5  # levels in the maps of mouth and eyes; the mouth's lining and the iris have the other one


@dataclasses.dataclass(frozen=True)
class Conditions:
    """Of t frames, all in 0..1 but the code."""

    warp: Tensor  # [t, 3, H, W] the source carried to the driven pose, whole picture
    validity: Tensor  # [t, 1, H, W] 1 where the source saw the surface, 0 where the warp was drawn or guessed
    normals: Tensor  # [t, 3, H, W] camera space, OpenGL, encoded (n + 1) / 2, black where there is no head
    regions: Tensor  # [t, 3, H, W] lips; inside of the mouth (teeth 1, else 0.5); eyes (ball 0.5, iris 1)
    background: Tensor  # [t, 3, H, W] the source picture with the person painted over
    head: Tensor  # [t, 1, H, W] where the head is, without neck and shoulders; the model is not shown it
    code: Tensor  # [t, K] `expression_code`

    @property
    def control(self) -> Tensor:
        """[t, CONTROL, H, W] as the model takes it, in the order of CHANNELS."""
        return torch.cat([getattr(self, name) for name in CHANNELS], dim=1)


class ConditionMaker:
    """Conditions of one source picture, in the frame of one camera."""

    def __init__(self, source: Tensor, proxy: HeadProxy, model: HeadModel, camera: Camera, person: Tensor | None = None):
        """source [3, H, W] in 0..1 is the proxy's picture; `person` [H, W] masks the person in it (default: segmentation).

        Raises ValueError if the picture has not the size of the proxy's.
        """
        self.model, self.stage = model, Stage(model, camera)
        self.proxy = proxy.to(model.template.device)
        self.known = PreviewSource.of(one_source(source, proxy), self.proxy, self.stage, person)
        self._regions = region_values(model)
        self._head = model.weights[:, JOINTS.index("head") :].sum(1)[None, :, None]  # of the joints behind the neck

    @property
    def background(self) -> Tensor:
        """[1, 3, H, W] the source with the person painted over."""
        return self.known.background

    def reference(self) -> Tensor:
        """The source picture with the maps of its own pose, [1, REFERENCE, H, W]."""
        shot = self.stage.shot(camera_space(self.model, self.proxy, SourcePose.of(self.proxy)))
        normals, regions, *_ = self._maps(shot).split([3, 3, 1, 1], dim=1)
        return torch.cat([self.known.photo, normals, regions], dim=1)

    def frames(self, motion, start: int = 0, stop: int | None = None) -> Conditions:
        """Conditions of frames start..stop of anything with expression, joints and translation."""
        shot = self.stage.shot(camera_space(self.model, self.proxy, motion, start, stop))
        normals, regions, unseen, head = self._maps(shot).split([3, 3, 1, 1], dim=1)
        code = expression_code(motion)[start:stop].to(normals)
        background = self.background.expand_as(normals)
        return Conditions(compose(self.known, shot), 1 - unseen, normals, regions, background, head, code)

    def _maps(self, shot: Shot) -> Tensor:
        """[t, 8, H, W]: normals, regions, what the source did not show, and the head."""
        then, now = self.known.area[..., None], seen_area(shot)[..., None]
        normals, regions, then, now, head = shot.pixels(shot.normals, self._regions, then, now, self._head)
        low, high = SEEN
        unseen = 1 - ((then / now.clamp(min=1e-6) - low) / (high - low)).clamp(0, 1)
        image = shot.raster.scatter(torch.cat([(F.normalize(normals, dim=-1) + 1) / 2, regions, unseen, head], dim=-1))
        return shot.stage.rasterizer.antialias(image, shot.raster, shot.clip).clamp(0, 1).permute(0, 3, 1, 2)


def region_values(model: HeadModel) -> Tensor:
    """[1, V, 3] of lips, inside of the mouth and eyes, as in `Conditions.regions`."""
    skin = part_vertices(model, "skin").float()
    teeth = part_vertices(model, "upper_teeth", "lower_teeth").float()
    inside = torch.maximum(TEETH * teeth, 0.5 * part_vertices(model, *INNER))
    eyes = BALL * part_vertices(model, "left_eye", "right_eye") + (1 - BALL) * (eye_angle(model) < IRIS_ANGLE)
    return torch.stack([model.regions["lips"] * skin, inside, eyes], dim=-1)[None]
