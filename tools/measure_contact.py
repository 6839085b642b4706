"""Gaps between lids and between lips as a camera in front of them sees them, and teeth that show through lips.

Independent of the solver in transfer/: only rendered parts count, never the rims' samples.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import PARTS, HeadModel
from expportrait.proxy.raster import Rasterizer

PIXEL = 0.0001  # metres
DISTANCE = 3.0  # metres from which the narrow camera looks: perspective shifts 1 cm of depth by 0.05 mm at 15 mm off the axis
LIDS, LIPS = ((33, 133), (362, 263)), (78, 308)  # corners in MediaPipe's landmarks: right eye, left eye, inner lips
MIDDLE = 0.8  # share of the columns between the corners that count
ROBUST = 0.9  # quantile over those columns
INSIDE = ("upper_teeth", "lower_teeth", "gums", "tongue", "mouth")


@functools.lru_cache(maxsize=2)
def _rasterizer(model: HeadModel) -> tuple[Rasterizer, Tensor]:
    """Draws all but the corneas; with the part of each of a raster's ids."""
    shown = model.visible_faces()
    return Rasterizer(model.faces[shown], model.vertex_count), torch.cat([model.parts.new_full((1,), -1), model.parts[shown]])


@functools.lru_cache(maxsize=2)
def _lips(model: HeadModel) -> Rasterizer:
    """Draws the skin of the lips alone."""
    on_lips = (model.regions["lips"][model.faces] > 0.5).all(1) & (model.parts == PARTS.index("skin"))
    return Rasterizer(model.faces[on_lips], model.vertex_count)


def _view(head: Tensor, centre: Tensor, width: float, height: float) -> tuple[Tensor, tuple[int, int]]:
    """Clip coordinates [1, V, 4] and size in pixels of a crop of width x height metres around `centre` [3] of a head [V, 3]."""
    rows, columns = round(height / PIXEL), round(width / PIXEL)
    camera = Camera.centred(DISTANCE / PIXEL, columns, rows)
    return camera.clip(head - centre - centre.new_tensor([0.0, 0.0, DISTANCE]))[None].float(), (rows, columns)


def _parts(model: HeadModel, head: Tensor, centre: Tensor, width: float, height: float) -> Tensor:
    """Part [h, w] of each pixel of such a crop; -1 where it is empty."""
    rasterizer, parts = _rasterizer(model)
    return parts[rasterizer.rasterize(*_view(head, centre, width, height)).ids[0].long()]


def _gap(seen: Tensor) -> float:
    """Robust largest height in metres of marked pixels [h, w] per column."""
    heights = seen.sum(0).float() * PIXEL
    edge = round(len(heights) * (1 - MIDDLE) / 2)
    return float(heights[edge : len(heights) - edge].quantile(ROBUST))


def _opening(model: HeadModel, vertices: Tensor, corners: tuple[int, int]) -> tuple[Tensor, float]:
    right, left = model.landmarks.points(vertices[None], model.faces)[0, list(corners)]
    return (right + left) / 2, float((left - right)[:2].norm())


def lid_gap(model: HeadModel, vertices: Tensor) -> Tensor:
    """Height [B, 2] in metres of eyeball seen between the lids (left, right eye) of heads [B, V, 3] that face +z.

    The 90th percentile over the middle 80 % of the columns between the corners.
    """
    out = []
    for head in vertices:
        row = []
        for corners, name in zip(LIDS[::-1], ("left_eye", "right_eye")):
            centre, width = _opening(model, head, corners)
            row.append(_gap(_parts(model, head, centre, width, 0.03) == PARTS.index(name)))
        out.append(row)
    return torch.tensor(out)


def lip_gap(model: HeadModel, vertices: Tensor) -> Tensor:
    """Height [B] in metres of what is inside the mouth (teeth, gums, tongue, its lining) between lips of heads [B, V, 3] facing +z."""
    codes = torch.tensor([PARTS.index(name) for name in INSIDE], device=vertices.device)
    out = []
    for head in vertices:
        centre, width = _opening(model, head, LIPS)
        out.append(_gap(torch.isin(_parts(model, head, centre, width, 0.05), codes)))
    return torch.tensor(out)


def pierced(model: HeadModel, vertices: Tensor) -> Tensor:
    """Share [B] of the lips' pixels that teeth cover: teeth are the nearest surface, with the front of a lip behind them."""
    teeth = torch.tensor([PARTS.index(name) for name in ("upper_teeth", "lower_teeth")], device=vertices.device)
    out = []
    for head in vertices:
        centre, width = _opening(model, head, LIPS)
        lips = _lips(model).rasterize(*_view(head, centre, width, 0.05), cull=True).mask[0]
        covered = lips & torch.isin(_parts(model, head, centre, width, 0.05), teeth)
        out.append(float(covered.sum()) / max(1, int(lips.sum())))
    return torch.tensor(out)
