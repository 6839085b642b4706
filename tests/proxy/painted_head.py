"""Pictures whose truth is known: the embedded head painted with a smooth colour, seen by a camera, as source of a proxy."""

import dataclasses

import torch

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS, HeadModel
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.posing import Stage, camera_space
from expportrait.proxy.render_interior import dense_template


def make_track(model: HeadModel, width: int, height: int, yaws=(0.0,), focal: float | None = None) -> HeadTrack:
    """A head of mean identity at rest that fills most of the picture, turned by each yaw (radians)."""
    frames = len(yaws)
    joints = torch.zeros(frames, len(JOINTS), 3)
    joints[:, JOINTS.index("head"), 1] = torch.tensor(yaws)
    centre = model.joint_template[JOINTS.index("head")]
    focal = 1.9 * min(width, height) if focal is None else focal
    at = torch.tensor([0.0, -float(centre[1]) - 0.02, -0.75])
    points = torch.zeros(frames, 478, 2)
    points[..., 0] = torch.linspace(0.3, 0.7, 478) * width
    points[..., 1] = torch.linspace(0.3, 0.7, 478).flip(0) * height
    return HeadTrack(
        model_id=model.model_id,
        identity=torch.zeros(model.identity_basis.shape[0]),
        expression=torch.zeros(frames, model.expression_basis.shape[0]),
        joints=joints,
        translation=at.repeat(frames, 1),
        focal=float(focal),
        width=width,
        height=height,
        fps=25.0,
        valid=torch.ones(frames, dtype=torch.bool),
        confidence=torch.ones(frames),
        landmarks=points,
        landmarks_fit=points,
    )


def move(track: HeadTrack, model: HeadModel, **changes: float) -> HeadTrack:
    """The track with expressions set by name in every frame."""
    expression = track.expression.clone()
    for name, value in changes.items():
        expression[:, model.expression_index(name)] = value
    return dataclasses.replace(track, expression=expression)


def skin_paint(model: HeadModel) -> torch.Tensor:
    """Smooth colours [V, 3], the same on both sides of the face."""
    points = dense_template(model)
    x, y = points[:, 0].abs() / 0.08, (points[:, 1] - points[:, 1].mean()) / 0.1
    return torch.stack([0.65 + 0.1 * torch.sin(3 * y), 0.5 + 0.1 * torch.cos(4 * x), 0.45 + 0.05 * torch.sin(2 * y + x)], -1)


def paint(model: HeadModel, track: HeadTrack, colours: torch.Tensor, background: float = 0.3) -> torch.Tensor:
    """Picture [3, H, W] of a track's first frame with vertex colours [V, 3], unlit."""
    stage = Stage(model, Camera.centred(track.focal, track.width, track.height))
    shot = stage.shot(camera_space(model, track.identity, track, 0, 1))
    image = shot.raster.scatter(shot.pixels(colours[None])[0])
    image = torch.where(shot.raster.mask[..., None], image, torch.full_like(image, background))
    return image[0].permute(2, 0, 1)
