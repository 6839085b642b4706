"""What every node asks of ComfyUI: where to compute, where results live, progress with cancel."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import comfy.model_management
import comfy.utils
import torch
from torch import Tensor


def compute_device() -> torch.device:
    """ComfyUI's device if the rasteriser and the solver run on it, else the CPU (MPS, XPU and DirectML lack operators)."""
    device = comfy.model_management.get_torch_device()
    return device if device.type in ("cuda", "cpu") else torch.device("cpu")


def result_device() -> torch.device:
    """Where ComfyUI wants node outputs."""
    return comfy.model_management.intermediate_device()


def node_progress() -> Callable[[int, int], None]:
    """A `progress(done, total)` that moves the node's bar and raises ComfyUI's interrupt when the user cancels."""
    bar = comfy.utils.ProgressBar(1)

    def report(done: int, total: int) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        bar.update_absolute(done, total)

    return report


def gather(chunks: Iterable[Tensor], total: int) -> Tensor:
    """Chunks [t, ...] of `total` frames in one tensor [total, ...] where results live, with progress and cancel."""
    progress, out, done = node_progress(), None, 0
    for chunk in chunks:
        if out is None:
            out = torch.empty((total, *chunk.shape[1:]), device=result_device())
        out[done : done + len(chunk)] = chunk
        done += len(chunk)
        progress(done, total)
    return out
