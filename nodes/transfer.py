"""Expression transfer."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..transfer.motion import HeadMotion
from ..transfer.presets import load_preset, preset_names
from ..transfer.transfer import Origin, TransferSettings, transfer_motion
from .runtime import result_device
from .types import CATEGORY, HEAD_MOTION, HEAD_PROXY, HEAD_TRACK, BuiltProxy, FittedTrack

DEFAULTS = TransferSettings()
PRESET = "speaking"


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
                    options=list(get_args(Origin)),
                    default=DEFAULTS.expression_from,
                    optional=True,
                    tooltip="Whose expression, jaw and gaze: source keeps those of the portrait, mix takes a share of the driver's.",
                ),
                io.Combo.Input(
                    "pose_from",
                    options=list(get_args(Origin)),
                    default=DEFAULTS.pose_from,
                    optional=True,
                    tooltip="Whose head rotation and place: source keeps those of the portrait, mix takes a share of the driver's.",
                ),
                _share("mix", 1.0, "Share of the driver where something comes from mix: 0 is the portrait alone, 1 the driver alone."),
                _share("expression_strength", 3.0, "Scales the driver's expression away from its rest. 1 is as performed."),
                _share("pose_strength", 3.0, "Scales the driver's head movement away from its rest. 1 is as performed."),
                _share("smoothing", 1.0, "Smooths the motion over time, in seconds. 0 is off; 0.04 calms jitter."),
            ],
            outputs=[
                HEAD_MOTION.Output(display_name="head_motion", tooltip="Expression and pose of the person for every frame of the driver."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the driver, for Create Video."),
            ],
        )

    @classmethod
    def execute(
        cls, head_proxy: BuiltProxy, driver: FittedTrack | HeadMotion | None = None, preset: str = PRESET, **settings
    ) -> io.NodeOutput:
        proxy, model, rest = head_proxy.proxy.to(result_device()), head_proxy.model.to(result_device()), None
        if driver is None:
            driver, rest = load_preset(preset, model)
        elif isinstance(driver, FittedTrack):
            driver = driver.track
        motion = transfer_motion(proxy, driver.to(result_device()), model, TransferSettings(**settings), rest)
        return io.NodeOutput(motion, motion.fps)


def _share(name: str, most: float, tooltip: str) -> io.Float.Input:
    """An optional slider from 0 to `most` that has the default of the same transfer setting."""
    return io.Float.Input(
        name, default=getattr(DEFAULTS, name), min=0.0, max=most, step=0.01, round=0.001, optional=True, tooltip=tooltip
    )
