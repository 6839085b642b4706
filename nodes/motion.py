"""Motion tools: smooth, trim, loop, join and retime."""

from __future__ import annotations

from typing import get_args

from comfy_api.latest import io

from ..transfer.edit_motion import LoopMode, concatenate, loop, retime, trim
from ..transfer.motion import HeadMotion
from ..transfer.motion_smooth import SmoothMethod, smooth_motion
from .pictures import motion_shown
from .types import CATEGORY, HEAD_MOTION

MOST_FRAMES = 1_000_000
BLEND = 8


class SmoothMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            node_id="ExpPortraitSmoothMotion",
            display_name="Smooth Motion",
            description="Calms jitter in a motion: expression and head pose each by as much as you say.",
            inputs=[
                _motion(),
                io.Combo.Input(
                    "method",
                    options=list(get_args(SmoothMethod)),
                    default="gaussian",
                    optional=True,
                    tooltip="gaussian looks to both sides and delays nothing; one-euro smooths what is slow and lets blinks and quick "
                    "turns through.",
                ),
                _strength("expression_strength", "Smooths expression, jaw, gaze and wrinkles, in seconds. 0 is off; 0.04 calms jitter."),
                _strength("pose_strength", "Smooths rotation and place of the head, in seconds. 0 is off; 0.1 calms jitter."),
            ],
        )

    @classmethod
    def execute(
        cls, head_motion: HeadMotion, method: SmoothMethod = "gaussian", expression_strength: float = 0.0, pose_strength: float = 0.0
    ) -> io.NodeOutput:
        return _result(smooth_motion(head_motion, method, expression_strength, pose_strength))


class TrimMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            node_id="ExpPortraitTrimMotion",
            display_name="Trim Motion",
            description="Keeps the frames of a motion from one to another.",
            inputs=[
                _motion(),
                _frames("start", 0, -MOST_FRAMES, "First frame to keep, counted from 0; negative numbers count from the end."),
                _frames("end", -1, -MOST_FRAMES, "Last frame to keep. -1 is the last one of the motion."),
            ],
        )

    @classmethod
    def execute(cls, head_motion: HeadMotion, start: int = 0, end: int = -1) -> io.NodeOutput:
        return _result(trim(head_motion, start, end))


class LoopMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            node_id="ExpPortraitLoopMotion",
            display_name="Loop Motion",
            description="Repeats a motion without a jump, also where a player starts the video again.",
            inputs=[
                _motion(),
                _frames("times", 2, 1, "How many rounds. 1 only makes the ends fit.", 1000),
                _frames("blend", BLEND, 0, "Frames over which the end fades into the beginning, at most half the motion.", 1000),
                io.Combo.Input(
                    "mode",
                    options=list(get_args(LoopMode)),
                    default="cross-fade",
                    optional=True,
                    tooltip="cross-fade fades at the seam; there and back plays forwards, then backwards, without a fade.",
                ),
            ],
        )

    @classmethod
    def execute(cls, head_motion: HeadMotion, times: int = 2, blend: int = BLEND, mode: LoopMode = "cross-fade") -> io.NodeOutput:
        return _result(loop(head_motion, times, blend, mode))


class JoinMotions(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            node_id="ExpPortraitJoinMotions",
            display_name="Join Motions",
            description="Plays up to four motions of one head model one after the other.",
            inputs=[
                HEAD_MOTION.Input("first", tooltip="The motion to begin with. The others take its frames per second."),
                HEAD_MOTION.Input("second", tooltip="The motion that follows."),
                HEAD_MOTION.Input("third", optional=True, tooltip="A third motion."),
                HEAD_MOTION.Input("fourth", optional=True, tooltip="A fourth motion."),
                _frames("blend", BLEND, 0, "Frames by which neighbours overlap and fade, at most half of each. 0 is a hard cut.", 1000),
            ],
        )

    @classmethod
    def execute(
        cls,
        first: HeadMotion,
        second: HeadMotion,
        third: HeadMotion | None = None,
        fourth: HeadMotion | None = None,
        blend: int = BLEND,
    ) -> io.NodeOutput:
        return _result(concatenate([motion for motion in (first, second, third, fourth) if motion is not None], blend))


class RetimeMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(
            node_id="ExpPortraitRetimeMotion",
            display_name="Retime Motion",
            description="Gives a motion another number of frames per second, or another speed.",
            inputs=[
                _motion(),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=240.0,
                    step=0.01,
                    optional=True,
                    tooltip="Frames per second that a video model wants, such as 16. 0 keeps those of the motion. The duration stays.",
                ),
                io.Float.Input(
                    "speed", default=1.0, min=0.05, max=20.0, step=0.01, optional=True, tooltip="2 plays twice as fast, 0.5 half as fast."
                ),
            ],
        )

    @classmethod
    def execute(cls, head_motion: HeadMotion, fps: float = 0.0, speed: float = 1.0) -> io.NodeOutput:
        return _result(retime(head_motion, fps or None, speed))


def _schema(**given) -> io.Schema:
    return io.Schema(
        **given,
        category=CATEGORY,
        outputs=[
            HEAD_MOTION.Output(display_name="head_motion", tooltip="For rendering, saving and the other motion tools."),
            io.Float.Output(display_name="fps", tooltip="Frames per second of the motion, for Create Video."),
        ],
    )


def _result(motion: HeadMotion) -> io.NodeOutput:
    return io.NodeOutput(motion, motion.fps, ui=motion_shown(motion))


def _motion() -> io.Input:
    return HEAD_MOTION.Input("head_motion", tooltip="The motion to change.")


def _frames(name: str, default: int, least: int, tooltip: str, most: int = MOST_FRAMES) -> io.Int.Input:
    return io.Int.Input(name, default=default, min=least, max=most, optional=True, tooltip=tooltip)


def _strength(name: str, tooltip: str) -> io.Float.Input:
    return io.Float.Input(name, default=0.0, min=0.0, max=1.0, step=0.01, round=0.001, optional=True, tooltip=tooltip)
