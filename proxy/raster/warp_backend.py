"""Fast back-end: NVIDIA Warp kernels on CPU and CUDA, with the gradients in closed form."""

from __future__ import annotations

import contextlib
import os
import sys

import torch
import warp as wp
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import warp_kernels as kernels
from .torch_backend import smallest_area

DEVICES = ("cpu", "cuda")
_compiled: set[tuple[wp.Kernel, str]] = set()


@contextlib.contextmanager
def _quiet():
    """Keeps warp's banner and compile messages off the console, and the setting as the user has it."""
    name, value = ("log_level", wp.LOG_WARNING) if hasattr(wp.config, "log_level") else ("quiet", True)  # since / before 1.14
    before = getattr(wp.config, name)
    setattr(wp.config, name, value)
    try:
        yield
    finally:
        setattr(wp.config, name, before)


def _init() -> None:
    """Starts warp; its native part would write to stderr that there is no CUDA driver, which nobody asked on such a machine."""
    if torch.cuda.is_available() or sys.__stderr__ is None:
        wp.init()
        return
    sys.__stderr__.flush()
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        wp.init()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)


with _quiet():
    _init()


def _launch(kernel: wp.Kernel, dim: int | tuple[int, int], inputs: list, device: torch.device) -> None:
    stream = wp.stream_from_torch(torch.cuda.current_stream(device)) if device.type == "cuda" else None
    first = (kernel, str(device)) not in _compiled
    with _quiet() if first else contextlib.nullcontext():
        wp.launch(kernel, dim=dim, inputs=inputs, device=wp.device_from_torch(device), stream=stream)
    _compiled.add((kernel, str(device)))


def _array(tensor: Tensor, dtype: type) -> wp.array:
    """A flat view of a contiguous tensor; dtype may be a vector type that takes the last dimension."""
    tensor = tensor.detach()
    return wp.from_torch(
        tensor.reshape(-1, tensor.shape[-1]) if wp.types.type_is_vector(dtype) else tensor.reshape(-1), dtype=dtype
    )


def draw(position: Tensor, depth: Tensor, faces: Tensor, cull: bool, packed: Tensor) -> None:
    """As torch_backend.draw."""
    frames, height, width = packed.shape
    inputs = [_array(position.contiguous(), wp.vec2i), _array(depth.contiguous(), wp.float32), _array(faces, wp.vec3i)]
    inputs += [depth.shape[1], height, width, cull, _array(packed, wp.int64)]
    _launch(kernels.draw, (frames, len(faces)), inputs, position.device)


class _Interpolate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, attributes, clip, ids, pixels, faces, attribute_faces, dense):
        ctx.save_for_backward(attributes, clip, ids, pixels, faces, attribute_faces)
        ctx.dense = dense
        return _interpolate(attributes, clip, ids, pixels, faces, attribute_faces, dense)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        attributes, clip, *rest = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        attribute_gradient = torch.zeros_like(attributes) if wanted[0] else attributes.new_zeros(0, attributes.shape[-1])
        clip_gradient = torch.zeros_like(clip) if wanted[1] else clip.new_zeros(0, 4)
        row, _, adjoint = kernels.interpolation(attributes.shape[-1])
        inputs = _inputs(row, attributes, clip, *rest, ctx.dense)
        inputs += [_array(gradient.contiguous(), row), _array(clip_gradient, wp.vec4), _array(attribute_gradient, row)]
        _launch(adjoint, len(rest[1]), inputs, clip.device)
        return attribute_gradient if wanted[0] else None, clip_gradient if wanted[1] else None, *[None] * 5


def _inputs(row, attributes, clip, ids, pixels, faces, attribute_faces, dense) -> list:
    grid = kernels.Grid()
    grid.height, grid.width = ids.shape[1:]
    grid.step_x, grid.step_y = 1 / grid.width, 1 / grid.height
    grid.least = smallest_area(grid.height, grid.width)
    grid.vertices = clip.shape[1]
    grid.stride = attributes.shape[1] if len(attributes) > 1 else 0
    grid.dense = dense
    corners = [_array(clip, wp.vec4), _array(faces, wp.vec3i), _array(attributes, row), _array(attribute_faces, wp.vec3i)]
    return [grid, *corners, _array(ids, wp.int32), _array(pixels, wp.int64)]


def _interpolate(attributes, clip, ids, pixels, faces, attribute_faces, dense) -> Tensor:
    channels = attributes.shape[-1]
    out = attributes.new_zeros(*ids.shape, channels) if dense else attributes.new_empty(len(pixels), channels)
    row, interpolate_rows, _ = kernels.interpolation(channels)
    inputs = [*_inputs(row, attributes, clip, ids, pixels, faces, attribute_faces, dense), _array(out, row)]
    _launch(interpolate_rows, len(pixels), inputs, clip.device)
    return out


def interpolate(
    attributes: Tensor, clip: Tensor, ids: Tensor, pixels: Tensor, faces: Tensor, attribute_faces: Tensor, dense: bool
) -> Tensor:
    """As torch_backend.interpolate, in float32; with `dense` the result is [B,H,W,C], zero where empty."""
    attributes, clip = attributes.contiguous(), clip.contiguous()
    if torch.is_grad_enabled() and (attributes.requires_grad or clip.requires_grad):
        return _Interpolate.apply(attributes, clip, ids, pixels, faces, attribute_faces, dense)
    return _interpolate(attributes, clip, ids, pixels, faces, attribute_faces, dense)
