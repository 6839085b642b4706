"""Bars of rendering: time per frame of the maps and of the preview, and peak memory of a 1,000-frame render in chunks."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import torch

SIDE = 512
FRAMES = 16
MAP_BOUND, ALL_MAPS_BOUND, PREVIEW_BOUND = 80.0, 200.0, 350.0  # milliseconds of CPU time per frame of 512 x 512
MEMORY_BOUND = 4.0  # GiB
LONG = 1000
CHILD = """
import resource, sys
sys.path.insert(0, {tools!r})
from bench_render import make_scene, render_all
source, person, proxy, motion, model = make_scene({frames})
render_all(source, person, proxy, motion, model)
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30)
"""


def make_scene(frames: int):
    """The model's mean head before grey, nodding, turning and speaking: source, person mask, proxy, motion, model."""
    from expportrait.proxy.build import build_proxy
    from expportrait.proxy.head_model import JOINTS, load_head_model
    from expportrait.proxy.head_track import HeadTrack

    model = load_head_model()
    phase = torch.linspace(0, 6.28 * frames / 50, frames)
    joints = torch.zeros(frames, len(JOINTS), 3)
    joints[:, JOINTS.index("head"), 0] = 0.1 * phase.sin()
    joints[:, JOINTS.index("head"), 1] = 0.25 * (0.7 * phase).sin()
    expression = torch.zeros(frames, model.expression_basis.shape[0])
    expression[:, model.expression_index("jawOpen")] = 0.3 * (1 - (3 * phase).cos())
    centre = model.joint_template[JOINTS.index("head")]
    points = torch.rand(frames, 478, 2, generator=torch.Generator().manual_seed(0)) * SIDE
    motion = HeadTrack(
        model_id=model.model_id,
        identity=torch.zeros(model.identity_basis.shape[0]),
        expression=expression,
        joints=joints,
        translation=torch.tensor([[0.0, -float(centre[1]), -0.8]]).repeat(frames, 1),
        focal=1.9 * SIDE,
        width=SIDE,
        height=SIDE,
        fps=25.0,
        valid=torch.ones(frames, dtype=torch.bool),
        confidence=torch.ones(frames),
        landmarks=points,
        landmarks_fit=points,
    )
    source = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 0.2 + 0.4
    person = torch.zeros(SIDE, SIDE)
    person[SIDE // 8 :, SIDE // 5 : -SIDE // 5] = 1
    return source, person, build_proxy(source, motion, model, person=person), motion, model


def render_all(source, person, proxy, motion, model) -> None:
    """Every map, then the preview, thrown away chunk by chunk."""
    from expportrait.proxy.preview import render_preview
    from expportrait.proxy.render import MAPS, render_maps

    for _ in render_maps(proxy, motion, model, MAPS):
        pass
    for _ in render_preview(source, proxy, motion, model, person=person):
        pass


def _cpu_ms(frames: int, work) -> float:
    """Milliseconds of one thread's time per frame, the best of three: a shared machine's clock says little."""
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in work():
            pass
        best = min(best, (time.process_time() - start) / frames * 1000)
    return best


def _bar(name: str, value: float, unit: str, bound: float) -> dict:
    return {"name": name, "value": round(value, 3), "unit": unit, "bound": bound, "ok": value <= bound}


def render_bars(data: Path) -> list[dict]:
    """Milliseconds of CPU time per frame for each map, all maps and the preview at 512 x 512, and the peak memory of a long clip.

    `data` is not read: the scene is rendered from the embedded head.
    """
    from expportrait.proxy.preview import render_preview
    from expportrait.proxy.render import MAPS, render_maps

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            source, person, proxy, motion, model = make_scene(FRAMES)
            bars = []
            for name in MAPS:
                value = _cpu_ms(FRAMES, lambda name=name: render_maps(proxy, motion, model, [name]))
                bars.append(_bar(f"render {name}", value, "ms/frame", MAP_BOUND))
            value = _cpu_ms(FRAMES, lambda: render_maps(proxy, motion, model, MAPS))
            bars.append(_bar("render all maps", value, "ms/frame", ALL_MAPS_BOUND))
            value = _cpu_ms(FRAMES, lambda: render_preview(source, proxy, motion, model, person=person))
            bars.append(_bar("preview", value, "ms/frame", PREVIEW_BOUND))
    finally:
        torch.set_num_threads(threads)
    child = CHILD.format(tools=str(Path(__file__).parent), frames=LONG)
    run = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, check=True)
    bars.append(_bar(f"peak memory, {LONG} frames", float(run.stdout.split()[-1]), "GiB", MEMORY_BOUND))
    return bars
