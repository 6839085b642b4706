"""Bars of the rasteriser: speed on the embedded head, outline gradients of a sphere, a shape fitted to masks alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS, load_head_model
from expportrait.proxy.raster import Rasterizer
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


def area_slope_error(levels: int, size: int = SIZE, backend: str = "auto") -> float:
    """Relative error of d(covered area) / d(radius) of a sphere seen from afar, against 2 pi r."""
    vertices, faces = sphere(levels)
    rasterizer = Rasterizer(faces, len(vertices), backend)
    radius = torch.tensor(0.587, requires_grad=True)  # of half the picture
    shape = torch.nn.functional.pad(radius * vertices, (0, 1), value=1.0)[None]
    raster = rasterizer.rasterize(shape, (size, size))
    rasterizer.antialias(raster.mask[..., None].float(), raster, shape).sum().backward()
    return float(radius.grad) / (2 * math.pi * float(radius.detach()) * (size / 2) ** 2) - 1


def mask_fit_error(levels: int, size: int, steps: int, backend: str = "auto") -> tuple[float, float]:
    """Fits 16 shape coefficients to the masks of four views; mean vertex error in pixels before and after.

    The masks to fit are box-filtered from eight times the resolution, not made by the antialias under test.
    """
    directions, faces = sphere(levels)
    basis = harmonics(directions)
    views = to_matrix(torch.tensor([[0.0, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.5, 1.6, 0.2], [0.9, -0.7, 0.0]]))  # [4,3,3]
    camera = Camera.centred(1.5 * size, size, size)
    rasterizer = Rasterizer(faces, len(directions), backend)

    def place(coefficients: Tensor) -> Tensor:
        shape = 0.1 * (1 + basis @ coefficients)[:, None] * directions
        return shape @ views.mT + torch.tensor([0.0, 0.0, -0.6])  # [4,V,3]

    truth = 0.05 * torch.randn(16, generator=torch.Generator().manual_seed(3))
    fine = rasterizer.rasterize(camera.clip(place(truth)), (8 * size, 8 * size)).mask.float()
    target = torch.nn.functional.avg_pool2d(fine, 8)
    coefficients = torch.zeros(16, requires_grad=True)
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
    start, end = (camera.project(place(c)) for c in (torch.zeros(16), coefficients.detach()))
    return float((start - wanted).norm(dim=-1).mean()), float((end - wanted).norm(dim=-1).mean())


def head_clip() -> tuple[Rasterizer, Tensor]:
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
    return Rasterizer(model.faces, vertices.shape[1]), clip


def _milliseconds(work: Callable[[], object]) -> float:
    """Least CPU time of this thread per frame."""
    work()
    times = []
    for _ in range(REPEATS):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return 1000 * min(times) / FRAMES


def _speed_bars() -> list[tuple[str, float, str, float]]:
    rasterizer, clip = head_clip()
    generator = torch.Generator().manual_seed(0)
    raster = rasterizer.rasterize(clip, (SIZE, SIZE))
    attributes = torch.randn(*clip.shape[:2], 9, generator=generator)
    image_gradient = torch.randn(FRAMES, SIZE, SIZE, 9, generator=generator)
    list_gradient = image_gradient.reshape(-1, 9)[raster.pixels]
    colour = torch.rand(FRAMES, SIZE, SIZE, 4, generator=generator)
    colour_gradient = torch.randn(colour.shape, generator=generator)

    def interpolate(operation: Callable, gradient: Tensor) -> None:
        inputs = attributes.detach().requires_grad_(), clip.detach().requires_grad_()
        operation(inputs[0], raster, inputs[1]).backward(gradient)

    def antialias() -> None:
        inputs = colour.detach().requires_grad_(), clip.detach().requires_grad_()
        rasterizer.antialias(inputs[0], raster, inputs[1]).backward(colour_gradient)

    ids = _milliseconds(lambda: rasterizer.rasterize(clip, (SIZE, SIZE)))
    image = _milliseconds(lambda: interpolate(rasterizer.interpolate, image_gradient))
    pixels = _milliseconds(lambda: interpolate(rasterizer.interpolate_pixels, list_gradient))
    blend = _milliseconds(antialias)
    head = f"{len(rasterizer.faces)} triangles, {float(raster.mask.float().mean()):.0%} covered, one thread"
    return [
        (f"triangle ids ({head})", ids, "ms/frame", 8.0),
        ("interpolation of 9 channels to an image, forward and backward", image, "ms/frame", 18.0),
        ("interpolation of 9 channels at covered pixels, forward and backward", pixels, "ms/frame", 18.0),
        ("antialias of 4 channels, forward and backward", blend, "ms/frame", 10.0),
    ]


def raster_bars() -> list[dict]:
    """Speed at 512 x 512 in CPU time of one thread, and accuracy of the outline gradient."""
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
    return [
        {"name": name, "value": float(f"{value:.3g}"), "unit": unit, "bound": bound, "ok": value <= bound}
        for name, value, unit, bound in bars
    ]
