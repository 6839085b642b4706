"""A pocket model that answers at once: the real layout, few weights, untrained."""

from __future__ import annotations

from pathlib import Path

import torch

from expportrait.dit.expression_code import code_size
from expportrait.dit.pocket.model import PocketConfig, PocketModel
from expportrait.dit.pocket.weights import save_model
from expportrait.proxy.head_model import load_head_model

NAME = "tiny_pocket.safetensors"


def write_pocket(base: Path, name: str = NAME, model_id: str | None = None) -> str:
    """Puts a tiny model of the embedded head, or of another, among a ComfyUI's models; returns its file's name."""
    head = load_head_model()
    config = PocketConfig(model_id or head.model_id, code_size(head), levels=(8, 8, 16), width=16, depth=2, heads=2)
    path = base / "models/diffusion_models" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(path, config, PocketModel.create(config, torch.Generator().manual_seed(0)).state_dict())
    return name
