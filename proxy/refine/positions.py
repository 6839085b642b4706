"""Where the posed skin should lie, as metres along its normals: what depth, silhouettes and the other half of a face say about it.

Each function turns one kind of evidence into offsets and least-squares weights at the skin's vertices, for sum_v w_v (d_v - o_v)^2 in
the system of `surface.Integrator`. A weight of 1 is that of a vertex that faces the evidence and agrees with it; how far to trust a kind
of evidence as a whole is not decided here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..head_model import HeadModel
from ..posing import Shot
from ..render_interior import dense_template
from ..texture import mirror_vertices
from .observe import View
from .person import STEPS, Lines, last_inside, outline_vertices, walk

SURE = 0.98  # of a map's known pixels at a vertex: beyond its border the next ones are the background's
DEPTH_OUTLIER = 0.012  # metres: noses and chins differ from the fit by up to 1 cm, hair and hands lie 2 cm or more before it
OUTLINE_OUTLIER = 0.01  # metres: jaws differ from the fit by up to 5 mm; an edge farther off is that of hair or a hood
RIM = 0.25  # cosine between normal and view at which a vertex has nothing to do with the outline
ASIDE = 0.006  # metres between a vertex and the drawn outline at which it is another's: a cheek of 10 cm radius at RIM lies 3 mm inside
TEMPLE = (0.8, 0.9)  # sideways part of a normal: surely the front of the head .. surely its side, where hair begins below the scalp
RISE = 0.01  # metres above the lids over which the temples begin
CLEAR = 3  # samples beyond the drawn outline that are free of the head


def depth_offsets(view: View, distance: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets [t, S] in metres along the posed normals that bring the skin to a measured surface, and their weight [t, S] 0..1.

    `distance` [t, 1, H, W] (metres along the view axis, at the size of the camera's pictures) and `weight` [t, 1, H, W] (0..1) are
    those of `outside_depth.DepthTargets`. The measured point of a vertex p lies on its viewing ray, at m = p D / z for the distance D
    found there and z = -p_z. To first order the surface around m is parallel to the skin around p, so that the vertex has to reach
    the plane through m across its own normal n:

        o = n . (m - p) = (D - z) n . p / z.

    The error is of second order, the product of D - z and the angle between both surfaces, and goes with further rounds. It and a
    map's blur grow where the surface turns away, so the weight is the square of the cosine to the ray, times `seen`, `valid`, the map's
    own weight, and Geman and McClure's factor 1 / (1 + ((D - z) / DEPTH_OUTLIER)^2)^2. Where the map has no pixel that is known, or none
    for sure, offset and weight are 0.

    Scale and shift of an estimator's depth have been solved against the plain fit, frame by frame: an offset that is alike
    over the whole face says nothing, only what scale and shift cannot explain is measured.
    """
    known = (weight > 0) & distance.isfinite() & (distance > 0)
    maps = torch.cat([torch.where(known, distance, 0.0), torch.where(known, weight, 0.0), known.to(distance)], 1)
    found, trust, sure = view.sample(maps).unbind(-1)
    ray = view.points / -view.points[..., 2:]
    slope = (view.normals * ray).sum(-1)  # metres of the normal by metre of distance, negative where the surface faces the camera
    gap = found / sure.clamp(min=0.5) + view.points[..., 2]
    cosine = (-slope / ray.norm(dim=-1)).clamp(0, 1)
    total = view.seen * view.valid[:, None] * trust * (sure > SURE) * cosine.square() / (1 + (gap / DEPTH_OUTLIER).square()).square()
    return torch.where(total > 0, gap * slope, 0.0), total


def outline_offsets(shot: Shot, vertices: Tensor, frames: Tensor, person: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets [t, S] in metres along the posed normals that bring the outline to the silhouette's edge, and their weight [t, S] 0..1.

    `vertices` [S] are indices of the model's skin, frames [t, 3, H, W] and the mask `person` [t, H, W] of any size show the
    camera's view. The offset is how far, across the view, the mask's edge lies beyond the drawn head's own along the
    projected normal: an outline moves by what its vertices move along their normals, and those near it share its move.

    The weight is that of `silhouette_weight`, where the vertex has to do with the outline: its normal is across the view (it falls off to
    0 at a cosine of RIM), the drawn head ends near it (at ASIDE 0) and leaves free what lies beyond. An outline before
    something else of the head, like a jaw's before the neck, is not on the silhouette. Tukey's biweight leaves out edges that are
    OUTLINE_OUTLIER and more off, for nothing else may speak against them there. Temples are never pulled outwards: short hair there is
    often of the skin's colour. A shot does not know whether a frame has a face: the caller leaves those out that have none.
    """
    with torch.no_grad():
        rim = (1 - (shot.facing[:, vertices] / RIM).square()).clamp(min=0) * outline_vertices(shot.stage.model)[vertices]
        used = (rim > 0).any(0).nonzero()[:, 0]
        found, (drawn, ends) = walk(shot, frames, person, vertices[used]), _drawn_edge(shot, vertices[used])
        offset = found.distance - drawn
        near = (1 - (drawn / ASIDE).square()).clamp(min=0) * ends
        inlier = (1 - (offset / OUTLINE_OUTLIER).square()).clamp(min=0).square()
        bare = 1 - _temples(shot.stage.model)[vertices[used]] * (offset > 0)
        offsets, weights = torch.zeros_like(rim), torch.zeros_like(rim)
        weights[:, used] = rim[:, used] * near * found.weight * inlier * bare
        offsets[:, used] = offset
        return torch.where(weights > 0, offsets, 0.0), weights


def mirror_pairs(model: HeadModel, skin_vertices: Tensor) -> Tensor:
    """For each of the skin's vertices [S] the place [S] among them of the one on the other side; its own where that is not among them."""
    own = torch.arange(len(skin_vertices), device=skin_vertices.device)
    place = torch.full((model.vertex_count,), -1, device=own.device).index_copy(0, skin_vertices, own)
    other = place[mirror_vertices(model)[skin_vertices]]
    return torch.where(other < 0, own, other)


def unseen_weight(seen: Tensor) -> Tensor:
    """1 [S] where none of T frames saw a vertex, 0 where one saw it fully, by the best sight of all; seen [T, S] 0..1."""
    return 1 - seen.amax(0).clamp(0, 1)


def _drawn_edge(shot: Shot, vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Metres [t, N] across the view from the vertices outwards to where the drawn head ends, and whether [t, N] it ends there."""
    camera, raster = shot.stage.camera, shot.raster
    mask = raster.mask[..., None].to(shot.clip)
    mask = shot.stage.rasterizer.antialias(mask, raster, shot.clip)[..., 0]
    lines = Lines.of(shot, vertices, camera.height, camera.width)
    on = lines.sample(mask[:, None], torch.arange(-STEPS, STEPS + 1, device=mask.device)[None, None])[:, 0] > 0.5
    last, far = last_inside(on)
    beyond = last[..., None] + torch.arange(1, CLEAR + 1, device=on.device) + STEPS
    free = ~on.gather(-1, beyond.clamp(0, 2 * STEPS)).any(-1)
    return lines.edge(mask, last) * lines.step / lines.metre, free & (far <= STEPS)


def _temples(model: HeadModel) -> Tensor:
    """Sides of the head above the lids, without the ears, [V] 0..1."""
    points = dense_template(model)
    lids = model.regions["lids"]
    above = points[:, 1] - (lids * points[:, 1]).sum() / lids.sum().clamp(min=1e-6)
    sideways = model.vertex_normals(points[None])[0, :, 0].abs()
    side = ((sideways - TEMPLE[0]) / (TEMPLE[1] - TEMPLE[0])).clamp(0, 1)
    return side * (above / RISE).clamp(0, 1) * (1 - model.regions["ears"])
