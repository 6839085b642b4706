import numpy as np
import pytest

from expportrait.proxy.mesh_cut import cut_mesh
from expportrait.proxy.subdivide import midpoint_triangles


def grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit square in the plane z = 0: vertices [V, 3] and triangles [F, 3] that face +z."""
    x, y = np.meshgrid(np.linspace(0, 1, size + 1), np.linspace(0, 1, size + 1))
    vertices = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    a = (np.arange(size)[:, None] * (size + 1) + np.arange(size)).ravel()
    b, c, d = a + 1, a + size + 2, a + size + 1
    return vertices, np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])


def signed_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    p, q, r = (vertices[faces[:, k]] for k in range(3))
    return np.cross(q - p, r - p)[:, 2] / 2


@pytest.mark.parametrize("normal, offset", [((1.0, 0.0), 0.33), ((0.6, 0.8), 0.71), ((-1.0, 0.2), -0.45), ((1.0, 1.0), 1.05)])
def test_cut_along_a_line_is_exact(normal, offset):
    vertices, faces = grid(7)
    field = offset - vertices[:, :2] @ normal
    cut = cut_mesh(field, faces, faces)
    points = cut.vertices(vertices)
    areas = signed_areas(points, cut.faces)
    assert areas.min() > 0  # orientation is kept
    samples = np.stack(np.meshgrid(*[(np.arange(2000) + 0.5) / 2000] * 2), -1)
    assert areas.sum() == pytest.approx((samples @ normal < offset).mean(), abs=1e-3)
    old = cut.share == 0
    assert np.array_equal(cut.first[old], np.flatnonzero(field > 0)) and not old[old.sum() :].any()
    assert np.array_equal(points[old], vertices[field > 0])
    np.testing.assert_allclose(cut.vertices(field)[~old], 0, atol=1e-12)


def test_rim_is_the_only_new_border():
    vertices, faces = grid(7)
    field = 0.16 - ((vertices[:, :2] - 0.5) ** 2).sum(1)  # a disc inside the square
    cut = cut_mesh(field, faces, faces)
    edges = np.sort(cut.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    unique, count = np.unique(edges, axis=0, return_counts=True)
    assert count.max() == 2
    assert (cut.share[unique[count == 1]] > 0).all()
    assert len(unique[count == 1]) == (cut.share > 0).sum()  # one closed loop


def test_texture_follows_over_a_seam():
    vertices, faces = grid(4)
    # Each triangle has texture corners of its own, so every edge is a seam.
    uv_faces = np.arange(3 * len(faces)).reshape(-1, 3)
    uv = vertices[faces.ravel(), :2]
    cut = cut_mesh(0.6 - vertices[:, 0] - 0.1 * vertices[:, 1], faces, uv_faces)
    np.testing.assert_allclose(cut.texture(uv)[cut.uv_faces], cut.vertices(vertices)[cut.faces][..., :2], atol=1e-12)


def test_nothing_to_cut():
    vertices, faces = grid(2)
    whole = cut_mesh(np.ones(len(vertices)), faces, faces)
    assert np.array_equal(whole.faces, faces) and np.array_equal(whole.vertices(vertices), vertices)


def test_subdivision_of_the_cut():
    vertices, faces = grid(3)
    cut = cut_mesh(0.8 - vertices[:, 0] * 0.7 - vertices[:, 1], faces, faces)
    points = cut.vertices(vertices)
    stencil, fine = midpoint_triangles(cut.faces, len(points))
    areas = signed_areas(stencil @ points, fine).reshape(-1, 4)
    np.testing.assert_allclose(areas, np.repeat(signed_areas(points, cut.faces)[:, None] / 4, 4, axis=1), atol=1e-15)
    assert np.array_equal((stencil @ points)[: len(points)], points)
    edges = np.sort(cut.faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    assert stencil.shape == (len(points) + len(np.unique(edges, axis=0)), len(points))  # one new vertex per edge
