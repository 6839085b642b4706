"""The head model's own mean head as a proxy: somebody to show before there is a person."""

from __future__ import annotations

import torch

from .camera import Camera
from .head_model import JOINTS, HeadModel
from .head_proxy import HeadProxy
from .inpaint import pull_push
from .posing import Stage
from .render_interior import dense_template
from .texture import Atlas

SIDE = 512  # pixels of the picture that it stands in
DISTANCE = 0.9  # metres from the camera to the middle of the head
FOCAL = 1.8  # in the picture's side
MARGIN = 1.5  # side of the crop, in heights of the head


def plain_head(model: HeadModel, texture_size: int = 512) -> HeadProxy:
    """A proxy of mean identity at rest, seen from the front, in the model's default albedo; on the model's device."""
    points = dense_template(model)
    skull = torch.maximum(model.regions["face"], model.regions["scalp"]) > 0.5
    low, high = points[skull].amin(0), points[skull].amax(0)
    middle = (low + high) / 2
    camera = Camera.centred(FOCAL * SIDE, SIDE, SIDE)
    across = MARGIN * float(high[1] - low[1]) * camera.focal / DISTANCE
    atlas = Atlas.of(Stage(model, camera), texture_size)
    (colour,) = atlas.pixels(model.albedo)
    covered = atlas.image(torch.ones_like(colour[:, :1]))
    zeros = points.new_zeros
    return HeadProxy(
        model_id=model.model_id,
        identity=zeros(model.identity_basis.shape[0]),
        albedo=pull_push(atlas.image(colour), covered)[0].clamp(0, 1),
        albedo_confidence=zeros(1, texture_size, texture_size),
        neutral=zeros(model.expression_basis.shape[0]),
        source_expression=zeros(model.expression_basis.shape[0]),
        source_joints=zeros(len(JOINTS), 3),
        source_translation=-middle - middle.new_tensor([0.0, 0.0, DISTANCE]),
        focal=camera.focal,
        width=camera.width,
        height=camera.height,
        crop=(SIDE / 2 - across / 2, SIDE / 2 - across / 2, across, across),
    )
