"""Compares our landmarks with the mediapipe package: parity in pixels of a 192-pixel crop, and time per crop.

    python tools/bench_landmarks.py [DATA]

DATA is the folder with portraits/ and clips/ (default: EXPPORTRAIT_DATA, or shared/data beside the repository). The package
runs in an environment of its own: EXPPORTRAIT_MEDIAPIPE names its python, else `.venv-mediapipe` is made with pip.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from expportrait.proxy.frames import Frames, to_uint8
from expportrait.proxy.landmarks import Landmarker, load_landmarker

ROOT = Path(__file__).parents[1]
PACKAGE = "mediapipe==0.10.21"
SUFFIXES = (".jpg", ".png", ".mp4")
PER_CLIP = 6
BATCH = 32
ROUNDS = 6
MAX_ERROR, MAX_TIME = 0.5, 2.0


def reference_python() -> Path:
    """The python of the environment that holds the mediapipe package; made on first use."""
    if given := os.environ.get("EXPPORTRAIT_MEDIAPIPE"):
        return Path(given)
    folder = ROOT / ".venv-mediapipe"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (folder / "ready").is_file():
        venv.create(folder, clear=True, with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", PACKAGE], check=True)
        (folder / "ready").touch()
    return python


def reference(task: str, images: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What tools/mediapipe_reference.py says about uint8 images [H, W, 3]."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.npz", Path(folder) / "out.npz"
        np.savez(source, **images)
        command = [reference_python(), ROOT / "tools/mediapipe_reference.py", task, source, target]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return dict(np.load(target))


def test_images(data: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Portraits, and some frames of each clip, as uint8 [H, W, 3]."""
    for path in sorted(p for p in data.glob("*/*") if p.suffix in SUFFIXES):
        frames = Frames.open(path)
        chosen = range(0, len(frames), -(-len(frames) // PER_CLIP))
        for index, image in zip(chosen, frames.pick(chosen)):
            yield f"{path.stem}-{path.suffix[1:]}-{index}", to_uint8(image.permute(1, 2, 0))


def parity(landmarker: Landmarker, images: dict[str, np.ndarray]) -> tuple[float, float, int]:
    """Mean and worst distance in crop pixels between our points and MediaPipe's on its own crops, and how many crops."""
    found = reference("points", images)
    names = [name.removesuffix(".crop") for name in found if name.endswith(".crop")]
    crops = torch.stack([torch.from_numpy(found[f"{name}.crop"]) for name in names]).permute(0, 3, 1, 2).float() / 255
    theirs = torch.stack([torch.from_numpy(found[f"{name}.points"]) for name in names]).float()
    ours, _ = landmarker.mesh(crops)
    distance = (ours - theirs)[..., :2].norm(dim=-1)  # [N, 478]
    return distance.mean().item(), distance.max().item(), len(names)


def seconds_per_crop(landmarker: Landmarker) -> np.ndarray:
    """Our wall and CPU time [2] for one crop within a batch, on one thread; the best of a few rounds."""
    crops = torch.rand(BATCH, 3, 192, 192, generator=torch.Generator().manual_seed(0))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    rounds = []
    for _ in range(ROUNDS):
        start = time.perf_counter(), time.process_time()
        landmarker.mesh(crops)
        rounds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
    torch.set_num_threads(threads)
    return np.min(rounds, 0) / BATCH


def landmark_bars(data: Path) -> list[dict]:
    """The bars of the landmarks as {name, value, unit, bound, ok}."""
    landmarker = load_landmarker()
    images = dict(test_images(data))
    mean, worst, count = parity(landmarker, images)
    still = {"image": next(image for name, image in images.items() if name.startswith("d19-jpg"))}
    # Both take turns, and each gets its best round. The bar compares CPU time, all threads counted, which depends least on what
    # else runs on the machine.
    ours, theirs = [], []
    for _ in range(3):
        found = reference("time", still)
        theirs.append((found["wall"].min(), found["cpu"].mean()))
        ours.append(seconds_per_crop(landmarker))
    (our_wall, our_cpu), (their_wall, their_cpu) = np.min(ours, 0).tolist(), np.min(theirs, 0).tolist()
    ratio = our_cpu / their_cpu
    return [
        _bar(f"mean error on {count} crops", mean, "px of 192", MAX_ERROR),
        _bar("worst point", worst, "px of 192"),
        _bar("CPU time per crop against MediaPipe", ratio, "times", MAX_TIME),
        _bar(f"CPU time per crop, {BATCH} at once, one thread", our_cpu * 1e3, "ms"),
        _bar("MediaPipe's CPU time per crop", their_cpu * 1e3, "ms"),
        _bar("wall time per crop, one thread", our_wall * 1e3, "ms"),
        _bar("MediaPipe's wall time per crop", their_wall * 1e3, "ms"),
    ]


def _bar(name: str, value: float, unit: str, bound: float | None = None) -> dict:
    return {"name": name, "value": value, "unit": unit, "bound": bound, "ok": bound is None or value <= bound}


def main() -> None:
    default = os.environ.get("EXPPORTRAIT_DATA", ROOT.parent / "shared/data")
    bars = landmark_bars(Path(sys.argv[1] if len(sys.argv) > 1 else default))
    print(json.dumps({"bars": bars}, indent=1))
    raise SystemExit(0 if all(bar["ok"] for bar in bars) else 1)


if __name__ == "__main__":
    main()
