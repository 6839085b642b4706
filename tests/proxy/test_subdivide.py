"""Catmull-Clark and midpoint stencils against known cases."""

import numpy as np
import pytest

from expportrait.proxy import subdivide

CUBE = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
CUBE_QUADS = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])


def grid(columns: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    points = np.array([[x, y, 0.0] for y in range(rows + 1) for x in range(columns + 1)], float)
    corner = np.array([y * (columns + 1) + x for y in range(rows) for x in range(columns)])
    return points, np.stack([corner, corner + 1, corner + columns + 2, corner + columns + 1], axis=1)


def test_cube_gives_the_known_points():
    stencil, quads = subdivide.catmull_clark(CUBE_QUADS, 8)
    points = stencil @ CUBE
    assert points.shape == (8 + 6 + 12, 3) and quads.shape == (24, 4)
    # Valence 3: (F + 2 R + 0 S) / 3 with F = 1/3 and R = 2/3 per axis, so corners go to 5/9.
    np.testing.assert_allclose(points[:8], CUBE * 5 / 9, atol=1e-12)
    np.testing.assert_allclose(np.sort(np.abs(points[8:14]), axis=1), np.tile([0, 0, 1.0], (6, 1)), atol=1e-12)
    np.testing.assert_allclose(np.sort(np.abs(points[14:]), axis=1), np.tile([0, 0.75, 0.75], (12, 1)), atol=1e-12)


def test_new_quads_keep_the_winding_and_close_the_cube():
    stencil, quads = subdivide.catmull_clark(CUBE_QUADS, 8)
    p = (stencil @ CUBE)[quads]
    normal = np.cross(p[:, 2] - p[:, 0], p[:, 3] - p[:, 1])
    assert ((normal * p.mean(1)).sum(1) > 0).all()
    assert len(subdivide.border_edges(quads, len(stencil.toarray()))) == 0


@pytest.mark.parametrize("scheme", [subdivide.catmull_clark, subdivide.midpoint])
def test_rows_sum_to_one_and_planes_stay_flat(scheme):
    points, quads = grid(4, 3)
    points[:, 2] = 0.3 * points[:, 0] - 0.7 * points[:, 1] + 2
    stencil, _ = scheme(quads, len(points))
    np.testing.assert_allclose(stencil.sum(1), 1, atol=1e-12)
    dense = stencil @ points
    np.testing.assert_allclose(dense[:, 2], 0.3 * dense[:, 0] - 0.7 * dense[:, 1] + 2, atol=1e-12)


def test_border_is_the_cubic_curve_of_the_border_alone():
    points, quads = grid(3, 3)
    points[5] += [0.1, 0.2, 5.0]  # an inner vertex must not move the border
    stencil, _ = subdivide.catmull_clark(quads, len(points))
    dense = stencil @ points
    np.testing.assert_allclose(dense[1], (points[0] + 6 * points[1] + points[2]) / 8)
    assert np.abs(dense[[0, 1, 2, 3], 2]).max() == 0


def test_vertices_outside_the_mesh_stay_and_both_schemes_share_their_order():
    points, quads = grid(2, 2)
    stencil, smooth_quads = subdivide.catmull_clark(quads, len(points) + 1)
    assert stencil[len(points), len(points)] == 1
    linear, linear_quads = subdivide.midpoint(quads, len(points) + 1)
    np.testing.assert_array_equal(smooth_quads, linear_quads)
    np.testing.assert_allclose((linear @ np.vstack([points, np.zeros(3)]))[-1][2], 0)
