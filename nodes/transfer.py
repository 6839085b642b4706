"""Expression transfer."""

from __future__ import annotations

import dataclasses
from typing import get_args

from comfy_api.latest import io

from ..transfer.motion import HeadMotion
from ..transfer.performance import Driver
from ..transfer.presets import load_preset, preset_names
from ..transfer.settings import MOST_GAIN, ExpressionOrigin, Mode, PoseGains, PoseOrigin, RegionGains, TransferSettings
from ..transfer.transfer import transfer_motion
from .pictures import motion_shown
from .proxy import chosen_frame
from .runtime import result_device
from .types import CATEGORY, GAINS, HEAD_MOTION, HEAD_PROXY, HEAD_TRACK, BuiltProxy, FittedTrack, TransferGains

DEFAULTS = TransferSettings()
PRESET = "speaking"
REGION_NAMES = tuple(field.name for field in dataclasses.fields(RegionGains))
AXES = {
    "pitch": "nodding",
    "yaw": "turning",
    "roll": "tilting",
    "sideways": "movement across the picture",
    "distance": "movement to and from the camera",
}


class TransferExpression(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitTransfer",
            display_name="Transfer Expression",
            category=CATEGORY,
            description="Moves a performer's expression and head pose onto a person. The person's identity stays: only what "
            "changes in the performer's face is taken over.",
            inputs=[
                HEAD_PROXY.Input("head_proxy", tooltip="The person who is to move."),
                io.MultiType.Input(
                    "driver",
                    types=[HEAD_TRACK, HEAD_MOTION],
                    optional=True,
                    tooltip="The performer: a fitted clip, or a saved motion. Left open, the preset below drives.",
                ),
                io.Combo.Input(
                    "preset",
                    options=list(preset_names()),
                    default=PRESET,
                    optional=True,
                    tooltip="A motion that comes with the pack. Used only while no driver is connected.",
                ),
                io.Combo.Input(
                    "expression_from",
                    options=list(get_args(ExpressionOrigin)),
                    default=DEFAULTS.expression_from,
                    optional=True,
                    tooltip="Whose expression, jaw and gaze: source keeps those of the portrait, mix takes a share of the driver's, other "
                    "driver takes those of the second performer below.",
                ),
                io.Combo.Input(
                    "pose_from",
                    options=list(get_args(PoseOrigin)),
                    default=DEFAULTS.pose_from,
                    optional=True,
                    tooltip="Whose head rotation and place: source keeps those of the portrait, mix takes a share of the driver's, none "
                    "looks straight ahead.",
                ),
                _share("mix", 1.0, "Share of the driver where something comes from mix: 0 is the portrait alone, 1 the driver alone."),
                _share("expression_strength", 3.0, "Scales the driver's expression away from its rest. 1 is as performed."),
                _share("pose_strength", 3.0, "Scales the driver's head movement away from its rest. 1 is as performed."),
                _share("smoothing", 1.0, "Smooths the motion over time, in seconds. 0 is off; 0.04 calms jitter."),
                io.MultiType.Input(
                    "other_driver",
                    types=[HEAD_TRACK, HEAD_MOTION],
                    optional=True,
                    tooltip="A second performer, for expression_from: other driver. It gets the first one's length and frame rate; "
                    "if it ends earlier its last frame is held.",
                ),
                HEAD_PROXY.Input(
                    "performer",
                    optional=True,
                    tooltip="The refined head of whoever acts the expression (SMPL-X Refine on that clip): its wrinkles go over too.",
                ),
                GAINS.Input("gains", optional=True, tooltip="Strength by region of the face and by axis of the head, from Transfer Gains."),
                io.Combo.Input(
                    "mode",
                    options=list(get_args(Mode)),
                    default=DEFAULTS.mode,
                    optional=True,
                    advanced=True,
                    tooltip="relative takes over how the driver differs from its own resting face; absolute the driver as it is.",
                ),
                io.Int.Input(
                    "neutral_frame",
                    default=-1,
                    min=-1,
                    max=1000000,
                    optional=True,
                    advanced=True,
                    tooltip="The driver's frame in which its face is at rest, counted from 0. -1 finds it.",
                ),
                io.Boolean.Input(
                    "match_amplitude",
                    default=DEFAULTS.match_amplitude,
                    optional=True,
                    advanced=True,
                    tooltip="Makes the driver's strongest expression of each region as strong as the portrait's face allows, "
                    "at most twice and at least half as strong as performed.",
                ),
                _share(
                    "detail",
                    1.0,
                    "The skin's fine movement: 0 as it is predicted for this face, 1 the performer's own wrinkles. Needs a performer.",
                ),
                io.Boolean.Input(
                    "contact",
                    default=DEFAULTS.contact,
                    optional=True,
                    advanced=True,
                    tooltip="Closed lids close and sealed lips seal on this face too, and no tooth comes through a lip.",
                ),
            ],
            outputs=[
                HEAD_MOTION.Output(display_name="head_motion", tooltip="Expression and pose of the person for every frame of the driver."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the driver, for Create Video."),
            ],
        )

    @classmethod
    def execute(
        cls,
        head_proxy: BuiltProxy,
        driver: FittedTrack | HeadMotion | None = None,
        preset: str = PRESET,
        other_driver: FittedTrack | HeadMotion | None = None,
        performer: BuiltProxy | None = None,
        gains: TransferGains = TransferGains(),
        neutral_frame: int = -1,
        **settings,
    ) -> io.NodeOutput:
        model, device = head_proxy.model.to(result_device()), result_device()
        chosen = TransferSettings(
            neutral_frame=chosen_frame(neutral_frame), gains=gains.gains, pose_gains=gains.pose_gains, **settings
        )
        main = Driver(*load_preset(preset, model)) if driver is None else Driver(_frames(driver).to(device))
        other = None if other_driver is None else Driver(_frames(other_driver).to(device))
        if performer is not None:
            skin = performer.proxy.to(device)
            if chosen.expression_from == "other driver" and other is not None:
                other = dataclasses.replace(other, proxy=skin)
            else:
                main = dataclasses.replace(main, proxy=skin)
        motion = transfer_motion(head_proxy.proxy.to(device), main, model, chosen, other)
        return io.NodeOutput(motion, motion.fps, ui=motion_shown(motion, model, head_proxy.proxy.to(device)))


class Gains(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitTransferGains",
            display_name="Transfer Gains",
            category=CATEGORY,
            description="How strongly each region of the face and each axis of the head follows the driver in Transfer Expression.",
            inputs=[_gain(name, f"Strength of the {name}.") for name in REGION_NAMES]
            + [_gain(name, f"Strength of the head's {AXES[name]}.") for name in AXES],
            outputs=[GAINS.Output(display_name="gains", tooltip="For Transfer Expression.")],
        )

    @classmethod
    def execute(cls, **amounts) -> io.NodeOutput:
        regions = {name: amounts[name] for name in REGION_NAMES if name in amounts}
        axes = {name: amounts[name] for name in AXES if name in amounts}
        return io.NodeOutput(TransferGains(RegionGains(**regions), PoseGains(**axes)))


def _frames(driver: FittedTrack | HeadMotion):
    return driver.track if isinstance(driver, FittedTrack) else driver


def _gain(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        name, default=1.0, min=0.0, max=MOST_GAIN, step=0.01, round=0.001, optional=True, tooltip=tooltip + " 1 is as performed, 0 is off."
    )


def _share(name: str, most: float, tooltip: str) -> io.Float.Input:
    """An optional slider from 0 to `most` that has the default of the same transfer setting."""
    return io.Float.Input(
        name, default=getattr(DEFAULTS, name), min=0.0, max=most, step=0.01, round=0.001, optional=True, tooltip=tooltip
    )
