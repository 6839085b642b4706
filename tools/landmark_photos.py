"""Betters a landmark table with photos of real faces: what all of them find shifted against the fit lies elsewhere on the head.

The landmarker was trained on people. On renders of a bald, clean head its points slide a little, most of all towards the outline.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from expportrait.proxy.calibrate import Views, candidate_vertices, closest_surface_points
from expportrait.proxy.fit import fit_landmarks
from expportrait.proxy.head_model import HeadModel, LandmarkTable
from expportrait.proxy.landmark_points import FACE_OVAL, LEFT_CORNER, RIGHT_CORNER
from expportrait.proxy.landmarks import FaceLandmarks
from expportrait.proxy.posing import camera_space

ROUNDS = 2  # of fitting and moving
STAY = 0.2  # weight of a landmark's place on renders against that on all photos; few people differ in their own ways
EYE_DISTANCE = 63.0  # pixels between the outer eye corners, as in calibration pictures


def refine_table(model: HeadModel, table: LandmarkTable, people: list[list[FaceLandmarks]]) -> LandmarkTable:
    """The table moved to where the landmarks of photos lie on fitted heads; each of `people` counts the same.

    `people` holds the landmarks of each person's photos, one frame each. Mirrored copies keep the table as symmetrical as
    the landmarker is. The face oval and the weights stay.
    """
    candidates = candidate_vertices(model)
    local = torch.full((model.weights.shape[0],), -1)
    local[candidates] = torch.arange(len(candidates))
    refined = table
    for _ in range(ROUNDS):
        fitted = dataclasses.replace(model, landmarks=refined)
        views = _join([_views(fitted, table, photo, candidates, 1 / len(photos)) for photos in people for photo in photos])
        corner = refined.barycentric.argmax(1, keepdim=True)
        best = local[model.faces[refined.triangle].gather(1, corner)[:, 0]]
        distance = (views.vertex[:, best] - views.landmark).norm(dim=-1)
        triangle, barycentric, _ = closest_surface_points(model, views, candidates, best, views.robust(distance))
        triangle[FACE_OVAL], barycentric[FACE_OVAL] = table.triangle[FACE_OVAL], table.barycentric[FACE_OVAL]
        refined = LandmarkTable(triangle, barycentric, table.weight)
    return refined


def _views(model: HeadModel, table: LandmarkTable, photo: FaceLandmarks, candidates: Tensor, weight: float) -> Views:
    """A photo as it was detected, and once more with the landmarks where the table of renders has them."""
    track = fit_landmarks(photo, model)
    vertices = camera_space(model, track.identity, track)
    scale = EYE_DISTANCE / (track.landmarks[0, LEFT_CORNER] - track.landmarks[0, RIGHT_CORNER]).norm()
    pixels = scale * track.camera.project(vertices)
    sight = -torch.nn.functional.normalize(vertices, dim=-1)
    facing = (model.vertex_normals(vertices) * sight).sum(-1).clamp(min=0)[:, candidates]
    rendered = table.points(pixels, model.faces)
    trust = torch.full((2, len(table.weight)), weight)
    trust[1] *= STAY
    return Views(
        pixels[:, candidates].expand(2, -1, -1), facing.expand(2, -1), torch.cat([scale * track.landmarks, rendered]), trust
    )


def _join(views: list[Views]) -> Views:
    names = [field.name for field in dataclasses.fields(Views)]
    return Views(*(torch.cat([getattr(view, name) for view in views]) for name in names))
