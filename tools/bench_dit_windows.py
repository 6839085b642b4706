"""Memory of sampling a long clip by the core's context windows, in a process of its own. Run by tools/bench_dit_native.py.

    COMFYUI_PATH=... PYTHON_OF_COMFYUI tools/bench_dit_windows.py LATENT_FRAMES window|whole

Prints as JSON: the peak of resident memory while sampling, above what was there before, and the bytes of the latents and conditions.
Works on Linux with glibc.
"""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/comfyui/native"), str(ROOT / "tools")]

import in_comfyui  # noqa: E402, F401  (imports the core, and the pack as expportrait)

# isort: split
import check_adapter as native  # noqa: E402
import comfy.context_windows as windows  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import torch  # noqa: E402

from expportrait.nodes.adapter_patch import apply_adapter  # noqa: E402

WINDOW, OVERLAP = 21, 5  # latent frames: 81 pictures
SIDE = 16  # of the latents: pictures of 128 pixels
STEPS = 2


def main() -> None:
    frames, whole = int(sys.argv[1]), sys.argv[2] == "whole"
    generator = torch.Generator().manual_seed(1)
    with tempfile.TemporaryDirectory() as folder:
        path = native.write_wan(Path(folder) / "i2v.safetensors", "i2v_a14b", native.WIDTH, native.LAYERS)
        wan = comfy.sd.load_diffusion_model(str(path))
    loaded = native.loaded_of(native.config_of(), generator)
    model = apply_adapter(wan, loaded, 1.0)
    if not whole:
        model.model_options["context_handler"] = windows.IndexListContextHandler(
            context_schedule=windows.get_matching_context_schedule("standard_static"),
            fuse_method=windows.get_matching_fuse_method("pyramid"),
            context_length=WINDOW, context_overlap=OVERLAP, context_stride=1, closed_loop=False, dim=2,
        )  # fmt: skip
    _sample(model, loaded, 1, generator)  # loads the model, and what the libraries keep
    ctypes.CDLL(None).malloc_trim(0)
    print(json.dumps(_sample(model, loaded, frames, generator)))


def _sample(model, loaded, frames: int, generator: torch.Generator) -> dict:
    pictures, pixels = 4 * (frames - 1) + 1, 8 * SIDE
    control = torch.randn(1, loaded.config.control_channels, pictures, pixels, pixels, generator=generator)
    numbers = torch.randn(1, pictures, loaded.config.explicit_size, generator=generator)
    with torch.no_grad():
        condition = loaded.adapter.encode(control, control[:, :, 0], numbers)
    del control
    image = torch.randn(1, 16, frames, SIDE, SIDE, generator=generator)
    entries = native.attached([[torch.randn(1, 6, 4096, generator=generator), {"concat_latent_image": image}]], loaded, condition)
    noise = torch.randn(1, 16, frames, SIDE, SIDE, generator=generator)
    own = [noise, image, condition.control, condition.reference, condition.expression]
    before = _resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    with torch.inference_mode():
        comfy.sample.sample(
            model, noise, STEPS, 1.0, "euler", "simple", entries, entries, torch.zeros_like(noise), disable_pbar=True, seed=1
        )
    return {"peak": _resident("VmHWM") - before, "own": sum(value.nbytes for value in own)}


def _resident(name: str) -> int:
    """Bytes that the kernel tells of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return 1024 * int(line.split()[1])


if __name__ == "__main__":
    main()
