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
    return gather_all(((chunk,) for chunk in chunks), total)[0]


def gather_all(chunks: Iterable[tuple[Tensor, ...]], total: int) -> tuple[Tensor, ...]:
    """The same of several tensors [t, ...] in each chunk."""
    progress, out, done = node_progress(), None, 0
    for chunk in chunks:
        if out is None:
            out = tuple(torch.empty((total, *part.shape[1:]), dtype=part.dtype, device=result_device()) for part in chunk)
        for whole, part in zip(out, chunk):
            whole[done : done + len(part)] = part
        done += len(chunk[0])
        progress(done, total)
    return out
