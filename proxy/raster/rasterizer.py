"""One rasteriser per mesh topology: triangle ids, interpolation, texture lookup and antialiased outlines."""

from __future__ import annotations

import dataclasses
import functools

import torch
from torch import Tensor

from . import nvdiffrast_backend, torch_backend
from .antialias import antialias
from .projection import snap
from .topology import Edges, find_edges


@dataclasses.dataclass(frozen=True)
class Raster:
    """What a pixel sees.

    ids [B,H,W] int32: 0 = empty, else triangle + 1; zw [B,H,W] float32: z/w of the surface, 1 (the far plane) where empty;
    cull: whether triangles facing away were left out.
    """

    ids: Tensor
    zw: Tensor
    cull: bool = False

    @functools.cached_property
    def pixels(self) -> Tensor:
        """Covered pixels as flat indices into [B*H*W], ascending, int64 [P]."""
        with torch.inference_mode(False):
            return self.ids.reshape(-1).nonzero()[:, 0]

    @property
    def mask(self) -> Tensor:
        """Coverage [B,H,W], bool."""
        return self.ids > 0

    def scatter(self, values: Tensor, empty: float = 0.0) -> Tensor:
        """Values [P,C] of the covered pixels as an image [B,H,W,C], `empty` elsewhere; differentiable."""
        image = values.new_full((self.ids.numel(), values.shape[-1]), empty)
        return image.index_copy(0, self.pixels, values).view(*self.ids.shape, values.shape[-1])


class Rasterizer:
    """Rasterises batches of meshes that share `faces`.

    Clip coordinates are OpenGL's with row 0 of the image at y = -1 (`Camera.clip` gives them, so images come out top-down);
    z/w grows away from the camera. All operations follow the device of their inputs.

    backend: "warp" (NVIDIA Warp kernels, CPU and CUDA), "torch" (any device, slow) or "auto": warp where it can be imported and
    runs on the device, else torch. The warp back-end computes in float32; interpolation of float64 values always goes through
    torch in float64. Both give the same ids (up to exact ties in depth) and the same gradients. "nvdiffrast" (CUDA only, never
    chosen by "auto", installed by the user under NVIDIA's non-commercial licence) draws the ids and z/w, which differ close to
    edges as `nvdiffrast_backend.draw` tells; everything else, gradients included, is as with "auto".
    """

    def __init__(self, faces: Tensor, vertex_count: int, backend: str = "auto"):
        """faces [F,3], corners as indices below vertex_count; consistent winding, counter-clockwise seen from outside.

        Raises ValueError for faces of another shape or out of range, and for an unknown or unusable back-end.
        """
        if faces.ndim != 2 or faces.shape[1] != 3:
            raise ValueError(f"faces have shape {tuple(faces.shape)}; expected [F,3]")
        if faces.numel() and not 0 <= int(faces.min()) <= int(faces.max()) < vertex_count:
            raise ValueError(
                f"faces name vertices {int(faces.min())} to {int(faces.max())}, but there are {vertex_count} vertices"
            )
        if backend not in ("auto", "warp", "torch", "nvdiffrast"):
            raise ValueError(f'unknown rasteriser back-end "{backend}"; use "auto", "warp", "torch" or "nvdiffrast"')
        if backend == "nvdiffrast":
            nvdiffrast_backend.load()
        self.vertex_count = vertex_count
        self._warp = None if backend == "torch" else _import_warp(required=backend == "warp")
        self._required = backend
        with torch.inference_mode(False):
            self._faces = {faces.device: faces.detach().to(torch.int32, copy=True).contiguous()}
            self._edges: dict[torch.device, Edges] = {}

    @property
    def faces(self) -> Tensor:
        """Triangles [F,3] int32 on the device they were given on."""
        return next(iter(self._faces.values()))

    def rasterize(self, clip: Tensor, size: tuple[int, int], cull: bool = False) -> Raster:
        """The nearest triangle of every pixel, without gradient.

        clip [B,V,4]; size (height, width). Vertices are snapped to 1/256 pixel; pixels on a shared edge belong to exactly one
        triangle; equal depth goes to the lower triangle. Fragments with z/w outside [-1, 1] and triangles with a corner at
        w <= 1e-6, not finite, or more than 2^20 pixels outside are left out. cull: leave out triangles facing away.
        Raises ValueError for clip of another shape, an empty image, and a device that the back-end asked for does not run on.
        """
        self._check_clip(clip)
        height, width = (int(side) for side in size)
        if height < 1 or width < 1:
            raise ValueError(f"cannot rasterise an image of {width} x {height} pixels; both sides must be at least 1")
        with torch.inference_mode(False), torch.no_grad():
            position, depth = snap(clip.detach(), (height, width))
            backend, faces = self._drawing(clip.device), self._faces_on(clip.device)
            ids = torch.empty((len(clip), height, width), dtype=torch.int32, device=clip.device)
            zw = torch.empty(ids.shape, device=clip.device)
            together = 1 if clip.device.type == "cpu" else max(len(clip), 1)  # a single frame's buffer stays in the cache
            packed = torch.empty((together, height, width), dtype=torch.int64, device=clip.device)
            words = packed.view(torch.int32).view(*packed.shape, 2)  # little endian: triangle, depth
            for frame in range(0, len(clip), together):
                frames = slice(frame, frame + together)
                packed.fill_(torch_backend.EMPTY)
                backend.draw(position[frames], depth[frames], faces, cull, packed)
                ids[frames] = words[..., 0]
                torch.mul(words[..., 1], 1 / torch_backend.DEPTH_STEPS, out=zw[frames])
            return Raster(ids, zw.sub_(1.0), cull)

    def interpolate(self, attributes: Tensor, raster: Raster, clip: Tensor, attribute_faces: Tensor | None = None) -> Tensor:
        """Perspective-correct attributes as an image [B,H,W,C], zero where empty; gradients to attributes and clip x, y, w.

        attributes [B or 1,A,C] (one set is shared by all frames); attribute_faces [F,3]: corners of the same triangles in
        attributes with seams (uv); default: the mesh's own faces. Depth with a gradient is an attribute too (zw has none).
        """
        return self._interpolate(attributes, raster, clip, attribute_faces, dense=True)

    def interpolate_pixels(
        self, attributes: Tensor, raster: Raster, clip: Tensor, attribute_faces: Tensor | None = None
    ) -> Tensor:
        """As `interpolate`, only at the covered pixels `raster.pixels`: [P,C]. Losses on this list are much cheaper."""
        return self._interpolate(attributes, raster, clip, attribute_faces, dense=False)

    def barycentric(self, raster: Raster, clip: Tensor) -> Tensor:
        """Perspective-correct barycentric coordinates [P,3] at `raster.pixels`, with gradient to clip."""
        self._check_clip(clip)
        return torch_backend.barycentric(clip, raster.ids, raster.pixels, self._faces_on(clip.device))

    def exchange(self, raster: Raster, clip: Tensor) -> Tensor:
        """nvdiffrast's format [B,H,W,4]: (u, v, z/w, triangle + 1), zero where empty; u, v weigh corners 0 and 1."""
        weights = self.barycentric(raster, clip)
        zw = raster.zw.reshape(-1)[raster.pixels].to(weights.dtype)
        ids = raster.ids.reshape(-1)[raster.pixels].to(weights.dtype)
        return raster.scatter(torch.cat([weights[:, :2], torch.stack([zw, ids], dim=1)], dim=1))

    def texture(self, texture: Tensor, uv: Tensor) -> Tensor:
        """Bilinear lookup of texture [B or 1,C,h,w] at uv [B,H,W,2] -> [B,H,W,C], or at a list [P,2] -> [P,C].

        u runs right, v up; (0, 0) is the lower left corner of the picture, borders are repeated. Gradients to both.
        A list needs a texture batch of 1. Raises ValueError if the batches do not fit.
        """
        if len(texture) != 1 and (uv.ndim == 2 or len(texture) != len(uv)):
            raise ValueError(
                f"{len(texture)} textures do not fit uv of shape {tuple(uv.shape)}; give one texture or one per frame"
            )
        grid = torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], dim=-1).reshape(len(texture), 1, -1, 2)
        out = torch.nn.functional.grid_sample(texture, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return out[:, :, 0].transpose(1, 2).reshape(*uv.shape[:-1], texture.shape[1])

    def antialias(self, colour: Tensor, raster: Raster, clip: Tensor) -> Tensor:
        """Blends colour [B,H,W,C] across the outlines of the mesh; gradients to colour and clip x, y, w.

        This is what gives outlines (masks, normals against a background) a gradient to the vertices.
        """
        self._check_clip(clip)
        if colour.shape[:3] != raster.ids.shape:
            raise ValueError(f"colour {tuple(colour.shape)} does not fit a raster of shape {tuple(raster.ids.shape)}")
        device = clip.device
        return antialias(colour, raster.ids, raster.zw, clip, self._faces_on(device), self._edges_on(device), raster.cull)

    def _interpolate(self, attributes, raster, clip, attribute_faces, dense):
        self._check_clip(clip)
        if attributes.ndim != 3 or len(attributes) not in (1, len(clip)):
            raise ValueError(f"attributes have shape {tuple(attributes.shape)}; expected [{len(clip)} or 1, A, C]")
        faces = self._faces_on(clip.device)
        corners = faces if attribute_faces is None else attribute_faces.to(clip.device, torch.int32).contiguous()
        if corners.shape != faces.shape:
            raise ValueError(f"attribute_faces have shape {tuple(corners.shape)}; expected {tuple(faces.shape)}")
        dtype = torch.promote_types(torch.promote_types(attributes.dtype, clip.dtype), torch.float32)
        attributes, clip = _autograd_safe(attributes).to(dtype), _autograd_safe(clip).to(dtype)
        if self._backend(clip.device) is self._warp and dtype == torch.float32:
            return self._warp.interpolate(attributes, clip, raster.ids, raster.pixels, faces, corners, dense)
        values = torch_backend.interpolate(attributes, clip, raster.ids, raster.pixels, faces, corners)
        return raster.scatter(values) if dense else values

    def _check_clip(self, clip: Tensor) -> None:
        if clip.ndim != 3 or clip.shape[1:] != (self.vertex_count, 4):
            raise ValueError(f"clip coordinates have shape {tuple(clip.shape)}; expected [B, {self.vertex_count}, 4]")

    def _drawing(self, device: torch.device):
        """The back-end that makes the ids."""
        if self._required != "nvdiffrast":
            return self._backend(device)
        if device.type not in nvdiffrast_backend.DEVICES:
            raise ValueError(
                f'the nvdiffrast back-end runs on CUDA only, but the clip coordinates are on device "{device}"; '
                'move them to "cuda" or use backend="auto"'
            )
        return nvdiffrast_backend

    def _backend(self, device: torch.device):
        """The back-end that interpolates and, unless another is asked for, makes the ids."""
        if self._warp is not None and device.type in self._warp.DEVICES:
            return self._warp
        if self._required == "warp":
            raise ValueError(f'the warp back-end does not run on device "{device}"; use backend="auto"')
        return torch_backend

    def _faces_on(self, device: torch.device) -> Tensor:
        if device not in self._faces:
            with torch.inference_mode(False):
                self._faces[device] = self.faces.to(device)
        return self._faces[device]

    def _edges_on(self, device: torch.device) -> Edges:
        if device not in self._edges:
            with torch.inference_mode(False):
                edges = find_edges(self.faces)
                self._edges[device] = Edges(edges.vertices.to(device), edges.triangles.to(device))
        return self._edges[device]


def _autograd_safe(tensor: Tensor) -> Tensor:
    """Autograd cannot keep tensors made in inference mode."""
    return tensor.clone() if torch.is_grad_enabled() and tensor.is_inference() else tensor


def _import_warp(required: bool):
    """The warp back-end, or None where warp is not installed."""
    try:
        from . import warp_backend
    except ImportError as error:
        if required:
            raise ValueError(f"the warp back-end needs the package warp-lang ({error})") from error
        return None
    return warp_backend
