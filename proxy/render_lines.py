"""Landmark lines of a posed head, in the manner of DWPose and MediaPipe drawings: coloured lines on black."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .head_model import PARTS
from .landmark_points import table_of
from .posing import Shot

# Orders along MediaPipe's 478 points (left and right are the subject's); a line that closes repeats its first point.
_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148, 176, 149, 150, 136)
_OVAL += (172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10)
_RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33)
_LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263)
_OUTER_LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61)
_INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78)
LINES = (
    (_OVAL, (224, 224, 224)),
    ((46, 53, 52, 65, 55), (255, 170, 0)),
    ((70, 63, 105, 66, 107), (255, 170, 0)),
    ((276, 283, 282, 295, 285), (170, 255, 0)),
    ((300, 293, 334, 296, 336), (170, 255, 0)),
    ((168, 6, 197, 195, 5, 4, 1), (0, 200, 255)),
    ((64, 98, 97, 2, 326, 327, 294), (0, 200, 255)),
    (_RIGHT_EYE, (255, 80, 80)),
    (_LEFT_EYE, (80, 255, 80)),
    (_OUTER_LIPS, (255, 0, 170)),
    (_INNER_LIPS, (170, 0, 255)),
)
IRISES = (((469, 470, 471, 472), (255, 200, 200)), ((474, 475, 476, 477), (200, 255, 200)))
OVERSAMPLE = 3
IRIS_POINTS = 2  # of the four on its rim that must be uncovered for an iris to be drawn
LINE_WIDTH = 1 / 260  # of the picture's longer side
COVERED = 0.02  # metres behind what the picture shows at which a point is hidden
EYES = tuple(PARTS.index(name) for name in ("left_eye", "right_eye"))


def draw_landmark_lines(shot: Shot) -> Tensor:
    """Face lines [t, H, W, 3] on black; hidden lines and irises under closed lids are left out.

    Raises ValueError if the model has no landmark table.
    """
    points, seen, on_eye = project_landmarks(shot)
    camera = shot.stage.camera
    size = (camera.width, camera.height)
    images = [_draw(*frame, size) for frame in zip(points.cpu().numpy(), seen.cpu().numpy(), on_eye.cpu().numpy())]
    return torch.from_numpy(np.stack(images)).to(shot.vertices.device).float() / 255


def project_landmarks(shot: Shot) -> tuple[Tensor, Tensor, Tensor]:
    """Landmarks in pixels [t, 478, 2], whether the camera sees them and whether their pixel shows an eye [t, 478]."""
    table = table_of(shot.stage.model)
    camera = shot.stage.camera
    corners = shot.stage.model.faces[table.triangle]  # [478, 3]
    weight = table.barycentric[..., None].to(shot.vertices)
    points = (shot.vertices[:, corners] * weight).sum(2)
    normals = (shot.normals[:, corners] * weight).sum(2)
    facing = (normals * points).sum(-1) < 0
    pixels = camera.project(points)
    column = pixels[..., 0].floor().long().clamp(0, camera.width - 1)
    row = pixels[..., 1].floor().long().clamp(0, camera.height - 1)
    index = row * camera.width + column
    nearest = camera.inverse_depth(shot.raster.zw).flatten(1).gather(1, index)
    seen = facing & (-points[..., 2] - 1 / nearest.clamp(min=1e-3) < COVERED)
    ids = shot.raster.ids.flatten(1).gather(1, index).long()
    part = shot.stage.parts_and_empty[ids]
    on_eye = (part == EYES[0]) | (part == EYES[1])
    return pixels, seen, on_eye


def _draw(points: np.ndarray, seen: np.ndarray, on_eye: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = Image.new("RGB", (size[0] * OVERSAMPLE, size[1] * OVERSAMPLE))
    draw = ImageDraw.Draw(picture)
    width = max(OVERSAMPLE, round(max(size) * LINE_WIDTH * OVERSAMPLE))
    points = points * OVERSAMPLE
    for line, colour in LINES:
        for run in _visible_runs(line, seen):
            draw.line([tuple(points[i]) for i in run], fill=colour, width=width, joint="curve")
    for ring, colour in IRISES:
        shown = [i for i in ring if on_eye[i] and seen[i]]
        if len(shown) >= IRIS_POINTS:
            centre = points[list(ring)].mean(0)
            radius = max(width * 0.8, 0.45 * np.linalg.norm(points[list(ring)] - centre, axis=1).mean())
            draw.ellipse([*(centre - radius), *(centre + radius)], fill=colour)
    return np.asarray(picture.resize(size, Image.Resampling.BOX))


def _visible_runs(line: tuple[int, ...], seen: np.ndarray) -> list[list[int]]:
    """Consecutive stretches of a line whose segments have at least one end in sight."""
    runs: list[list[int]] = []
    for first, second in zip(line, line[1:]):
        if not (seen[first] or seen[second]):
            continue
        if runs and runs[-1][-1] == first:
            runs[-1].append(second)
        else:
            runs.append([first, second])
    return runs
