"""What of a driver goes over to a target, and how much of it."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

PoseOrigin = Literal["source", "driver", "mix", "none"]
ExpressionOrigin = Literal["source", "driver", "mix", "other driver"]
Mode = Literal["relative", "absolute"]
MOST_GAIN = 4.0


def _check_amounts(settings: object, names: tuple[str, ...], most: float = math.inf) -> None:
    for name in names:
        value = getattr(settings, name)
        if not math.isfinite(value) or not 0 <= value <= most:
            bound = "of at least 0" if most == math.inf else f"from 0 to {most:g}"
            raise ValueError(f"{name} is {value}; give a number {bound}")


@dataclasses.dataclass(frozen=True)
class RegionGains:
    """Strength of the driver's expression in each region of the face; 1 is as performed, 0 leaves the region at rest."""

    brows: float = 1.0
    lids: float = 1.0
    gaze: float = 1.0
    cheeks: float = 1.0
    nose: float = 1.0
    mouth: float = 1.0
    jaw: float = 1.0
    tongue: float = 1.0

    def __post_init__(self):
        _check_amounts(self, REGIONS, MOST_GAIN)


REGIONS = tuple(field.name for field in dataclasses.fields(RegionGains))


@dataclasses.dataclass(frozen=True)
class PoseGains:
    """Strength of the driver's head movement by axis; 1 is as performed, 0 holds the axis still."""

    pitch: float = 1.0
    yaw: float = 1.0
    roll: float = 1.0
    sideways: float = 1.0  # movement across the picture, both directions
    distance: float = 1.0  # movement to and from the camera

    def __post_init__(self):
        _check_amounts(self, AXES, MOST_GAIN)


AXES = tuple(field.name for field in dataclasses.fields(PoseGains))


@dataclasses.dataclass(frozen=True)
class TransferSettings:
    """What comes from where, and how much of it. Raises ValueError for a value out of range."""

    pose_from: PoseOrigin = "driver"  # head rotation and place; "none" looks straight ahead
    expression_from: ExpressionOrigin = "driver"  # expression, jaw and gaze
    mix: float = 0.5  # for "mix": 0 is the source alone, 1 the driver alone
    pose_strength: float = 1.0  # scales the driver's rotation and movement
    expression_strength: float = 1.0  # scales the driver's expression
    smoothing: float = 0.0  # standard deviation of the Gaussian over time, seconds; 0 is off
    mode: Mode = "relative"  # "relative" takes the difference from the driver at rest, "absolute" the driver as it is
    neutral_frame: int | None = None  # frame of the driver that is its face at rest; None finds it
    match_amplitude: bool = False  # scale each region so that the driver's strongest expression fills the target's range
    detail: float = 0.5  # 0: skin as predicted for the target, 1: the performer's own wrinkles (given a refined performer)
    contact: bool = True  # closed lids close, sealed lips seal, no teeth through lips
    gains: RegionGains = RegionGains()
    pose_gains: PoseGains = PoseGains()

    def __post_init__(self):
        for name, kind in (("pose_from", PoseOrigin), ("expression_from", ExpressionOrigin), ("mode", Mode)):
            if getattr(self, name) not in get_args(kind):
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(get_args(kind))}")
        _check_amounts(self, ("mix", "detail"), 1.0)
        _check_amounts(self, ("pose_strength", "expression_strength", "smoothing"))
        if self.neutral_frame is not None and self.neutral_frame < 0:
            raise ValueError(f"neutral_frame is {self.neutral_frame}; give a frame of the driver, counted from 0")

    @property
    def moved(self) -> float:
        """How strongly the driver's pose is taken over."""
        return {"driver": 1.0, "mix": self.mix}.get(self.pose_from, 0.0) * self.pose_strength

    @property
    def share(self) -> float:
        """Share 0..1 of the performer's expression against that of the source picture."""
        return {"source": 0.0, "mix": self.mix}.get(self.expression_from, 1.0)

    @property
    def acted(self) -> float:
        """How strongly the performer's expression is taken over."""
        return self.share * self.expression_strength
