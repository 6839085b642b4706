"""Proxies and motions on disk."""

from __future__ import annotations

from comfy_api.latest import io, ui

from ..proxy.head_model import HeadModel, load_head_model
from ..proxy.head_proxy import HeadProxy
from ..proxy.posing import check_models
from ..transfer.motion import HeadMotion
from ..transfer.remap import load_motion_for
from .files import check_saved_file, fingerprint, new_file, saved_file, saved_files
from .types import CATEGORY, HEAD_MODEL, HEAD_MOTION, HEAD_PROXY, BuiltProxy


class SaveProxy(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitSaveProxy",
            display_name="Save Head Proxy",
            category=CATEGORY,
            description="Saves a person's head proxy as a safetensors file in the output folder.",
            inputs=[HEAD_PROXY.Input("head_proxy", tooltip="The proxy to save."), _prefix("proxy")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head_proxy: BuiltProxy, filename_prefix: str) -> io.NodeOutput:
        return _save(head_proxy.proxy, filename_prefix)


class SaveMotion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitSaveMotion",
            display_name="Save Head Motion",
            category=CATEGORY,
            description="Saves a motion as a safetensors file in the output folder: some kilobytes, and some megabytes of detail.",
            inputs=[HEAD_MOTION.Input("head_motion", tooltip="The motion to save."), _prefix("motion")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, head_motion: HeadMotion, filename_prefix: str) -> io.NodeOutput:
        return _save(head_motion, filename_prefix)


class SavedFileLoader(io.ComfyNode):
    """What loaders do about the chosen file: names are checked again, and a changed file counts as a change."""

    @classmethod
    def validate_inputs(cls, file: str) -> bool | str:
        return check_saved_file(file)

    @classmethod
    def fingerprint_inputs(cls, file: str, **_) -> str:
        return fingerprint(file)


class LoadProxy(SavedFileLoader):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitLoadProxy",
            display_name="Load Head Proxy",
            category=CATEGORY,
            description="Loads a saved head proxy, so that a person is fitted only once.",
            inputs=[_file("proxy"), _made_with()],
            outputs=[HEAD_PROXY.Output(display_name="head_proxy", tooltip="The person, for Transfer Expression and rendering.")],
        )

    @classmethod
    def execute(cls, file: str, head_model: HeadModel | None = None) -> io.NodeOutput:
        model = head_model or load_head_model()
        proxy = HeadProxy.load(saved_file(file), model.model_id)
        check_models(model, proxy)
        return io.NodeOutput(BuiltProxy(model, proxy))


class LoadMotion(SavedFileLoader):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="ExpPortraitLoadMotion",
            display_name="Load Head Motion",
            category=CATEGORY,
            description="Loads a saved motion: to render it again, or to drive another person with it.",
            inputs=[
                _file("motion"),
                HEAD_MODEL.Input(
                    "head_model",
                    optional=True,
                    tooltip="The head model of the person to be moved. Left open: the embedded head. "
                    "A motion of another head is carried over.",
                ),
                HEAD_MODEL.Input(
                    "made_with",
                    optional=True,
                    tooltip="The head model the file was made with, if it is neither head_model nor the embedded head.",
                ),
            ],
            outputs=[
                HEAD_MOTION.Output(display_name="head_motion", tooltip="For rendering, or as driver of Transfer Expression."),
                io.Float.Output(display_name="fps", tooltip="Frames per second of the motion, for Create Video."),
            ],
        )

    @classmethod
    def execute(cls, file: str, head_model: HeadModel | None = None, made_with: HeadModel | None = None) -> io.NodeOutput:
        motion = load_motion_for(saved_file(file), head_model or load_head_model(), made_with)
        return io.NodeOutput(motion, motion.fps)


def _prefix(name: str) -> io.String.Input:
    return io.String.Input(
        "filename_prefix",
        default=f"expportrait/{name}",
        tooltip="Folder and name below the output folder; a number is added. May hold %date:yyyy-MM-dd%.",
    )


def _file(kind: str) -> io.Combo.Input:
    return io.Combo.Input("file", options=saved_files(), tooltip=f"A {kind} file in the output or input folder.")


def _made_with() -> io.Input:
    return HEAD_MODEL.Input("head_model", optional=True, tooltip="The head model the file was made with. Left open: the embedded head.")


def _save(value: HeadProxy | HeadMotion, prefix: str) -> io.NodeOutput:
    path, name = new_file(prefix, ".safetensors")
    value.save(path)
    return io.NodeOutput(ui=ui.PreviewText(name))
