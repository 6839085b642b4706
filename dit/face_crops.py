"""Upright face crops for an expression code: where a face is, how large and how tilted does not show in them (DeX-Portrait 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..proxy.frames import Frames
from ..proxy.landmarks.regions import cut, landmark_region
from .adapter.face_encoder import SIZE

CHUNK = 32


def face_crops(frames: Frames, landmarks: Tensor, numbers: list[int], size: int = SIZE) -> Tensor:
    """Crops [1, F, 3, size, size] in -1..1 of some frames, by number, of a clip whose landmarks [T, 478, 2] are known.

    Above SIZE pixels there is more around the face, which has the same scale. Raises ValueError if clip and landmarks differ in length.
    """
    if len(frames) != len(landmarks):
        raise ValueError(
            f"the performer's clip has {len(frames)} frames, but its track has {len(landmarks)}; fit the very clip that is connected"
        )
    regions = landmark_region(landmarks)
    regions[:, 2] *= size / SIZE
    parts = []
    for start in range(0, len(numbers), CHUNK):
        picked = numbers[start : start + CHUNK]
        parts.append(cut(frames.pick(picked).to(regions), regions[picked], size))
    return 2 * torch.cat(parts)[None].clamp(0, 1) - 1
