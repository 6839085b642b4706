"""The measures of tools/bench_refine.py on meshes whose answers are known."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from expportrait.proxy.camera import Camera
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import FACE_OVAL, LEFT_CORNER, RIGHT_CORNER
from expportrait.proxy.posing import Stage
from expportrait.proxy.rotation import to_matrix

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS.parent / "tools"), str(TESTS / "proxy")]

from refine_metrics import (  # noqa: E402
    Surface,
    align_points,
    align_to_surface,
    closest_on_triangles,
    correlation,
    degrees_between,
    face_ovals,
    flicker,
    landmark_error,
    normal_error,
    normal_images,
    psnr,
    scan_distance,
    signed_distances,
    vertex_areas,
)
from synthetic_head import KnownClip, loop_subdivision, polygon_distance, segment_distance, smoothstep, waves  # noqa: E402
from toy_head import make_model  # noqa: E402


def _bumpy(steps: int = 60, bump: float = 0.004) -> tuple[torch.Tensor, torch.Tensor]:
    """A face-sized cap with bumps, so that it cannot slide along itself: vertices [V, 3] and triangles [F, 3]."""
    at = torch.linspace(-0.07, 0.07, steps)
    y, x = torch.meshgrid(at, at, indexing="ij")
    z = -6 * (x * x + 0.7 * y * y) + bump * torch.sin(90 * x) * torch.cos(70 * y + 30 * x)
    index = torch.arange(steps * steps).view(steps, steps)
    a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
    faces = torch.stack([torch.stack([a, b, c], -1), torch.stack([a, c, d], -1)]).reshape(-1, 3)
    return torch.stack([x, y, z], -1).reshape(-1, 3), faces


def _moved(points: torch.Tensor) -> torch.Tensor:
    return points.double() @ to_matrix(torch.tensor([[0.1, -0.2, 0.05]], dtype=torch.float64))[0].mT + torch.tensor([0.02, 0.05, -0.6])


def _middle(vertices: torch.Tensor, generator: torch.Generator, count: int = 600) -> torch.Tensor:
    inner = (vertices[:, :2].abs().amax(1) < 0.055).nonzero()[:, 0]
    return inner[torch.randperm(len(inner), generator=generator)[:count]]


def test_normals_turned_by_a_known_angle_read_as_that_angle(generator):
    true = torch.nn.functional.normalize(torch.randn(2, 9, 11, 3, generator=generator), dim=-1)
    mask = torch.rand(2, 9, 11, generator=generator) > 0.3
    for degrees in (0.0, 0.01, 5.0, 90.0, 180.0):
        across = torch.nn.functional.normalize(torch.linalg.cross(true, torch.randn(true.shape, generator=generator)), dim=-1)
        turned = math.cos(math.radians(degrees)) * true + math.sin(math.radians(degrees)) * across
        error, overlap = normal_error(turned, true, mask)
        assert error == pytest.approx(degrees, abs=2e-3) and overlap == 1
    assert degrees_between(true[mask], true[mask]).max() < 1e-4


def test_normals_count_where_both_heads_are(generator):
    true = torch.zeros(1, 4, 4, 3)
    true[:, :, :3, 2] = 1
    found = torch.zeros(1, 4, 4, 3)
    found[:, :2, :, 0] = 1
    error, overlap = normal_error(found, true, torch.ones(1, 4, 4, dtype=torch.bool))
    assert error == pytest.approx(90) and overlap == pytest.approx(6 / 16)
    with pytest.raises(ValueError, match="do not overlap"):
        normal_error(found * 0, true, torch.ones(1, 4, 4, dtype=torch.bool))


def test_closest_point_on_a_triangle():
    corners = torch.tensor([[0.0, 0, 0], [2, 0, 0], [0, 1, 0]]).double()
    points = torch.tensor([[0.5, 0.25, 3.0], [-1, -1, 0], [5, 0, 1], [1, -2, 0], [1.4, 1.8, 0]]).double()
    expected = torch.tensor([[0.5, 0.25, 0], [0, 0, 0], [2, 0, 0], [1, 0, 0], [0.8, 0.6, 0]]).double()
    assert torch.allclose(closest_on_triangles(points, corners.expand(5, 3, 3)), expected)


def test_nearest_is_that_of_all_triangles(generator):
    vertices, faces = _bumpy(30)
    points = vertices[_middle(vertices, generator, 200)] + 0.003 * torch.randn(200, 3, generator=generator)
    found = Surface(vertices, faces).nearest(points).distance
    every = closest_on_triangles(points.double()[:, None], vertices.double()[faces][None])
    assert torch.allclose(found, (every - points.double()[:, None]).norm(dim=-1).amin(1), atol=1e-7)


def test_a_rigid_motion_is_no_distance(generator):
    vertices, faces = _bumpy()
    surface, chosen = Surface(_moved(vertices), faces), _middle(vertices, generator)
    rough = _moved(vertices[chosen]) + 0.004 * torch.randn(len(chosen), 3, generator=generator)
    assert scan_distance(vertices[chosen], surface, (vertices[chosen], rough)) < 2e-6


def test_a_shifted_part_reads_as_its_shift(generator):
    vertices, faces = _bumpy()
    chosen = _middle(vertices, generator, 900)
    # Half of the points lie 1 mm outside and half 1 mm inside along the normals, mixed evenly: no rigid motion helps.
    corners = vertices[faces]
    normal = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = torch.zeros_like(vertices).index_add(0, faces.flatten(), normal.repeat_interleave(3, 0))
    side = torch.ones(len(chosen)).masked_fill(torch.arange(len(chosen)) % 2 == 1, -1.0)
    points = vertices[chosen] + 0.001 * side[:, None] * torch.nn.functional.normalize(normals[chosen], dim=-1)
    found = scan_distance(points, Surface(_moved(vertices), faces), (points, _moved(points)))
    assert found == pytest.approx(0.001, rel=0.03)


def test_scale_is_left_to_the_scaled_distance(generator):
    vertices, faces = _bumpy()
    chosen = _middle(vertices, generator)
    surface = Surface(0.9 * _moved(vertices), faces)
    matches = (vertices[chosen], 0.9 * _moved(vertices[chosen]))
    assert align_points(*matches, scaled=True).scale == pytest.approx(0.9, abs=1e-6)
    assert scan_distance(vertices[chosen], surface, matches) > 5e-4
    assert scan_distance(vertices[chosen], surface, matches, scaled=True) < 5e-6
    worse = (matches[0], matches[1] + 0.003 * torch.randn(len(chosen), 3, generator=generator))
    aligned = align_to_surface(vertices[chosen], surface, align_points(*worse, scaled=True), scaled=True)
    assert aligned.scale == pytest.approx(0.9, abs=1e-3)


def test_alignment_in_closed_form_never_mirrors(generator):
    points = torch.randn(40, 3, generator=generator)
    aligned = align_points(points, points * torch.tensor([1.0, 1.0, -1.0]))
    assert torch.linalg.det(aligned.rotation) == pytest.approx(1)


def test_signed_distance_is_positive_outside(generator):
    vertices, faces = _bumpy()
    chosen = _middle(vertices, generator)
    larger = vertices.clone()
    bulge = torch.exp(-((vertices[:, :2] / 0.012) ** 2).sum(1))
    larger[:, 2] += 0.002 * bulge
    predicted = _moved(larger).float()
    signed = signed_distances(
        predicted, Surface(vertices, faces), (vertices[chosen], predicted[chosen]), vertices[chosen], Surface(predicted, faces)
    )
    assert signed[bulge > 0.95].min() > 0.001 and signed[(bulge < 0.01) & (vertices[:, :2].abs().amax(1) < 0.05)].abs().max() < 4e-4


def test_psnr_correlation_and_areas(generator):
    photo = torch.rand(50, 3, generator=generator)
    assert psnr(photo + 0.1, photo) == pytest.approx(20, abs=1e-4)
    field, weight = torch.randn(500, generator=generator), torch.rand(500, generator=generator)
    assert correlation(field, 3 * field + 2, weight) == pytest.approx(1, abs=1e-5)
    assert correlation(field, -field, weight) == pytest.approx(-1, abs=1e-5)
    assert abs(correlation(field, torch.randn(500, generator=generator), weight)) < 0.2
    assert correlation(field, torch.zeros_like(field), weight) == 0
    square = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0], [5, 5, 5]])
    assert vertex_areas(square, torch.tensor([[0, 1, 2], [0, 2, 3]])).tolist() == pytest.approx([1 / 3, 1 / 6, 1 / 3, 1 / 6, 0])


def test_loop_subdivision_keeps_a_plane_and_rounds_a_solid():
    vertices, faces = _bumpy(6)
    flat = vertices * torch.tensor([1.0, 1.0, 0.0])
    stencil, split = loop_subdivision(faces.numpy(), len(vertices))
    assert np.allclose(stencil.sum(1), 1) and len(split) == 4 * len(faces)
    fine = stencil @ flat.double().numpy()
    area = vertex_areas(torch.from_numpy(fine).float(), torch.from_numpy(split)).sum()
    assert float(area) == pytest.approx(float(vertex_areas(flat, faces).sum()), rel=1e-5)
    corners = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [-1, 0, 0], [0, -1, 0], [0, 0, -1]])
    solid = np.array([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    # Valence 4: a corner keeps 5/8 of itself, and its four neighbours cancel; an edge has 3/8 of its ends, the rest cancels.
    fine = loop_subdivision(solid, 6)[0] @ corners
    assert np.allclose(np.linalg.norm(fine[:6], axis=1), 5 / 8)
    assert np.allclose(np.abs(fine[6:]).sum(1), 6 / 8)


def test_shapes_of_the_synthetic_head(generator):
    points = torch.tensor([[0.5, 0.5], [2.0, 0.5], [0.5, 0.1]])
    square = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert polygon_distance(points, square).tolist() == pytest.approx([-0.5, 1.0, -0.1])
    assert segment_distance(points, square[:2]).tolist() == pytest.approx([0.5, math.hypot(1, 0.5), 0.1])
    assert smoothstep(torch.tensor([-1.0, 0.5, 2.0]), 0, 1).tolist() == [0.0, 0.5, 1.0]
    field = waves(torch.rand(4000, 3, generator=generator) * 0.2, (0.010, 0.045), generator)
    assert float(field.square().mean()) == pytest.approx(1, abs=1e-4) and abs(float(field.mean())) < 0.3


def test_a_resized_clip_shows_the_same_pictures():
    clip = KnownClip(
        images=torch.rand(1, 4, 4, 3),
        normals=torch.tensor([0.0, 0.0, 1.0]).expand(1, 4, 4, 3) * torch.eye(4)[None, ..., None],
        face=torch.eye(4).bool()[None],
        vertices=torch.rand(1, 5, 3) - torch.tensor([0.0, 0.0, 2.0]),
        seen=torch.ones(1, 5, dtype=torch.bool),
        faces=torch.tensor([[0, 1, 2]]),
        camera=None,
    )
    smaller = clip.resized(0.5)
    assert torch.equal(smaller.images, clip.images) and torch.equal(smaller.vertices, clip.vertices / 2)
    assert clip.normal_images[0, 0].tolist() == [[0.5, 0.5, 1.0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


SIZE = 128


@pytest.fixture
def head(generator):
    """The toy head, bumpy, and its vertices [V, 3] in camera space."""
    model = make_model(generator)
    at_rest = model.forward(torch.zeros(1, 12), torch.zeros(1, 10), torch.zeros(1, 6, 3))[0]
    bumps = 1 + 0.04 * torch.sin(120 * at_rest[:, :1]) * torch.cos(100 * at_rest[:, 1:2])
    return model, at_rest * bumps + torch.tensor([0.0, 0.0, -0.6])


def _track(model, landmarks: torch.Tensor) -> HeadTrack:
    frames = len(landmarks)
    return HeadTrack(
        model_id=model.model_id,
        identity=torch.zeros(12),
        expression=torch.zeros(frames, 10),
        joints=torch.zeros(frames, 6, 3),
        translation=torch.tensor([[0.0, 0.0, -0.6]]).repeat(frames, 1),
        focal=300.0,
        width=SIZE,
        height=SIZE,
        fps=25.0,
        valid=torch.ones(frames, dtype=torch.bool),
        confidence=torch.ones(frames),
        landmarks=landmarks,
        landmarks_fit=landmarks,
    )


def _outlined(frames: int, radius: float) -> torch.Tensor:
    """Landmarks [T, 478, 2] whose face oval is a circle in the middle of the picture."""
    points = torch.full((frames, 478, 2), SIZE / 2)
    turn = torch.linspace(0, 2 * math.pi, len(FACE_OVAL) + 1)[:-1]
    points[:, FACE_OVAL] += radius * torch.stack([turn.sin(), turn.cos()], -1)
    points[:, LEFT_CORNER, 0] += 10
    points[:, RIGHT_CORNER, 0] -= 10
    return points


def test_the_face_is_what_the_oval_holds(generator):
    ovals = face_ovals(_track(make_model(generator), _outlined(2, 30)))
    assert ovals.shape == (2, SIZE, SIZE) and bool(ovals[0, SIZE // 2, SIZE // 2]) and not bool(ovals[0, :10].any())
    assert float(ovals[1].sum()) == pytest.approx(math.pi * 30**2, rel=0.05)


def test_a_head_that_moves_sideways_does_not_flicker(head):
    model, vertices = head
    stage, track = Stage(model, Camera.centred(300, SIZE, SIZE)), _track(model, _outlined(4, 20))
    still = torch.stack([vertices] * 4)
    assert flicker(stage, still, track) == pytest.approx((0, 0), abs=1e-3)
    shift = torch.tensor([0.004, 0.0, 0.0]) * torch.arange(4)[:, None, None]
    followed, in_place = flicker(stage, still + shift, track)
    assert followed < 1e-3 and in_place > 1


def test_normals_that_tremble_flicker_by_their_angle(head):
    model, vertices = head
    stage, track = Stage(model, Camera.centred(300, SIZE, SIZE)), _track(model, _outlined(5, 25))
    middle = torch.tensor([0.0, 0.0, -0.6])
    turn = to_matrix(torch.tensor([[0.0, math.radians(2), 0.0]]))[0]
    turned = (vertices - middle) @ turn.mT + middle
    trembling = torch.stack([vertices, turned, vertices, turned, vertices])
    shown = normal_images(stage, vertices[None])[face_ovals(track)[:1]]
    shown = shown[(shown != 0).any(-1)]
    followed, _ = flicker(stage, trembling, track)
    assert followed == pytest.approx(float(degrees_between(shown, shown @ turn.mT).mean()), rel=0.02)


def test_landmark_error_is_in_percent_of_the_eyes(head):
    model, vertices = head
    camera = Camera.centred(300, SIZE, SIZE)
    points = camera.project(model.landmarks.points(vertices[None], model.faces))
    track = _track(model, points + torch.tensor([3.0, 4.0]))
    eyes = float((points[0, LEFT_CORNER] - points[0, RIGHT_CORNER]).norm())
    assert landmark_error(model, _track(model, points), vertices[None]) == pytest.approx(0, abs=1e-3)
    assert landmark_error(model, track, vertices[None]) == pytest.approx(100 * 5 / eyes, rel=1e-3)
