"""Two-layer eyeballs: an inner layer with sclera, iris disc and pupil, and a transparent cornea in front of it.

Proportions of the human eye relative to the iris: pupil 0.33, limbus 1.0; the disc is slightly hollow, the cornea bulges.
"""

from __future__ import annotations

import dataclasses

import numpy as np

SEGMENTS = 24
IRIS = 0.40  # radius of the iris over that of the eyeball
PUPIL = 0.34  # radius of the pupil over that of the iris
BULGE = 0.045  # how far the cornea's apex stands off the sphere, over the eyeball's radius
SCLERA, PUPIL_BLACK = (0.86, 0.82, 0.79), (0.015, 0.012, 0.012)
IRIS_INNER, IRIS_OUTER, LIMBUS = (0.36, 0.24, 0.13), (0.24, 0.15, 0.08), (0.07, 0.05, 0.04)
VEINED = (0.80, 0.66, 0.62)


@dataclasses.dataclass
class Piece:
    """A generated mesh."""

    points: np.ndarray  # [G, 3]
    faces: np.ndarray  # [F, 3]
    uv: np.ndarray  # [G, 2] in its own 0..1 square
    albedo: np.ndarray  # [G, 3]
    parts: np.ndarray  # [F] names of proxy.head_model.PARTS


def eyeball(name: str) -> Piece:
    """Inner layer and cornea of the unit sphere that looks to +z; `name` is the inner layer's part."""
    inner_radius, inner_depth, colours = _inner_profile()
    inner, inner_faces = _lathe(inner_radius, inner_depth)
    cornea_radius, cornea_depth = _cornea_profile()
    cornea, cornea_faces = _lathe(cornea_radius, cornea_depth)
    flat = _azimuthal(inner)
    ring_colour = np.concatenate([colours[:1], np.repeat(colours[1:], SEGMENTS, axis=0)])
    return Piece(
        np.concatenate([inner, cornea]),
        np.concatenate([inner_faces, cornea_faces + len(inner)]),
        np.concatenate([flat, 0.06 + 0.10 * cornea[:, :2]]),
        np.concatenate([ring_colour, np.full((len(cornea), 3), 0.9)]),
        np.array([name] * len(inner_faces) + ["cornea"] * len(cornea_faces)),
    )


def _inner_profile() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Radius, depth and colour of the rings from the pupil's centre to the back of the ball."""
    edge_depth = np.sqrt(1 - IRIS**2)
    pupil = IRIS * PUPIL
    disc = [(0.0, edge_depth - 0.10, PUPIL_BLACK), (0.85 * pupil, edge_depth - 0.10, PUPIL_BLACK)]
    disc += [(pupil, edge_depth - 0.055, PUPIL_BLACK), (1.08 * pupil, edge_depth - 0.05, IRIS_INNER)]
    for t in (0.3, 0.6, 0.85):
        colour = (1 - t) * np.array(IRIS_INNER) + t * np.array(IRIS_OUTER)
        disc.append((pupil + t * (IRIS - pupil), edge_depth - 0.05 + 0.03 * t, colour))
    disc += [(0.98 * IRIS, edge_depth - 0.012, LIMBUS)]
    angles = np.concatenate([np.arcsin(IRIS) + np.array([0.01, 0.055, 0.14]), np.linspace(0.66, np.pi - 0.12, 11)])
    for angle in angles:
        veins = np.clip((angle - 0.55) / 0.7, 0, 1)
        colour = (1 - veins) * np.array(SCLERA) + veins * np.array(VEINED)
        if angle < np.arcsin(IRIS) + 0.05:
            colour = 0.5 * np.array(LIMBUS) + 0.5 * np.array(SCLERA)
        disc.append((np.sin(angle), np.cos(angle), colour))
    radius, depth, colours = zip(*disc, strict=True)
    return np.array(radius), np.array(depth), np.array([np.asarray(c, float) for c in colours])


def _cornea_profile() -> tuple[np.ndarray, np.ndarray]:
    """A cap that leaves the sphere smoothly a little outside the iris and bulges in front of it."""
    angles = np.linspace(0, np.arcsin(1.22 * IRIS), 8)
    s = angles / angles[-1]
    lift = 1.002 + BULGE * (1 - s**2) ** 2
    return lift * np.sin(angles), lift * np.cos(angles)


def _lathe(radius: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Surface of revolution about z; ring 0 is a single point. Outward faces counter-clockwise."""
    turn = np.arange(SEGMENTS) * 2 * np.pi / SEGMENTS
    rings = np.stack(
        [np.outer(radius[1:], np.cos(turn)), np.outer(radius[1:], np.sin(turn)), np.outer(depth[1:], np.ones(SEGMENTS))], axis=2
    )
    points = np.concatenate([[[0.0, 0.0, depth[0]]], rings.reshape(-1, 3)])
    here, after = np.arange(SEGMENTS), (np.arange(SEGMENTS) + 1) % SEGMENTS
    faces = [np.stack([np.zeros(SEGMENTS, int), 1 + here, 1 + after], axis=1)]
    for ring in range(len(radius) - 2):
        a, b = 1 + ring * SEGMENTS, 1 + (ring + 1) * SEGMENTS
        faces += [np.stack([a + here, b + here, b + after], axis=1), np.stack([a + here, b + after, a + after], axis=1)]
    return points, np.concatenate(faces)


def _azimuthal(points: np.ndarray) -> np.ndarray:
    """Equidistant map of the sphere with the front half enlarged: the iris takes a third of the square's width."""
    angle = np.arctan2(np.hypot(points[:, 0], points[:, 1]), points[:, 2])
    radius = 0.5 * (angle / np.pi) ** 0.62
    turn = np.arctan2(points[:, 1], points[:, 0])
    return 0.5 + radius[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)


SHRINK = 0.985  # MakeHuman's ball touches its lids; ours stays just inside them


def fit_sphere(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre [3] and radius of the least-squares sphere through points [N, 3]."""
    system = np.concatenate([2 * points, np.ones((len(points), 1))], axis=1)
    solution = np.linalg.lstsq(system, (points**2).sum(1), rcond=None)[0]
    return solution[:3], float(np.sqrt(solution[3] + solution[:3] @ solution[:3]))


def spread(points: np.ndarray, count: int) -> np.ndarray:
    """Indices of `count` points that lie far from each other."""
    chosen = [int(points[:, 2].argmax())]
    for _ in range(count - 1):
        distance = np.linalg.norm(points[:, None] - points[chosen], axis=2).min(1)
        chosen.append(int(distance.argmax()))
    return np.array(chosen)
