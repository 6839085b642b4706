"""The head as a file for 3D programs."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..proxy.glb import export_glb
from ..transfer.motion import HeadMotion
from .files import new_file
from .types import CATEGORY, HEAD_MOTION, HEAD_PROXY, BuiltProxy


class ExportGLB(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitExportGLB",
            display_name="Export Head GLB",
            category=CATEGORY,
            description="Writes the head with its texture, and its motion if there is one, as a GLB file in the output folder.",
            inputs=[
                HEAD_PROXY.Input("head_proxy", tooltip="The person."),
                HEAD_MOTION.Input("head_motion", optional=True, tooltip="Makes an animated file."),
                io.String.Input(
                    "filename_prefix",
                    default="expportrait/head",
                    optional=True,
                    tooltip="Folder and name below the output folder; a number is added.",
                ),
            ],
            outputs=[io.String.Output(display_name="model_file", tooltip="The file, relative to the output folder, for Preview 3D.")],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, head_proxy: BuiltProxy, head_motion: HeadMotion | None = None, filename_prefix: str = "expportrait/head"
    ) -> io.NodeOutput:
        path, name = new_file(filename_prefix, ".glb")
        motion = head_motion.to("cpu") if head_motion is not None else None
        export_glb(path, head_proxy.proxy.to("cpu"), head_proxy.model.to("cpu"), motion)
        return io.NodeOutput(name, ui=ui.PreviewUI3D(name, None))
