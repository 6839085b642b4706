"""A head at rest before a camera, as proxy and as motion."""

import dataclasses

import torch

from expportrait.dit.head_conditions import source_motion
from expportrait.proxy.build import source_proxy
from expportrait.proxy.head_model import JOINTS
from expportrait.proxy.head_track import HeadTrack

HEAD = JOINTS.index("head")


def still_proxy(model, width=256, height=192):
    track = HeadTrack(
        model_id=model.model_id,
        identity=torch.zeros(model.identity_basis.shape[0]),
        expression=torch.zeros(1, len(model.expression_names)),
        joints=torch.zeros(1, len(JOINTS), 3),
        translation=torch.tensor([[0.0, -0.75, -0.8]]),
        focal=600.0,
        width=width,
        height=height,
        fps=25.0,
        valid=torch.ones(1, dtype=torch.bool),
        confidence=torch.ones(1),
        landmarks=torch.zeros(1, 478, 2),
        landmarks_fit=torch.zeros(1, 478, 2),
    )
    return source_proxy(track, model, 0, track.expression[0])


def moved(proxy, turn=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0)):
    motion = source_motion(proxy)
    joints = motion.joints.clone()
    joints[:, HEAD] += torch.tensor(turn)
    return dataclasses.replace(motion, joints=joints, translation=motion.translation + torch.tensor([shift]))
