"""Bars of the pack inside ComfyUI: how long the server takes to import it. Prints JSON.

    COMFYUI_PATH=... COMFYUI_PYTHON=... python tools/bench_comfy.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from bars import bar

ROOT = Path(__file__).resolve().parents[1]
PACK = "ComfyUI-ExpPortrait"
STARTS = 4
MOST_IMPORT = 1.5  # seconds


def shipped_files() -> list[Path]:
    """Tracked files that .comfyignore leaves in the archive."""
    ignored = ["-c", f"core.excludesFile={ROOT / '.comfyignore'}", "ls-files", "-z", "--cached", "--ignored", "--exclude-standard"]
    tracked, left_out = (
        subprocess.run(["git", "-C", str(ROOT), *command], capture_output=True, text=True, check=True).stdout.split("\0")
        for command in (["ls-files", "-z"], ignored)
    )
    return [Path(name) for name in tracked if name and name not in set(left_out)]


def import_seconds(base: Path) -> float:
    """What a starting server's log tells of the pack's import."""
    python = os.environ.get("COMFYUI_PYTHON", sys.executable)
    command = [python, "main.py", "--cpu", "--quick-test-for-ci", "--disable-api-nodes", "--base-directory", str(base)]
    command += ["--database-url", f"sqlite:///{base}/user/comfyui.db"]
    done = subprocess.run(command, cwd=os.environ["COMFYUI_PATH"], capture_output=True, text=True, timeout=300)
    told = re.search(rf"([\d.]+) seconds: \S*{PACK}$", done.stdout + done.stderr, re.MULTILINE)
    if not told:
        raise RuntimeError((done.stdout + done.stderr)[-4000:])
    return float(told[1])


def import_bars() -> list[dict]:
    """The best of several starts with the archive's files, as others use the machine; the first one writes Python's caches."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        for name in ("custom_nodes", "input", "models", "output", "temp", "user/default"):
            (base / name).mkdir(parents=True)
        for path in shipped_files():
            target = base / "custom_nodes" / PACK / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / path, target)
        first, *others = [import_seconds(base) for _ in range(STARTS)]
    figures = {"first start": first, "slowest of the others": max(others), "load of the machine": os.getloadavg()[0]}
    return [bar("import of the pack by the server", min(others), "seconds", most=MOST_IMPORT, **figures)]


if __name__ == "__main__":
    print(json.dumps(import_bars(), indent=2))
