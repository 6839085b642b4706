"""Texture layout: MakeHuman's islands packed anew into one square, most of it for the face."""

from __future__ import annotations

import numpy as np

# Name: x, y, width, height of the box in the square (v up).
BOXES = {
    "face": (0.004, 0.284, 0.992, 0.712),
    "torso": (0.004, 0.004, 0.40, 0.272),
    "mouth": (0.41, 0.004, 0.17, 0.134),
    "tongue": (0.41, 0.146, 0.17, 0.13),
    "left_eye": (0.585, 0.146, 0.065, 0.13),
    "right_eye": (0.655, 0.146, 0.065, 0.13),
    "left_eyeball": (0.585, 0.004, 0.135, 0.135),
    "right_eyeball": (0.725, 0.004, 0.135, 0.135),
    "upper_teeth": (0.725, 0.146, 0.27, 0.063),
    "lower_teeth": (0.725, 0.213, 0.27, 0.063),
    "upper_gums": (0.865, 0.004, 0.13, 0.063),
    "lower_gums": (0.865, 0.071, 0.13, 0.063),
}
MAGNIFY = (1.6, 0.30, 0.9, 0.42)  # extra scale and its width about the face's centre, across and up


def pack_island(name: str, uv: np.ndarray, x_of: np.ndarray, y_of: np.ndarray) -> np.ndarray:
    """Turns an island so that u grows with x and v with y of its vertices, enlarges the face, and fits it into its box."""
    centred = uv - uv.mean(0)
    upright = abs(centred[:, 0] @ (x_of - x_of.mean())) >= abs(centred[:, 1] @ (x_of - x_of.mean()))
    placed = uv if upright else uv[:, ::-1]
    placed = placed * np.sign([_slope(placed[:, 0], x_of), _slope(placed[:, 1], y_of)])
    low, high = placed.min(0), placed.max(0)
    placed = (placed - low) / (high - low)
    if name == "face":
        placed = np.stack([_magnified(placed[:, 0], 0.5, *MAGNIFY[:2]), _magnified(placed[:, 1], 0.42, *MAGNIFY[2:])], axis=1)
    return fit_box(name, placed)


def fit_box(name: str, unit: np.ndarray) -> np.ndarray:
    """Coordinates of the unit square into the box of an island."""
    x, y, width, height = BOXES[name]
    return np.array([x, y]) + np.clip(unit, 0, 1) * np.array([width, height])


def _slope(a: np.ndarray, b: np.ndarray) -> float:
    return (a - a.mean()) @ (b - b.mean())


def _magnified(t: np.ndarray, centre: float, extra: float, width: float) -> np.ndarray:
    """Monotone map of 0..1 onto itself with scale 1 + extra at the centre, falling off as a Gaussian."""
    grid = np.linspace(0, 1, 2001)
    density = 1 + extra * np.exp(-(((grid - centre) / (0.5 * width)) ** 2))
    total = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(t, grid, total / total[-1])
