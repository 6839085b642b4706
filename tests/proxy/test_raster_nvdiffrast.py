"""The nvdiffrast back-end where nvdiffrast is not: its refusals, and what we hand over and take back.

The back-end itself runs with the other ones in test_raster_*.py, on machines that have CUDA and nvdiffrast.
"""

import sys
import types

import pytest
import torch

from expportrait.proxy.raster import Raster, Rasterizer, nvdiffrast_backend
from expportrait.proxy.raster.projection import snap

from .raster_shapes import bumpy_head, edge_distance, triangle_soup


class StandIn:
    """`rasterize` on the CPU, by our reference, with the arguments, conditions and output that nvdiffrast 0.4 documents."""

    def __init__(self):
        self.contexts, self.calls = [], []

    def RasterizeCudaContext(self, device=None):
        self.contexts.append(device)
        return self.contexts[-1]

    def rasterize(self, glctx, pos, tri, resolution, ranges=None, grad_db=True):
        assert glctx in self.contexts and pos.dtype == torch.float32 and tri.dtype == torch.int32
        assert pos.is_contiguous() and tri.is_contiguous() and pos.numel() and tri.numel() and pos.isfinite().all()
        self.calls.append(len(pos))
        half = pos.new_tensor([resolution[1] / 2, resolution[0] / 2])
        sixteenths = torch.round(pos[..., :2] / pos[..., 3:] * half * 16) / 16
        snapped = torch.cat([sixteenths / half, pos[..., 2:3] / pos[..., 3:], torch.ones_like(pos[..., :1])], dim=-1)
        reference = Rasterizer(tri, pos.shape[1], "torch")
        ids = reference.rasterize(snapped, resolution).ids  # coverage by the snapped corners, all else by the exact ones
        zw = reference.interpolate(pos[..., 2:], Raster(ids, torch.zeros(ids.shape)), pos)
        rast = reference.exchange(Raster(ids, (zw[..., 0] / zw[..., 1]).clamp(-1, 1)), pos)
        return rast, torch.zeros_like(rast)


@pytest.fixture
def installed(monkeypatch):
    """nvdiffrast.torch, importable for one test."""
    module = StandIn()
    package = types.ModuleType("nvdiffrast")
    package.torch = module
    monkeypatch.setitem(sys.modules, "nvdiffrast", package)
    monkeypatch.setitem(sys.modules, "nvdiffrast.torch", module)
    nvdiffrast_backend._context.cache_clear()
    yield module
    nvdiffrast_backend._context.cache_clear()


@pytest.fixture
def stand_in(installed, monkeypatch):
    """The same, allowed on the CPU."""
    monkeypatch.setattr(nvdiffrast_backend, "DEVICES", ("cpu",))
    return installed


def test_asked_for_but_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "nvdiffrast", None)
    with pytest.raises(ValueError, match=r'needs the package nvdiffrast, which you install yourself .* backend="auto"'):
        Rasterizer(torch.tensor([[0, 1, 2]]), 3, "nvdiffrast")


def test_asked_for_on_the_cpu(installed):
    clip, faces = bumpy_head(1, 16)
    rasterizer = Rasterizer(faces, clip.shape[1], "nvdiffrast")
    with pytest.raises(ValueError, match='runs on CUDA only, but the clip coordinates are on device "cpu"; move them'):
        rasterizer.rasterize(clip, (16, 16))
    assert not installed.calls


def test_never_chosen_unasked(stand_in):
    clip, faces = bumpy_head(1, 16)
    for backend in ("auto", "warp", "torch"):
        assert Rasterizer(faces, clip.shape[1], backend).rasterize(clip, (16, 16)).mask.any()
    assert not stand_in.contexts and not stand_in.calls
    Rasterizer(faces, clip.shape[1], "nvdiffrast").rasterize(clip, (16, 16))
    assert stand_in.calls


def test_more_triangles_than_a_float_can_number(stand_in):
    faces = torch.zeros(1, 3, dtype=torch.int32).expand((1 << 24) + 1, 3)
    position, packed = torch.zeros(1, 3, 2, dtype=torch.int32), torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match="at most 2\\^24 triangles, not 16777217"):
        nvdiffrast_backend.draw(position, torch.zeros(1, 3), faces, False, packed)


@pytest.mark.parametrize("cull", (False, True))
@pytest.mark.parametrize("turned", (False, True))
def test_ids_and_depth_are_those_of_warp_away_from_edges(stand_in, cull, turned):
    clip, faces = bumpy_head(4, 192)
    faces = faces.flip(1) if turned else faces  # inside out: culling then leaves the far side
    theirs, ours = (
        Rasterizer(faces, clip.shape[1], name).rasterize(clip, (160, 192), cull) for name in ("nvdiffrast", "warp")
    )
    same = theirs.ids == ours.ids
    from_edge = edge_distance(clip, faces, theirs.ids).minimum(edge_distance(clip, faces, ours.ids))
    assert 0.9 < same.float().mean() < 1 and from_edge[~same].max() < 1 / 16
    torch.testing.assert_close(theirs.zw[same], ours.zw[same], rtol=0, atol=1e-4)
    assert (theirs.zw[~theirs.mask] == 1).all() and theirs.cull == cull and theirs.ids.dtype == torch.int32
    assert len(stand_in.contexts) == 1 and stand_in.calls == [1, 1]  # one context; on the CPU frame by frame


def test_frames_leave_out_different_triangles(stand_in):
    """All frames of a batch in one call, as on CUDA; in each another corner is behind the camera, not finite or far away."""
    clip, faces = triangle_soup(60, 4, seed=3)
    clip[0, 0:30, 3], clip[1, 30:60, 0], clip[2, 60:90, 0] = -1.0, float("nan"), 1e30
    results = {}
    for name in ("nvdiffrast", "torch"):
        rasterizer = Rasterizer(faces, clip.shape[1], name)
        results[name] = torch.cat([rasterizer.rasterize(frame, (48, 64)).ids for frame in clip.split(1)])
    packed = torch.empty(4, 48, 64, dtype=torch.int64)
    nvdiffrast_backend.draw(*snap(clip, (48, 64)), faces, False, packed)
    together = packed & 0xFFFFFFFF
    assert stand_in.calls == [1, 1, 1, 1, 4]
    assert torch.equal(together, results["nvdiffrast"].long())
    for frame, first in ((0, 0), (1, 10), (2, 20)):
        assert not ((together[frame] > first) & (together[frame] <= first + 10)).any()
    assert ((together > 0) & (together <= 30)).any()  # the others show them
    assert (together == results["torch"]).float().mean() > 0.97
