"""The instant preview: the source photo, moved by the proxy, as video frames.

Wherever the driven face shows skin that the photo saw, the pixel is the photo's own, carried along by the mesh; a smooth 2D flow
carries hair, neck and shoulders; what the photo never saw (mouth, teeth, covered eyes, the far cheek) is drawn from the proxy.
At the source's own pose all three are the photo itself, so nothing looks like a mask put on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn.functional import normalize

from .head_model import HeadModel
from .head_proxy import HeadProxy
from .inpaint import box_blur
from .lighting import shade
from .photo_light import face_skin
from .posing import Shot, Stage, camera_space, check_models, frames_at_once, output_camera
from .preview_eyes import PreviewEyes
from .preview_flow import backward_flow
from .preview_source import PreviewSource, seen_area
from .render_interior import posed_interior_light
from .source_picture import one_source
from .warp2d import pixel_grid, sample_pixels

SEEN = (0.15, 0.45)  # share of a point's present area that the photo must have shown to be trusted: not at all .. fully
SEEN_FOLD = (0.45, 0.8)  # the same for lids, lips, eyes and mouth, which can be drawn instead
MOUTH_ROUND = 0.7  # light on a tooth that is seen from the side, against one seen from the front
SCATTERED = (0.9, 1.1, 1.15)  # powers of the light at a depth: red walls keep red light longest
RELIGHT = 0.5  # how far a turned surface follows the change of light
RELIGHT_LIMITS = (0.75, 1.3)


def render_preview(
    source: Tensor,
    proxy: HeadProxy,
    motion,
    model: HeadModel,
    chunk: int = 8,
    size: tuple[int, int] | None = None,
    person: Tensor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Iterator[Tensor]:
    """Animates the source picture [3, H, W] or [1, 3, H, W] (0..1) by a motion (HeadMotion or HeadTrack).

    Yields float32 frames [t, H, W, 3] in 0..1, at most `chunk` at a time. `size` (width, height) as in `output_camera`;
    default: that of the source, up to 2048 pixels on the longer side. `person` [H, W] is a mask 0..1 of everything that
    belongs to the person; by default it is found by the landmarker's segmentation. Runs on the device of `model`;
    `progress(done, total)` counts frames.

    Raises ValueError if the picture has not the size of the proxy's source, for a bad size, an empty motion, or a proxy or
    motion of another head model.
    """
    check_models(model, proxy, motion)
    source = one_source(source, proxy)
    if len(motion) < 1:
        raise ValueError("the motion has no frames; transfer at least one frame")
    camera = output_camera(proxy.camera, *(size or (None, None)))
    return _render(source, proxy, motion, model, camera, frames_at_once(camera, chunk), person, progress)


def _render(source, proxy, motion, model, camera, chunk, person, progress) -> Iterator[Tensor]:
    stage = Stage(model, camera)
    proxy = proxy.to(model.template.device)
    known = PreviewSource.of(source, proxy, stage, person)
    for start in range(0, len(motion), chunk):
        shot = stage.shot(camera_space(model, proxy, motion, start, start + chunk))
        yield compose(known, shot).permute(0, 2, 3, 1)
        if progress is not None:
            progress(min(start + chunk, len(motion)), len(motion))


def compose(known: PreviewSource, shot: Shot) -> Tensor:
    """Frames [t, 3, H, W] of the source in the pose of `shot`."""
    camera, raster = shot.stage.camera, shot.raster
    frames = len(shot.vertices)
    points, then, now, overlay, relit, light, fold, drive, lash, stain = shot.pixels(
        known.vertices,
        known.area[..., None],
        seen_area(shot)[..., None],
        known.overlay[None, :, None],
        _relight(known, shot),
        _drawn_light(known, shot),
        known.fold[None, :, None],
        known.drive[None, :, None],
        *_lids(known, shot),
    )
    seen = torch.where(fold > 0.5, *(((then / now.clamp(min=1e-6)) - low) / (high - low) for low, high in (SEEN_FOLD, SEEN)))
    seen = seen.clamp(0, 1) * (1 - stain)  # [P, 1]
    source_pixels = camera.project(points)  # [P, 2]

    grid = pixel_grid(camera.height, camera.width, points.device)
    here = grid.permute(0, 2, 3, 1).expand(frames, -1, -1, -1).reshape(-1, 2)[raster.pixels]
    moved = source_pixels - here
    trust = drive * seen
    carried = overlay * torch.maximum(seen, fold)
    drawn = (shot.texture(known.albedo) * light).clamp(0, 1)
    cover = (1 - seen) * fold
    layer = torch.cat([drawn * cover, cover], dim=-1)
    if known.eyes is not None:
        layer = _with_eyes(known.eyes, shot, layer)
    if known.lids is not None:
        layer = layer * (1 - lash) + lash * known.lids.colour
    flow_and_trust, mesh, share, relit, layer = (
        raster.scatter(torch.cat([moved * trust, trust, moved, carried, relit, layer], dim=-1))
        .permute(0, 3, 1, 2)
        .split([3, 2, 1, 3, 4], dim=1)
    )
    flow = backward_flow(known, shot, flow_and_trust[:, :2], flow_and_trust[:, 2:])  # [t, 2, H, W]
    share = ((box_blur(box_blur(share, known.feather), known.feather) - 0.5) * 2).clamp(0, 1) * raster.mask[:, None]
    # Coordinates are blended, not colours: a seam then bends a little where two blended pictures would show twice.
    lookup = grid + flow + share * (mesh - flow)
    warped = sample_pixels(known.photo, lookup, "bicubic").clamp(0, 1) * (1 + share * (relit - 1))
    matte = torch.maximum(sample_pixels(known.matte, lookup), share)
    image = warped * matte + known.background * (1 - matte)
    layer = shot.stage.rasterizer.antialias(layer.permute(0, 2, 3, 1), raster, shot.clip).permute(0, 3, 1, 2)
    return (image * (1 - layer[:, 3:].clamp(0, 1)) + layer[:, :3]).clamp(0, 1)


def _lids(known: PreviewSource, shot: Shot) -> tuple[Tensor, Tensor]:
    """Of closing lids: cover of the lashes, and how little the photo is to be trusted, both [t, V, 1]."""
    if known.lids is None:
        nothing = torch.zeros_like(known.vertices[..., :1])
        return nothing, nothing
    closed = known.lids.closed(shot)
    return (closed @ known.lids.lashes)[..., None], (closed @ known.lids.stain)[..., None]


def _with_eyes(eyes: PreviewEyes, shot: Shot, layer: Tensor) -> Tensor:
    """The drawn layer [P, 4], premultiplied, with eyes as they show when they turn or lids move."""
    index, left = eyes.pixels(shot)
    place, moved = (value[index] for value in shot.pixels(eyes.place[None], eyes.moved(shot)[..., None]))
    colour, trust = eyes.at(place)
    cover = layer[index, 3:]
    cover = cover + moved * (1 - trust - cover)
    left = 1 - moved * (1 - left)
    # Shade on what the photo shows is a dark layer over it.
    return layer.index_copy(0, index, torch.cat([colour * left * cover, 1 - (1 - cover) * left], dim=-1))


def _relight(known: PreviewSource, shot: Shot) -> Tensor:
    """Change of light [t, V, 3] on each vertex since the source picture."""
    ratio = shade(known.light, shot.normals) / shade(known.light, known.normals)
    return ratio.clamp(*RELIGHT_LIMITS).pow(RELIGHT)


def _drawn_light(known: PreviewSource, shot: Shot) -> Tensor:
    """Light [t, V, 3] on what is drawn from the texture. In the mouth, where it comes from all sides, its depth counts most."""
    model = shot.stage.model
    skin = shade(known.light, shot.normals).pow(known.texture_light)
    # Light falls into the mouth as it falls on the face, and is scattered there: the tooth's own normal counts by half.
    outward = normalize(face_skin(model) @ shot.normals, dim=-1)[:, None]
    falling_in = shade(known.light, normalize(shot.normals + outward, dim=-1)).pow(known.texture_light)
    depth = posed_interior_light(model, known.interior, shot.vertices)[..., None] ** skin.new_tensor(SCATTERED)
    mouth = falling_in * depth * (MOUTH_ROUND + (1 - MOUTH_ROUND) * shot.facing.clamp(min=0))[..., None]
    return torch.where(known.mouth[:, None], mouth, skin)
