"""What maps of outside estimators have in common: number of frames, size, pixels without a value, and that they are read in chunks.

A clip's maps stay where they are, in the caller's IMAGE batch or in a file. A first walk over them finds what the whole clip has in
common, such as signs and units; what is made of them is made for a chunk when it is needed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..frames import Frames

CHUNK = 8  # frames handled together: bounds the memory beside the result's own
ASPECT = 0.05  # estimators round sides to multiples of 14 or 64 pixels; a larger difference is a crop or a stretch


@dataclasses.dataclass(frozen=True)
class OutsideMaps:
    """What estimators and segmentations found in the T frames of a photo or clip, for `refine_head`; None: not known.

    Each is an IMAGE (MASK) batch, or the `Frames` of a file, which is read in chunks, several times. Maps may have another size than
    the frames, but their shape; a single one serves all frames.
    """

    normals: Tensor | Frames | None = None  # IMAGE [T or 1, h, w, 3 or 4], camera space, (n + 1) / 2 or -1..1: `camera_normals`
    normal_convention: str = "auto"  # "opengl": green points up; "directx": down; "auto": as the fit has it
    depth: Tensor | Frames | None = None  # IMAGE [T or 1, h, w, 1, 3 or 4], grey, in any unit: `depth_targets`
    depth_convention: str = "auto"  # "inverse": near is white, 1 / distance; "metric": near is dark, distance; "auto": as the fit has it
    mask: Tensor | Frames | None = None  # MASK [T or 1, h, w] 0..1 of the person, or all but the person: `check_person_mask`


class MapFrames:
    """One map of the kind `what` for each of T frames, read in chunks from an IMAGE batch or from a file; one map serves all frames."""

    def __init__(self, maps: Tensor | Frames, count: int, size: tuple[int, int], what: str):
        """Maps [T or 1, h, w, C], T = `count`, of frames of the given size (H, W).

        Raises ValueError for another shape, another number of frames than T or 1, or an aspect ratio unlike the frames'.
        """
        if isinstance(maps, Frames):
            shape = [len(maps), maps.height, maps.width, 3]
        else:
            shape = list(maps.shape)
            if maps.ndim != 4 or min(shape) == 0:
                raise ValueError(f"expected a {what} of shape [T, H, W, C], found {shape}; connect an IMAGE batch")
        found, height, width, self.channels = shape
        if found not in (1, count):
            raise ValueError(f"the {what} has {found} frames, but the track has {count}; connect one map per frame, or a single one")
        if abs(width * size[0] / (height * size[1]) - 1) > ASPECT:
            raise ValueError(
                f"the {what} has {width} x {height} pixels, which is another shape than the frames' {size[1]} x {size[0]}; "
                f"connect the map of the whole frame, neither cropped nor stretched"
            )
        self.count, self.size = count, size
        if isinstance(maps, Frames) and found == 1:
            maps = maps.frame(0).permute(1, 2, 0)[None]
        self._maps = maps if isinstance(maps, Frames) else maps.expand(count, -1, -1, -1)

    def chunks(self) -> Iterator[tuple[slice, Tensor]]:
        """Consecutive frames and their maps [t, h, w, C]."""
        if isinstance(self._maps, Frames):
            pictures = (images.permute(0, 2, 3, 1) for images in self._maps.chunks(CHUNK))
        else:
            pictures = (self._maps[part] for part in chunks(self.count))
        yield from zip(chunks(self.count), pictures)

    def pick(self, frames: Tensor) -> Tensor:
        """The maps [N, h, w, C] of some frames [N]."""
        if isinstance(self._maps, Frames):
            return self._maps.pick(frames.tolist()).permute(0, 2, 3, 1)
        return self._maps[frames.to(self._maps.device)]


def chunks(count: int) -> Iterator[slice]:
    """Slices of at most CHUNK of `count` frames."""
    for start in range(0, count, CHUNK):
        yield slice(start, min(start + CHUNK, count))


def resize_known(values: Tensor, known: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Values [t, C, H, W], trusted by known [t, 1, H, W] in 0..1, resized to (h, w) with antialiasing.

    Each new pixel is the mean of what is known under it, so that nothing unknown bleeds in; 0 where nothing is.
    """
    if tuple(values.shape[-2:]) == tuple(size):
        return torch.where(known > 0, values, torch.zeros_like(values)), known
    # The product of an unknown NaN and its weight of 0 would be NaN.
    weighted = torch.where(known > 0, values * known, torch.zeros_like(values))
    both = F.interpolate(torch.cat([weighted, known], 1), size=size, mode="bilinear", antialias=True, align_corners=False)
    known = both[:, -1:].clamp(0, 1)
    return both[:, :-1] / known.clamp(min=1e-6), known


def name_frames(chosen: Tensor) -> str:
    """Frames [T] bool in words: "frame 3", "frames 0 to 4, 7"."""
    numbers = chosen.nonzero()[:, 0].tolist()
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = [f"{first} to {last}" if last > first else f"{first}" for first, last in spans]
    return f"frame{'s' if len(numbers) > 1 else ''} {', '.join(words)}"


def refuse_if_empty(usable: Tensor, finite: Tensor, masked: Tensor, what: str, missing: str) -> None:
    """Raises ValueError, naming frames and reasons, if no frame of the `what` is usable; all masks [T] bool.

    `finite` says which frames hold any finite value, `masked` which have nothing left under the mask, `missing` what the
    others lack.
    """
    if bool(usable.any()):
        return
    reasons = [
        (~finite, "no finite value"),
        (finite & masked, "nothing inside the mask"),
        (finite & ~masked, missing),
    ]
    told = "; ".join(f"{name_frames(frames)}: {reason}" for frames, reason in reasons if bool(frames.any()))
    raise ValueError(f"no frame of the {what} can be used ({told}); connect maps of the same frames, or none at all")
