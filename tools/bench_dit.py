"""Bars of the DiT stage: the adapter inside ComfyUI (where COMFYUI_PATH names a checkout), and the pocket model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench_pocket import SHIPPED, pocket_real_bars, pocket_synthetic_bars

NATIVE = Path(__file__).with_name("bench_dit_native.py")


def dit_bars(data: Path) -> list[dict]:
    """Bars as {name, value, unit, bound, ok, figures}; what cannot be measured here is left out, with a word on stderr."""
    bars = native_bars()
    if not SHIPPED.is_file():
        print(f"there is no {SHIPPED.name} yet: the pocket model's bars are left out", file=sys.stderr)
        return bars
    return bars + pocket_synthetic_bars() + pocket_real_bars(Path(data))


def native_bars() -> list[dict]:
    """What tools/bench_dit_native.py measures in ComfyUI's own interpreter (COMFYUI_PYTHON, or this one)."""
    if not os.environ.get("COMFYUI_PATH"):
        print("COMFYUI_PATH names no checkout of ComfyUI: the adapter's bars are left out", file=sys.stderr)
        return []
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    done = subprocess.run([python, str(NATIVE)], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout)
