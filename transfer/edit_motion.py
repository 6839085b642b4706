"""Cutting motions: trim, loop, join, and another frame rate or speed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
from scipy.interpolate import PchipInterpolator
from torch import Tensor

from ..proxy.rotation import to_matrix, to_rotvec
from .detail import Detail
from .motion import HeadMotion

LoopMode = Literal["cross-fade", "there and back"]


def trim(motion: HeadMotion, start: int = 0, end: int = -1) -> HeadMotion:
    """The frames from `start` to `end`, both included; negative numbers count from the end, -1 being the last frame.

    Raises ValueError if a frame lies outside the motion or nothing is left.
    """
    count = _length(motion)
    first, last = (frame + count if frame < 0 else frame for frame in (start, end))
    for name, frame, place in (("start", start, first), ("end", end, last)):
        if not 0 <= place < count:
            raise ValueError(f"{name} is frame {frame}, but the motion has {count} frames; choose {-count} to {count - 1}")
    if first > last:
        raise ValueError(f"nothing is left from frame {first} to frame {last}; let the end come after the start")
    return motion.select(list(range(first, last + 1)))


def loop(motion: HeadMotion, times: int = 2, blend: int = 8, mode: LoopMode = "cross-fade") -> HeadMotion:
    """Repeats a motion of T frames so that no seam is seen, not even where the result itself is played in a loop.

    "cross-fade": the last `blend` frames fade into the first ones, which are then left out, so a round has T - blend frames
    and begins `blend` frames into the motion; the fade takes at most half the motion. "there and back": forwards, then
    backwards, 2 T - 2 frames a round, without a fade. Raises ValueError for an unknown mode, times below 1 or a negative blend.
    """
    if mode not in get_args(LoopMode):
        raise ValueError(f"the loop mode is {mode!r}; choose one of {', '.join(get_args(LoopMode))}")
    if times < 1:
        raise ValueError(f"times is {times}; repeat the motion at least 1 time")
    count = _length(motion)
    if mode == "there and back":
        return motion.select([*range(count), *range(count - 2, 0, -1)] * times)
    fade = min(_fade(blend), count // 2)
    ending, beginning = motion.select(list(range(count - fade, count))), motion.select(list(range(fade)))
    once = _join([motion.select(list(range(fade, count - fade))), _cross_fade(ending, beginning)])
    return once.select(list(range(len(once))) * times)


def concatenate(motions: Sequence[HeadMotion], blend: int = 8) -> HeadMotion:
    """Motions one after the other, with the first one's frames per second: the others are retimed to it.

    Neighbours overlap by `blend` frames of cross-fade, at most half of the shorter one; 0 is a hard cut. Detail is kept
    where all motions have it for the same proxy, all on fields of their own or all on those of the proxy; else it is dropped, and
    follows the expression again.
    Raises ValueError if there is no motion, one has no frame, or they were made with different head models.
    """
    if not motions:
        raise ValueError("there is no motion to join; give at least one")
    first = motions[0]
    for place, other in enumerate(motions, 1):
        _length(other, f"motion {place}")
        if other.model_id != first.model_id:
            raise ValueError(
                f"motion {place} was made with head model {other.model_id}, but motion 1 with {first.model_id}; "
                f"transfer both to one person first"
            )
    motions = [retime(m, first.fps) for m in _with_shared_fields([m.to(first.expression.device) for m in motions])]
    parts = [motions[0]]
    for previous, other in zip(motions, motions[1:]):
        fade, before = min(_fade(blend), len(previous) // 2, len(other) // 2), parts.pop()
        cut = len(before) - fade
        overlap = _cross_fade(before.select(list(range(cut, len(before)))), other.select(list(range(fade))))
        parts += [before.select(list(range(cut))), overlap, other.select(list(range(fade, len(other))))]
    return _join(parts)


def retime(motion: HeadMotion, fps: float | None = None, speed: float = 1.0) -> HeadMotion:
    """The same motion at another number of frames per second (None keeps it), played `speed` times as fast.

    Keeps the duration T / fps, divided by the speed, to the nearest frame. Expression, translation and detail are
    interpolated by monotone cubics (Fritsch and Carlson 1980), which leave no bounds, rotations along geodesics of SO(3).
    A frame is valid if both its neighbours are. Raises ValueError unless fps and speed are above 0.
    """
    fps = motion.fps if fps is None else fps
    for name, value in (("fps", fps), ("speed", speed), ("the motion's fps", motion.fps)):
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"{name} is {value}; give a number above 0")
    if fps == motion.fps and speed == 1:
        return motion
    count = _length(motion)
    step = motion.fps * speed / fps  # old frames per new frame
    place = (torch.arange(max(1, round(count / step)), dtype=torch.float64) * step).clamp(max=count - 1)
    lower = place.floor().long()
    upper = place.ceil().long()
    share = (place - lower).to(motion.joints)[:, None, None]
    lower, upper = lower.to(motion.joints.device), upper.to(motion.joints.device)
    return dataclasses.replace(
        motion,
        expression=_interpolate(motion.expression, place),
        joints=_slerp(motion.joints[lower], motion.joints[upper], share),
        translation=_interpolate(motion.translation, place),
        valid=motion.valid[lower] & motion.valid[upper],
        fps=float(fps),
        detail=None if motion.detail is None else _interpolate(motion.detail, place),
    )


def _length(motion: HeadMotion, name: str = "the motion") -> int:
    if len(motion) == 0:
        raise ValueError(f"{name} has no frame; give one with at least one frame")
    return len(motion)


def _fade(blend: int) -> int:
    if blend < 0:
        raise ValueError(f"blend is {blend}; give the frames of the cross-fade, at least 0")
    return blend


def _interpolate(values: Tensor, place: Tensor) -> Tensor:
    """Values [T, D] at fractional frames [N]."""
    if len(values) == 1:
        return values.expand(len(place), -1).clone()
    curve = PchipInterpolator(range(len(values)), values.detach().cpu().double().numpy())
    return torch.from_numpy(curve(place.numpy())).to(values)


def _slerp(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Rotation vectors a share of the short way from start to end, all [..., 3]; exactly start or end at 0 and 1."""
    begin = to_matrix(start)
    between = to_rotvec(begin @ to_matrix(share * to_rotvec(begin.mT @ to_matrix(end))))
    return torch.where(share == 0, start, torch.where(share == 1, end, between))


def _cross_fade(before: HeadMotion, after: HeadMotion) -> HeadMotion:
    """From one motion to another of as many frames, with a smooth start and end (smoothstep)."""
    x = torch.arange(1, len(before) + 1).to(before.expression) / (len(before) + 1)
    share = (x * x * (3 - 2 * x))[:, None]
    return dataclasses.replace(
        before,
        expression=torch.lerp(before.expression, after.expression, share),
        joints=_slerp(before.joints, after.joints, share[..., None]),
        translation=torch.lerp(before.translation, after.translation, share),
        valid=before.valid & after.valid,
        detail=None if before.detail is None else torch.lerp(before.detail, after.detail, share),
    )


def _with_shared_fields(motions: Sequence[HeadMotion]) -> list[HeadMotion]:
    """The motions with their detail counting one set of fields; without detail where that cannot be."""
    first = motions[0]
    of_one_proxy = first.detail is not None and all(m.detail_id == first.detail_id for m in motions)
    own = [m.detail_basis is not None for m in motions]
    if not of_one_proxy or any(own) != all(own):
        return [dataclasses.replace(m, detail=None, detail_id=None, detail_basis=None) for m in motions]
    if not all(own) or all(torch.equal(m.detail_basis, first.detail_basis) for m in motions):
        return list(motions)
    counts = [m.detail.shape[1] for m in motions]
    blocks = [
        torch.nn.functional.pad(m.detail, (sum(counts[:k]), sum(counts[k + 1 :]))) for k, m in enumerate(motions)
    ]  # each on its own fields among all
    shared = Detail(torch.cat([m.detail_basis for m in motions]), torch.cat(blocks)).shortened()
    details = shared.coefficients.split([len(m) for m in motions])
    return [dataclasses.replace(m, detail=d, detail_basis=shared.fields) for m, d in zip(motions, details)]


def _join(parts: Sequence[HeadMotion]) -> HeadMotion:
    """Frames one after the other, of motions that agree in all but their frames."""
    names = ("expression", "joints", "translation", "valid") + (() if parts[0].detail is None else ("detail",))
    return dataclasses.replace(parts[0], **{name: torch.cat([getattr(part, name) for part in parts]) for name in names})
