"""Finds faces in images: boxes and six key points per face, from MediaPipe's detector networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .detector_nets import VALUES, FullRange, ShortRange
from .regions import cut, eye_line_region, to_image, whole_image

RIGHT_EYE, LEFT_EYE = 0, 1  # key points; the others are nose tip, mouth, right and left ear
OVERLAP = 0.3
SURE = 0.75  # score above which a detection is hardly ever wrong
SAME_EYES = 0.25  # of a box's width: how far the eyes of two detections of one face may differ


@dataclass(frozen=True)
class Detections:
    """K faces of one image, the largest first.

    boxes [K, 4] (x, y, w, h) and keypoints [K, 6, 2] (the subject's right eye, left eye, nose tip, mouth, right ear, left
    ear) in pixels, score [K] in 0..1.
    """

    boxes: Tensor
    keypoints: Tensor
    score: Tensor

    def __len__(self) -> int:
        return len(self.score)

    def regions(self) -> Tensor:
        """Where to cut the crops [K, 4] for the face mesh."""
        return eye_line_region(self.boxes, self.keypoints[:, RIGHT_EYE], self.keypoints[:, LEFT_EYE])


def detect_in(net: ShortRange | FullRange, images: Tensor, views: Tensor, threshold: float) -> list[Detections]:
    """Looks for faces in images [N, 3, H, W] through each of the square regions `views` [M, 4], all in one batch.

    Returns one set per image; what several views found is merged.
    """
    count, size = len(images), net.size
    regions = views.to(images).repeat(count, 1)
    frame = torch.arange(count, device=images.device).repeat_interleave(len(views))
    raw, logits = net(cut(images, regions, size, frame, padding="zeros") * 2 - 1)
    scores = logits.clamp(-100, 100).sigmoid()
    view, anchor = (scores >= threshold).nonzero(as_tuple=True)
    values = raw[view, anchor].reshape(-1, VALUES // 2, 2)  # centre, extent, six key points
    points = torch.cat([values[:, :1], values[:, 2:]], 1) + net.anchors[anchor, None] * size
    points = to_image(points, regions[view], size)
    extent = values[:, 1] * (regions[view, 2:3] / size)
    rows = torch.cat([points[:, 0] - extent / 2, extent, points[:, 1:].flatten(1), scores[view, anchor, None]], 1)
    return [merge(rows[frame[view] == i]) for i in range(count)]


def merge(rows: Tensor) -> Detections:
    """Weighted non-maximum suppression of rows [R, 17] (box, key points, score).

    Of boxes that overlap, those become one weighted mean whose eyes agree with the best one's; the others (say, the same face
    seen upside down) are dropped.
    """
    kept = []
    rows = rows[rows[:, -1].argsort(descending=True)]
    while len(rows):
        same = _overlap(rows[0, :4], rows[:, :4]) > OVERLAP
        same[0] = True
        group = rows[same]
        apart = (group[:, 4:8] - group[0, 4:8]).reshape(-1, 2, 2).norm(dim=-1).amax(1)
        group = group[apart <= SAME_EYES * group[0, 2]]
        weight = group[:, -1:] / group[:, -1].sum()
        kept.append(torch.cat([(group[:, :-1] * weight).sum(0), group[0, -1:]]))
        rows = rows[~same]
    result = torch.stack(kept) if kept else rows
    result = result[(result[:, 2] * result[:, 3]).argsort(descending=True)]
    return Detections(result[:, :4], result[:, 4:-1].reshape(-1, 6, 2), result[:, -1])


def rows_of(found: Detections) -> Tensor:
    """The inverse of `merge`'s last step: [K, 17]."""
    return torch.cat([found.boxes, found.keypoints.reshape(-1, 12), found.score[:, None]], -1)


def _overlap(box: Tensor, boxes: Tensor) -> Tensor:
    """Intersection over union [R] of `box` [4] with `boxes` [R, 4]."""
    low = torch.maximum(box[:2], boxes[:, :2])
    high = torch.minimum(box[:2] + box[2:], boxes[:, :2] + boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    return shared / (box[2:].prod() + boxes[:, 2:].prod(-1) - shared).clamp(min=1e-9)


def thorough_views(width: int, height: int) -> Tensor:
    """Squares [M, 4] for an image in which nothing was found: turned by every 45 degrees, and overlapping tiles of half its size."""
    whole = whole_image(width, height)
    side = max(width, height)
    views = [whole + torch.tensor([0, 0, 0, turn * torch.pi / 4]) for turn in range(1, 8)]
    views.append(whole * torch.tensor([1, 1, 1.6, 1]))  # a face that fills the picture, seen from further away
    views += [torch.tensor([[x, y, side / 2, 0.0]]) for y in _centres(height, side / 2) for x in _centres(width, side / 2)]
    return torch.cat(views)


def _centres(length: int, tile: float) -> list[float]:
    """Centres of tiles that overlap by half and cover an axis of `length` pixels."""
    if length <= tile:
        return [length / 2]
    count = -int(-(length - tile) // (tile / 2)) + 1
    return [tile / 2 + (length - tile) * i / (count - 1) for i in range(count)]
