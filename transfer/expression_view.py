"""One person drawn at once with any edited expression, from any side: what an editor shows while its sliders move."""

from __future__ import annotations

import dataclasses
import functools
import math
import threading
from collections.abc import Mapping

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.posing import Shot, Stage, camera_space, check_models
from ..proxy.render_interior import interior_light, posed_interior_light
from ..proxy.rotation import to_matrix
from .closure import closure
from .contact import Contact
from .contact_rims import find_rims
from .detail import Detail
from .expression_edit import edit_expression, resting_motion
from .jaw import jaw_range, limit_jaw
from .motion import HeadMotion
from .network import load_transfer_network
from .performance import neutral_vertices
from .skin_detail import predicted_detail

SIDE, SIDES = 384, (64, 768)  # pixels
MOST_YAW, MOST_PITCH = 180.0, 60.0  # degrees
FPS = 25.0
CLOSENESS = 0.8  # side of what is seen, in that of the proxy's crop
BACKGROUND = (0.115, 0.12, 0.13)
LIGHT = (-0.25, 0.35, 0.9)  # camera space, towards the light: it stays with the viewer while the head turns
AMBIENT = 0.62  # share of light that comes from everywhere
_DRAWING = threading.Lock()  # one picture at a time: they would only slow each other down


class ExpressionView:
    """A person ready to be drawn, on the CPU; made once per proxy, drawn in some 50 ms on one core.

    Keeps what does not depend on the expression: the fields of the predicted detail, contact, textures and topology, each made
    when first needed. May be used by several threads. Raises ValueError if proxy and model do not belong together.
    """

    def __init__(self, proxy: HeadProxy, model: HeadModel):
        check_models(model, proxy)
        self.model = model if model.template.device.type == "cpu" else model.to("cpu")
        self.proxy = proxy.to("cpu")
        self.rest = resting_motion(self.proxy, 1 / FPS, FPS)
        self._interior = interior_light(self.model)
        self._stage = functools.lru_cache(maxsize=2)(self._make_stage)
        self._texture = functools.lru_cache(maxsize=2)(self._make_texture)
        self._centre = self._skull_centre()
        refined = self.proxy.detail_basis is not None and len(self.proxy.detail_basis) and self.proxy.detail_by_expression is not None
        self._network = None if refined else load_transfer_network(self.model)

    def motion(self, amounts: Mapping[str, float], settled: bool = True) -> HeadMotion:
        """The resting face with this edit (see `edit_expression`), as a motion of one frame, with its detail.

        Settled, it is the very expression that `edit_expression` and `with_edited_detail` give. Else contact is left out, which
        takes most of the time: lids and lips may then stay open by a fraction of a millimetre.

        Raises ValueError for an unknown name or an amount out of range.
        """
        edited = edit_expression(self.rest, amounts, self.proxy, self.model)
        detail = self._predicted(edited)
        joints, fields, coefficients = edited.joints, detail.fields, detail.coefficients
        if settled and self._contact is not None:
            proxy, expression, still = self.proxy, edited.expression, torch.zeros_like(joints[0])
            lids, lips = closure(
                self.model, expression, joints, proxy.neutral, still, proxy.identity, proxy.displacement
            )
            joints, more, strengths = self._contact.correct(expression, joints, lids, lips, fields, coefficients)
            fields, coefficients = torch.cat([fields, more]), torch.cat([coefficients, strengths], dim=1)
        elif self.model.landmarks is not None:
            joints = limit_jaw(self.model, edited.expression, joints, self._jaw_limits)
        return dataclasses.replace(
            edited, joints=joints, detail=coefficients, detail_basis=fields, detail_id=self.proxy.detail_id
        )

    def picture(
        self, amounts: Mapping[str, float], yaw: float = 0.0, pitch: float = 0.0, side: int = SIDE, settled: bool = True
    ) -> Tensor:
        """The edited face [side, side, 3] uint8, in the source picture's pose.

        yaw and pitch, in degrees, turn the whole head before the viewer, about its middle: positive yaw to the right of the
        picture, positive pitch down. Raises ValueError for an angle or a side out of range, and what `motion` raises.
        """
        _check_angle("yaw", yaw, MOST_YAW)
        _check_angle("pitch", pitch, MOST_PITCH)
        if not SIDES[0] <= side <= SIDES[1]:
            raise ValueError(f"the picture's side is {side}; give {SIDES[0]} to {SIDES[1]} pixels")
        vertices = camera_space(self.model, self.proxy, self.motion(amounts, settled))
        # How deep in the mouth a vertex lies is told along the viewing axis of the source, so before the head is turned.
        inside = posed_interior_light(self.model, self._interior, vertices)
        turn = to_matrix(vertices.new_tensor([math.radians(pitch), 0, 0])) @ to_matrix(vertices.new_tensor([0, math.radians(yaw), 0]))
        with _DRAWING:
            return self._drawn(self._stage(side).shot((vertices - self._centre) @ turn.mT + self._centre), inside)

    def _drawn(self, shot: Shot, inside: Tensor) -> Tensor:
        towards = torch.nn.functional.normalize(shot.vertices.new_tensor(LIGHT), dim=0)
        light = inside * (AMBIENT + (1 - AMBIENT) * (shot.normals @ towards).clamp(min=0))  # [1, V]
        (shade,) = shot.pixels(light[..., None])
        raster = shot.raster
        image = shade.new_tensor(BACKGROUND).repeat(raster.ids.numel(), 1)
        image = image.index_copy(0, raster.pixels, shot.texture(self._texture(raster.ids.shape[-1])) * shade)
        image = shot.stage.rasterizer.antialias(image.view(*raster.ids.shape, 3), raster, shot.clip)
        return image[0].clamp(0, 1).mul(255).round().to(torch.uint8)

    def _predicted(self, edited: HeadMotion) -> Detail:
        """As `predicted_detail`, with the network's fields made once."""
        if self._network is None:
            return predicted_detail(edited, self.proxy, self.model)
        still = torch.zeros_like(edited.joints)
        codes = self._network.encode(edited.expression, edited.joints) - self._network.encode(self.proxy.neutral[None], still)
        return Detail(self._fields, codes)

    @functools.cached_property
    def _fields(self) -> Tensor:
        neutral = neutral_vertices(self.model, self.proxy, torch.zeros_like(self.proxy.neutral))
        return self._network.fields(neutral, self.model)

    @functools.cached_property
    def _contact(self) -> Contact | None:
        return None if find_rims(self.model) is None else Contact(self.model, self.proxy.identity, self.proxy.displacement)

    @functools.cached_property
    def _jaw_limits(self) -> Tensor:
        return jaw_range(self.model, self.proxy.identity)

    def _make_stage(self, side: int) -> Stage:
        camera, across = self.proxy.camera, CLOSENESS * self.proxy.crop[2]
        left, top = (camera.project(self._centre) - across / 2).tolist()
        return Stage(self.model, camera.viewport(left, top, across, across, side, side))

    def _make_texture(self, side: int) -> Tensor:
        """The albedo, its texels about as large as the pixels of a picture of this side."""
        albedo = self.proxy.albedo
        shrink = max(1, round(albedo.shape[-1] / (1.5 * side)))
        return torch.nn.functional.avg_pool2d(albedo[None], shrink)[0]

    def _skull_centre(self) -> Tensor:
        """What the head is turned about, [3] in camera space."""
        points = camera_space(self.model, self.proxy, self.rest)[0]
        skull = torch.maximum(self.model.regions["face"], self.model.regions["scalp"]) > 0.5
        points = points[skull] if bool(skull.any()) else points
        return (points.amin(0) + points.amax(0)) / 2


def _check_angle(name: str, value: float, most: float) -> None:
    if not (math.isfinite(value) and abs(value) <= most):
        raise ValueError(f"{name} is {value:g}; give -{most:g} to {most:g} degrees")
