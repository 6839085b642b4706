"""Interpolation, texture lookup and their gradients."""

import pytest
import torch

from expportrait.proxy.raster import Rasterizer

from .raster_shapes import BACKENDS, bumpy_head, place


def scene(levels=3, size=64, channels=5, shared=False, device="cpu"):
    clip, faces = bumpy_head(levels, size)
    generator = torch.Generator().manual_seed(1)
    attributes = torch.randn(1 if shared else 2, clip.shape[1], channels, generator=generator)
    return clip.to(device), faces.to(device), attributes.to(device)


def values_and_gradients(rasterizer, raster, attributes, clip, weight, **options):
    attributes, clip = attributes.detach().clone().requires_grad_(), clip.detach().clone().requires_grad_()
    image = rasterizer.interpolate(attributes, raster, clip, **options)
    (image * weight).sum().backward()
    return image.detach(), attributes.grad, clip.grad


@pytest.mark.parametrize("case", BACKENDS)
def test_barycentrics_solve_the_projection(case):
    """b_i w-weighted corners must project onto the pixel centre: a 3x3 system in float64."""
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(3, 64, frames=1))
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(clip, (64, 64))
    weights = rasterizer.barycentric(raster, clip)
    corner = clip[0].double()[faces[raster.ids.reshape(-1)[raster.pixels].long() - 1]]  # [P,3,4]
    centre = torch.stack([raster.pixels % 64, raster.pixels // 64], 1).double().add(0.5) / 32 - 1
    rows = torch.stack(
        [corner[..., 0] - centre[:, :1] * corner[..., 3], corner[..., 1] - centre[:, 1:] * corner[..., 3], corner[..., 3] ** 0], 1
    )
    wanted = torch.linalg.solve(rows, rows.new_tensor([0.0, 0.0, 1.0]).expand(len(rows), 3))
    fat = torch.linalg.det(rows).abs() > 1e-5
    inside = fat & (wanted > 1e-3).all(1)
    assert inside.float().mean() > 0.8
    torch.testing.assert_close(weights.double()[inside], wanted[inside], rtol=0, atol=2e-4)
    assert (weights >= 0).all() and (weights.sum(1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("case", [case for case in BACKENDS if case != "torch"])
@pytest.mark.parametrize("channels", (1, 2, 3, 4, 9))
@pytest.mark.parametrize("shared", (False, True))
def test_back_ends_agree_in_values_and_gradients(channels, shared, case):
    backend, device = place(case)
    clip, faces, attributes = scene(channels=channels, shared=shared, device=device)
    fast, slow = (Rasterizer(faces, clip.shape[1], name) for name in (backend, "torch"))
    raster = fast.rasterize(clip, (64, 64))
    weight = torch.randn(2, 64, 64, channels, generator=torch.Generator().manual_seed(2)).to(device)
    exact = values_and_gradients(slow, raster, attributes.double(), clip.double(), weight.double())
    assert exact[0].dtype == torch.float64
    for rasterizer in (fast, slow):
        for got, wanted in zip(values_and_gradients(rasterizer, raster, attributes, clip, weight), exact, strict=True):
            assert got.shape == wanted.shape and wanted.abs().max() > 0
            assert (got - wanted).norm() < 2e-3 * wanted.norm()
    pixels = fast.interpolate_pixels(attributes, raster, clip)
    assert torch.equal(raster.scatter(pixels), fast.interpolate(attributes, raster, clip))


def test_interpolation_against_finite_differences():
    clip, faces, attributes = scene(levels=1, size=24, channels=2)
    clip, attributes = clip.double(), attributes.double()
    rasterizer = Rasterizer(faces, clip.shape[1], "torch")
    raster = rasterizer.rasterize(clip, (24, 24))
    weights = rasterizer.barycentric(raster, clip)
    clear = (weights > 0.02).all(1)  # away from the clamp, whose gradient is passed straight through
    assert clear.sum() > 100
    choice = clear.nonzero()[::25, 0]

    def values(attributes, clip):
        return rasterizer.interpolate_pixels(attributes, raster, clip)[choice]

    inputs = attributes.requires_grad_(), clip.requires_grad_()
    assert torch.autograd.gradcheck(values, inputs, eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("case", BACKENDS)
def test_interpolation_is_exact_for_attributes_linear_in_space(case):
    """Camera-space positions must land on the ray through the pixel centre."""
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(4, 96))
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(clip, (96, 96))
    out = rasterizer.interpolate_pixels(clip, raster, clip)
    centre = torch.stack([raster.pixels % 96, raster.pixels // 96 % 96], 1).float().add(0.5) / 48 - 1
    assert (out[:, :2] / out[:, 3:] - centre).abs().quantile(0.999) < 1e-3


@pytest.mark.parametrize("case", BACKENDS)
def test_depth_gets_no_gradient(case):
    backend, device = place(case)
    clip, faces, attributes = scene(device=device)
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(clip, (64, 64))
    points = clip.clone().requires_grad_()
    rasterizer.antialias(rasterizer.interpolate(attributes, raster, points), raster, points).square().sum().backward()
    assert (points.grad[..., 2] == 0).all()
    assert all((points.grad[..., axis] != 0).any() for axis in (0, 1, 3))


@pytest.mark.parametrize("case", BACKENDS)
def test_attributes_with_seams_use_their_own_corners(case):
    backend, device = place(case)
    clip, faces, attributes = scene(channels=2, device=device)
    corners = torch.arange(faces.numel()).reshape(-1, 3)  # every corner its own uv, as if all edges were seams
    unwrapped = attributes[:, faces.reshape(-1)]
    weight = torch.randn(2, 64, 64, 2, generator=torch.Generator().manual_seed(3)).to(device)
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(clip, (64, 64))
    image, gradient, points = values_and_gradients(rasterizer, raster, attributes, clip, weight)
    seamed = values_and_gradients(rasterizer, raster, unwrapped, clip, weight, attribute_faces=corners)
    torch.testing.assert_close(seamed[0], image)
    folded = torch.zeros_like(attributes).index_add_(1, faces.reshape(-1), seamed[1])
    torch.testing.assert_close(folded, gradient, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(seamed[2], points, rtol=1e-3, atol=1e-3)


def test_strided_and_half_inputs():
    clip, faces, attributes = scene(channels=4)
    rasterizer = Rasterizer(faces, clip.shape[1])
    raster = rasterizer.rasterize(clip, (64, 64))
    wanted = rasterizer.interpolate(attributes[..., :2].contiguous(), raster, clip)
    strided = clip.transpose(0, 2).contiguous().transpose(0, 2)
    assert torch.equal(rasterizer.rasterize(strided, (64, 64)).ids, raster.ids)
    wide = attributes.clone().requires_grad_()
    got = rasterizer.interpolate(wide[..., :2], raster, strided)
    got.sum(-1, keepdim=True).expand_as(got).sum().backward()  # an expanded, strided gradient
    assert torch.equal(got, wanted) and wide.grad[..., :2].abs().sum() > 0 and (wide.grad[..., 2:] == 0).all()
    half = rasterizer.interpolate(attributes[..., :2].half(), raster, clip)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, wanted, rtol=0, atol=5e-3)


def test_texture_v_runs_up_and_texels_have_centres_at_one_half():
    texture = torch.arange(12.0).reshape(1, 1, 3, 4)
    rasterizer = Rasterizer(torch.tensor([[0, 1, 2]]), 3)
    uv = torch.tensor([[0.125, 5 / 6], [0.375, 0.5], [0.875, 1 / 6], [0.25, 0.5], [-1.0, 2.0]])
    torch.testing.assert_close(rasterizer.texture(texture, uv)[:, 0], torch.tensor([0.0, 5.0, 11.0, 4.5, 0.0]))
    image = uv[:4].reshape(1, 2, 2, 2).expand(3, 2, 2, 2)
    assert rasterizer.texture(texture, image).shape == (3, 2, 2, 1)
    each = rasterizer.texture(texture * torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1, 1), image)
    torch.testing.assert_close(each[2], 3 * rasterizer.texture(texture, image)[0])
    with pytest.raises(ValueError, match="2 textures do not fit"):
        rasterizer.texture(texture.expand(2, 1, 3, 4), image)
    inputs = texture.double().requires_grad_(), (image[:1].double() + 0.01).requires_grad_()
    assert torch.autograd.gradcheck(rasterizer.texture, inputs)
