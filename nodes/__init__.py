"""ComfyUI nodes: thin, without algorithms. ComfyUI is imported in this package only."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from .adapter import ApplyAdapter, LoadAdapter, PortraitConditioning
from .arkit import LoadArkitCurves, SaveArkitCurves
from .clip import PasteBack, PrepareClip
from .diffusers import GenerateWithDiffusers
from .edit_expression import EditExpression
from .export import ExportGLB
from .fit import FitHead, FitOverlay
from .guidance import HybridGuidance, HybridGuider
from .head_model import LoadHeadModel
from .motion import JoinMotions, LoopMotion, RetimeMotion, SmoothMotion, TrimMotion
from .pocket import LoadPocketModel, PocketConditioning, PocketPaste
from .proxy import BuildProxy
from .refine import RefineHead
from .render import PortraitPreview, RenderConditions
from .saved import LoadMotion, LoadProxy, SaveMotion, SaveProxy
from .transfer import Gains, TransferExpression
from .video import RenderVideo


class ExpPortraitExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            LoadHeadModel,
            FitHead,
            FitOverlay,
            BuildProxy,
            RefineHead,
            TransferExpression,
            Gains,
            EditExpression,
            SmoothMotion,
            TrimMotion,
            LoopMotion,
            JoinMotions,
            RetimeMotion,
            RenderConditions,
            PortraitPreview,
            RenderVideo,
            SaveProxy,
            LoadProxy,
            SaveMotion,
            LoadMotion,
            LoadArkitCurves,
            SaveArkitCurves,
            ExportGLB,
            PrepareClip,
            PasteBack,
            LoadAdapter,
            ApplyAdapter,
            PortraitConditioning,
            HybridGuidance,
            HybridGuider,
            GenerateWithDiffusers,
            LoadPocketModel,
            PocketConditioning,
            PocketPaste,
        ]
