"""ComfyUI nodes: thin, without algorithms. ComfyUI is imported in this package only."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .export import ExportGLB
from .fit import FitHead, FitOverlay
from .head_model import LoadHeadModel
from .proxy import BuildProxy
from .refine import RefineHead
from .render import PortraitPreview, RenderConditions
from .saved import LoadMotion, LoadProxy, SaveMotion, SaveProxy
from .transfer import TransferExpression


class ExpPortraitExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadHeadModel,
            FitHead,
            FitOverlay,
            BuildProxy,
            RefineHead,
            TransferExpression,
            RenderConditions,
            PortraitPreview,
            SaveProxy,
            LoadProxy,
            SaveMotion,
            LoadMotion,
            ExportGLB,
        ]
