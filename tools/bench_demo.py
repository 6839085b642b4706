"""Bar of the demo: from a fresh clone in an empty folder to the finished files, installs included."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILES = ("preview.mp4", "contact_sheet.jpg", "proxy.safetensors", "motion.safetensors", "head.glb")


def demo_bars() -> list[dict]:
    """Clones HEAD of this repository, runs `run.py demo` twice; the second run is the pipeline without installs."""
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "expportrait"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        whole = _seconds(clone)
        missing = [name for name in FILES if not (clone / "output" / "demo" / name).is_file()]
        pipeline = _seconds(clone)
    return [
        {"name": "demo from a fresh clone", "value": round(whole / 60, 2), "unit": "minutes", "bound": 10, "ok": whole <= 600},
        {"name": "demo pipeline alone", "value": round(pipeline / 60, 2), "unit": "minutes", "bound": 2, "ok": pipeline <= 120},
        {"name": "demo files missing", "value": len(missing), "unit": "files", "bound": 0, "ok": not missing},
    ]


def _seconds(clone: Path) -> float:
    start = time.monotonic()
    # The interpreter outside any virtual environment, as a new user would call it.
    python = Path(sys.base_prefix) / ("python.exe" if sys.platform == "win32" else "bin/python3")
    result = subprocess.run([str(python), "run.py", "demo"], cwd=clone, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError("run.py demo failed:\n" + re.sub(r".*\r", "", result.stdout + result.stderr)[-4000:])
    return time.monotonic() - start
