"""Choosing the head model."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import io

from ..proxy.head_model import load_head_model
from .types import CATEGORY, HEAD_MODEL

EMBEDDED = "embedded (MakeHuman, CC0)"
FOLDER = "smplx"

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


class LoadHeadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [name for name in folder_paths.get_filename_list(FOLDER) if name.lower().endswith(".npz")]
        return io.Schema(
            node_id="ExpPortraitLoadHead",
            display_name="Load Head Model",
            category=CATEGORY,
            description="Chooses the head that is fitted to pictures: the one inside this pack, or your own SMPL-X file.",
            inputs=[
                io.Combo.Input(
                    "model",
                    options=[EMBEDDED, *files],
                    default=EMBEDDED,
                    tooltip="The embedded head is free for every use. SMPLX_*.npz files go to ComfyUI/models/smplx; "
                    "get them from smpl-x.is.tue.mpg.de. Their licence allows non-commercial research only.",
                )
            ],
            outputs=[HEAD_MODEL.Output("head_model", tooltip="For SMPL-X Fit and the loaders of saved files.")],
        )

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        return io.NodeOutput(load_head_model(None if model == EMBEDDED else folder_paths.get_full_path_or_raise(FOLDER, model)))
