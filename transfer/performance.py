"""A driver made ready: smoothed, its rest known, with the detail of its own skin."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.head_track import HeadTrack
from ..proxy.posing import check_models
from .edit_motion import retime
from .motion import HeadMotion
from .motion_smooth import smooth_motion
from .neutral import Rest, quiet_frames, rest_at, rest_of
from .settings import TransferSettings


@dataclasses.dataclass(frozen=True)
class Driver:
    """Who drives: a fitted clip or a motion; its rest if that is known; the refined head of the same performer if there is one."""

    motion: HeadTrack | HeadMotion
    rest: Rest | None = None
    proxy: HeadProxy | None = None

    @staticmethod
    def of(driver: Driver | HeadTrack | HeadMotion) -> Driver:
        return driver if isinstance(driver, Driver) else Driver(driver)


@dataclasses.dataclass(frozen=True)
class Performance:
    """A driver's T frames; `motion.detail` counts fields of the performer's own skin, if it has any."""

    motion: HeadMotion
    rest: Rest
    detail_at_rest: Tensor | None  # [K]
    identity: Tensor | None  # [I] of the performer, None if only a motion is known
    displacement: Tensor | None  # [V, 3] static, of a refined performer
    neutral: Tensor | None  # [V, 3] canonical vertices of a refined performer at rest

    def __len__(self) -> int:
        return len(self.motion)


def perform(
    driver: Driver | HeadTrack | HeadMotion, model: HeadModel, settings: TransferSettings, like: HeadMotion | None = None
) -> Performance:
    """The driver as `settings` want it: smoothed, at rest where it says or where that is found.

    With `like` it gets that motion's frame rate and length; a driver that ends earlier holds its last frame. Raises ValueError
    if it was made with another head model, has no frame, no face or no frame rate, or its proxy is another person's clip.
    """
    driver = Driver.of(driver)
    raw, proxy = driver.motion, driver.proxy
    _check(raw, model)
    if proxy is not None:
        check_models(model, proxy)
    motion = _with_detail(raw, proxy)
    if settings.neutral_frame is not None:
        rest, calm = rest_at(raw, settings.neutral_frame), torch.tensor([settings.neutral_frame])
    else:
        rest, calm = driver.rest or rest_of(raw, model), quiet_frames(raw, model)
    at_rest = None if motion.detail is None else motion.detail[calm.to(motion.detail.device)].mean(0)
    if like is not None:
        motion = _held(retime(motion, like.fps), len(like))
    motion = smooth_motion(motion, "gaussian", settings.smoothing, settings.smoothing)
    if proxy is None:
        return Performance(motion, rest, at_rest, getattr(raw, "identity", None), None, None)
    return Performance(motion, rest, at_rest, proxy.identity, proxy.displacement, neutral_vertices(model, proxy, rest.expression))


def neutral_vertices(model: HeadModel, proxy: HeadProxy, expression: Tensor) -> Tensor:
    """Canonical vertices [V, 3] of a proxy's head under one expression [E], with its static displacement."""
    vertices = model.canonical(proxy.identity[None], expression[None])[0]
    return vertices if proxy.displacement is None else vertices + proxy.displacement


def _check(driver: HeadTrack | HeadMotion, model: HeadModel) -> None:
    if driver.model_id != model.model_id:
        raise ValueError(
            f"the driver was made with head model {driver.model_id}, but {model.model_id} is loaded; make both with one model, "
            f"or load the motion from its file, which translates it"
        )
    if len(driver) == 0:
        raise ValueError("the driver has no frame; choose a clip with at least one frame")
    if not (math.isfinite(driver.fps) and driver.fps > 0):
        raise ValueError(f"the driver has {driver.fps} frames per second; make it again with its frame rate")
    for name in ("expression", "joints", "translation"):
        broken = ~getattr(driver, name).flatten(1).isfinite().all(1)
        if bool(broken.any()):
            raise ValueError(f"frame {int(broken.nonzero()[0])} of the driver has {name} that is no number; fit the clip again")


def _with_detail(driver: HeadTrack | HeadMotion, proxy: HeadProxy | None) -> HeadMotion:
    """The driver as a motion whose detail counts fields of its own, those of the performer's refined skin."""
    names = ("model_id", "expression", "joints", "translation", "valid", "fps")
    motion = HeadMotion(**{name: getattr(driver, name) for name in names})
    if proxy is None or proxy.detail_basis is None or len(proxy.detail_basis) == 0:
        return motion
    basis, own = proxy.detail_basis, getattr(driver, "detail", None)
    if own is not None and driver.detail_id == proxy.detail_id:
        detail, basis = own, basis if driver.detail_basis is None else driver.detail_basis
    elif proxy.detail is not None and len(proxy.detail) == len(driver):
        detail = proxy.detail
    elif proxy.detail_by_expression is not None:
        detail = (driver.expression - proxy.neutral) @ proxy.detail_by_expression
    else:
        raise ValueError(
            f"the performer's proxy was refined on {len(proxy.detail) if proxy.detail is not None else 0} frames, but the driver has "
            f"{len(driver)}; refine it on the driver's clip"
        )
    return dataclasses.replace(motion, detail=detail, detail_id=proxy.detail_id, detail_basis=basis)


def _held(motion: HeadMotion, count: int) -> HeadMotion:
    """The first `count` frames; the last one is held where there are fewer."""
    return motion if len(motion) == count else motion.select([min(k, len(motion) - 1) for k in range(count)])
