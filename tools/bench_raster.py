"""Bars of the rasteriser: speed on the embedded head, outline gradients of a sphere, a shape fitted to masks alone.

Where there is a CUDA device, also the warp back-end on it and, if the user installed it, nvdiffrast: as our back-end and by its own
operations, side by side.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS, load_head_model
from expportrait.proxy.raster import Raster, Rasterizer, nvdiffrast_backend
from expportrait.proxy.rotation import to_matrix
from expportrait.proxy.subdivide import midpoint_triangles

SIZE = 512
FRAMES = 8
DISTANCE = 0.7  # metres: head and neck fill the picture
REPEATS = 48


def sphere(levels: int) -> tuple[Tensor, Tensor]:
    """Unit sphere of 20 * 4^levels triangles: vertices [V,3], faces [F,3], counter-clockwise seen from outside."""
    golden = (1 + math.sqrt(5)) / 2
    corners = [(0, a, b * golden) for a in (-1, 1) for b in (-1, 1)]
    vertices = np.array([np.roll(corner, turn) for turn in range(3) for corner in corners])
    near = np.linalg.norm(vertices[:, None] - vertices, axis=-1) < 2.1  # edges have length 2
    triples = [(i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[k, i]]
    outward = [np.linalg.det(vertices[list(triple)]) > 0 for triple in triples]
    faces = np.array([triple if out else triple[::-1] for triple, out in zip(triples, outward, strict=True)])
    for _ in range(levels):
        stencil, faces = midpoint_triangles(faces, len(vertices))
        vertices = stencil @ vertices
    vertices /= np.linalg.norm(vertices, axis=1, keepdims=True)
    return torch.tensor(vertices, dtype=torch.float32), torch.tensor(faces)


def harmonics(directions: Tensor) -> Tensor:
    """Real spherical harmonics up to degree 3, without their normalising factors: [V,3] to [V,16]."""
    x, y, z = directions.unbind(-1)
    second = [x * y, y * z, z * x, x * x - y * y, 3 * z * z - 1]
    third = [x * y * z, z * (x * x - y * y), x * (x * x - 3 * y * y), y * (3 * x * x - y * y)]
    third += [axis * (5 * z * z - 1) for axis in (x, y)] + [z * (5 * z * z - 3)]
    return torch.stack([torch.ones_like(x), x, y, z, *second, *third], dim=-1)


def area_slope_error(levels: int, size: int = SIZE, backend: str = "auto", device: str = "cpu") -> float:
    """Relative error of d(covered area) / d(radius) of a sphere seen from afar, against 2 pi r."""
    vertices, faces = sphere(levels)
    rasterizer = Rasterizer(faces, len(vertices), backend)

    def smooth_mask(clip: Tensor) -> Tensor:
        raster = rasterizer.rasterize(clip, (size, size))
        return rasterizer.antialias(raster.mask[..., None].float(), raster, clip)

    return _area_slope_error(smooth_mask, vertices.to(device), size)


def _area_slope_error(smooth_mask: Callable[[Tensor], Tensor], vertices: Tensor, size: int) -> float:
    radius = torch.tensor(0.587, requires_grad=True)  # of half the picture
    clip = torch.nn.functional.pad(radius * vertices, (0, 1), value=1.0)[None]
    smooth_mask(clip).sum().backward()
    return float(radius.grad) / (2 * math.pi * float(radius.detach()) * (size / 2) ** 2) - 1


def mask_fit_error(levels: int, size: int, steps: int, backend: str = "auto", device: str = "cpu") -> tuple[float, float]:
    """Fits 16 shape coefficients to the masks of four views; mean vertex error in pixels before and after.

    The masks to fit are box-filtered from eight times the resolution, not made by the antialias under test.
    """
    directions, faces = sphere(levels)
    directions = directions.to(device)
    basis = harmonics(directions)
    views = torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.5, 1.6, 0.2], [0.9, -0.7, 0.0]])
    views = to_matrix(views).to(device)  # [4,3,3]
    camera = Camera.centred(1.5 * size, size, size)
    rasterizer = Rasterizer(faces, len(directions), backend)

    def place(coefficients: Tensor) -> Tensor:
        shape = 0.1 * (1 + basis @ coefficients)[:, None] * directions
        return shape @ views.mT + shape.new_tensor([0.0, 0.0, -0.6])  # [4,V,3]

    truth = (0.05 * torch.randn(16, generator=torch.Generator().manual_seed(3))).to(device)
    fine = rasterizer.rasterize(camera.clip(place(truth)), (8 * size, 8 * size)).mask.float()
    target = torch.nn.functional.avg_pool2d(fine, 8)
    coefficients = torch.zeros(16, device=device, requires_grad=True)
    optimizer = torch.optim.Adam([coefficients], lr=0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=1e-4)
    for _ in range(steps):
        clip = camera.clip(place(coefficients))
        raster = rasterizer.rasterize(clip, (size, size))
        mask = rasterizer.antialias(raster.mask[..., None].float(), raster, clip)[..., 0]
        optimizer.zero_grad()
        (mask - target).square().mean().backward()
        optimizer.step()
        schedule.step()
    wanted = camera.project(place(truth))
    start, end = (camera.project(place(c)) for c in (torch.zeros_like(truth), coefficients.detach()))
    return float((start - wanted).norm(dim=-1).mean()), float((end - wanted).norm(dim=-1).mean())


def head_clip(backend: str = "auto", device: str = "cpu") -> tuple[Rasterizer, Tensor]:
    """The embedded head turning from side to side, and clip coordinates [8,V,4] of its 8 frames."""
    model = load_head_model()
    joints = torch.zeros(FRAMES, len(JOINTS), 3)
    joints[:, JOINTS.index("head"), 1] = torch.linspace(-0.6, 0.6, FRAMES)
    identity = torch.zeros(1, model.identity_basis.shape[0])
    expression = torch.zeros(1, model.expression_basis.shape[0])
    vertices = model.forward(identity, expression, joints)
    head = model.joint_positions(identity, expression)[:, JOINTS.index("head"), None]
    camera = Camera.centred(1.5 * SIZE, SIZE, SIZE)
    clip = camera.clip(vertices - head + torch.tensor([0.0, 0.0, -DISTANCE]))
    return Rasterizer(model.faces, vertices.shape[1], backend), clip.to(device)


def _milliseconds(work: Callable[[], object], device: torch.device) -> float:
    """Least time per frame: CPU time of this thread, on a GPU the wall time until it is done."""
    clock = time.thread_time if device.type == "cpu" else time.perf_counter
    work()
    times = []
    for _ in range(REPEATS):
        _finish(device)
        start = clock()
        work()
        _finish(device)
        times.append(clock() - start)
    return 1000 * min(times) / FRAMES


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclasses.dataclass(frozen=True)
class _Load:
    """What is interpolated and blended in the measurements, and the gradients that come back."""

    attributes: Tensor  # [B,V,9]
    image_gradient: Tensor  # [B,H,W,9]
    colour: Tensor  # [B,H,W,4]
    colour_gradient: Tensor  # [B,H,W,4]


def _load(clip: Tensor) -> _Load:
    generator = torch.Generator().manual_seed(0)
    attributes = torch.randn(*clip.shape[:2], 9, generator=generator)
    image_gradient = torch.randn(FRAMES, SIZE, SIZE, 9, generator=generator)
    colour = torch.rand(FRAMES, SIZE, SIZE, 4, generator=generator)
    colour_gradient = torch.randn(colour.shape, generator=generator)
    return _Load(*(tensor.to(clip.device) for tensor in (attributes, image_gradient, colour, colour_gradient)))


def _differentiate(operation: Callable[..., Tensor], values: Tensor, clip: Tensor, gradient: Tensor) -> tuple[Tensor, ...]:
    """operation(values, clip), and the gradients to both."""
    inputs = values.detach().requires_grad_(), clip.detach().requires_grad_()
    out = operation(*inputs)
    out.backward(gradient)
    return out.detach(), *(tensor.grad for tensor in inputs)


def _speeds(rasterizer: Rasterizer, clip: Tensor) -> tuple[Raster, list[float]]:
    """Milliseconds per frame of ids, interpolation to an image and at covered pixels, and antialias."""
    raster = rasterizer.rasterize(clip, (SIZE, SIZE))
    load = _load(clip)
    list_gradient = load.image_gradient.reshape(-1, 9)[raster.pixels]

    def interpolate(operation: Callable, gradient: Tensor) -> None:
        inputs = load.attributes.detach().requires_grad_(), clip.detach().requires_grad_()
        operation(inputs[0], raster, inputs[1]).backward(gradient)

    def antialias() -> None:
        inputs = load.colour.detach().requires_grad_(), clip.detach().requires_grad_()
        rasterizer.antialias(inputs[0], raster, inputs[1]).backward(load.colour_gradient)

    ids = _milliseconds(lambda: rasterizer.rasterize(clip, (SIZE, SIZE)), clip.device)
    image = _milliseconds(lambda: interpolate(rasterizer.interpolate, load.image_gradient), clip.device)
    pixels = _milliseconds(lambda: interpolate(rasterizer.interpolate_pixels, list_gradient), clip.device)
    blend = _milliseconds(antialias, clip.device)
    return raster, [ids, image, pixels, blend]


OPERATIONS = (
    "interpolation of 9 channels to an image, forward and backward",
    "interpolation of 9 channels at covered pixels, forward and backward",
    "antialias of 4 channels, forward and backward",
)


def _speed_bars() -> list[tuple[str, float, str, float]]:
    rasterizer, clip = head_clip()
    raster, times = _speeds(rasterizer, clip)
    head = f"{len(rasterizer.faces)} triangles, {float(raster.mask.float().mean()):.0%} covered, one thread"
    names = (f"triangle ids ({head})", *OPERATIONS)
    return [(name, value, "ms/frame", bound) for name, value, bound in zip(names, times, (8.0, 18.0, 18.0, 10.0), strict=True)]


def gpu_bars(device: str = "cuda") -> list[tuple[str, float | None, str, float | None]]:
    """Name, value, unit and bound of what a GPU adds; where something is missing a line without a value says so."""
    if not torch.cuda.is_available():
        return [("this machine has no CUDA device: figures of a GPU are left out", None, "", None)]
    bars = _warp_bars(device)
    try:
        nvdiffrast_backend.load()
    except ValueError:
        return [*bars, ("nvdiffrast is not installed: its figures are left out", None, "", None)]
    return bars + _id_bars("nvdiffrast", device) + _own_bars(device)


def _id_bars(backend: str, device: str) -> list[tuple[str, float, str, float | None]]:
    """Ids of a back-end on a GPU: speed, likeness to the CPU's, and the outlines that our antialias finds with them."""
    rasterizer, clip = head_clip(backend, device)
    on_cpu = head_clip()[0].rasterize(clip.cpu(), (SIZE, SIZE)).ids
    name = f"{backend} on {torch.cuda.get_device_name()}"
    most_other, most_error = (1e-3, 0.01) if backend == "warp" else (None, None)  # nvdiffrast snaps vertices to a coarser grid
    bars = []
    for cull, which in ((False, "triangle ids"), (True, "triangle ids, culled")):
        time_per_frame = _milliseconds(lambda: rasterizer.rasterize(clip, (SIZE, SIZE), cull), clip.device)
        bars.append((f"{name}: {which}", time_per_frame, "ms/frame", None))
    other = float((rasterizer.rasterize(clip, (SIZE, SIZE)).ids.cpu() != on_cpu).float().mean())
    bars.append((f"{name}: share of pixels that see another triangle than warp's on the CPU", other, "", most_other))
    for levels, triangles in ((5, "20k"), (6, "80k")):
        error = abs(area_slope_error(levels, SIZE, backend, device))
        bars.append((f"{name}: error of the area-by-radius gradient, {triangles} triangles", error, "", most_error))
    return bars


def _warp_bars(device: str) -> list[tuple[str, float, str, float | None]]:
    """The warp back-end on a GPU; values and gradients against the reference in float64 on the CPU, at the same ids."""
    rasterizer, clip = head_clip("warp", device)
    reference = head_clip("torch")[0]
    name = f"warp on {torch.cuda.get_device_name()}"
    raster, times = _speeds(rasterizer, clip)
    bars = _id_bars("warp", device)
    bars += [(f"{name}: {operation}", value, "ms/frame", None) for operation, value in zip(OPERATIONS, times[1:], strict=True)]
    on_cpu, load = Raster(raster.ids.cpu(), raster.zw.cpu()), _load(clip)
    for operation, values, gradient in (
        ("interpolate", load.attributes, load.image_gradient),
        ("antialias", load.colour, load.colour_gradient),
    ):
        fast, exact = getattr(rasterizer, operation), getattr(reference, operation)
        got = _differentiate(lambda values, points: fast(values, raster, points), values, clip, gradient)
        inputs = (tensor.cpu().double() for tensor in (values, clip, gradient))
        wanted = _differentiate(lambda values, points: exact(values, on_cpu, points), *inputs)
        bars += _difference_bars(f"{name}: {operation}, relative error of the", got, wanted, 1e-2)
    return bars


def _own_bars(device: str) -> list[tuple[str, float, str, float | None]]:
    """nvdiffrast by its own operations, as its users call them; its interpolation against ours at its own ids."""
    own, size = nvdiffrast_backend.load(), (SIZE, SIZE)
    context = own.RasterizeCudaContext(device=device)
    rasterizer, clip = head_clip("auto", device)
    faces, load = rasterizer.faces.to(device), _load(clip)
    rast = own.rasterize(context, clip, faces, size, grad_db=False)[0]
    topology = own.antialias_construct_topology_hash(faces)

    def interpolate(values: Tensor, points: Tensor) -> Tensor:
        return own.interpolate(values, own.rasterize(context, points, faces, size, grad_db=False)[0], faces)[0]

    def antialias(values: Tensor, points: Tensor) -> Tensor:
        return own.antialias(values, rast, points, faces, topology)

    work = {
        "rasterize": lambda: own.rasterize(context, clip, faces, size, grad_db=False),
        "rasterize and interpolate 9 channels, forward and backward": lambda: _differentiate(
            interpolate, load.attributes, clip, load.image_gradient
        ),
        "antialias of 4 channels, forward and backward": lambda: _differentiate(
            antialias, load.colour, clip, load.colour_gradient
        ),
    }
    bars = [(f"nvdiffrast's own {name}", _milliseconds(step, clip.device), "ms/frame", None) for name, step in work.items()]
    raster = Raster(rast[..., 3].int(), rast[..., 2])
    ours = _differentiate(
        lambda values, points: rasterizer.interpolate(values, raster, points), load.attributes, clip, load.image_gradient
    )
    theirs = _differentiate(interpolate, load.attributes, clip, load.image_gradient)
    bars += _difference_bars("nvdiffrast's own interpolate against ours, relative difference of the", theirs, ours, None)
    for levels, triangles in ((5, "20k"), (6, "80k")):
        vertices, corners = (tensor.to(device) for tensor in sphere(levels))

        def smooth_mask(points: Tensor, corners: Tensor = corners.int()) -> Tensor:
            rast = own.rasterize(context, points, corners, size, grad_db=False)[0].detach()
            return own.antialias((rast[..., 3:] > 0).float(), rast, points, corners)

        error = abs(_area_slope_error(smooth_mask, vertices, SIZE))
        bars.append((f"nvdiffrast's own antialias: error of the area-by-radius gradient, {triangles} triangles", error, "", None))
    return bars


def _difference_bars(name: str, got: tuple, wanted: tuple, bound: float | None) -> list[tuple[str, float, str, float | None]]:
    """Relative differences of the results of _differentiate."""
    errors = [float((one.to(other) - other).norm() / other.norm()) for one, other in zip(got, wanted, strict=True)]
    return [(f"{name} values", errors[0], "", bound), (f"{name} gradients", max(errors[1:]), "", bound)]


def raster_bars() -> list[dict]:
    """Speed at 512 x 512 in CPU time of one thread, and accuracy of the outline gradient; then what a GPU adds.

    Bars as {name, value, unit, bound, ok}; value None: could not be measured here, bound None: for information.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        bars = _speed_bars()
    finally:
        torch.set_num_threads(threads)
    for levels, name in ((5, "20k"), (6, "80k")):
        bars.append((f"error of the area-by-radius gradient, {name} triangles", abs(area_slope_error(levels)), "", 0.01))
        error = mask_fit_error(levels, SIZE, 150)[1]
        bars.append((f"mask-only fit of 16 coefficients, mean vertex error, {name} triangles", error, "px", 0.1))
    return [_bar(*bar) for bar in bars + gpu_bars()]


def _bar(name: str, value: float | None, unit: str, bound: float | None) -> dict:
    rounded = None if value is None else float(f"{value:.3g}")
    return {"name": name, "value": rounded, "unit": unit, "bound": bound, "ok": bound is None or value <= bound}
