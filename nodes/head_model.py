"""Choosing the head model."""

from __future__ import annotations

import os

import folder_paths
from comfy_api.latest import io

from ..proxy.calibrated_head import load_calibrated_head
from ..proxy.landmarks import load_landmarker
from .runtime import node_progress
from .types import CATEGORY, HEAD_MODEL

EMBEDDED = "embedded (MakeHuman, CC0)"
FOLDER = "smplx"
TABLE = ".landmarks.npz"  # what a calibration leaves beside a model

folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


class LoadHeadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = folder_paths.get_filename_list(FOLDER)
        files = [name for name in names if name.lower().endswith(".npz") and not name.lower().endswith(".landmarks.npz")]
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
            outputs=[HEAD_MODEL.Output(display_name="head_model", tooltip="For SMPL-X Fit and the loaders of saved files.")],
        )

    @classmethod
    def execute(cls, model: str) -> io.NodeOutput:
        path = None if model == EMBEDDED else folder_paths.get_full_path_or_raise(FOLDER, model)
        return io.NodeOutput(load_calibrated_head(path, load_landmarker("cpu"), progress=node_progress()))
