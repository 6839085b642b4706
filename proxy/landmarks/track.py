"""Follows one face through a clip in two passes.

Pass 1 finds all faces of every frame. One of them is then followed through time, and the square in which it lies is smoothed
(centre, size and angle), so that its crops move calmly. Pass 2 runs the mesh on those crops; crops that jump are the main
source of jitter. It also recovers frames whose face the detector missed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .face_detector import SURE, Detections
from .regions import bounding_box, landmark_region

if TYPE_CHECKING:
    from ..frames import Frames
    from .landmarker import Landmarker

POLICIES = ("interpolate", "previous", "empty")
CHUNK = 16
MIN_SCORE = 0.5  # of the mesh
CLEAR_SCORE = 0.9  # of the mesh, where the detector is not sure
SEARCHED_FRAMES = 64  # of a clip in which no face is plain to see
MOST_FACES = 8
SMOOTHING = 0.06  # seconds, standard deviation of the region's smoothing
SAME_PLACE = 0.25  # of a region's side: regions that are further apart are not smoothed together (a cut)
REACH = 0.5  # of a region's side that a face may move from one frame to the next


@dataclass(frozen=True)
class FaceLandmarks:
    """478 points of one face in T frames.

    points [T, 478, 3]: x, y in pixels of the image (origin top left, pixel centres at +0.5), z in the same scale, + away from
    the camera, 0 at the head's centre; MediaPipe's order, irises last. valid [T] bool: the face was found in this frame.
    confidence [T] in 0..1, 0 where not valid. box [T, 4]: x, y, width, height in pixels. width, height in pixels, fps in 1/s.
    """

    points: Tensor
    valid: Tensor
    confidence: Tensor
    box: Tensor
    width: int
    height: int
    fps: float


def track(
    landmarker: Landmarker,
    frames: Frames,
    face_index: int = 0,
    missing: str = "interpolate",
    progress: Callable[[int, int], None] | None = None,
) -> FaceLandmarks:
    """Follows one face through `frames`.

    `face_index` counts the faces of the first frame that has so many, the largest is 0. `missing` says what frames without that
    face get: "interpolate" (linear between its valid neighbours, the ends hold), "previous" (the last valid frame, or the first
    one before it) or "empty" (zeros). Such frames are not valid. Raises ValueError if no frame has the face, or on a wrong argument.
    """
    if missing not in POLICIES:
        raise ValueError(f"missing is {missing!r}; choose one of {', '.join(POLICIES)}")
    if face_index < 0:
        raise ValueError(f"face_index is {face_index}; give 0 for the largest face, 1 for the next, ...")
    total = len(frames)
    report = progress or (lambda done, of: None)
    faces, sure = _find_all(landmarker, frames, face_index, lambda done: report(done, 2 * total))
    if not sure:
        _search(landmarker, frames, face_index, faces, lambda: report(total, 2 * total))
    regions = smooth_regions(*follow(faces, face_index), frames.fps)

    points, score, start = [], [], 0
    for chunk in frames.chunks(CHUNK):
        found, sure = landmarker.mesh_in(chunk, regions[start : start + len(chunk)])
        points.append(found.cpu())
        score.append(sure.cpu())
        start += len(chunk)
        report(total + start, 2 * total)
    score = torch.cat(score)
    valid = score >= MIN_SCORE
    if not valid.any():
        raise ValueError(_none_found(total))
    points = fill(torch.cat(points), valid, missing)
    confidence = torch.where(valid, score, torch.zeros(()))
    return FaceLandmarks(points, valid, confidence, bounding_box(points), frames.width, frames.height, frames.fps)


def _none_found(total: int) -> str:
    where = "the picture" if total == 1 else f"any of the {total} frames"
    return f"no face was found in {where}; use a picture in which a human face is clearly visible"


def _find_all(
    landmarker: Landmarker, frames: Frames, face_index: int, report: Callable[[int], None]
) -> tuple[list[Tensor], bool]:
    """Pass 1: the regions [K, 4] of the faces of every frame, the largest first, and whether the detector was sure of any."""
    faces: list[Tensor] = []
    sure = False
    for chunk in frames.chunks(CHUNK):
        found = landmarker.detect(chunk, face_index + 1)
        sure |= any((f.score >= SURE).any().item() for f in found)
        faces += _checked(landmarker, chunk.to(landmarker.device), found)
        report(len(faces))
    return faces, sure


def _search(
    landmarker: Landmarker, frames: Frames, face_index: int, faces: list[Tensor], report: Callable[[], None]
) -> None:
    """Searches a part of the frames thoroughly (turned pictures, small faces) and replaces their `faces`.

    `report` is called after each, so that the user can cancel.
    """
    step = -(-len(frames) // SEARCHED_FRAMES)
    start = 0
    for chunk in frames.chunks(CHUNK):
        chosen = [i for i in range(len(chunk)) if (start + i) % step == 0]
        for i in chosen:
            image = chunk[i : i + 1].to(landmarker.device)
            faces[start + i] = _checked(landmarker, image, landmarker.detect(image, face_index + 1, thorough=True))[0]
            report()
        start += len(chunk)


def _checked(landmarker: Landmarker, images: Tensor, found: list[Detections]) -> list[Tensor]:
    """The regions [K, 4] of what the mesh confirms of the detections in images [N, 3, H, W], the largest first.

    The mesh has to confirm a sure detection once, at the latest on the region that it found itself (profiles need that), but
    an unsure one (a cat, a pattern) clearly and both times.
    """
    found = [Detections(f.boxes[:MOST_FACES], f.keypoints[:MOST_FACES], f.score[:MOST_FACES]) for f in found]
    regions = torch.cat([f.regions() for f in found])
    frame = torch.tensor([i for i, f in enumerate(found) for _ in range(len(f))], dtype=torch.long, device=images.device)
    if len(regions):
        sure = torch.cat([f.score for f in found]) >= SURE
        points, first = landmarker.mesh_in(images, regions, frame)
        regions, second = landmark_region(points), first.clone()
        again = (~sure | (first < MIN_SCORE)).nonzero()[:, 0]
        if len(again):
            points, second[again] = landmarker.mesh_in(images, regions[again], frame[again])
            regions[again] = landmark_region(points)
        good = torch.where(sure, torch.maximum(first, second) >= MIN_SCORE, torch.minimum(first, second) >= CLEAR_SCORE)
        regions, frame = regions[good].cpu(), frame[good].cpu()
    faces = [regions[frame == i] for i in range(len(images))]
    return [those[those[:, 2].argsort(descending=True)] for those in faces]


def follow(faces: list[Tensor], face_index: int) -> tuple[Tensor, Tensor]:
    """The region [T, 4] of one face, and where it was found [T] bool (elsewhere the region is 0), out of all faces of T frames.

    `faces` holds the regions [K, 4] of each frame, the largest first.
    Starts at the first frame with more than `face_index` faces and takes the nearest region, forwards and then backwards.
    Raises ValueError if no frame has that many faces.
    """
    most = max(len(f) for f in faces)
    if most == 0:
        raise ValueError(_none_found(len(faces)))
    if most <= face_index:
        raise ValueError(f"face_index is {face_index}, but no frame shows more than {most} face(s); choose a lower face_index")
    first = next(t for t, f in enumerate(faces) if len(f) > face_index)
    regions, found = torch.zeros(len(faces), 4), torch.zeros(len(faces), dtype=torch.bool)
    regions[first], found[first] = faces[first][face_index], True
    for order in (range(first + 1, len(faces)), range(first - 1, -1, -1)):
        last = first
        for t in order:
            if len(faces[t]) == 0:
                continue
            distance = _distance(faces[t], regions[last])
            if distance.min() < REACH * abs(t - last):
                regions[t], found[t] = faces[t][distance.argmin()], True
                last = t
    return regions, found


def _distance(regions: Tensor, other: Tensor) -> Tensor:
    """How far regions [K, 4] are from `other` [4], in sides, counting the change of size as well."""
    moved = (regions[:, :2] - other[:2]).norm(dim=-1) / torch.minimum(regions[:, 2], other[2])
    return moved + (regions[:, 2] / other[2]).log().abs()


def smooth_regions(regions: Tensor, found: Tensor, fps: float) -> Tensor:
    """Fills the frames that are not `found` [T] linearly and smooths regions [T, 4] over time, but not across cuts."""
    turns = torch.zeros(len(regions))
    angles = regions[found][:, 3]
    steps = torch.remainder(angles.diff() + torch.pi, 2 * torch.pi) - torch.pi
    turns[found] = torch.cat([angles[:1], angles[:1] + steps.cumsum(0)])  # without jumps of a full turn
    tracks = torch.cat([regions[:, :2], regions[:, 2:3].clamp(min=1e-6).log(), turns[:, None]], -1)
    tracks = fill(tracks[:, None], found, "interpolate")[:, 0]

    sigma = SMOOTHING * fps
    total, weights = torch.zeros_like(tracks), torch.zeros(len(tracks), 1)
    for shift in range(-int(3 * sigma), int(3 * sigma) + 1):
        at = torch.arange(len(tracks)) + shift
        inside = (at >= 0) & (at < len(tracks))
        near = tracks[at.clamp(0, len(tracks) - 1)]
        apart = (near[:, :2] - tracks[:, :2]).norm(dim=-1) / tracks[:, 2].exp()
        weight = torch.exp(-0.5 * (shift / max(sigma, 1e-6)) ** 2 - (apart / SAME_PLACE) ** 2) * inside
        total += weight[:, None] * near
        weights += weight[:, None]
    smooth = total / weights
    return torch.cat([smooth[:, :2], smooth[:, 2:3].exp(), smooth[:, 3:]], -1)


def fill(values: Tensor, valid: Tensor, missing: str) -> Tensor:
    """Replaces values [T, ...] where not valid [T] by the policy `missing`, see `track`."""
    if missing == "empty":
        return torch.where(valid.reshape(-1, *[1] * (values.ndim - 1)), values, torch.zeros((), dtype=values.dtype))
    at = torch.arange(len(valid))
    known = at[valid]
    after = torch.searchsorted(known, at).clamp(max=len(known) - 1)
    before = (torch.searchsorted(known, at, right=True) - 1).clamp(min=0)
    low, high = known[before], known[after]
    if missing == "previous":
        return values[low]
    share = ((at - low) / (high - low).clamp(min=1)).reshape(-1, *[1] * (values.ndim - 1)).clamp(0, 1)
    return values[low] + (values[high] - values[low]) * share.to(values.dtype)
