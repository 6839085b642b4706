"""Files of pocket models: safetensors with the configuration as metadata."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ...proxy.files import FORMAT_KEY, read_metadata, whole_file
from .model import PocketConfig, PocketModel

FORMAT, VERSION = "expportrait.pocket_model", 1
SHIPPED = Path(__file__).parent / "assets" / "pocket.safetensors"


def save_model(path: str | os.PathLike, config: PocketConfig, weights: dict[str, Tensor], dtype: torch.dtype | None = None) -> None:
    """Writes the weights of a model of `config`, in `dtype` or as they are."""
    tensors = {name: value.detach().to("cpu", dtype).contiguous() for name, value in weights.items()}
    metadata = {FORMAT_KEY: FORMAT, "version": str(VERSION), "model_id": config.model_id, "config": config_text(config)}
    with whole_file(path) as temporary:
        save_file(tensors, temporary, metadata=metadata)


def load_model(path: str | os.PathLike, model_id: str | None = None) -> PocketModel:
    """Reads a file of `save_model`, in single precision on the CPU, ready to predict.

    Raises FileNotFoundError, or ValueError for a file of another kind or version, for another head model than `model_id`, or a
    damaged one.
    """
    metadata = read_metadata(path)
    found = metadata.get(FORMAT_KEY, "none")
    if found != FORMAT or metadata.get("version") != str(VERSION):
        raise ValueError(
            f"{path} has format {found} version {metadata.get('version', 'none')}, expected {FORMAT} version {VERSION}; "
            f"choose a file of `expportrait train-pocket export`"
        )
    if model_id is not None and metadata.get("model_id") != model_id:
        raise ValueError(f"{path} was trained for head model {metadata.get('model_id')}, but {model_id} is loaded; train one for it")
    with torch.inference_mode(False), torch.no_grad():
        try:
            model = PocketModel(config_of(metadata["config"]))
            model.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError):
            raise ValueError(f"{path} is damaged: its weights do not fit its sizes; export or download it again") from None
    return model.eval().requires_grad_(False)


def config_text(config: PocketConfig) -> str:
    return json.dumps(dataclasses.asdict(config))


def config_of(text: str) -> PocketConfig:
    values = json.loads(text)
    return PocketConfig(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})
