"""Expression and pose transfer: what a driver does, on a target's head.

Identity is no input and no output here, so it cannot leak from the driver.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..proxy import rotation
from ..proxy.head_model import JOINTS, HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.head_track import HeadTrack
from ..proxy.posing import check_models
from .gains import multiply, region_amounts, scale_expression
from .motion import HeadMotion
from .network import TransferNetwork
from .performance import Driver, Performance, perform
from .settings import RegionGains, TransferSettings
from .skin_detail import with_detail

ROOT, NECK, HEAD, JAW, LEFT_EYE, RIGHT_EYE = (JOINTS.index(n) for n in ("root", "neck", "head", "jaw", "left_eye", "right_eye"))
RESTING_JAW = 0.05  # radians
NEAREST = 0.2  # of its distance at rest that a driver may come to the camera
STRONGEST = 0.98  # quantile over time that counts as a driver's strongest expression
UNACTED = 0.15  # share of its bound below which a region was not acted: what is there is noise
MOST_MATCH = 2.0  # factor, and its inverse, that matching the amplitude gives at most


def transfer_motion(
    proxy: HeadProxy,
    driver: Driver | HeadTrack | HeadMotion,
    model: HeadModel,
    settings: TransferSettings = TransferSettings(),
    other: Driver | HeadTrack | HeadMotion | None = None,
    network: TransferNetwork | None = None,
) -> HeadMotion:
    """Moves the driver's expression and head pose onto the proxy's head.

    Relative: expression (and jaw and gaze) = target at rest + gains (driver - driver at rest), within the model's bounds or as far
    below them as the driver may fall below its rest; world rotations of neck and head are multiplied by the driver's rotations
    relative to its rest. Absolute: the driver's expression and rotations as they are. Sideways movement is taken over in metres,
    distance as a ratio, both relative to the rest. Expression or pose from "source" are those of the source picture. Joint
    positions come from the target's own identity, so a head that only changes expression stays where it is.

    The skin is displaced as `skin_detail.with_detail` tells, with `network` for its prediction (the shipped one if not given);
    with the source's expression it stays as it is. `other` is the performer of expression_from "other driver": it gets the
    driver's frame rate and length, holding its last frame.

    Returns T frames, T being the driver's. Raises ValueError if drivers, proxy and model do not belong together, a driver is
    empty, nowhere valid or without frame rate, or "other driver" is asked for and not given.
    """
    check_models(model, proxy)
    main = perform(driver, model, settings)
    actor = main
    if settings.expression_from == "other driver":
        if other is None:
            raise ValueError("expression_from is 'other driver', but there is no other driver; give one, or choose 'driver'")
        actor = perform(other, model, dataclasses.replace(settings, neutral_frame=None), like=main.motion)
    gains = settings.gains
    if settings.match_amplitude:
        gains = multiply(gains, amplitude_match(actor, model))
    motion = HeadMotion(
        model_id=model.model_id,
        expression=_expression(proxy, actor, model, settings, gains),
        joints=_joints(proxy, main, actor, settings, gains),
        translation=_translation(proxy, main, settings),
        valid=main.motion.valid & actor.motion.valid,
        fps=main.motion.fps,
    )
    return motion if settings.share == 0 else with_detail(motion, proxy, model, settings, actor, network)


def amplitude_match(performance: Performance, model: HeadModel) -> dict[str, float]:
    """Factor of each acted region that takes the performer's strongest expression to the bound of the target's range.

    Range-of-motion alignment, as in Ribera et al. 2017, with the model's bounds for the target's range: between 1 / MOST_MATCH
    and MOST_MATCH, and 1 for a region that is not acted. Expressions without ARKit's names have no regions: no factors.
    """
    away = (performance.motion.expression - performance.rest.expression)[performance.motion.valid]
    factors = {}
    for region, amount in region_amounts(away, model).items():
        strongest = float(amount.quantile(STRONGEST)) if len(amount) else 0.0
        if strongest > UNACTED:
            factors[region] = min(max(1 / strongest, 1 / MOST_MATCH), MOST_MATCH)
    return factors


def _expression(
    proxy: HeadProxy, actor: Performance, model: HeadModel, settings: TransferSettings, gains: RegionGains
) -> Tensor:
    expression = actor.motion.expression
    source = proxy.source_expression.expand_as(expression)
    if settings.share == 0:
        return source.clone()
    relative = settings.mode == "relative"
    away = expression - actor.rest.expression if relative else expression
    moved = settings.expression_strength * scale_expression(away, gains, model)
    low, high = model.expression_bounds.to(expression).unbind(-1)
    if relative:
        # What a fit holds for this driver's rest may fall to its bound, and by as much below it on a target whose rest lacks it.
        low = torch.minimum(low, proxy.neutral + low - actor.rest.expression)
        moved = proxy.neutral + moved
    return torch.lerp(source, torch.minimum(torch.maximum(moved, low), high), settings.share)


def _joints(
    proxy: HeadProxy, main: Performance, actor: Performance, settings: TransferSettings, gains: RegionGains
) -> Tensor:
    source = rotation.to_matrix(proxy.source_joints)  # [J, 3, 3]
    source_world = _world(source)
    if settings.pose_from == "none":
        straight = torch.eye(3).to(source)
        source_world = {k: straight for k in source_world}
    driver_world = _world(rotation.to_matrix(main.motion.joints))
    rest_world = _world(rotation.to_matrix(main.rest.joints))
    axes = settings.pose_gains
    scale = settings.moved * source.new_tensor([axes.pitch, axes.yaw, axes.roll])
    neck, head = (_turned(source_world[k], driver_world[k], rest_world[k], scale, settings) for k in (NECK, HEAD))
    out = proxy.source_joints.repeat(len(main), 1, 1)
    if settings.moved > 0 or settings.pose_from == "none":
        out[:, NECK] = rotation.to_rotvec(source[ROOT].mT @ neck)
        out[:, HEAD] = rotation.to_rotvec(neck.mT @ head)
    if settings.share > 0:
        resting = proxy.source_joints.clone()
        resting[JAW] *= RESTING_JAW / resting[JAW].norm().clamp(min=RESTING_JAW)  # an open mouth in the picture is no rest
        acted, rest = actor.motion.joints, actor.rest.joints
        for k, gain in ((JAW, gains.jaw), (LEFT_EYE, gains.gaze), (RIGHT_EYE, gains.gaze)):
            moved = settings.expression_strength * gain * (acted[:, k] - rest[k] if settings.mode == "relative" else acted[:, k])
            out[:, k] = torch.lerp(out[:, k], resting[k] + moved if settings.mode == "relative" else moved, settings.share)
    return out


def _turned(source: Tensor, driver: Tensor, rest: Tensor, scale: Tensor, settings: TransferSettings) -> Tensor:
    """World rotations [T, 3, 3] of a target's joint; scale [3] of the driver's turn about the camera's axes x, y, z."""
    if settings.mode == "relative":
        return rotation.to_matrix(scale * rotation.to_rotvec(driver @ rest.mT)) @ source
    if settings.pose_from == "mix":
        way = rotation.to_rotvec(driver @ source.mT)
        return rotation.to_matrix(scale * way) @ source
    return rotation.to_matrix(scale * rotation.to_rotvec(driver)) if settings.moved > 0 else source.expand_as(driver)


def _world(local: Tensor) -> dict[int, Tensor]:
    """World rotations of neck and head from local ones [..., J, 3, 3]."""
    neck = local[..., ROOT, :, :] @ local[..., NECK, :, :]
    return {NECK: neck, HEAD: neck @ local[..., HEAD, :, :]}


def _translation(proxy: HeadProxy, main: Performance, settings: TransferSettings) -> Tensor:
    translation, rest = main.motion.translation, main.rest.translation
    sideways, distance = settings.moved * settings.pose_gains.sideways, settings.moved * settings.pose_gains.distance
    across = proxy.source_translation[:2] + sideways * (translation[:, :2] - rest[:2])
    ratio = (translation[:, 2:] / rest[2]).clamp(min=NEAREST)
    return torch.cat([across, proxy.source_translation[2] * ratio**distance], dim=1)
