"""Draws the registry's icon and banner of the embedded head: wires on one side, surface normals on the other.

    python tools/make_icon.py
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from contact_sheet_head import DISTANCE, both
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_model import JOINTS, HeadModel, load_head_model
from expportrait.proxy.raster import Rasterizer
from expportrait.proxy.rotation import to_matrix

FOLDER = Path(__file__).resolve().parents[1] / "web"
ICON, BANNER = (400, 400), (1680, 720)  # the registry's: square of at most 400, and 21:9
FINER = 2  # drawn so many times as large
DARK, WIRE = (0.09, 0.1, 0.13), (0.45, 0.85, 0.95)
LINE = 0.09  # half a wire's width, in barycentric coordinates
FADE = 0.25  # share of the picture in which the shoulders fade out
CENTRE, HALF = (0.0, 0.7, 0.04), 0.17  # metres
SMILE = both("mouthSmile", "cheekSquint") | {"jawOpen": 0.15}
SURPRISE = both("browOuterUp", "eyeWide") | {"browInnerUp": 1.0, "jawOpen": 0.7}
DOUBT = {"browOuterUpLeft": 1.0, "browDownRight": 1.0, "mouthLeft": 0.6, "eyeSquintRight": 0.6}
ROW = ((DOUBT, 0.55), (SMILE, 0.0), (SURPRISE, -0.5))  # expression, turn in radians


def draw_head(model: HeadModel, expression: dict[str, float], turn: float, side: int) -> Tensor:
    """A square picture [side, side, 4] with coverage last; half of the head wires, the other half, which is seen more, normals."""
    pixels = side * FINER
    faces = model.faces[model.visible_faces()]
    raster = Rasterizer(torch.arange(faces.numel()).reshape(-1, 3), faces.numel())  # corners of their own, for the wires
    weights = torch.zeros(1, len(model.expression_names))
    for name, value in expression.items():
        weights[0, model.expression_index(name)] = value
    posed = model(torch.zeros(1, len(model.identity_names)), weights, torch.zeros(1, len(JOINTS), 3))
    rotation = to_matrix(torch.tensor([0.0, turn, 0.0]))
    seen = (posed - torch.tensor(CENTRE)) @ rotation.T - torch.tensor([0.0, 0.0, DISTANCE])
    clip = Camera.centred(pixels / 2 * DISTANCE / HALF, pixels, pixels).clip(seen[:, faces.flatten()], near=0.5, far=2.5)
    corners = torch.eye(3).repeat(len(faces), 1)
    shot = raster.rasterize(clip, (pixels, pixels), cull=True)
    attributes = torch.cat([(model.vertex_normals(posed) @ rotation.T)[:, faces.flatten()], corners[None]], -1)
    image = raster.interpolate(attributes, shot, clip)[0]
    normals, corners = F.normalize(image[..., :3], dim=-1), image[..., 3:]
    wire = (corners.amin(-1, keepdim=True) < LINE) * (0.35 + 0.65 * normals[..., 2:].clamp(min=0))
    wires = torch.tensor(DARK) * 1.6 * (1 - wire) + torch.tensor(WIRE) * wire
    across = torch.linspace(-1, 1, pixels)[None, :, None] + 0.12 * torch.linspace(1, -1, pixels)[:, None, None]
    surface = torch.sigmoid(across * (24 if turn >= 0 else -24))
    down = torch.linspace(0, 1, pixels)[:, None, None]
    aside = 1 - torch.linspace(-1, 1, pixels).abs()[None, :, None]
    mask = shot.mask[0][..., None] * ((1 - down) / FADE).clamp(max=1) * (aside / FADE).clamp(max=1)
    picture = torch.cat([torch.lerp(wires, (normals + 1) / 2, surface) * mask, mask], -1)
    return F.avg_pool2d(picture.permute(2, 0, 1)[None], FINER)[0].permute(1, 2, 0)


def over_dark(head: Tensor) -> Tensor:
    """Colour over a dark ground that is lighter behind the head."""
    height, width = head.shape[:2]
    y, x = torch.meshgrid(torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij")
    ground = torch.tensor(DARK) * (1.5 - 0.7 * (x**2 + y**2).sqrt().clamp(max=math.sqrt(2)))[..., None].clamp(min=0.6)
    return head[..., :3] + ground * (1 - head[..., 3:])


def as_image(picture: Tensor) -> Image.Image:
    return Image.fromarray((picture.clamp(0, 1) * 255).round().byte().numpy())


def main() -> None:
    model = load_head_model()
    as_image(over_dark(draw_head(model, SMILE, 0.25, ICON[0]))).save(FOLDER / "icon.png", optimize=True)
    side, step = 600, 470
    canvas = torch.zeros(BANNER[1], BANNER[0], 4)
    for number, (expression, turn) in enumerate(ROW):
        head = draw_head(model, expression, turn, side)
        left = (BANNER[0] - side) // 2 + (number - 1) * step
        place = canvas[20 : 20 + side, left : left + side]
        place.copy_(head + place * (1 - head[..., 3:]))
    banner = as_image(over_dark(canvas))
    draw = ImageDraw.Draw(banner)
    draw.text((BANNER[0] / 2, 668), "ExpPortrait", font=ImageFont.load_default(64), fill=(235, 240, 245), anchor="mm")
    banner.save(FOLDER / "banner.jpg", quality=90)


if __name__ == "__main__":
    main()
