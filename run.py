#!/usr/bin/env python3
"""Makes .venv beside this file, installs what the project declares, and runs a task in it.

    python run.py demo [arguments of `expportrait demo`]
    python run.py test [arguments of pytest]

Standard library only. A torch that is already there (in .venv, or in the Python that runs this script) is used as it
is; otherwise TORCH is installed, as a CPU build where the machine has no NVIDIA driver and the index offers one.
The environment variable EXPPORTRAIT_TORCH names another requirement, such as "torch==2.8.0".
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent
ENVIRONMENT = ROOT / ".venv"
TORCH = "2.13.0"
OLDEST_TORCH = (2, 4)
EXTRAS = {"demo": "", "test": "[test]"}
PROBE = "import sys, torch; print(*sys.path, torch.__version__, sep='\\n')"


def main() -> int:
    if sys.version_info < (3, 10):
        print(f"Python {sys.version.split()[0]} is too old; start run.py with Python 3.10 or newer")
        return 2
    if len(sys.argv) < 2 or sys.argv[1] not in EXTRAS:
        print(__doc__.strip())
        return 2
    task, arguments = sys.argv[1], sys.argv[2:]
    python = prepare(EXTRAS[task])
    command = {"demo": ["-m", "expportrait.cli", "demo"], "test": ["-m", "pytest"]}[task]
    return subprocess.run([str(python), *command, *arguments], cwd=ROOT).returncode


def prepare(extra: str) -> Path:
    """Path of .venv's interpreter, with torch and the project (with `extra`, such as "[test]") installed."""
    python = ENVIRONMENT / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not runs(python):
        print("Making .venv ...", flush=True)
        shutil.rmtree(ENVIRONMENT, ignore_errors=True)
        venv.EnvBuilder(with_pip=True).create(ENVIRONMENT)
    stamp = ENVIRONMENT / f"installed{extra.strip('[]') and '-' + extra.strip('[]')}.txt"
    state = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()
    if stamp.is_file() and stamp.read_text() == state:
        return python
    provide_torch(python)
    print("Installing the project's requirements ...", flush=True)
    pip(python, "install", "--editable", f"{ROOT}{extra}")
    stamp.write_text(state)
    return python


def runs(python: Path) -> bool:
    return python.is_file() and subprocess.run([str(python), "-c", ""]).returncode == 0


def provide_torch(python: Path) -> None:
    """Leaves .venv with a usable torch: its own, that of the Python running this script, or a fresh one."""
    if torch_of(str(python)):
        return
    paths = torch_of(sys.executable)
    if paths:
        site = next(ENVIRONMENT.glob("lib/python*/site-packages"), ENVIRONMENT / "Lib" / "site-packages")
        # Behind .venv's own packages, so that only what is missing here is taken from there.
        (site / "torch_of_the_caller.pth").write_text("\n".join(p for p in paths if p.endswith("-packages")) + "\n")
        if torch_of(str(python)):
            print("Using the torch that is already installed.", flush=True)
            return
    wanted = os.environ.get("EXPPORTRAIT_TORCH")
    cpu_only = sys.platform == "linux" and shutil.which("nvidia-smi") is None
    choices = [wanted] if wanted else [f"torch=={TORCH}+cpu"] * cpu_only + [f"torch=={TORCH}"]
    print("Installing torch ...", flush=True)
    for choice in choices[:-1]:
        if pip(python, "install", choice, check=False, quiet=True) == 0:
            return
    pip(python, "install", choices[-1])


def torch_of(python: str) -> list[str]:
    """Search path of an interpreter that imports a recent enough torch, else an empty list."""
    probe = subprocess.run([python, "-c", PROBE], capture_output=True, text=True, cwd=ROOT.parent)
    if probe.returncode:
        return []
    *paths, version = probe.stdout.splitlines()
    numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:2])
    return [path for path in paths if path] if numbers >= OLDEST_TORCH else []


def pip(python: Path, *arguments: str, check: bool = True, quiet: bool = False) -> int:
    command = [str(python), "-m", "pip", *arguments, "--disable-pip-version-check", "-q"]
    result = subprocess.run(command, stderr=subprocess.DEVNULL if quiet else None)
    if check and result.returncode:
        sys.exit(f"pip {' '.join(arguments)} failed; see its message above, then start run.py again")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
