"""What an adapter reads of a head: control video, reference geometry and explicit expression, as its config asks for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..proxy.camera import Camera
from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.posing import SourcePose
from ..proxy.render import render_maps
from ..transfer.motion import HeadMotion
from .adapter.config import AdapterConfig
from .expression_code import expression_code
from .pocket.conditions import ConditionMaker
from .ray_map import ray_map, relative_pose

MAPS = {"normals": "normals", "depth": "depth", "lines": "landmarks"}
CHUNK = 8

Progress = Callable[[int, int], None]


def held_motion(motion: HeadMotion, frames: int) -> HeadMotion:
    """The first `frames` of a motion; the last one is held where there are fewer. Raises ValueError for an empty motion."""
    if len(motion) < 1:
        raise ValueError("the motion has no frames; transfer at least one frame")
    return motion.select([min(k, len(motion) - 1) for k in range(frames)])


def source_motion(proxy: HeadProxy) -> HeadMotion:
    """The source picture's pose as a motion of one frame."""
    pose = SourcePose.of(proxy)
    return HeadMotion(proxy.model_id, pose.expression, pose.joints, pose.translation, torch.ones(1, dtype=torch.bool), 1.0)


def control_video(
    proxy: HeadProxy,
    motion,
    model: HeadModel,
    config: AdapterConfig,
    camera: Camera,
    source: Tensor | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Control video [1, C, F, H, W] of a motion of F frames, as the camera sees it.

    Channels are those of `config.inputs` in their order, in its range, 0 where there is no head in a signed range. `source`
    [3, H, W] in 0..1 is the proxy's picture, for adapters that read the warped reference. Raises ValueError without it.
    """
    return _video(proxy, motion, model, config.inputs, config.range, camera, source, progress)


def reference_geometry(
    proxy: HeadProxy, model: HeadModel, config: AdapterConfig, camera: Camera, source: Tensor | None = None
) -> Tensor:
    """The same [1, C, H, W] of the source picture's own pose, for `config.reference_inputs`."""
    return _video(proxy, source_motion(proxy), model, config.reference_inputs, config.range, camera, source, None)[:, :, 0]


def explicit_numbers(motion, model: HeadModel, config: AdapterConfig) -> Tensor:
    """Numbers [1, F, N] of the explicit expression code: expression, jaw and gaze. Raises ValueError if the adapter counts those of
    another head model."""
    numbers = expression_code(motion)[None]
    if config.head_model not in ("", model.model_id) or numbers.shape[2] != config.explicit_size:
        raise ValueError(
            f"the adapter reads {config.explicit_size} expression numbers of head model {config.head_model or 'unknown'}, but "
            f"{model.model_id} gives {numbers.shape[2]}; build the proxy with the adapter's head model"
        )
    return numbers


def _video(proxy, motion, model, inputs, value_range, camera, source, progress) -> Tensor:
    if "reference" in inputs and source is None:
        raise ValueError("this adapter reads the warped reference; give the source picture that the proxy was built from")
    count, device = len(motion), model.template.device
    drawn = [MAPS[name] for name in inputs if name in MAPS]
    maps = render_maps(proxy, motion, model, (*drawn, "mask"), chunk=CHUNK, camera=camera)
    poses = relative_pose(proxy, motion, model, camera) if "rays" in inputs else None
    warp = ConditionMaker(source.to(device), proxy, model, camera) if "reference" in inputs else None
    signed, parts, start = value_range == "signed", [], 0
    for chunk in maps:
        mask = chunk["mask"].permute(3, 0, 1, 2)
        end = start + mask.shape[1]
        pieces = []
        for name in inputs:
            if name == "rays":
                pieces.append(ray_map(poses[start:end], camera.height, camera.width).transpose(0, 1))
            elif name == "reference":
                found = warp.frames(motion, start, end)
                colours = torch.cat([found.warp, found.validity], 1).transpose(0, 1)
                pieces.append(2 * colours - 1 if signed else colours)
            else:
                image = chunk[MAPS[name]].permute(3, 0, 1, 2)
                image = image[:1] if name == "depth" else image
                pieces.append((2 * image - mask if name == "normals" else 2 * image - 1) if signed else image)
        parts.append(torch.cat(pieces))
        start = end
        if progress is not None:
            progress(start, count)
    return torch.cat(parts, 1)[None]
