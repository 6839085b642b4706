"""Runs tests/comfyui/native in ComfyUI's interpreter, where the core can be imported."""

import os
import subprocess
import sys

import pytest


@pytest.mark.parametrize("name", ("check_adapter", "check_diffusers", "check_import", "check_pocket"))
def test_native(root, name):
    if not os.environ.get("COMFYUI_PATH"):
        pytest.skip("COMFYUI_PATH names no checkout of ComfyUI")
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    path = root / "tests" / "comfyui" / "native" / f"{name}.py"
    options = ["-q", "-p", "in_comfyui", "-p", "no:cacheprovider", "--import-mode=importlib", "--confcutdir=."]
    command = [python, "-m", "pytest", *options, str(path)]
    done = subprocess.run(command, cwd=path.parent, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-6000:]
