"""Bar of memory: a 1,000-frame clip is fitted and transferred in a process of its own, whose peak is read afterwards."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

FRAMES = 1000
CHILD = """
import resource, sys
from pathlib import Path
import torch
from expportrait.cli import main
from expportrait.proxy.frames import Frames, VideoWriter
clip, folder = sys.argv[1], Path(sys.argv[2])
with VideoWriter(folder / "long.mp4", 25) as writer:
    written = 0
    while written < {frames}:
        for chunk in Frames.open(clip).chunks(16):
            chunk = chunk[: {frames} - written]
            writer.write(chunk.permute(0, 2, 3, 1))
            written += len(chunk)
            if written == {frames}:
                break
code = main(["build", clip, "--frame", "0", "--out", str(folder / "proxy.safetensors")])
code = code or main(["fit", str(folder / "long.mp4"), "--out", str(folder / "track.safetensors")])
code = code or main(["transfer", "--proxy", str(folder / "proxy.safetensors"), "--driver", str(folder / "track.safetensors"),
                     "--out", str(folder / "motion.safetensors")])
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30)
sys.exit(code)
"""


def memory_bars(data: Path) -> list[dict]:
    """Peak resident memory of fit and transfer for 1,000 frames of 512 x 512."""
    clip = data / "clips" / "d0.mp4"
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", CHILD.replace("{frames}", str(FRAMES)), str(clip), folder]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    peak = float(result.stdout.splitlines()[-1])
    name = f"peak resident memory, {FRAMES} frames of 512 x 512 fitted and transferred"
    return [{"name": name, "value": round(peak, 2), "unit": "GiB", "bound": 4, "ok": peak <= 4}]
