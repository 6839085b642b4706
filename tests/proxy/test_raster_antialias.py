"""Outlines and their gradient to the vertices."""

import math

import pytest
import torch

from expportrait.proxy.camera import Camera
from expportrait.proxy.raster import Rasterizer
from expportrait.proxy.raster.topology import find_edges
from expportrait.proxy.rotation import to_matrix

from .raster_shapes import BACKENDS, COARSE, area_slope_error, bumpy_head, harmonics, mask_fit_error, place, sphere


@pytest.fixture(autouse=True)
def one_thread():
    """Many small tensors: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_edges_of_a_closed_and_an_open_mesh():
    vertices, faces = sphere(2)
    edges = find_edges(faces)
    assert len(edges.vertices) == len(vertices) + len(faces) - 2  # Euler
    assert (edges.triangles < len(faces)).all()
    for side in (0, 1):
        corners = faces[edges.triangles[:, side]]
        assert all((corners == edges.vertices[:, k : k + 1]).any(1).all() for k in (0, 1))
    opened = find_edges(faces[1:])
    assert int((opened.triangles == len(faces) - 1).sum()) == 3


def test_disc_area_and_its_slope_by_radius():
    """20k triangles; the rasteriser of triangles alone would give the area a slope of zero."""
    assert abs(area_slope_error(5)) < 0.01
    vertices, faces = sphere(5)
    clip = torch.nn.functional.pad(0.587 * vertices, (0, 1), value=1.0)[None]
    rasterizer = Rasterizer(faces, len(vertices))
    raster = rasterizer.rasterize(clip, (256, 256))
    area = rasterizer.antialias(raster.mask[..., None].float(), raster, clip).sum()
    assert float(area) == pytest.approx(math.pi * (0.587 * 128) ** 2, rel=1e-3)


@pytest.mark.parametrize("case", BACKENDS)
def test_slope_of_the_disc_area_on_every_back_end(case):
    backend, device = place(case)
    assert abs(area_slope_error(3, 256, backend, device)) < 0.02  # 1,280 triangles: half a per cent is the polygon's own


@pytest.mark.parametrize("case", [case for case in BACKENDS if case != "torch"])
def test_outline_pixels_resemble_a_supersampled_mask(case):
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(5, 128, frames=1))
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(clip, (128, 128))
    plain = raster.mask.float()
    smooth = rasterizer.antialias(plain[..., None], raster, clip)[..., 0]
    exact = torch.nn.functional.avg_pool2d(rasterizer.rasterize(clip, (1024, 1024)).mask.float(), 8)
    outline = (exact > 0) & (exact < 1)
    error = [float((mask - exact)[outline].square().mean().sqrt()) for mask in (plain, smooth)]
    assert outline.sum() > 100 and error[0] > 0.2 and error[1] < (0.1 if backend in COARSE else 0.07)
    assert smooth[exact == 1].min() > 0.9 and smooth[exact == 0].max() < 0.1


def test_occluding_contours_inside_the_picture_are_blended():
    """A small square in front of a large one: no empty pixel is involved."""
    corners = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    near = torch.cat([0.33 * corners, torch.full((4, 1), -0.2), torch.ones(4, 1)], 1)
    far = torch.cat([0.9 * corners, torch.full((4, 1), 0.2), torch.ones(4, 1)], 1)
    clip = torch.cat([near, far])[None].requires_grad_()
    faces = torch.tensor([[0, 2, 1], [0, 3, 2], [4, 6, 5], [4, 7, 6]])
    rasterizer = Rasterizer(faces, 8)
    raster = rasterizer.rasterize(clip, (32, 32))
    colour = ((raster.ids == 1) | (raster.ids == 2))[..., None].float()
    image = rasterizer.antialias(colour, raster, clip)
    assert float(image.detach().sum()) == pytest.approx((0.66 * 16) ** 2, rel=0.02)
    gradient = torch.autograd.grad(image.sum(), clip)[0][0]
    assert (gradient[4:] == 0).all()
    # area = (2 s)^2 16^2 with s = 0.33; moving one corner outwards by d in x adds half of the side times d
    assert gradient[1, 0].item() == pytest.approx(0.33 * 16 * 16, rel=0.15)


def test_antialias_against_finite_differences():
    clip, faces = bumpy_head(2, 32, frames=1)
    clip = clip.double()
    rasterizer = Rasterizer(faces, clip.shape[1], "torch")
    raster = rasterizer.rasterize(clip, (32, 32))
    generator = torch.Generator().manual_seed(4)
    colour = torch.rand(1, 32, 32, 2, generator=generator, dtype=torch.float64)
    weight = torch.randn(1, 32, 32, 2, generator=generator, dtype=torch.float64)

    def loss(colour, clip):
        return (rasterizer.antialias(colour, raster, clip) * weight).sum()

    points = clip.clone().requires_grad_()
    gradient = torch.autograd.grad(loss(colour, points), points)[0]
    direction = torch.randn(clip.shape, generator=generator, dtype=torch.float64) * 1e-8  # too small for another pixel pair
    difference = (loss(colour, clip + direction) - loss(colour, clip - direction)) / 2
    assert float(difference) == pytest.approx(float((gradient * direction).sum()), rel=1e-5)
    change = torch.randn(colour.shape, generator=generator, dtype=torch.float64)  # in colour it is linear
    gradient = torch.autograd.grad(loss(colour.requires_grad_(), clip), colour)[0]
    assert float((loss(colour + change, clip) - loss(colour, clip)).detach()) == pytest.approx(float((gradient * change).sum()))


@pytest.mark.parametrize("case", ("warp", "warp on cuda"))
def test_back_ends_agree(case):
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(4, 96))
    colour = torch.rand(2, 96, 96, 3, generator=torch.Generator().manual_seed(6)).to(device)
    results = []
    for name in (backend, "torch"):
        rasterizer = Rasterizer(faces, clip.shape[1], name)
        points = clip.clone().requires_grad_()
        image = rasterizer.antialias(colour, rasterizer.rasterize(clip, (96, 96)), points)
        results.append((image.detach(), *torch.autograd.grad(image.square().sum(), points)))
    for fast, slow in zip(*results, strict=True):
        assert (fast - slow).norm() <= 1e-5 * slow.norm()


DIRECTIONS = ("shift x", "shift y", "turn", "scale", "bump")


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_directional_derivatives_equal_those_of_a_supersampled_picture(direction):
    """Interpolation and outline together, against central differences of a picture at four times the resolution."""
    size, fine, step = 512, 4, 5e-3
    directions, faces = sphere(5)
    basis = harmonics(directions)
    coefficients = 0.04 * torch.randn(16, generator=torch.Generator().manual_seed(8))
    shape = 0.1 * (1 + basis @ coefficients)[:, None] * directions
    bump = torch.exp(-10 * (directions - torch.tensor([0.8, 0.6, 0.0])).square().sum(1, keepdim=True))  # at the outline
    colour = 0.5 * directions + 0.5
    camera = Camera.centred(1.5 * size, size, size)
    rasterizer = Rasterizer(faces, len(directions))
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, size, dtype=torch.float64)] * 2, indexing="ij")
    weight = torch.stack([x + 0.5 * y, torch.sin(3 * y) + 0.5, x * y + 1], dim=0)  # [3,H,W]
    motions = {
        "shift x": lambda t: shape + torch.tensor([0.1, 0.0, 0.0]) * t,
        "shift y": lambda t: shape + torch.tensor([0.0, 0.1, 0.0]) * t,
        "turn": lambda t: shape @ to_matrix(torch.tensor([[0.0, 1.0, 0.0]]) * t)[0].mT,
        "scale": lambda t: shape * (1 + t),
        "bump": lambda t: shape * (1 + t * bump),
    }

    def loss(t, scale, outlines=True):
        clip = camera.clip(motions[direction](t) + torch.tensor([0.0, 0.0, -0.5]))[None]
        raster = rasterizer.rasterize(clip, (size * scale, size * scale))
        image = rasterizer.interpolate(colour[None], raster, clip)
        image = rasterizer.antialias(image, raster, clip) if outlines else image
        return (torch.nn.functional.avg_pool2d(image.permute(0, 3, 1, 2), scale).double() * weight).sum()

    t = torch.zeros((), requires_grad=True)
    gradient, without = (float(torch.autograd.grad(loss(t, 1, outlines), t)[0]) for outlines in (True, False))
    truth = float(loss(torch.tensor(step), fine) - loss(torch.tensor(-step), fine)) / (2 * step)
    assert gradient == pytest.approx(truth, rel=0.05)
    assert abs(without - truth) > 3 * abs(gradient - truth)


@pytest.mark.parametrize("case", [case for case in BACKENDS if case != "torch"])
def test_a_shape_is_fitted_to_masks_alone(case):
    backend, device = place(case)
    before, after = mask_fit_error(4, 128, 60, backend, device)
    assert before > 1 and after < 0.1


def test_colour_of_another_size_is_refused():
    clip, faces = bumpy_head(2, 32)
    rasterizer = Rasterizer(faces, clip.shape[1])
    with pytest.raises(ValueError, match="does not fit a raster"):
        rasterizer.antialias(torch.zeros(2, 16, 16, 3), rasterizer.rasterize(clip, (32, 32)), clip)
