"""The pack's sockets, and what travels through them.

A head model travels with whatever was made with it, so that it is wired once, at the fit or at a loader.
"""

from __future__ import annotations

import dataclasses

from comfy_api.latest import io

from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.head_track import HeadTrack
from ..transfer.settings import PoseGains, RegionGains

HEAD_MODEL = io.Custom("EXPPORTRAIT_HEAD_MODEL")  # HeadModel
HEAD_TRACK = io.Custom("EXPPORTRAIT_HEAD_TRACK")  # FittedTrack
HEAD_PROXY = io.Custom("EXPPORTRAIT_HEAD_PROXY")  # BuiltProxy
HEAD_MOTION = io.Custom("EXPPORTRAIT_HEAD_MOTION")  # HeadMotion
GAINS = io.Custom("EXPPORTRAIT_GAINS")  # TransferGains
FRAMING = io.Custom("EXPPORTRAIT_FRAMING")  # Framing
ADAPTER = io.Custom("EXPPORTRAIT_ADAPTER")  # adapter_patch.LoadedAdapter
POCKET_HEADS = io.Custom("EXPPORTRAIT_POCKET_HEADS")  # pocket.PocketHeads

CATEGORY = "ExpPortrait"


@dataclasses.dataclass(frozen=True)
class FittedTrack:
    """A track and the head model that was fitted."""

    model: HeadModel
    track: HeadTrack


@dataclasses.dataclass(frozen=True)
class BuiltProxy:
    """A proxy and the head model that poses it."""

    model: HeadModel
    proxy: HeadProxy


@dataclasses.dataclass(frozen=True)
class TransferGains:
    """How strongly each region of the face and each axis of the head follows a driver."""

    gains: RegionGains = RegionGains()
    pose_gains: PoseGains = PoseGains()
