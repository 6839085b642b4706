"""Bars of the portrait adapter inside ComfyUI: exactness, agreement of the runtimes, overhead. Run by tools/bench_dit.py, or by hand:

    COMFYUI_PATH=... PYTHON_OF_COMFYUI tools/bench_dit_native.py
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/comfyui/native"), str(ROOT / "tools")]

import in_comfyui  # noqa: E402, F401  (imports the core, and the pack as expportrait)

# isort: split
import check_adapter as native  # noqa: E402
import comfy.samplers  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402
from bars import bar  # noqa: E402
from check_diffusers import both_runtimes, random_pair  # noqa: E402
from tiny_wan import wan_shapes  # noqa: E402

from expportrait.dit.adapter.config import AdapterConfig  # noqa: E402
from expportrait.dit.conditioning import even_bounds, progressive  # noqa: E402
from expportrait.dit.guidance import Schedule  # noqa: E402
from expportrait.nodes.adapter_patch import apply_adapter  # noqa: E402

MILLIONTHS = 1e6
SIZES = {  # width, layers, ffn, latent frames, latent side, expression width
    "tiny": (256, 10, 1024, 5, 32, 64),
    "1.3B": (1536, 30, 8960, 3, 24, 512),
}
ROUNDS = 5
MOST_OVERHEAD = 1.05
WINDOWS = Path(__file__).with_name("bench_dit_windows.py")
WINDOW, LONG = 21, 76  # latent frames: 81 and 301 pictures
MOST_COPIES = 10  # of latents and conditions: noise, start, state, each prediction and its sum over windows are the sampler's own


def exactness_bars(folder: Path) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    wan = comfy.sd.load_diffusion_model(str(native.write_wan(folder / "i2v.safetensors", "i2v_a14b", native.WIDTH, native.LAYERS)))
    texts = native.conditioning(generator), native.conditioning(generator)
    base = native.sample(wan, *texts)
    fresh = native.loaded_of(native.config_of())
    model = apply_adapter(wan, fresh, 1.0)
    zero = native.sample(model, *native.both(texts, fresh, native.condition_of(fresh, generator)))
    loaded = native.loaded_of(native.config_of(control="latent", inputs=("depth",), reference="none", code="none"), generator)
    condition = native.condition_of(loaded, generator)
    added = native.sample(apply_adapter(wan, loaded, 1.0), *native.both(texts, loaded, condition))
    grown = native.sample(native.grown_model(wan, loaded, condition), *texts)
    trained, schedule, steps = native.loaded_of(native.config_of(), generator), Schedule(), 14
    model = apply_adapter(wan, trained, 1.0)
    entries = native.both(texts, trained, native.condition_of(trained, generator))
    ranges = native.sample(model, *(progressive(each, schedule, even_bounds(steps)) for each in entries), steps, 2.5)
    guided = native.guided(model, *entries, steps, 2.5, schedule, {})
    return [
        bar("zero adapter: largest difference from the base", _apart(zero, base), "millionths", most=0),
        bar("additive control against a grown patch embedding", _apart(added, grown), "millionths", most=100),
        bar("progressive ranges against the guider, 14 steps", _apart(ranges, guided), "millionths", most=100),
    ]


def runtime_bars(folder: Path) -> list[dict]:
    generator = torch.Generator().manual_seed(1)
    found, expected = both_runtimes(random_pair(folder), generator, Schedule())
    apart = float((found - expected).norm() / expected.norm())
    return [bar("native against diffusers, relative", MILLIONTHS * apart, "millionths", most=1000)]


def overhead_bars(kind: str) -> list[dict]:
    """Time of a step with an adapter over that without, in turns; the median of ROUNDS."""
    width, layers, ffn, frames, side, expression = SIZES[kind]
    generator = torch.Generator().manual_seed(1)
    shapes = wan_shapes("i2v_a14b", width, layers, ffn)
    tensors = {name: 0.02 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    model = comfy.sd.load_diffusion_model_state_dict(tensors)
    del tensors
    config = AdapterConfig(width=width, layers=layers, expression_width=expression, explicit_size=60)
    loaded = native.loaded_of(config, generator)
    attached = apply_adapter(model, loaded, 1.0)
    pixels = 4 * (frames - 1) + 1
    with torch.no_grad():
        pictures = torch.randn(1, 3, pixels, 8 * side, 8 * side, generator=generator)
        condition = loaded.adapter.encode(pictures, pictures[:, :, 0], torch.randn(1, pixels, 60, generator=generator))
    plain = [[torch.randn(1, 512, 4096, generator=generator), {}]]
    entries = {"without": (model, plain), "with": (attached, native.attached(plain, loaded, condition))}
    seconds: dict[str, list[float]] = {"without": [], "with": []}
    for turn in range(ROUNDS + 1):
        for name, (which, cond) in entries.items():
            took = _step_seconds(which, cond, frames, side)
            if turn > 0:  # the first one loads
                seconds[name].append(took)
    ratios = sorted(b / a for a, b in zip(seconds["without"], seconds["with"]))
    figures = {"seconds without": sorted(seconds["without"])[ROUNDS // 2], "smallest": ratios[0], "largest": ratios[-1]}
    parameters = sum(value.numel() for value in loaded.adapter.parameters()) / 1e6
    name = f"step of a {kind} model with the adapter, over without"
    return [bar(name, ratios[ROUNDS // 2], "times", most=MOST_OVERHEAD, **figures, **{"adapter's parameters, millions": parameters})]


def _step_seconds(model, cond: list, frames: int, side: int) -> float:
    """Seconds of one call of the transformer, inside a one-step sampling."""
    took = []

    def timed(executor, *args, **kwargs):
        start = time.perf_counter()
        out = executor(*args, **kwargs)
        took.append(time.perf_counter() - start)
        return out

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.APPLY_MODEL, "timed", timed)
    noise = torch.randn(1, 16, frames, side, side, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        comfy.sample.sample(clone, noise, 1, 1.0, "euler", "simple", cond, cond, torch.zeros_like(noise), disable_pbar=True, seed=1)
    return took[0]


def window_bars() -> list[dict]:
    """Memory of 301 pictures by context windows against that of one window, each in a process of its own."""

    def measured(frames: int, how: str) -> dict:
        done = subprocess.run([sys.executable, str(WINDOWS), str(frames), how], stdout=subprocess.PIPE, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    if sys.platform != "linux":
        print("memory of context windows is measured on Linux only: left out", file=sys.stderr)
        return []
    one, long, whole = measured(WINDOW, "window"), measured(LONG, "window"), measured(LONG, "whole")
    grown, own = long["peak"] - one["peak"], long["own"] - one["own"]
    figures = {"one window, MB": one["peak"], "301 frames by windows, MB": long["peak"], "301 frames at once, MB": whole["peak"]}
    figures |= {"of it latents and conditions, one window, MB": one["own"], "301 frames, MB": long["own"]}
    title = "301 frames by context windows: memory beyond one window's, over that of the added latents and conditions"
    return [bar(title, grown / own, "times", most=MOST_COPIES, **{name: value / 1e6 for name, value in figures.items()})]


def _apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    return MILLIONTHS * float((found - expected).abs().max())


def main() -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        bars = exactness_bars(Path(folder)) + runtime_bars(Path(folder))
    for kind in SIZES:
        bars += overhead_bars(kind)
    bars += window_bars()
    print(json.dumps(bars, indent=2))


if __name__ == "__main__":
    main()
