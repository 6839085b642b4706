"""What a user of the rasteriser relies on besides the numbers."""

import os
import subprocess
import sys

import pytest
import torch

from expportrait.proxy.raster import Rasterizer

from .raster_shapes import BACKENDS, bumpy_head, gpu_bars, place

CHILD = """
import sys
import expportrait.proxy.raster as raster
assert "warp" not in sys.modules
import torch
from expportrait.proxy.raster import Rasterizer
clip = torch.tensor([[[-0.5, -0.5, 0.0, 1.0], [0.5, -0.5, 0.0, 1.0], [0.0, 0.5, 0.0, 1.0]]])
rasterizer = Rasterizer(torch.tensor([[0, 1, 2]]), 3)
import pathlib, os
assert not list(pathlib.Path(os.environ["WARP_CACHE_PATH"]).rglob("*.o")), "something was compiled before the first launch"
if sys.argv[1] == "draw":
    image = rasterizer.interpolate(torch.ones(1, 3, 1), rasterizer.rasterize(clip, (16, 16)), clip)
    assert image.sum() > 10
"""


@pytest.mark.parametrize("what", ("import", "draw"))
def test_import_and_drawing_are_quiet_and_compile_late(what, tmp_path):
    environment = {**os.environ, "WARP_CACHE_PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", CHILD, what], capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "" and result.stderr == ""


@pytest.mark.parametrize("case", BACKENDS)
def test_inside_inference_mode(case):
    backend, device = place(case)
    same = torch.equal if device == "cpu" else torch.allclose  # on CUDA the order of additions is left open
    clip, faces = (tensor.to(device) for tensor in bumpy_head(2, 32))
    attributes = torch.rand(1, clip.shape[1], 3, device=device)

    def render(rasterizer):
        raster = rasterizer.rasterize(clip, (32, 32))
        return rasterizer.antialias(rasterizer.interpolate(attributes, raster, clip), raster, clip)

    wanted = render(Rasterizer(faces, clip.shape[1], backend))
    with torch.inference_mode():
        rasterizer = Rasterizer(faces, clip.shape[1], backend)
        raster = rasterizer.rasterize(clip * 1.0, (32, 32))
        pixels = raster.pixels
        frozen = attributes * 1.0
        assert same(render(rasterizer), wanted)
        assert not raster.ids.is_inference() and not pixels.is_inference()
    # what was made there still serves autograd
    points = clip.clone().requires_grad_()
    image = rasterizer.antialias(rasterizer.interpolate(frozen, raster, points), raster, points)
    image.square().sum().backward()
    assert same(image, wanted) and (points.grad != 0).any()


def test_torch_takes_over_where_warp_is_missing(monkeypatch):
    import expportrait.proxy.raster as package

    monkeypatch.setitem(sys.modules, "warp", None)
    for module in ("warp_backend", "warp_kernels"):
        monkeypatch.delitem(sys.modules, f"{package.__name__}.{module}", raising=False)
        monkeypatch.delattr(package, module, raising=False)
    clip, faces = bumpy_head(2, 32)
    with pytest.raises(ValueError, match="needs the package warp-lang"):
        Rasterizer(faces, clip.shape[1], "warp")
    wanted = Rasterizer(faces, clip.shape[1], "torch").rasterize(clip, (32, 32)).ids
    assert torch.equal(Rasterizer(faces, clip.shape[1]).rasterize(clip, (32, 32)).ids, wanted)


@pytest.mark.parametrize("case", BACKENDS)
def test_no_frames(case):
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(2, 32))
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(clip[:0], (32, 32))
    image = rasterizer.interpolate(torch.rand(1, clip.shape[1], 3, device=device), raster, clip[:0])
    assert rasterizer.antialias(image, raster, clip[:0]).shape == (0, 32, 32, 3)


@pytest.mark.parametrize("case", BACKENDS)
def test_exchange_format(case):
    backend, device = place(case)
    clip, faces = (tensor.to(device) for tensor in bumpy_head(3, 32))
    rasterizer = Rasterizer(faces, clip.shape[1], backend)
    raster = rasterizer.rasterize(clip, (32, 32))
    u, v, zw, number = rasterizer.exchange(raster, clip).unbind(-1)
    assert torch.equal(number.int(), raster.ids)
    assert torch.equal(zw[raster.mask], raster.zw[raster.mask]) and (zw[~raster.mask] == 0).all()
    corner = torch.eye(3, device=device)[None].repeat(1, len(faces), 1)  # corner k of each triangle carries the k-th unit vector
    image = rasterizer.interpolate(corner, raster, clip, attribute_faces=torch.arange(3 * len(faces)).reshape(-1, 3))
    torch.testing.assert_close(torch.stack([u, v], -1), image[..., :2], rtol=0, atol=1e-5)


def test_the_benchmark_says_that_there_is_no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    ((name, value, _, bound),) = gpu_bars()
    assert name.startswith("this machine has no CUDA device") and value is None and bound is None


def test_clear_sentences_for_bad_input():
    faces = torch.tensor([[0, 1, 2]])
    with pytest.raises(ValueError, match=r"expected \[F,3\]"):
        Rasterizer(torch.zeros(2, 4), 4)
    with pytest.raises(ValueError, match="vertices 0 to 2, but there are 2"):
        Rasterizer(faces, 2)
    with pytest.raises(ValueError, match='unknown rasteriser back-end "gl"'):
        Rasterizer(faces, 3, "gl")
    rasterizer = Rasterizer(faces, 3)
    with pytest.raises(ValueError, match=r"expected \[B, 3, 4\]"):
        rasterizer.rasterize(torch.zeros(1, 4, 4), (8, 8))
    with pytest.raises(ValueError, match="at least 1"):
        rasterizer.rasterize(torch.zeros(1, 3, 4), (0, 8))
    clip = torch.zeros(1, 3, 4)
    raster = rasterizer.rasterize(clip, (8, 8))
    with pytest.raises(ValueError, match="attributes have shape"):
        rasterizer.interpolate(torch.zeros(3, 3, 1), raster, clip)
    with pytest.raises(ValueError, match="attribute_faces"):
        rasterizer.interpolate(torch.zeros(1, 3, 1), raster, clip, torch.zeros(2, 3, dtype=torch.long))
