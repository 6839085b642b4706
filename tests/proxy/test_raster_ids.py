"""Which triangle a pixel sees."""

import pytest
import torch

from expportrait.proxy.raster import Rasterizer

from .raster_shapes import BACKENDS, COARSE, bumpy_head, edge_distance, place, sphere, triangle_soup


def brute_force(clip, faces, size):
    """Nearest triangle per pixel centre by float64 edge functions; also the distance in pixels to the nearest edge line."""
    height, width = size
    clip = clip.double()
    half = torch.tensor([width / 2, height / 2], dtype=torch.float64)
    corner = (clip[:, :2] / clip[:, 3:] * half + half)[faces]  # [F,3,2]
    depth = (clip[:, 2] / clip[:, 3])[faces]
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixel = torch.stack([x, y], -1).double().reshape(-1, 1, 1, 2)
    start, end = corner.roll(-1, 1), corner.roll(-2, 1)
    side, offset = end - start, pixel - start
    edge = side[..., 0] * offset[..., 1] - side[..., 1] * offset[..., 0]  # [N,F,3]
    area = edge.sum(-1)
    inside = ((edge * area.sign()[..., None]) >= 0).all(-1)
    z = torch.where(inside, (edge * depth).sum(-1) / area, torch.inf)
    nearest, index = z.min(-1)
    from_edge = (edge.abs() / side.norm(dim=-1)).amin((1, 2))
    return torch.where(nearest < torch.inf, index + 1, 0).view(size), from_edge.view(size)


@pytest.mark.parametrize("case", BACKENDS)
def test_ids_equal_brute_force_away_from_edges(case):
    backend, device = place(case)
    clip, faces = triangle_soup(60, 2, seed=1)
    ids = Rasterizer(faces, clip.shape[1], backend).rasterize(clip.to(device), (48, 64)).ids.cpu().long()
    for frame in range(2):
        wanted, from_edge = brute_force(clip[frame], faces, (48, 64))
        clear = from_edge > (1 / 16 if backend in COARSE else 1 / 64)
        assert clear.float().mean() > 0.5 and (wanted[clear] > 0).float().mean() > 0.1
        assert torch.equal(ids[frame][clear], wanted[clear])


@pytest.mark.parametrize("case", BACKENDS)
def test_shared_edges_on_pixel_centres_are_watertight(case):
    """A grid whose vertices and edges lie exactly on pixel centres: each pixel is drawn exactly once."""
    backend, device = place(case)
    count, size = 11, 32
    generator = torch.Generator().manual_seed(2)
    y, x = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    grid = torch.stack([x, y], -1).reshape(-1, 2) * 4.0 - 4
    inner = ((grid > -4) & (grid < 36)).all(1)
    grid[inner] += torch.randint(-1, 2, (int(inner.sum()), 2), generator=generator)
    pixels = grid - 0.5
    clip = torch.cat([pixels * 2 / size - 1, torch.zeros(len(grid), 1), torch.ones(len(grid), 1)], 1)[None]
    corner = (y[:-1, :-1] * count + x[:-1, :-1]).reshape(-1)
    a, b, c, d = corner, corner + 1, corner + count + 1, corner + count
    flip = torch.rand(len(corner), generator=generator) < 0.5
    first = torch.where(flip[:, None], torch.stack([a, b, c], 1), torch.stack([a, b, d], 1))
    second = torch.where(flip[:, None], torch.stack([a, c, d], 1), torch.stack([b, c, d], 1))
    faces, clip = torch.cat([first, second]), clip.to(device)
    drawn = sum(Rasterizer(face[None], len(grid), backend).rasterize(clip, (size, size)).mask.int() for face in faces)
    assert torch.equal(drawn, torch.ones_like(drawn))


@pytest.mark.parametrize("case", [case for case in BACKENDS if case != "torch"])
@pytest.mark.parametrize("cull", (False, True))
def test_back_ends_agree(cull, case):
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(4, 192))
    fast, slow = (Rasterizer(faces, clip.shape[1], name).rasterize(clip, (160, 192), cull) for name in (backend, "torch"))
    assert 0.2 < fast.mask.float().mean() < 0.9
    same = fast.ids == slow.ids
    if backend in COARSE:
        from_edge = edge_distance(clip, faces, fast.ids).minimum(edge_distance(clip, faces, slow.ids))
        assert same.float().mean() > 0.9 and from_edge[~same].max() < 1 / 16
    else:  # on CUDA the kernels fuse multiplications with additions, which may turn a tie in depth
        assert same.all() if device == "cpu" else same.float().mean() > 0.9999
    torch.testing.assert_close(fast.zw[same], slow.zw[same], rtol=0, atol=1e-4 if backend in COARSE else 1e-6)


def test_culling_keeps_what_faces_the_camera():
    clip, faces = bumpy_head(4, 128)
    rasterizer = Rasterizer(faces, clip.shape[1])
    full, culled = rasterizer.rasterize(clip, (128, 128)), rasterizer.rasterize(clip, (128, 128), cull=True)
    assert (full.ids == culled.ids).float().mean() > 0.999  # a closed surface hides its own back
    inside_out = Rasterizer(faces.flip(1), clip.shape[1]).rasterize(clip, (128, 128), cull=True)
    assert inside_out.mask.any() and (inside_out.zw[full.mask] > full.zw[full.mask] - 1e-6).all()


@pytest.mark.parametrize("case", BACKENDS)
def test_depth_of_a_sphere(case):
    """Orthographic unit sphere: z = -sqrt(1 - x^2 - y^2) up to the sagitta of the tessellation."""
    backend, device = place(case)
    vertices, faces = sphere(4)
    clip = torch.nn.functional.pad(vertices, (0, 1), value=1.0)[None] * torch.tensor([0.8, 0.8, 0.8, 1.0])
    zw = Rasterizer(faces, len(vertices), backend).rasterize(clip.to(device), (64, 64)).zw.cpu()
    centre = (torch.arange(64) + 0.5) / 32 - 1
    wanted = -(0.64 - centre[:, None] ** 2 - centre**2).clamp(min=0).sqrt()
    middle = wanted < -0.4
    assert (zw[0] - wanted)[middle].abs().max() < 2e-3


@pytest.mark.parametrize("case", BACKENDS)
def test_row_zero_is_y_minus_one(case):
    backend, device = place(case)
    clip = torch.tensor([[[-1.0, -1.0, 0.0, 1.0], [0.0, -1.0, 0.0, 1.0], [-1.0, 0.0, 0.0, 1.0]]], device=device)
    mask = Rasterizer(torch.tensor([[0, 1, 2]]), 3, backend).rasterize(clip, (8, 12)).mask[0]
    assert mask[0, 0] and not mask[4:].any() and not mask[:, 6:].any()


@pytest.mark.parametrize("case", BACKENDS)
@pytest.mark.parametrize(
    "corner",
    (
        [float("nan"), 0, 0, 1],
        [0, float("inf"), 0, 1],
        [0.5, 0.5, 0, 0],
        [0.5, 0.5, 0, -1],
        [1e30, 0, 0, 1],
        [-0.5, -0.5, 0, 1],  # the same as another corner
        [0.5, -0.5, 5, 1],  # behind the far plane where it is covered
    ),
)
def test_bad_triangles_are_left_out_and_others_stay(case, corner):
    backend, device = place(case)
    good = [[-0.5, -0.5, 0.5, 1], [0.5, -0.5, 0.5, 1], [0.0, 0.5, 0.5, 1]]
    bad = [[-0.5, -0.5, 0, 1], [0.5, -0.5, 0, 1], corner]
    if corner[2] == 5:
        bad = [[x, y, 5, w] for x, y, _, w in bad]
        bad[2] = [0.0, 0.5, 5, 1]
    clip = torch.tensor([good + bad], dtype=torch.float32, device=device)
    rasterizer = Rasterizer(torch.tensor([[3, 4, 5], [0, 1, 2]]), 6, backend)
    raster = rasterizer.rasterize(clip, (32, 32))
    assert set(raster.ids.unique().tolist()) == {0, 2}
    assert rasterizer.antialias(raster.mask[..., None].float(), raster, clip).isfinite().all()


@pytest.mark.parametrize("case", BACKENDS)
def test_a_huge_triangle_fills_the_picture(case):
    backend, device = place(case)
    clip = torch.tensor([[[-900.0, -900.0, 0.0, 1.0], [900.0, -800.0, 0.0, 1.0], [0.0, 900.0, 0.0, 1.0]]], device=device)
    assert Rasterizer(torch.tensor([[0, 1, 2]]), 3, backend).rasterize(clip, (70, 90)).mask.all()


@pytest.mark.parametrize("case", BACKENDS)
def test_off_screen_and_no_triangles(case):
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(2, 32))
    away = clip + clip.new_tensor([10.0, 0.0, 0.0, 0.0]) * clip[..., 3:]
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(away, (32, 32))
    assert not raster.mask.any() and (raster.zw == 1).all() and len(raster.pixels) == 0
    none = Rasterizer(torch.zeros(0, 3, dtype=torch.long), clip.shape[1], backend)
    assert not none.rasterize(clip, (1, 1)).mask.any()
    for empty in (raster, none.rasterize(clip, (32, 32))):
        points = away.clone().requires_grad_()
        image = rasterizer.interpolate(torch.rand(1, clip.shape[1], 3, device=device), empty, points)
        rasterizer.antialias(image, empty, points).sum().backward()
        assert (image == 0).all() and (points.grad == 0).all()


def test_equal_input_gives_equal_bits():
    clip, faces = bumpy_head(4, 128)
    rasterizer = Rasterizer(faces, clip.shape[1])
    first = rasterizer.rasterize(clip, (128, 128))
    order = torch.randperm(len(faces), generator=torch.Generator().manual_seed(0))
    shuffled = Rasterizer(faces[order], clip.shape[1]).rasterize(clip, (128, 128))
    for _ in range(3):
        again = rasterizer.rasterize(clip, (128, 128))
        assert torch.equal(first.ids, again.ids) and torch.equal(first.zw, again.zw)
    single = rasterizer.rasterize(clip[1:], (128, 128))
    assert torch.equal(single.ids[0], first.ids[1])
    same = torch.where(shuffled.mask, order[(shuffled.ids - 1).clamp(min=0).long()] + 1, 0) == first.ids
    assert same.float().mean() > 0.9999  # the order of triangles decides only between equal depths
