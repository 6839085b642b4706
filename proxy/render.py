"""Condition maps of a proxy in motion: normals, depth, mask, regions, landmark lines, shaded grey and textured, in chunks.

All maps of a chunk come from one raster; only covered pixels are interpolated and coloured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from .camera import Camera
from .head_model import HeadModel
from .head_proxy import HeadProxy
from .posing import Shot, Stage, camera_space, check_models, frames_at_once, output_camera
from .render_depth import depth_range
from .render_interior import interior_light, posed_interior_light
from .render_lines import draw_landmark_lines
from .render_regions import REGION_COLOURS, region_scores

MAPS = ("normals", "depth", "mask", "regions", "landmarks", "shaded", "textured")
SMOOTH = ("normals", "depth", "mask", "shaded", "textured")  # outlines are antialiased; region labels stay crisp
CLAY = 0.78
KEY_LIGHT, FILL_LIGHT = (-0.45, 0.55, 0.70), (0.75, 0.10, 0.35)  # camera space, towards the light
AMBIENT, KEY, FILL = 0.22, 0.68, 0.20


@dataclasses.dataclass(frozen=True)
class _Scene:
    """What the map functions share."""

    stage: Stage
    proxy: HeadProxy
    depths: tuple[float, float]  # inverse distance that becomes black and white
    directx: bool
    interior: Tensor  # [V] light left inside the mouth at rest
    regions: Tensor  # [V, R]


def render_maps(
    proxy: HeadProxy,
    motion,
    model: HeadModel,
    maps: Sequence[str],
    width: int | None = None,
    height: int | None = None,
    chunk: int = 8,
    directx: bool = False,
    progress: Callable[[int, int], None] | None = None,
    camera: Camera | None = None,
) -> Iterator[dict[str, Tensor]]:
    """Renders condition maps of a motion (HeadMotion or HeadTrack), at most `chunk` frames at a time.

    Yields {map: float32 [t, H, W, 3]} in 0..1 ("mask": [t, H, W, 1]), black where there is no head:
    normals (camera space, OpenGL, encoded (n + 1) / 2; `directx` turns the green channel), depth (inverse distance, near is
    white, one range for the whole motion), mask (coverage), regions (labels in REGION_COLOURS), landmarks (face lines),
    shaded (grey under two lights), textured (the proxy's albedo). The cornea is left out, so the iris is seen.

    The output has the source picture's framing: see `output_camera`; default size is the source's, up to 2048 pixels. A
    `camera` of its own, as a viewport of the source's gives it, takes the place of width and height. Runs on the device of
    `model`. `progress(done, total)` counts frames. A refined proxy is drawn with its displacement, as in `camera_space`.

    Raises ValueError for an unknown map, an empty motion, a bad size, or a proxy or motion of another head model.
    """
    unknown = [name for name in maps if name not in MAPS]
    if unknown or not maps:
        raise ValueError(f"there is no map {(unknown or [''])[0]!r}; choose from {', '.join(MAPS)}")
    check_models(model, proxy, motion)
    camera = camera or output_camera(proxy.camera, width, height)
    if len(motion) < 1:
        raise ValueError("the motion has no frames; transfer at least one frame")
    return _render(proxy, motion, model, tuple(maps), camera, frames_at_once(camera, chunk), directx, progress)


def _render(proxy, motion, model, maps, camera, chunk, directx, progress) -> Iterator[dict[str, Tensor]]:
    scene = _Scene(
        stage=Stage(model, camera),
        proxy=proxy.to(model.template.device),
        depths=depth_range(proxy, motion, model) if "depth" in maps else (0.0, 1.0),
        directx=directx,
        interior=interior_light(model),
        regions=region_scores(model),
    )
    for start in range(0, len(motion), chunk):
        vertices = camera_space(model, scene.proxy, motion, start, start + chunk)
        yield _render_shot(scene, scene.stage.shot(vertices), maps)
        if progress is not None:
            progress(min(start + chunk, len(motion)), len(motion))


def _render_shot(scene: _Scene, shot: Shot, maps: Sequence[str]) -> dict[str, Tensor]:
    drawn = [name for name in maps if name != "landmarks"]
    attributes = [_ATTRIBUTES[name](scene, shot) for name in drawn]
    values = shot.pixels(*attributes) if drawn else []
    colours = {name: _COLOURS[name](scene, shot, value) for name, value in zip(drawn, values)}
    out = {name: shot.raster.scatter(colour) for name, colour in colours.items() if name not in SMOOTH}
    smooth = [name for name in drawn if name in SMOOTH]
    if smooth:
        image = shot.raster.scatter(torch.cat([colours[name] for name in smooth], dim=-1))
        image = scene.stage.rasterizer.antialias(image, shot.raster, shot.clip).clamp(0, 1)
        out |= dict(zip(smooth, image.split([colours[name].shape[-1] for name in smooth], dim=-1)))
    if "landmarks" in maps:
        out["landmarks"] = draw_landmark_lines(shot)
    return {name: image.expand(-1, -1, -1, 1 if name == "mask" else 3) for name, image in out.items()}


# What each map interpolates over the mesh, [1 or t, V, C]


def _normals(scene: _Scene, shot: Shot) -> Tensor:
    return shot.normals


def _inverse_depth(scene: _Scene, shot: Shot) -> Tensor:
    return -shot.vertices[..., 2:]


def _nothing(scene: _Scene, shot: Shot) -> Tensor:
    return shot.vertices[:1, :, :1] * 0


def _regions(scene: _Scene, shot: Shot) -> Tensor:
    return scene.regions[None]


def _clay(scene: _Scene, shot: Shot) -> Tensor:
    """Grey under a key and a fill light, per vertex. Inside parts keep their own lightness, so that gaze and teeth show."""
    model = scene.stage.model
    key, fill = (
        torch.nn.functional.normalize(shot.normals.new_tensor(light), dim=0) for light in (KEY_LIGHT, FILL_LIGHT)
    )
    light = AMBIENT + KEY * (shot.normals @ key).clamp(min=0) + FILL * (shot.normals @ fill).clamp(min=0)
    own = model.albedo.mean(-1)
    grey = torch.where(scene.stage.vertex_parts == 0, torch.full_like(own, CLAY), own)  # part 0 is skin
    return (light * grey)[..., None].clamp(0, 1) * _inside(scene, shot)


def _inside(scene: _Scene, shot: Shot) -> Tensor:
    return posed_interior_light(scene.stage.model, scene.interior, shot.vertices)[..., None]


# How each map colours its pixels, [P, C]


def _colour_normals(scene: _Scene, shot: Shot, value: Tensor) -> Tensor:
    value = torch.nn.functional.normalize(value, dim=-1)
    if scene.directx:
        value = value * value.new_tensor([1.0, -1.0, 1.0])
    return (value + 1) / 2


def _colour_depth(scene: _Scene, shot: Shot, value: Tensor) -> Tensor:
    low, high = scene.depths
    return ((1 / value.clamp(min=1e-3) - low) / (high - low)).clamp(0, 1)


def _colour_mask(scene: _Scene, shot: Shot, value: Tensor) -> Tensor:
    return torch.ones_like(value)


def _colour_regions(scene: _Scene, shot: Shot, value: Tensor) -> Tensor:
    palette = value.new_tensor(list(REGION_COLOURS.values())) / 255
    return palette[value.argmax(-1)]


def _colour_shaded(scene: _Scene, shot: Shot, value: Tensor) -> Tensor:
    return value


def _colour_textured(scene: _Scene, shot: Shot, value: Tensor) -> Tensor:
    return shot.texture(scene.proxy.albedo) * value


_ATTRIBUTES = {
    "normals": _normals,
    "depth": _inverse_depth,
    "mask": _nothing,
    "regions": _regions,
    "shaded": _clay,
    "textured": _inside,
}
_COLOURS = {
    "normals": _colour_normals,
    "depth": _colour_depth,
    "mask": _colour_mask,
    "regions": _colour_regions,
    "shaded": _colour_shaded,
    "textured": _colour_textured,
}
