"""Teeth and gums fitted to MakeHuman's bands."""

from __future__ import annotations

import numpy as np
from head_eyes import Piece
from head_regions import GUM, TOOTH, ramp

# Widths along the arch from the middle outwards and heights of the crowns, millimetres (Wheeler's Dental Anatomy, rounded).
# Upper crowns are 1.0 to 1.8 mm higher than there: MakeHuman's lip is drawn up far in a smile, which would bare the gums.
WIDTHS = {"upper": (8.5, 6.5, 7.5, 7.0, 7.0, 10.0, 9.5), "lower": (5.2, 5.8, 7.0, 7.0, 7.2, 11.0, 10.5)}
CROWNS = {"upper": (11.7, 10.6, 11.6, 10.6, 10.2, 9.2, 8.6), "lower": (8.8, 9.0, 10.0, 8.8, 8.2, 7.6, 7.2)}
DEPTHS = {"upper": (6.0, 5.6, 7.0, 8.4, 8.6, 10.2, 10.0), "lower": (5.2, 5.4, 6.8, 7.6, 8.0, 9.8, 9.6)}
# Upper incisors overlap the lower ones by 3 mm and show below the lip; MakeHuman's bands meet edge to edge and lie far behind the lips.
SHIFT = {"upper": (0.0, -0.0032, 0.0008), "lower": (0.0, 0.0001, 0.0004)}
# MakeHuman's arches stand off its thin cheeks, which leaves black gaps at the corners of a smile: wider everywhere, most at the premolars.
WIDER, WIDER_PREMOLARS = 0.03, 0.11
FLANK = 0.82  # light on a crown's sides, where it meets its neighbour, against its middle


def arch(name: str, band: np.ndarray) -> list[tuple[str, Piece, np.ndarray]]:
    """Islands of one arch: (island, piece, carrier centre per point [G, 3]) for teeth and gums over the band [68, 3]."""
    line, edge = _curve(name, band)
    line = line + SHIFT[name]
    return [_teeth(name, line, edge), _gums(name, line, edge)]


def _curve(name: str, band: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Outer line of the arch [N, 3] from the right end to the left at the biting edge's height, and its arc length [N]."""
    left = band[band[:, 0] >= -1e-6]
    angle = np.arctan2(left[:, 0], left[:, 2] - band[:, 2].min() + 0.004)
    bins = np.linspace(0, angle.max(), 9)
    line = []
    for a in bins:
        near = left[np.abs(angle - a) < 0.16]
        outer = near[np.argmax(np.hypot(near[:, 0], near[:, 2] - band[:, 2].min()))]
        bite = near[:, 1].min() if name == "upper" else near[:, 1].max()
        line.append([outer[0], bite, outer[2]])
    half = np.array(line)
    half[0, 0] = 0
    half[:, 0] *= 1 + WIDER + WIDER_PREMOLARS * np.sin(np.pi * bins / bins[-1])
    whole = np.concatenate([half[:0:-1] * [-1, 1, 1], half])
    fine = np.linspace(0, 1, 201)
    smooth = [np.polyval(np.polyfit(np.linspace(-1, 1, len(whole)), whole[:, k], 6), 2 * fine - 1) for k in range(3)]
    line = np.stack(smooth, axis=1)
    length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line[:, [0, 2]], axis=0), axis=1))])
    return line, length - length[-1] / 2


def _frame(line: np.ndarray, length: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Position, tangent and outward normal (in the horizontal plane), each [N, 3], at arc lengths [N]."""
    position = np.stack([np.interp(at, length, line[:, k]) for k in range(3)], axis=1)
    step = 5e-4
    ahead = np.stack(
        [np.interp(at + step, length, line[:, k]) - np.interp(at - step, length, line[:, k]) for k in range(3)], axis=1
    )
    ahead[:, 1] = 0
    tangent = ahead / np.linalg.norm(ahead, axis=1, keepdims=True)
    return position, tangent, np.cross(np.array([0.0, 1.0, 0.0]), tangent) * -1


def _teeth(name: str, line: np.ndarray, length: np.ndarray) -> tuple[str, Piece, np.ndarray]:
    sign = 1.0 if name == "upper" else -1.0  # upper crowns stand above their biting edge
    widths = np.array(WIDTHS[name]) * 1e-3
    scale = 0.97 * length[-1] / widths.sum()
    points, faces, uvs, centres, colours = [], [], [], [], []
    for side in (1, -1):
        middle = np.cumsum(widths) * scale - 0.5 * widths * scale
        for k, at in enumerate(side * middle):
            position, tangent, outward = (v[0] for v in _frame(line, length, np.array([at])))
            shape, triangles = _tooth(k)
            size = np.array([widths[k] * scale * 0.985, CROWNS[name][k] * 1e-3, DEPTHS[name][k] * 1e-3])
            local = shape * size * [1, sign, 1]
            world = position + local[:, :1] * tangent + local[:, 1:2] * [0, 1, 0] + (local[:, 2:] - 0.5 * size[2]) * outward
            offset = sum(map(len, points))
            points.append(world)
            mirrored = np.linalg.det(np.stack([tangent, [0, sign, 0], outward])) < 0
            faces.append((triangles[:, ::-1] if mirrored else triangles) + offset)
            centres.append(np.tile(world.mean(0), (len(world), 1)))
            column = (7 + k if side > 0 else 6 - k) / 14
            uvs.append(np.stack([column + (0.5 + 0.9 * shape[:, 0]) / 14, np.clip(shape[:, 1], 0, 1)], axis=1))
            neck = 0.80 + 0.20 * np.clip(1.2 - shape[:, 1:2], 0, 1)
            flank = 1 - (1 - FLANK) * ramp(np.abs(shape[:, :1]), 0.36, 0.49)
            colours.append(np.array(TOOTH) * neck * flank)
    points = np.concatenate(points)
    parts = np.full(sum(map(len, faces)), f"{name}_teeth")
    piece = Piece(points, np.concatenate(faces), np.concatenate(uvs), np.concatenate(colours), parts)
    return f"{name}_teeth", piece, np.concatenate(centres)


def _tooth(place: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit crown: x across -0.5..0.5, y 0 at the biting edge to 1 in the gum, z -0.5 inside to 0.5 outside; counter-clockwise."""
    rows, around = 5, 10
    molar = place >= 3
    turn = (np.arange(around) + 0.5) * 2 * np.pi / around
    power = 0.55
    cos, sin = np.cos(turn), np.sin(turn)
    x = 0.5 * np.sign(cos) * np.abs(cos) ** power
    z = 0.5 * np.sign(sin) * np.abs(sin) ** power
    heights = np.array([0.0, 0.10, 0.38, 0.72, 1.08])
    spread = np.array([0.90, 0.98, 1.0, 0.95, 0.80])
    depth = np.array([0.72, 0.92, 1.0, 1.0, 0.95]) if molar else np.array([0.26, 0.42, 0.68, 0.92, 1.0])
    # Front teeth are blades: their back slopes towards the biting edge while the front stays upright.
    front = np.zeros(rows) if molar else 0.5 * (1 - depth) - 0.05 * (1 - heights)
    rings = [
        np.stack([s * x, np.full(around, h), d * z + f], axis=1) for h, s, d, f in zip(heights, spread, depth, front, strict=True)
    ]
    cap = np.array([[0.0, 0.03 if molar else -0.02, front[0]]])
    points = np.concatenate([cap, *rings])
    here, after = np.arange(around), (np.arange(around) + 1) % around
    faces = [np.stack([np.zeros(around, int), 1 + here, 1 + after], axis=1)]
    for ring in range(rows - 1):
        a, b = 1 + ring * around, 1 + (ring + 1) * around
        faces += [np.stack([a + here, b + here, b + after], axis=1), np.stack([a + here, b + after, a + after], axis=1)]
    triangles = np.concatenate(faces)
    volume = np.einsum("ij,ij->", points[triangles[:, 0]], np.cross(points[triangles[:, 1]], points[triangles[:, 2]]))
    return points, triangles if volume > 0 else triangles[:, ::-1]


def _gums(name: str, line: np.ndarray, length: np.ndarray) -> tuple[str, Piece, np.ndarray]:
    """A rounded ridge over the crowns' necks, scalloped between the teeth."""
    sign = 1.0 if name == "upper" else -1.0
    widths = np.array(WIDTHS[name]) * 1e-3 * 0.97 * length[-1] / (np.array(WIDTHS[name]).sum() * 1e-3)
    stations = 43
    at = np.linspace(-length[-1], length[-1], stations) * 0.995
    borders = np.concatenate([[0], np.cumsum(widths)])
    tooth = np.clip(np.searchsorted(borders, np.abs(at), side="right") - 1, 0, 6)
    phase = (np.abs(at) - borders[tooth]) / widths[tooth]
    crown = np.interp(np.abs(at), borders[:-1] + 0.5 * widths, CROWNS[name]) * 1e-3
    depth = np.interp(np.abs(at), borders[:-1] + 0.5 * widths, DEPTHS[name]) * 1e-3
    margin = crown * (0.90 - 0.16 * (np.abs(2 * phase - 1) ** 2.5))
    position, _, outward = _frame(line, length, at)
    # Section from the outer margin over the ridge to the inner margin: (outward offset over depth, height above margin).
    section = [(0.02, -0.0004), (0.10, 0.0006), (0.12, 0.0022), (0.05, 0.0050), (-0.5, 0.0062), (-1.08, 0.0040), (-1.02, 0.0)]
    rows = [position + (o * depth)[:, None] * outward + np.outer(sign * (margin + h), [0, 1, 0]) for o, h in section]
    points = np.stack(rows, axis=1).reshape(-1, 3)
    across = len(section)
    quad = np.array(
        [
            [i * across + j, (i + 1) * across + j, (i + 1) * across + j + 1, i * across + j + 1]
            for i in range(stations - 1)
            for j in range(across - 1)
        ]
    )
    faces = np.concatenate([quad[:, [0, 1, 2]], quad[:, [0, 2, 3]]])
    middle = points[quad].mean(1) - np.repeat(
        position[:-1] - (0.5 * depth[:-1])[:, None] * outward[:-1] + np.outer(sign * margin[:-1], [0, 1, 0]), across - 1, axis=0
    )
    normal = np.cross(points[quad[:, 1]] - points[quad[:, 0]], points[quad[:, 2]] - points[quad[:, 0]])
    if (middle * normal).sum() < 0:
        faces = faces[:, ::-1]
    uv = np.stack(np.meshgrid(np.linspace(0, 1, stations), np.linspace(0, 1, across), indexing="ij"), axis=2).reshape(-1, 2)
    centres = np.repeat(position[np.clip(np.round(np.arange(stations) / 3).astype(int) * 3, 0, stations - 1)], across, axis=0)
    piece = Piece(points, faces, uv, np.tile(GUM, (len(points), 1)), np.full(len(faces), "gums"))
    return f"{name}_gums", piece, centres
