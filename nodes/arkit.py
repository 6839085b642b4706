"""ARKit curves as files: from phones and speech programs, and back to them."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..proxy.head_model import HeadModel, load_head_model
from ..transfer.arkit_curves import arkit_from_motion, motion_from_arkit
from ..transfer.arkit_files import read_arkit, write_arkit
from ..transfer.motion import HeadMotion
from .files import new_file, saved_file, saved_files
from .saved import SavedFileLoader
from .types import CATEGORY, HEAD_MODEL, HEAD_MOTION

FASTEST = 240.0  # frames per second


class LoadArkitCurves(SavedFileLoader):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitLoadArkit",
            display_name="Load ARKit Curves",
            category=CATEGORY,
            description="Makes a motion from 52 ARKit curves: a CSV of Live Link Face, or the JSON of a speech program.",
            inputs=[
                io.Combo.Input("file", options=saved_files("csv", "json"), tooltip="A .csv or .json file in the input or output folder."),
                io.Float.Input(
                    "fps",
                    default=0.0,
                    min=0.0,
                    max=FASTEST,
                    step=0.001,
                    round=0.001,
                    optional=True,
                    advanced=True,
                    tooltip="Frames per second of the curves. 0 takes what the file or its timecodes tell.",
                ),
                HEAD_MODEL.Input(
                    "head_model", optional=True, tooltip="The head model of the person to be moved. Left open: the embedded head."
                ),
            ],
            outputs=[
                HEAD_MOTION.Output(display_name="head_motion", tooltip="As driver of Transfer Expression."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the motion, for Create Video."),
            ],
        )

    @classmethod
    def execute(cls, file: str, fps: float = 0.0, head_model: HeadModel | None = None) -> io.NodeOutput:
        motion = motion_from_arkit(read_arkit(saved_file(file), fps or None), head_model or load_head_model())
        return io.NodeOutput(motion, motion.fps)


class SaveArkitCurves(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitSaveArkit",
            display_name="Save ARKit Curves",
            category=CATEGORY,
            description="Writes a motion as 52 ARKit curves with head and eye angles, for programs that animate faces by them.",
            inputs=[
                HEAD_MOTION.Input("head_motion", tooltip="The motion to write."),
                io.Combo.Input(
                    "format",
                    options=["csv", "json"],
                    default="csv",
                    tooltip="csv is what Live Link Face writes and most programs read; json holds fps, names and frames.",
                ),
                io.String.Input(
                    "filename_prefix",
                    default="expportrait/curves",
                    tooltip="Folder and name below the output folder; a number is added. May hold %date:yyyy-MM-dd%.",
                ),
                HEAD_MODEL.Input(
                    "head_model", optional=True, tooltip="The head model the motion was made with. Left open: the embedded head."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head_motion: HeadMotion, format: str, filename_prefix: str, head_model: HeadModel | None = None) -> io.NodeOutput:
        path, name = new_file(filename_prefix, f".{format}")
        write_arkit(path, arkit_from_motion(head_motion, head_model or load_head_model()))
        return io.NodeOutput(ui=ui.PreviewText(name))
