"""Small portrait adapters as files for ComfyUI's model_patches folder."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from expportrait.dit.adapter.adapter import PortraitAdapter
from expportrait.dit.adapter.adapter_file import save_adapter
from expportrait.dit.adapter.config import AdapterConfig
from expportrait.proxy.head_model import load_head_model

sys.path.insert(0, str(Path(__file__).parents[1] / "dit" / "adapter"))
from small_adapter import awake  # noqa: E402


def write_adapter(path: Path, width: int = 256, layers: int = 2) -> None:
    """Writes an adapter that reads all that the proxy gives, with random weights, for a Wan of `tiny_wan.write_wan`."""
    model = load_head_model()
    config = AdapterConfig(
        width=width,
        layers=layers,
        inputs=("normals", "rays", "reference"),
        control_width=8,
        reference_width=8,
        expression_every=1,
        explicit_size=len(model.expression_names) + 9,
        head_model=model.model_id,
    )
    torch.manual_seed(0)
    adapter = awake(PortraitAdapter(config).reset(), torch.Generator().manual_seed(1), 0.05)
    save_adapter(path, adapter)
