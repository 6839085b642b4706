"""Expressions by hand."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..transfer.expression_controls import AMOUNTS, named_expressions
from ..transfer.expression_edit import EditMode, TimeRange, edit_expression, resting_motion
from ..transfer.expression_keyframes import parse_keyframes
from ..transfer.motion import HeadMotion
from ..transfer.skin_detail import with_edited_detail
from .editor import remember_head
from .expression_sliders import ANGLES, SLIDERS, edit_amounts
from .runtime import result_device
from .types import CATEGORY, HEAD_MOTION, HEAD_PROXY, BuiltProxy

MOST_DEGREES = 45.0
LONGEST = 3600.0  # seconds
EASE = 0.3


class EditExpression(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        low, high = AMOUNTS
        return io.Schema(
            node_id="ExpPortraitEditExpression",
            display_name="Edit Expression",
            category=CATEGORY,
            description="Makes a person smile, blink, look or speak by hand: by a named expression, by sliders and by keyframes. Adds to "
            "a motion, or stands alone.",
            inputs=[
                HEAD_PROXY.Input("head_proxy", tooltip="The person."),
                HEAD_MOTION.Input(
                    "head_motion", optional=True, tooltip="The motion to edit. Left open, the edit stands alone on the resting face."
                ),
                io.Combo.Input(
                    "expression",
                    options=list(named_expressions()),
                    default="neutral",
                    optional=True,
                    tooltip="A whole expression: an emotion or a vowel. neutral adds nothing.",
                ),
                _slider("strength", 1.0, low, high, "How much of the expression above. 1 is all of it, negative goes the other way."),
                io.String.Input(
                    "keyframes",
                    default="",
                    multiline=True,
                    optional=True,
                    tooltip="Expressions over time, such as 0: smile 0.4; 24: surprise 1, jawOpen 0.2. Frame numbers, or seconds as 1.5s; "
                    "named expressions or any of ARKit's 52 names. Comes on top of the rest, in its own time.",
                ),
                io.Combo.Input(
                    "mode",
                    options=list(get_args(EditMode)),
                    default="add",
                    optional=True,
                    tooltip="add keeps the motion's expression below the edit; replace puts the edit on the resting face instead.",
                ),
                _seconds("start", 0.0, 0.0, "Where the edit begins, in seconds."),
                _seconds("end", -1.0, -1.0, "Where the edit ends, in seconds. -1 is the end of the motion."),
                _seconds("ease_in", EASE, 0.0, "Seconds over which the edit comes, from the start on. 0 is at once."),
                _seconds("ease_out", EASE, 0.0, "Seconds over which the edit goes, up to the end. 0 is at once."),
                _seconds("seconds", 2.0, 0.01, "Length of an edit that stands alone. Not used with a motion connected.", advanced=False),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=240.0,
                    step=0.01,
                    optional=True,
                    advanced=True,
                    tooltip="Frames per second of an edit that stands alone. Not used with a motion connected.",
                ),
                *(_slider(name, 0.0, low, high, tooltip) for name, (_, tooltip) in SLIDERS.items()),
                *(_slider(name, 0.0, -MOST_DEGREES, MOST_DEGREES, tooltip, 0.5) for name, (_, tooltip) in ANGLES.items()),
            ],
            outputs=[
                HEAD_MOTION.Output(display_name="head_motion", tooltip="For rendering, saving and the motion tools."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the motion, for Create Video."),
            ],
        )

    @classmethod
    def execute(
        cls,
        head_proxy: BuiltProxy,
        head_motion: HeadMotion | None = None,
        expression: str = "neutral",
        strength: float = 1.0,
        keyframes: str = "",
        mode: EditMode = "add",
        start: float = 0.0,
        end: float = -1.0,
        ease_in: float = EASE,
        ease_out: float = EASE,
        seconds: float = 2.0,
        fps: float = 25.0,
        **sliders: float,
    ) -> io.NodeOutput:
        proxy, model = head_proxy.proxy.to(result_device()), head_proxy.model.to(result_device())
        motion = resting_motion(proxy, seconds, fps) if head_motion is None else head_motion.to(result_device())
        keys = parse_keyframes(keyframes, motion.fps)
        amounts = edit_amounts(expression, strength, sliders)
        edited = edit_expression(motion, amounts, proxy, model, TimeRange(start, end, ease_in, ease_out), mode)
        edited = with_edited_detail(edit_expression(edited, keys, proxy, model), motion, proxy, model)
        return io.NodeOutput(edited, edited.fps, ui={"expportrait_head": [remember_head(head_proxy)]})


def _slider(name: str, default: float, low: float, high: float, tooltip: str, step: float = 0.01) -> io.Float.Input:
    return io.Float.Input(
        name,
        default=default,
        min=low,
        max=high,
        step=step,
        round=0.001,
        display_mode=io.NumberDisplay.slider,
        optional=True,
        tooltip=tooltip,
    )


def _seconds(name: str, default: float, least: float, tooltip: str, advanced: bool = True) -> io.Float.Input:
    return io.Float.Input(
        name, default=default, min=least, max=LONGEST, step=0.01, round=0.001, optional=True, advanced=advanced, tooltip=tooltip
    )
