"""Finds where MediaPipe's 478 points lie on a head model, from what the landmarker says about renders of the model.

Every render gives the pixel of every landmark and, since its geometry is known, the pixel of every vertex. The place of a
landmark is the surface point whose pixels are closest to the landmark's over all renders in which the surface faces the camera.
That needs no ray to hit the right layer: where lips touch or lids hide the eye, other renders tell the layers apart. It is the
same distance that a fit makes small afterwards.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .calibrate_render import Portraits, Subjects, random_subjects
from .files import whole_file
from .head_model import PARTS, HeadModel, LandmarkTable
from .landmark_points import FACE_OVAL, IRISES
from .landmarks import Landmarker
from .landmarks.regions import landmark_region

POINTS = 478
BATCH = 8
ROUNDS = 2  # passes of the landmarker over a picture, each on the crop that the one before found
MIN_SCORE = 0.5
NEAR = 48  # triangles tried around the best vertex
SEEN = 0.05  # least mean cosine between a landmark's surface and the direction to the camera
OUTLIER = 4.0  # pixels of a calibration picture; beyond, a detection counts little
GOOD_SPREAD = 1.5  # pixels; a landmark that scatters so much about its place weighs half


@dataclasses.dataclass(frozen=True)
class Views:
    """What N pictures show of K candidate vertices and P = 478 landmarks, pixels."""

    vertex: Tensor  # [N, K, 2]
    facing: Tensor  # [N, K] cosine of normal and direction to the camera, 0 where it looks away
    landmark: Tensor  # [N, P, 2]
    trust: Tensor  # [N, P]

    def robust(self, distance: Tensor) -> Tensor:
        """Trust [N, P], lowered where a landmark is far (distance [N, P], pixels) from where it should be."""
        return self.trust / (1 + (distance / OUTLIER) ** 2) ** 2


def calibrate_landmarks(
    model: HeadModel,
    landmarker: Landmarker,
    renders: int = 400,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> LandmarkTable:
    """Landmark table of any head model; about a minute on two cores.

    The weight of a landmark falls with its scatter; the face oval, which slides along the outline, has weight 0. Raises
    ValueError if the landmarker finds no face in most renders of the model.
    """
    with torch.inference_mode(False), torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        subjects = random_subjects(model, renders, generator)
        candidates = candidate_vertices(model)
        views = _look(model, landmarker, subjects, candidates, generator, progress)
        return _solve(model, views, candidates)


def save_landmarks(path: str | os.PathLike, table: LandmarkTable, model_id: str) -> None:
    """Writes a table as npz (about 5 KB)."""
    with whole_file(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(
            file,
            model_id=np.array(model_id),
            triangle=table.triangle.numpy().astype(np.int32),
            barycentric=table.barycentric.numpy().astype(np.float32),
            weight=table.weight.numpy().astype(np.float32),
        )


def landmarks_path(model_path: str | os.PathLike) -> Path:
    """Where the table of a user's model file is kept: `<file>.landmarks.npz` beside it."""
    return Path(f"{model_path}.landmarks.npz")


def candidate_vertices(model: HeadModel) -> Tensor:
    """Vertices [K] that may carry a landmark: the face and its surroundings, and the eyeballs."""
    regions = model.regions
    face = torch.stack([regions[name] for name in ("face", "lips", "lids", "brows", "nose", "scalp", "neck")]).amax(0) > 0.02
    template = model.stencil @ model.template
    front = template[:, 2] > template[regions["face"] > 0.5][:, 2].amin() - 0.05
    part = model.vertex_parts()
    skin, eyes = part == PARTS.index("skin"), (part == PARTS.index("left_eye")) | (part == PARTS.index("right_eye"))
    return ((face & front & skin) | eyes).nonzero()[:, 0]


def _look(model, landmarker: Landmarker, subjects: Subjects, candidates, generator, progress) -> Views:
    portraits = Portraits(model)
    count = len(subjects.identity)
    parts = []
    for start in range(0, count, BATCH):
        s = slice(start, start + BATCH)
        vertices = portraits.place(model.forward(subjects.identity[s], subjects.expression[s], subjects.joints[s]))
        normals = model.vertex_normals(vertices)
        pixels = portraits.camera.project(vertices)
        pictures, seen = portraits.draw(vertices, normals, generator)
        region = portraits.region(pixels)
        for _ in range(ROUNDS):
            points, score = landmarker.mesh_in(pictures, region)
            region = landmark_region(points)
        sight = -torch.nn.functional.normalize(vertices[:, candidates], dim=-1)
        facing = (normals[:, candidates] * sight).sum(-1).clamp(min=0) * seen[:, candidates]
        trust = (score > MIN_SCORE).float()[:, None].repeat(1, POINTS)
        trust[:, IRISES] *= (subjects.blink[s, None] < 0.3).float()
        parts.append((pixels[:, candidates], facing, points[..., :2], trust))
        if progress is not None:
            progress(min(start + BATCH, count), count)
    views = Views(*(torch.cat(column) for column in zip(*parts)))
    found = int((views.trust[:, 0] > 0).sum())
    if found < count / 2:
        raise ValueError(
            f"the landmarker found a face in only {found} of {count} renders of head model {model.model_id}; "
            f"its landmarks cannot be calibrated"
        )
    return views


def _solve(model: HeadModel, views: Views, candidates: Tensor) -> LandmarkTable:
    part = model.vertex_parts()[candidates]
    iris = torch.zeros(POINTS, dtype=torch.bool)
    iris[IRISES] = True
    allowed = iris[:, None] == (part != PARTS.index("skin"))[None]  # [P, K]
    best = _closest(views, allowed, views.trust)
    for _ in range(3):
        # Outliers of the last guess count less in the next one.
        distance = (views.vertex[:, best] - views.landmark).norm(dim=-1)
        robust = views.robust(distance)
        best = _closest(views, allowed, robust)
    triangle, barycentric, spread = closest_surface_points(model, views, candidates, best, robust)
    weight = 1 / (1 + (spread / GOOD_SPREAD) ** 2)
    weight[FACE_OVAL] = 0
    return LandmarkTable(triangle, barycentric, weight)


def _closest(views: Views, allowed: Tensor, weight: Tensor) -> Tensor:
    """Vertex [P], index into the candidates, with the least weighted mean square distance to each landmark."""
    facing = views.facing.sqrt().mT  # [K, N]
    total = facing @ weight  # [K, P]
    squares = facing * (views.vertex**2).sum(-1).mT
    cost = squares @ weight + facing @ (weight * (views.landmark**2).sum(-1))
    for axis in range(2):
        cost -= 2 * (facing * views.vertex[..., axis].mT) @ (weight * views.landmark[..., axis])
    # What is seldom seen says little: it must face the camera in a fair share of the renders.
    seen = total > SEEN * weight.sum(0)
    cost = torch.where(seen & allowed.mT, cost / total.clamp(min=1e-6), torch.inf)
    return cost.argmin(0)


def closest_surface_points(
    model: HeadModel, views: Views, candidates: Tensor, best: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Triangle [P] and barycentrics [P, 3] of the surface point around `best` that is closest to each landmark in the mean over
    the views weighted by `weight` [N, P], and its RMS distance [P] in pixels. `best` [P] indexes the candidate vertices [K]."""
    local = torch.full((model.weights.shape[0],), -1)
    local[candidates] = torch.arange(len(candidates))
    faces = local[model.faces]  # [F, 3], -1 where a corner is no candidate
    usable = ((faces >= 0).all(1) & (model.parts != PARTS.index("cornea"))).nonzero()[:, 0]
    template = model.stencil @ model.template
    centres = template[model.faces[usable]].mean(1)
    near = torch.cdist(template[candidates[best]], centres).topk(NEAR, largest=False).indices  # [P, Q]
    same = model.parts[usable][near] == model.vertex_parts()[candidates[best]][:, None]
    triangle, barycentric, spread = [], [], []
    for landmark in range(POINTS):
        tried = usable[near[landmark][same[landmark]]]
        corners = faces[tried]  # [Q, 3]
        w = weight[:, landmark] * views.facing[:, corners].mean(-1).sqrt().mT  # [Q, N]
        share, cost = _inside(views.vertex[:, corners].transpose(0, 1), views.landmark[:, landmark], w)
        cost = cost.masked_fill(w.sum(1) < SEEN / 2 * weight[:, landmark].sum(), torch.inf)
        at = int(cost.argmin())
        triangle.append(tried[at])
        barycentric.append(share[at])
        spread.append(cost[at].sqrt())
    return torch.stack(triangle), torch.stack(barycentric), torch.stack(spread)


def _inside(corners: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Barycentrics [Q, 3] of the point of each triangle closest to `target` [N, 2] in the weighted mean over N views, and its
    mean square distance [Q]. corners [Q, N, 3, 2], weight [Q, N]."""
    total = weight.sum(1).clamp(min=1e-6)
    edges = corners[:, :, 1:] - corners[:, :, :1]  # [Q, N, 2, 2]
    offset = target - corners[:, :, 0]
    matrix = torch.einsum("qn,qnax,qnbx->qab", weight, edges, edges) + 1e-6 * torch.eye(2)
    right = torch.einsum("qn,qnax,qnx->qa", weight, edges, offset)
    free = torch.linalg.solve(matrix, right)
    options = [free]
    for a, b in (((0, 0), (1, 0)), ((0, 0), (0, 1)), ((1, 0), (0, 1))):
        # The three sides, for triangles whose closest point lies outside.
        start, along = free.new_tensor(a).float(), free.new_tensor(b).float() - free.new_tensor(a).float()
        down = torch.einsum("qa,qa->q", right - matrix @ start, along.expand_as(right))
        t = (down / torch.einsum("a,qab,b->q", along, matrix, along)).clamp(0, 1)
        options.append(start + t[:, None] * along)
    solutions = torch.stack(options, 1)  # [Q, 4, 2]
    outside = (solutions.amin(-1) < -1e-6) | (solutions.sum(-1) > 1 + 1e-6)
    constant = torch.einsum("qn,qnx->q", weight, offset**2)
    cost = torch.einsum("qka,qab,qkb->qk", solutions, matrix, solutions) - 2 * torch.einsum("qka,qa->qk", solutions, right)
    cost = ((cost + constant[:, None]) / total[:, None]).clamp(min=0).masked_fill(outside, torch.inf)
    pick = cost.argmin(1)
    rows = torch.arange(len(pick))
    uv = solutions[rows, pick].clamp(0, 1)
    share = torch.cat([1 - uv.sum(1, keepdim=True), uv], 1).clamp(min=0)
    return share / share.sum(1, keepdim=True), cost[rows, pick]
