"""Contact sheets: pictures of any size in rows of one height, with labels, to be looked at by people."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from torch import Tensor

GAP = 4
LABEL = 14


def contact_sheet(rows: Sequence[Sequence[Tensor]], labels: Sequence[str] | None = None, height: int = 256) -> Tensor:
    """Lays out pictures [H, W, 3 or 1] in 0..1 row by row, each scaled to `height` -> [H', W', 3] on dark grey.

    `labels` name the columns. Raises ValueError if there is no picture.
    """
    if not rows or not any(len(row) for row in rows):
        raise ValueError("a contact sheet needs at least one picture; give rows of images")
    scaled = [[_scale(image, height) for image in row] for row in rows]
    width = max(sum(image.shape[1] + GAP for image in row) for row in scaled) - GAP
    top = LABEL if labels else 0
    sheet = torch.full((top + len(rows) * (height + GAP) - GAP, width, 3), 0.12)
    for r, row in enumerate(scaled):
        x = 0
        for image in row:
            sheet[top + r * (height + GAP) :, x : x + image.shape[1]][:height] = image
            x += image.shape[1] + GAP
    if labels:
        starts = [sum(image.shape[1] + GAP for image in scaled[0][:i]) for i in range(len(scaled[0]))]
        sheet[:top] = _label_bar(width, starts, labels)
    return sheet


def _scale(image: Tensor, height: int) -> Tensor:
    image = image.detach().float().cpu().expand(-1, -1, 3).permute(2, 0, 1)[None]
    width = max(1, round(image.shape[-1] * height / image.shape[-2]))
    image = F.interpolate(image, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return image[0].permute(1, 2, 0).clamp(0, 1)


def _label_bar(width: int, starts: Sequence[int], labels: Sequence[str]) -> Tensor:
    bar = Image.new("RGB", (width, LABEL), (31, 31, 31))
    draw = ImageDraw.Draw(bar)
    for x, label in zip(starts, labels):
        draw.text((x + 2, 1), label, fill=(230, 230, 230))
    return torch.from_numpy(np.asarray(bar).copy()).float() / 255
