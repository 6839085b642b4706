"""Measures of a refined head: normals in degrees, distance to a scan after rigid alignment, temporal change, likeness to a photo."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
from PIL import Image, ImageDraw
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import normalize

from expportrait.proxy.head_model import HeadModel
from expportrait.proxy.head_track import HeadTrack
from expportrait.proxy.landmark_points import FACE_OVAL, LEFT_CORNER, RIGHT_CORNER, table_of
from expportrait.proxy.mesh import vertex_normals
from expportrait.proxy.posing import Stage
from expportrait.proxy.rotation import to_matrix

CANDIDATES = 16  # triangles, by the distance of their centroids, that a closest point is sought on
ROUNDS = 10  # of the alignment at most
CHUNK = 8  # frames drawn at once
STILL = 2e-5  # metres: the alignment is done when no point moves farther in a round


def degrees_between(first: Tensor, second: Tensor) -> Tensor:
    """Angle [P] in degrees between unit vectors [P, 3]; exact for small angles too."""
    return torch.atan2(torch.linalg.cross(first, second).norm(dim=-1), (first * second).sum(-1)) * (180 / math.pi)


def normal_error(normals: Tensor, true: Tensor, mask: Tensor) -> tuple[float, float]:
    """Mean angle in degrees between normal images [T, H, W, 3] (zero where empty) inside the mask [T, H, W] bool.

    Counted where both have a normal; the second value is the share of the mask where that is so. Raises ValueError if there
    is no such pixel.
    """
    both = mask & (normals != 0).any(-1) & (true != 0).any(-1)
    if not bool(both.any()):
        raise ValueError("the normal images do not overlap inside the mask; check that both heads are in the picture")
    return float(degrees_between(normals[both], true[both]).mean()), float(both.sum() / mask.sum())


@dataclasses.dataclass(frozen=True)
class Nearest:
    """Closest points on a mesh to P points."""

    points: Tensor  # [P, 3]
    normals: Tensor  # [P, 3] unit normals of their triangles
    distance: Tensor  # [P] metres
    triangle: Tensor  # [P] int64


class Surface:
    """A triangle mesh to look up closest points on; computes in float64."""

    def __init__(self, vertices: Tensor, faces: Tensor):
        self.corners = vertices.double()[faces]  # [F, 3, 3]
        a, b, c = self.corners.unbind(1)
        self.normals = normalize(torch.linalg.cross(b - a, c - a), dim=-1)
        self.tree = cKDTree(self.corners.mean(1).numpy())

    def nearest(self, points: Tensor) -> Nearest:
        """Closest points to points [P, 3]: exact on the CANDIDATES triangles whose centroids are nearest."""
        points = points.double()
        index = torch.from_numpy(self.tree.query(points.numpy(), k=min(CANDIDATES, len(self.corners)))[1]).view(len(points), -1)
        found = closest_on_triangles(points[:, None], self.corners[index])  # [P, K, 3]
        distance = (found - points[:, None]).norm(dim=-1)
        best = distance.argmin(1, keepdim=True)
        chosen = index.gather(1, best)[:, 0]
        at = found.gather(1, best[..., None].expand(-1, -1, 3))[:, 0]
        return Nearest(at, self.normals[chosen], distance.gather(1, best)[:, 0], chosen)


def barycentric(points: Tensor, corners: Tensor) -> Tensor:
    """Barycentric coordinates [P, 3] of points [P, 3] that lie on triangles [P, 3, 3]."""
    edges = (corners[:, 1:] - corners[:, :1]).mT  # [P, 3, 2]
    share = torch.linalg.lstsq(edges, (points - corners[:, 0])[..., None]).solution[..., 0]
    return torch.cat([1 - share.sum(1, keepdim=True), share], dim=1)


def closest_on_triangles(points: Tensor, corners: Tensor) -> Tensor:
    """Closest point [..., 3] of each triangle [..., 3, 3] to points [..., 3].

    Inside the triangle's prism that is the foot on its plane, else the closest point of the three edges.
    """
    a, b, c = corners.unbind(-2)
    along, across, offset = b - a, c - a, points - a
    aa, ab, bb = (along * along).sum(-1), (along * across).sum(-1), (across * across).sum(-1)
    pa, pb = (offset * along).sum(-1), (offset * across).sum(-1)
    area = (aa * bb - ab * ab).clamp(min=1e-30)
    u, v = (bb * pa - ab * pb) / area, (aa * pb - ab * pa) / area
    foot = a + u[..., None] * along + v[..., None] * across
    inside = (u >= 0) & (v >= 0) & (u + v <= 1)
    best, least = foot, torch.where(inside, (foot - points).norm(dim=-1), torch.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        side = end - start
        share = ((points - start) * side).sum(-1) / side.square().sum(-1).clamp(min=1e-30)
        at = start + share.clamp(0, 1)[..., None] * side
        distance = (at - points).norm(dim=-1)
        best = torch.where((distance < least)[..., None], at, best)
        least = torch.minimum(least, distance)
    return best


@dataclasses.dataclass(frozen=True)
class Alignment:
    """x -> scale * R x + t."""

    rotation: Tensor  # [3, 3]
    translation: Tensor  # [3]
    scale: float = 1.0

    def __call__(self, points: Tensor) -> Tensor:
        return self.scale * points.double() @ self.rotation.mT + self.translation


def align_points(points: Tensor, targets: Tensor, scaled: bool = False) -> Alignment:
    """Least-squares alignment of points [P, 3] with targets [P, 3] in closed form, rigid or with a scale (Umeyama 1991)."""
    points, targets = points.double(), targets.double()
    middle, target_middle = points.mean(0), targets.mean(0)
    offset, target_offset = points - middle, targets - target_middle
    left, size, right = torch.linalg.svd(target_offset.mT @ offset)
    flip = torch.ones(3, dtype=torch.float64)
    flip[2] = torch.sign(torch.linalg.det(left) * torch.linalg.det(right))
    rotation = left * flip @ right
    scale = float((size * flip).sum() / offset.square().sum()) if scaled else 1.0
    return Alignment(rotation, target_middle - scale * rotation @ middle, scale)


def align_to_surface(points: Tensor, surface: Surface, start: Alignment, scaled: bool = False) -> Alignment:
    """Alignment of points [P, 3] with a surface by point-to-plane ICP (Chen and Medioni 1992), rigid or with a scale."""
    found = start
    for _ in range(ROUNDS):
        moved = found(points)
        near = surface.nearest(moved)
        centre = moved.mean(0)
        lever = moved - centre
        columns = [torch.linalg.cross(lever, near.normals), near.normals]
        if scaled:
            columns.append((lever * near.normals).sum(1, keepdim=True))
        system = torch.cat(columns, 1)
        step = torch.linalg.lstsq(system, ((near.points - moved) * near.normals).sum(1, keepdim=True)).solution[:, 0]
        turn, grow = to_matrix(step[None, :3])[0], 1 + float(step[6]) if scaled else 1.0
        translation = grow * turn @ (found.translation - centre) + centre + step[3:6]
        found = Alignment(turn @ found.rotation, translation, grow * found.scale)
        if float((found(points) - moved).norm(dim=1).max()) < STILL:
            break
    return found


def scan_distance(points: Tensor, surface: Surface, matches: tuple[Tensor, Tensor], scaled: bool = False) -> float:
    """Mean distance in metres from scan points [P, 3] to a surface after alignment; in the scan's own size if `scaled`.

    `matches` are points of the scan and of the surface [M, 3] that roughly belong together, for the start.
    """
    found = align_to_surface(points, surface, align_points(*matches, scaled), scaled)
    return float(surface.nearest(found(points)).distance.mean()) / found.scale


def signed_distances(vertices: Tensor, scan: Surface, matches: tuple[Tensor, Tensor], points: Tensor, surface: Surface) -> Tensor:
    """How far each vertex [V, 3] of a predicted mesh lies outside (+) or inside (-) the scan, metres [V], after rigid alignment."""
    found = align_to_surface(points, surface, align_points(*matches))
    back = (vertices.double() - found.translation) @ found.rotation
    near = scan.nearest(back)
    return torch.copysign(near.distance, ((back - near.points) * near.normals).sum(1)).float()


def psnr(image: Tensor, photo: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of colours [P, 3] in 0..1, all pixels together."""
    return -10 * math.log10(float((image - photo).square().mean()))


def correlation(first: Tensor, second: Tensor, weight: Tensor) -> float:
    """Weighted Pearson correlation of fields [V], means removed; weight [V]. 0 if one of them does not vary."""
    share, first, second = (weight / weight.sum()).double(), first.double(), second.double()
    first, second = first - (share * first).sum(), second - (share * second).sum()
    spread = ((share * first**2).sum() * (share * second**2).sum()).sqrt()
    return float((share * first * second).sum() / spread) if spread > 1e-15 else 0.0


def vertex_areas(vertices: Tensor, faces: Tensor) -> Tensor:
    """Area [V] that belongs to each vertex of a mesh [V, 3], a third of each triangle around it, square metres."""
    a, b, c = vertices[faces].unbind(1)
    third = torch.linalg.cross(b - a, c - a).norm(dim=1) / 6
    return torch.zeros(len(vertices)).index_add(0, faces.flatten(), third.repeat_interleave(3))


# Of heads in a camera


def normal_images(stage: Stage, vertices: Tensor) -> Tensor:
    """Unit camera-space normals [T, H, W, 3] of vertices [T, V, 3], zero behind the head."""
    images = []
    for part in vertices.split(CHUNK):
        shot = stage.shot(part)
        (normals,) = shot.pixels(shot.normals)
        images.append(shot.raster.scatter(normalize(normals, dim=-1)))
    return torch.cat(images)


def face_ovals(track: HeadTrack) -> Tensor:
    """Inside of the detected face's outline, [T, H, W] bool."""
    masks = []
    for points in track.landmarks[:, FACE_OVAL]:
        picture = Image.new("1", (track.width, track.height))
        ImageDraw.Draw(picture).polygon([tuple(point) for point in points.tolist()], fill=1)
        masks.append(torch.from_numpy(np.array(picture)))
    return torch.stack(masks)


def landmark_error(model: HeadModel, track: HeadTrack, vertices: Tensor) -> float:
    """Mean distance of the head's landmarks to the detected ones, in percent of the distance of the outer eye corners."""
    table = table_of(model)
    keep = (table.weight > 0).cpu()
    keep[FACE_OVAL] = False
    points = track.camera.project(table.points(vertices, model.faces))
    span = (track.landmarks[:, LEFT_CORNER] - track.landmarks[:, RIGHT_CORNER]).norm(dim=-1)
    error = (points - track.landmarks).norm(dim=-1)[:, keep] / span[:, None]
    return 100 * float(error[track.valid].mean())


def flicker(stage: Stage, vertices: Tensor, track: HeadTrack) -> tuple[float, float]:
    """Mean change in degrees of the rendered normals inside the face from one frame to the next: following the surface, and per pixel.

    Following the surface leaves what the head's own motion and bending do to the normals, which any fit has. Per pixel, detail
    that moves with the head counts as change too, be it ever so steady.
    """
    followed, in_place, before = [], [], None
    ovals = face_ovals(track)
    for frame in range(len(vertices)):
        shot = stage.shot(vertices[frame][None])
        last = max(frame - 1, 0)
        previous = vertex_normals(vertices[last][None], stage.model.faces)
        now, then = (normalize(value, dim=-1) for value in shot.pixels(shot.normals, previous))
        image = shot.raster.scatter(now)[0]
        if frame > 0 and bool(track.valid[frame] and track.valid[last]):
            inside = ovals[frame].reshape(-1)[shot.raster.pixels]
            followed.append(degrees_between(now[inside], then[inside]))
            both = ovals[frame] & ovals[last] & (image != 0).any(-1) & (before != 0).any(-1)
            in_place.append(degrees_between(image[both], before[both]))
        before = image
    return float(torch.cat(followed).mean()), float(torch.cat(in_place).mean())
