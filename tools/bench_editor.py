"""Bar of the live expression editor: pictures per second while sliders move, drawn and encoded as its route does.

    python tools/bench_editor.py [--threads 2] [--seconds 10]
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import time

import torch
from bars import bar
from PIL import Image

from expportrait.cli import PORTRAIT
from expportrait.proxy.build import build_proxy
from expportrait.proxy.fit import fit_frames
from expportrait.proxy.frames import Frames
from expportrait.proxy.head_model import load_head_model
from expportrait.proxy.landmarks import load_landmarker
from expportrait.transfer.expression_view import SIDE, ExpressionView

LEAST = 10  # pictures per second


def editor_bars(seconds: float = 10.0) -> list[dict]:
    """The embedded portrait, every picture with another expression and from another side."""
    model = load_head_model()
    with torch.inference_mode():
        frames = Frames.open(PORTRAIT)
        track = fit_frames(frames, model, load_landmarker("cpu"))
        start = time.perf_counter()
        view = ExpressionView(build_proxy(frames.frame(0), track, model, 0), model)
        view.picture({}, settled=False)
        first = time.perf_counter() - start
        view.picture({})
        moving, processor = _rate(view, seconds, settled=False)
        resting, _ = _rate(view, seconds / 2, settled=True)
    figures = {
        "per second of processor time": processor,
        "per second when settled": resting,
        "seconds to the first, proxy included": first,
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan"),
    }
    return [bar(f"expression editor, {SIDE} pixels, moving", moving, "pictures/s", least=LEAST, **figures)]


def _rate(view: ExpressionView, seconds: float, settled: bool) -> tuple[float, float]:
    """Pictures per second, and per second of this process's time on the processor."""
    start, busy = time.perf_counter(), time.process_time()
    for count in itertools.count(1):
        share = count % 20 / 20
        picture = view.picture({"smile": share, "jawOpen": 1 - share, "headYaw": 20 * share}, 40 * share - 20, 5.0, settled=settled)
        Image.fromarray(picture.numpy()).save(io.BytesIO(), "JPEG", quality=90)
        passed = time.perf_counter() - start
        if passed > seconds:
            return count / passed, count / (time.process_time() - busy)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(json.dumps({"bars": editor_bars(options.seconds)}, indent=1))
