"""A motion in one picture: heads along the time, and the curves of mouth, lids and pose below them."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

from ..proxy.camera import Camera
from ..proxy.head_model import HeadModel
from ..proxy.head_proxy import HeadProxy
from ..proxy.posing import Stage, camera_space
from .motion_curves import motion_curves

WIDTH, HEADS, HEAD, PLOT, LEFT = 768, 8, 96, 84, 44  # pixels but for the number of heads
FINER = 2  # lines are drawn larger by this and averaged
BACK, FRAME, TEXT, LOST = (24, 24, 28), (70, 70, 78), (215, 215, 220), (60, 30, 30)
COLOURS = ((255, 170, 60), (80, 190, 255), (150, 220, 110))
# By group: unit, and what its plot shows at least.
RANGES = {"mouth": ("eye distances", 0.0, 0.6), "lids": ("of rest", 0.0, 1.2), "pose": ("degrees", -15.0, 15.0)}
HEAD_SHARE = 0.9  # of a head's cell


def motion_strip(motion, model: HeadModel | None = None, proxy: HeadProxy | None = None) -> Tensor:
    """Picture [H, WIDTH, 3] in 0..1, on the CPU, of a HeadMotion, or of a HeadTrack without a proxy, of T frames.

    From above: up to HEADS heads as camera-space normals, if model and proxy are given; `motion_curves` over the time in seconds.
    Frames that were filled in are marked red. Raises ValueError for a motion without frames.
    """
    if len(motion) < 1:
        raise ValueError("the motion has no frames to show; transfer at least one frame")
    plots = [_plot(name, curves, motion.valid, motion.fps) for name, curves in motion_curves(motion, model).items()]
    parts = plots if model is None or proxy is None else [_heads(motion, model, proxy), *plots]
    return torch.cat(parts)


def _heads(motion, model: HeadModel, proxy: HeadProxy) -> Tensor:
    """Heads at even steps of time, each over the middle of its span."""
    count = min(HEADS, len(motion))
    chosen = [int((k + 0.5) * len(motion) / count) for k in range(count)]
    points = camera_space(model, proxy, motion.select(chosen))
    skull = points[:, model.weights[:, model.pivot] > 0.5]
    side = 4 * HEAD
    camera = _camera_of(skull, side)
    shot = Stage(model, camera).shot(points - skull.mean(1, keepdim=True) + skull.mean((0, 1)))
    (normals,) = shot.pixels(shot.normals)
    shade = shot.raster.scatter(torch.cat([(F.normalize(normals, dim=-1) + 1) / 2, torch.ones_like(normals[:, :1])], -1))
    shade = F.avg_pool2d(shade.permute(0, 3, 1, 2), side // HEAD)  # [count, 4, HEAD, HEAD]
    back = shade.new_tensor(BACK)[:, None, None] / 255
    cells = (shade[:, :3] + (1 - shade[:, 3:]) * back).clamp(0, 1).cpu()
    row = back.cpu().expand(3, HEAD, WIDTH).clone()
    for k, cell in enumerate(cells):
        start = LEFT + int((k + 0.5) * (WIDTH - LEFT) / count) - HEAD // 2
        row[:, :, max(0, start) : start + HEAD] = cell[:, :, max(0, -start) : HEAD - max(0, start + HEAD - WIDTH)]
    return row.permute(1, 2, 0)


def _camera_of(skull: Tensor, side: int) -> Camera:
    """A square camera that looks at skulls [count, V, 3] from where the motion's camera stands."""
    middle = skull.mean((0, 1))
    reach = (skull - skull.mean(1, keepdim=True)).norm(dim=-1).amax()
    focal = float(HEAD_SHARE * side / 2 * -middle[2] / reach)
    away = focal / -float(middle[2])
    return Camera(focal, side, side, side / 2 - away * float(middle[0]), side / 2 + away * float(middle[1]))


def _plot(group: str, curves: dict[str, Tensor], valid: Tensor, fps: float) -> Tensor:
    """One plot [PLOT, WIDTH, 3]."""
    unit, low, high = RANGES[group]
    values = torch.stack(list(curves.values()))
    known = values[values.isfinite()]
    low, high = (min(low, float(known.min())), max(high, float(known.max()))) if known.numel() else (low, high)
    picture = Image.new("RGB", (FINER * WIDTH, FINER * PLOT), BACK)
    draw = ImageDraw.Draw(picture)
    top, bottom, count = FINER * 16, FINER * (PLOT - 4), values.shape[1]
    left, right = FINER * LEFT, FINER * WIDTH - 1

    def across(frame: float) -> float:
        return left + (right - left) * (frame + 0.5) / count

    def up(value: float) -> float:
        return bottom - (bottom - top) * (value - low) / (high - low)

    for frame in (~valid).nonzero()[:, 0].tolist():
        draw.rectangle([across(frame - 0.5), top, across(frame + 0.5), bottom], fill=LOST)
    draw.line([left, up(max(low, 0.0)), right, up(max(low, 0.0))], fill=FRAME, width=FINER)
    for second in range(1, math.ceil(count / fps)):
        draw.line([across(second * fps - 0.5), top, across(second * fps - 0.5), bottom], fill=FRAME, width=1)
    for colour, row in zip(COLOURS, values):
        points = [(across(k), up(float(value))) for k, value in enumerate(row) if math.isfinite(value)]
        if len(points) == 1:
            points = [(left, points[0][1]), (right, points[0][1])]
        draw.line(points, fill=colour, width=2 * FINER, joint="curve")
    picture = picture.resize((WIDTH, PLOT), Image.BOX)
    draw = ImageDraw.Draw(picture)
    draw.text((4, 1), f"{group}, {unit}", fill=TEXT)
    start = WIDTH // 3
    for colour, name in zip(COLOURS, curves):
        draw.text((start, 1), name, fill=colour)
        start += 60
    draw.text((WIDTH - 90, 1), f"{count / fps:.1f} s", fill=TEXT)
    for value, place in ((high, 14), (low, PLOT - 15)):
        draw.text((4, place), f"{round(value, 1) + 0.0:.1f}", fill=TEXT)  # + 0.0 makes of -0.0 a plain 0
    return torch.from_numpy(np.asarray(picture).copy()).float() / 255
