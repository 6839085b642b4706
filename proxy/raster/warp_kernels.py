"""Warp kernels: one source for CPU and CUDA. Declared here, compiled when first launched (warp keeps a cache on disk)."""

import functools
from typing import Any

import warp as wp

from .projection import DROPPED, SUBPIXELS

NO_DEPTH = wp.constant(wp.float32(DROPPED))
SMALL = wp.constant(wp.int32(1 << 13))  # boxes up to 32 pixels: edge functions fit into 32 bits


@wp.func
def fill(
    packed: wp.array(dtype=wp.int64),
    base: wp.int32,  # index of the box's first pixel
    width: wp.int32,
    columns: wp.int32,
    rows: wp.int32,
    e0: Any,  # biased edge functions at the box's first pixel ...
    e1: Any,
    e2: Any,
    x0: Any,  # ... their steps per column ...
    x1: Any,
    x2: Any,
    y0: Any,  # ... and per row
    y1: Any,
    y2: Any,
    depth: wp.float32,
    slope1: wp.float32,
    slope2: wp.float32,
    number: wp.int64,
):
    """Writes a triangle into the depth buffer: nearest first, then lowest number."""
    for row in range(rows):
        f0 = e0
        f1 = e1
        f2 = e2
        entered = bool(False)  # noqa: UP018 (warp takes a literal for a constant)
        for column in range(columns):
            if (f0 | f1 | f2) >= type(f0)(0):
                entered = True
                z = depth + float(f1) * slope1 + float(f2) * slope2
                if z >= -1.0 and z <= 1.0:
                    steps = wp.min(wp.int64((z + 1.0) * 1073741824.0), wp.int64(2147483646))
                    wp.atomic_min(packed, base + row * width + column, (steps << wp.int64(32)) | number)
            elif entered:
                break
            f0 += x0
            f1 += x1
            f2 += x2
        e0 += y0
        e1 += y1
        e2 += y2


@wp.kernel(enable_backward=False, module="unique")  # named after the kernel: ComfyUI names our modules by their path
def draw(
    position: wp.array(dtype=wp.vec2i),  # [B*V]
    depth: wp.array(dtype=wp.float32),  # [B*V]
    faces: wp.array(dtype=wp.vec3i),  # [F]
    vertices: wp.int32,
    height: wp.int32,
    width: wp.int32,
    cull: wp.bool,
    packed: wp.array(dtype=wp.int64),  # [B*H*W]
):
    frame, triangle = wp.tid()
    corner = faces[triangle]
    i0 = frame * vertices + corner[0]
    i1 = frame * vertices + corner[1]
    i2 = frame * vertices + corner[2]
    p0 = position[i0]
    p1 = position[i1]
    p2 = position[i2]
    low_x = wp.max((wp.min(p0[0], wp.min(p1[0], p2[0])) + SUBPIXELS - 1) >> 8, 0)
    high_x = wp.min(wp.max(p0[0], wp.max(p1[0], p2[0])) >> 8, width - 1)
    if low_x > high_x:
        return
    low_y = wp.max((wp.min(p0[1], wp.min(p1[1], p2[1])) + SUBPIXELS - 1) >> 8, 0)
    high_y = wp.min(wp.max(p0[1], wp.max(p1[1], p2[1])) >> 8, height - 1)
    if low_y > high_y:
        return
    z0 = depth[i0]
    z1 = depth[i1]
    z2 = depth[i2]
    if wp.max(z0, wp.max(z1, z2)) >= NO_DEPTH:
        return
    area = wp.int64(p1[0] - p0[0]) * wp.int64(p2[1] - p0[1]) - wp.int64(p1[1] - p0[1]) * wp.int64(p2[0] - p0[0])
    if area == wp.int64(0) or (cull and area > wp.int64(0)):
        return
    if area < wp.int64(0):
        swap = p0
        p0 = p2
        p2 = swap
        swap_z = z0
        z0 = z2
        z2 = swap_z
        area = -area
    # edge i runs opposite corner i; of two neighbours exactly one owns the pixels on their edge
    ax0 = p1[1] - p2[1]
    ay0 = p2[0] - p1[0]
    ax1 = p2[1] - p0[1]
    ay1 = p0[0] - p2[0]
    ax2 = p0[1] - p1[1]
    ay2 = p1[0] - p0[0]
    bias0 = wp.where(ax0 > 0 or (ax0 == 0 and ay0 < 0), 0, 1)
    bias1 = wp.where(ax1 > 0 or (ax1 == 0 and ay1 < 0), 0, 1)
    bias2 = wp.where(ax2 > 0 or (ax2 == 0 and ay2 < 0), 0, 1)
    scale = 1.0 / float(area)
    slope1 = (z1 - z0) * scale
    slope2 = (z2 - z0) * scale
    z = z0 + float(bias1) * slope1 + float(bias2) * slope2
    px = low_x * SUBPIXELS
    py = low_y * SUBPIXELS
    base = (frame * height + low_y) * width + low_x
    columns = high_x - low_x + 1
    rows = high_y - low_y + 1
    number = wp.int64(triangle + 1)
    span = wp.max(wp.max(wp.abs(ax0), wp.max(wp.abs(ax1), wp.abs(ax2))), wp.max(wp.abs(ay0), wp.max(wp.abs(ay1), wp.abs(ay2))))
    if span <= SMALL:
        fill(
            packed, base, width, columns, rows,
            ax0 * (px - p1[0]) + ay0 * (py - p1[1]) - bias0,
            ax1 * (px - p2[0]) + ay1 * (py - p2[1]) - bias1,
            ax2 * (px - p0[0]) + ay2 * (py - p0[1]) - bias2,
            ax0 * SUBPIXELS, ax1 * SUBPIXELS, ax2 * SUBPIXELS, ay0 * SUBPIXELS, ay1 * SUBPIXELS, ay2 * SUBPIXELS,
            z, slope1, slope2, number,
        )  # fmt: skip
    else:
        shift = wp.int64(8)
        fill(
            packed, base, width, columns, rows,
            wp.int64(ax0) * wp.int64(px - p1[0]) + wp.int64(ay0) * wp.int64(py - p1[1]) - wp.int64(bias0),
            wp.int64(ax1) * wp.int64(px - p2[0]) + wp.int64(ay1) * wp.int64(py - p2[1]) - wp.int64(bias1),
            wp.int64(ax2) * wp.int64(px - p0[0]) + wp.int64(ay2) * wp.int64(py - p0[1]) - wp.int64(bias2),
            wp.int64(ax0) << shift, wp.int64(ax1) << shift, wp.int64(ax2) << shift,
            wp.int64(ay0) << shift, wp.int64(ay1) << shift, wp.int64(ay2) << shift,
            z, slope1, slope2, number,
        )  # fmt: skip


@wp.struct
class Grid:
    """Sizes that all pixels share."""

    height: wp.int32
    width: wp.int32
    step_x: wp.float32  # 1 / width
    step_y: wp.float32
    least: wp.float32  # torch_backend.smallest_area
    vertices: wp.int32  # clip positions per frame
    stride: wp.int32  # attribute rows per frame; 0: all frames share one set
    dense: wp.bool  # images instead of a list of pixels


@wp.struct
class Weights:
    """Barycentric coordinates of one pixel and what their gradient needs."""

    x: wp.vec3  # X_i - fx W_i
    y: wp.vec3
    raw: wp.vec3  # a_i / S
    clamped: wp.vec3
    total: wp.float32  # S, kept away from zero
    centre_x: wp.float32
    centre_y: wp.float32


@wp.func
def weigh(p0: wp.vec4, p1: wp.vec4, p2: wp.vec4, column: wp.int32, row: wp.int32, grid: Grid):
    """The formulae of torch_backend.barycentric for one pixel."""
    out = Weights()
    fx = float(2 * column + 1) * grid.step_x - 1.0
    fy = float(2 * row + 1) * grid.step_y - 1.0
    x = wp.vec3(p0[0] - fx * p0[3], p1[0] - fx * p1[3], p2[0] - fx * p2[3])
    y = wp.vec3(p0[1] - fy * p0[3], p1[1] - fy * p1[3], p2[1] - fy * p2[3])
    a = wp.cross(x, y)
    total = a[0] + a[1] + a[2]
    sign = wp.where(total < 0.0, -1.0, 1.0)
    c0 = wp.max(a[0] * sign, 0.0)
    c1 = wp.max(a[1] * sign, 0.0)
    c2 = wp.max(a[2] * sign, 0.0)
    span = c0 + c1 + c2
    if span > 0.0:
        inverse = 1.0 / span
        out.clamped = wp.vec3(c0 * inverse, c1 * inverse, c2 * inverse)
    else:
        out.clamped = wp.vec3(1.0 / 3.0, 1.0 / 3.0, 1.0 / 3.0)
    out.total = sign * wp.max(wp.abs(total), p0[3] * p0[3] * grid.least)
    out.raw = a * (1.0 / out.total)
    out.x = x
    out.y = y
    out.centre_x = fx
    out.centre_y = fy
    return out


@functools.cache
def interpolation(channels: int):
    """Kernels for rows of `channels` floats: (row type, interpolate, adjoint), in modules of their own.

    Rows of fixed length run about twice as fast as a loop over channels.
    """
    row_type = wp.types.vector(length=channels, dtype=wp.float32)

    @wp.kernel(enable_backward=False, module="unique")
    def interpolate(
        grid: Grid,
        clip: wp.array(dtype=wp.vec4),  # [B*V]
        faces: wp.array(dtype=wp.vec3i),  # [F]
        attributes: wp.array(dtype=row_type),  # [(B or 1)*A]
        attribute_faces: wp.array(dtype=wp.vec3i),  # [F]
        ids: wp.array(dtype=wp.int32),  # [B*H*W]
        pixels: wp.array(dtype=wp.int64),  # [P]
        out: wp.array(dtype=row_type),  # [P], or [B*H*W] if dense
    ):
        p = wp.tid()
        pixel = int(pixels[p])
        triangle = ids[pixel] - 1
        line = pixel / grid.width
        frame = line / grid.height
        corner = faces[triangle]
        base = frame * grid.vertices
        weights = weigh(clip[base + corner[0]], clip[base + corner[1]], clip[base + corner[2]],
                        pixel - line * grid.width, line - frame * grid.height, grid)  # fmt: skip
        b = weights.clamped
        seam = attribute_faces[triangle]
        start = frame * grid.stride
        out[wp.where(grid.dense, pixel, p)] = (
            b[0] * attributes[start + seam[0]] + b[1] * attributes[start + seam[1]] + b[2] * attributes[start + seam[2]]
        )

    @wp.kernel(enable_backward=False, module="unique")
    def adjoint(
        grid: Grid,
        clip: wp.array(dtype=wp.vec4),
        faces: wp.array(dtype=wp.vec3i),
        attributes: wp.array(dtype=row_type),
        attribute_faces: wp.array(dtype=wp.vec3i),
        ids: wp.array(dtype=wp.int32),
        pixels: wp.array(dtype=wp.int64),
        gradient: wp.array(dtype=row_type),  # of out
        clip_gradient: wp.array(dtype=wp.vec4),  # [B*V], or [0] if not wanted
        attribute_gradient: wp.array(dtype=row_type),  # [(B or 1)*A], or [0] if not wanted
    ):
        p = wp.tid()
        pixel = int(pixels[p])
        triangle = ids[pixel] - 1
        line = pixel / grid.width
        frame = line / grid.height
        corner = faces[triangle]
        base = frame * grid.vertices
        weights = weigh(clip[base + corner[0]], clip[base + corner[1]], clip[base + corner[2]],
                        pixel - line * grid.width, line - frame * grid.height, grid)  # fmt: skip
        seam = attribute_faces[triangle]
        start = frame * grid.stride
        g = gradient[wp.where(grid.dense, pixel, p)]
        if attribute_gradient.shape[0] > 0:
            b = weights.clamped
            wp.atomic_add(attribute_gradient, start + seam[0], b[0] * g)
            wp.atomic_add(attribute_gradient, start + seam[1], b[1] * g)
            wp.atomic_add(attribute_gradient, start + seam[2], b[2] * g)
        if clip_gradient.shape[0] > 0:
            g0 = wp.dot(g, attributes[start + seam[0]])
            g1 = wp.dot(g, attributes[start + seam[1]])
            g2 = wp.dot(g, attributes[start + seam[2]])
            mean = g0 * weights.raw[0] + g1 * weights.raw[1] + g2 * weights.raw[2]
            slope = wp.vec3(g0 - mean, g1 - mean, g2 - mean) * (1.0 / weights.total)  # c_i = (G_i - sum G_k b_k) / S
            dx = wp.cross(weights.y, slope)  # dL/dX_i = y_{i+1} c_{i+2} - y_{i+2} c_{i+1}
            dy = wp.cross(slope, weights.x)  # dL/dY_i = x_{i+2} c_{i+1} - x_{i+1} c_{i+2}
            dw = -weights.centre_x * dx - weights.centre_y * dy
            wp.atomic_add(clip_gradient, base + corner[0], wp.vec4(dx[0], dy[0], 0.0, dw[0]))
            wp.atomic_add(clip_gradient, base + corner[1], wp.vec4(dx[1], dy[1], 0.0, dw[1]))
            wp.atomic_add(clip_gradient, base + corner[2], wp.vec4(dx[2], dy[2], 0.0, dw[2]))

    return row_type, interpolate, adjoint
