"""pytest plugin: tests beside it run in ComfyUI's interpreter, with its core imported; started by tests/comfyui/test_native.py."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[3]
HELPERS = [ROOT / "tests" / name for name in ("comfyui", "comfyui/native", "dit", "dit/adapter", "dit/pocket")]
sys.path[:0] = [os.environ["COMFYUI_PATH"], *map(str, HELPERS)]

import comfy.cli_args  # noqa: E402
import utils.extra_config  # noqa: E402, F401  (as main.py does, before the core's node list puts another `utils` in its way)

comfy.cli_args.args.cpu = True

# The pack as ComfyUI's loader takes it: a package whose folder may have any name.
spec = importlib.util.spec_from_file_location("expportrait", ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
sys.modules["expportrait"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["expportrait"])


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(7)
