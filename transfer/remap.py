"""Motions from one head model to another, by way of ARKit's expressions."""

from __future__ import annotations

import dataclasses
import logging
import os

import torch

from ..proxy.head_model import HeadModel, load_head_model
from ..proxy.posing import check_models
from .arkit_bridge import ARKIT_NAMES, arkit_bridge
from .face_motion import EYES, JAW
from .motion import HeadMotion

log = logging.getLogger(__name__)
LOST = 0.5  # share of a shape's motion from which on a model is said not to show it


def remap_motion(motion: HeadMotion, source: HeadModel, target: HeadModel) -> HeadMotion:
    """The motion of head model `source` as one of `target`, T frames.

    Expression and jaw are read as ARKit curves by the one model's bridge and shown by the other's, within the target's bounds;
    eyes turn by the same angles; root, neck, head and place go over as they are. Detail belongs to the skin of one proxy and is
    left out. Raises ValueError if the motion was not made with `source`, or what `arkit_bridge` raises.
    """
    check_models(source, motion)
    if source.model_id == target.model_id:
        return motion
    curves = arkit_bridge(source).to_arkit(motion.expression, motion.joints, with_gaze=False)
    expression, turned = arkit_bridge(target).to_model(curves)
    low, high = target.expression_bounds.to(expression).unbind(-1)
    expression = torch.minimum(torch.maximum(expression, low), high)
    joints = motion.joints.clone()
    joints[:, JAW] = turned[:, JAW]
    gaze = source.joint_rotations(motion.expression.to(source.template), motion.joints.to(source.template))[:, EYES]
    own = torch.einsum("te,ejx->tjx", expression, target.expression_joints[:, EYES].to(expression))
    joints[:, EYES] = gaze.to(joints) - own
    return dataclasses.replace(
        motion, model_id=target.model_id, expression=expression, joints=joints, detail=None, detail_id=None, detail_basis=None
    )


def load_motion_for(path: str | os.PathLike, model: HeadModel, source: HeadModel | None = None) -> HeadMotion:
    """A saved motion for `model`, remapped with a word to the log if another head model made it.

    That other model is the embedded head, which is always there, or `source`. Raises ValueError if it is neither, and what
    `HeadMotion.load` and `remap_motion` raise.
    """
    motion = HeadMotion.load(path)
    if motion.model_id == model.model_id:
        return motion
    known = {head.model_id: head for head in (load_head_model(), source) if head is not None}
    if motion.model_id not in known:
        raise ValueError(
            f"{path} was made with head model {motion.model_id}, but {model.model_id} is loaded; load the matching head model, "
            f"or give it as the one that the file was made with, and the motion is carried over"
        )
    device, source = model.template.device, known[motion.model_id]
    if source.template.device != device:  # a moved model is another object, whose bridge would be solved anew
        source = source.to(device)
    remapped = remap_motion(motion.to(device), source, model)
    residual = arkit_bridge(model).residual.tolist()
    lost = [name for name, share in zip(ARKIT_NAMES, residual) if share > LOST]
    log.info(
        "%s was made with head model %s and is carried over to %s by ARKit's expressions%s",
        path, motion.model_id, model.model_id, f"; it does not show {', '.join(lost)}" if lost else "",
    )  # fmt: skip
    return remapped
