"""Where in a clip a model works: which rectangle, at which size, which frames, and how to take them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, get_args

from torch import Tensor

from ..proxy.camera import Camera
from ..proxy.posing import output_camera
from .families import ModelFamily, ceil_length, floor_length
from .resample import CUBIC, LINEAR, resample_box

LengthPolicy = Literal["hold", "ping-pong", "trim"]
HEAD = 0.5  # mask above this is head
ASPECT_SLACK = 1.5  # pixels by which pictures of one aspect may differ when one is scaled to the other

Size = tuple[int, int]  # width, height
Box = tuple[float, float, float, float]  # x, y, width, height


@dataclasses.dataclass(frozen=True)
class Framing:
    """A rectangle of the source, the size that it gets, and the frames that are taken of it.

    The first `kept` of the source's `frames` are used; up to `length` = 4n + 1 the last one is held, or they are gone
    through backwards and forwards again.
    """

    source: Size  # pixels
    box: Box  # in pixels of the source; it may leave the picture
    size: Size  # pixels that the box is resampled to
    frames: int
    kept: int
    length: int
    policy: LengthPolicy = "hold"

    def frame_numbers(self) -> list[int]:
        """Which frame of the source each of the `length` frames shows."""
        last = self.kept - 1
        if self.policy != "ping-pong" or last == 0:
            return [min(number, last) for number in range(self.length)]
        return [last - abs(last - number % (2 * last)) for number in range(self.length)]

    def box_in(self, size: Size) -> Box:
        """The box in pictures of `size` that show the same as the source. Raises ValueError if their aspect is another."""
        if not same_aspect(size, self.source):
            raise ValueError(
                f"the pictures have {size[0]} x {size[1]} pixels, but the framing was made for {self.source[0]} x "
                f"{self.source[1]}; connect pictures of the same clip"
            )
        return scale_box(self.box, self.source, size)

    def camera(self, source: Camera) -> Camera:
        """The camera that sees the box, at the framing's size, of a picture taken with `source`."""
        return output_camera(source, *self.source).viewport(*self.box, *self.size)


def make_framing(
    family: ModelFamily,
    images: Tensor,
    mask: Tensor | None = None,
    width: int = 0,
    height: int = 0,
    margin: float = 0.35,
    policy: LengthPolicy = "hold",
    longest: int = 0,
) -> Framing:
    """Frames the head of a clip, or the whole picture, for a family of models.

    Args:
        images: [T, H, W, C], or one picture [1, H, W, C] that goes with a mask of T frames.
        mask: [T or 1, h, w] of the head; None takes the whole picture. Of another size it is scaled if its aspect is the same.
        width, height: of the result in pixels; 0 follows from the box's aspect and the family's usual size.
        margin: added around the head on all sides, as a share of the longer side of the box that holds it in all frames.
        policy: how the clip gets 4n + 1 frames: hold the last, go back from it, or trim.
        longest: at most so many frames are kept; 0 is the family's usual length.

    Raises ValueError for a clip of no frame, a mask that is empty, of another length or aspect, or a bad size.
    """
    check_not_empty(images)
    if policy not in get_args(LengthPolicy):
        raise ValueError(f"there is no length policy {policy!r}; choose from {', '.join(get_args(LengthPolicy))}")
    if margin < 0 or longest < 0:
        raise ValueError(f"margin ({margin:g}) and largest number of frames ({longest}) cannot be below 0; choose 0 or more")
    source = (images.shape[2], images.shape[1])
    frames = _common_frames(images, mask)
    if mask is None:
        size = family.size(source[0] / source[1], width, height)
        box = _grow((0.0, 0.0, *map(float, source)), size[0] / size[1])
    else:
        head = head_box(mask, source)
        pad = margin * max(head[2:])
        around = (head[0] - pad, head[1] - pad, head[2] + 2 * pad, head[3] + 2 * pad)
        size = family.size(min(around[2], source[0]) / min(around[3], source[1]), width, height)
        box = _settle(_grow(around, size[0] / size[1]), head, source)
    kept = min(frames, floor_length(longest or family.longest))
    if policy == "trim":
        kept = floor_length(kept)
    return Framing(source, box, size, frames, kept, ceil_length(kept), policy)


def head_box(mask: Tensor, source: Size) -> Box:
    """The smallest box, in pixels of `source`, that holds what is above 0.5 in all frames of mask [T, h, w].

    Raises ValueError if there is nothing, or if the mask's aspect is not that of the source.
    """
    size = (mask.shape[2], mask.shape[1])
    if not same_aspect(size, source):
        raise ValueError(
            f"the mask has {size[0]} x {size[1]} pixels, but the pictures have {source[0]} x {source[1]}; "
            f"connect a mask of the same pictures"
        )
    seen = (mask > HEAD).any(0)
    rows, columns = seen.any(1).nonzero()[:, 0], seen.any(0).nonzero()[:, 0]
    if len(rows) == 0:
        raise ValueError("the mask is empty, nothing in it is above 0.5; connect the mask of Render Conditions, or leave it open")
    left, top = float(columns[0]), float(rows[0])
    return scale_box((left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top), size, source)


def crop_images(images: Tensor, framing: Framing, chunk: int = 16) -> Iterator[Tensor]:
    """The framing's box of images [T, H, W, C] at its size and length, in chunks [t, h, w, 3]; edges go on outside the picture.

    C is 1 (grey), 3, or 4 (alpha is dropped). One picture stays one. Raises ValueError for a clip of another length, or another aspect.
    """
    check_not_empty(images)
    return _crop(images[..., :3].expand(-1, -1, -1, 3), framing, CUBIC, chunk)


def crop_mask(mask: Tensor, framing: Framing, chunk: int = 16) -> Iterator[Tensor]:
    """The same of a mask [T, H, W], in chunks [t, h, w]; a mask of one frame stays one."""
    check_not_empty(mask)
    return (part[..., 0] for part in _crop(mask[..., None], framing, LINEAR, chunk))


def _crop(images: Tensor, framing: Framing, order: int, chunk: int) -> Iterator[Tensor]:
    box = framing.box_in((images.shape[2], images.shape[1]))
    if len(images) > 1:
        check_frames(len(images), framing)
    numbers = framing.frame_numbers() if len(images) > 1 else [0]
    return (
        resample_box(images[numbers[start : start + chunk]].float(), box, framing.size, order) for start in range(0, len(numbers), chunk)
    )


def check_frames(count: int, framing: Framing) -> None:
    """Raises ValueError if a clip of `count` frames is not the one that was framed."""
    if count != framing.frames:
        hint = "give Prepare Clip the mask of all frames" if framing.frames == 1 else "connect what belongs to the same clip"
        raise ValueError(f"there are {count} frames, but the framing was made for {framing.frames}; {hint}")


def check_not_empty(images: Tensor) -> None:
    """Raises ValueError for a batch without frames or pixels."""
    if min(images.shape) == 0:
        raise ValueError(f"the image batch is empty (shape {list(images.shape)}); connect at least one image")


def same_aspect(size: Size, other: Size) -> bool:
    """Whether pictures of the two sizes can show the same, but for rounding one side to whole or even pixels."""
    wide, tall = size[0] / other[0], size[1] / other[1]
    slack = ASPECT_SLACK * max(1.0, wide, tall)
    return min(abs(other[1] * wide - size[1]), abs(other[0] * tall - size[0])) <= slack


def scale_box(box: Box, size: Size, other: Size) -> Box:
    """A box in a picture of `size` as it lies in one of `other` size."""
    across, down = other[0] / size[0], other[1] / size[1]
    return box[0] * across, box[1] * down, box[2] * across, box[3] * down


def _common_frames(images: Tensor, mask: Tensor | None) -> int:
    if mask is None:
        return len(images)
    if min(mask.shape) == 0:
        raise ValueError(f"the mask has no frames or pixels (shape {list(mask.shape)}); connect one for each picture, or none")
    if len(images) != len(mask) and min(len(images), len(mask)) > 1:
        raise ValueError(f"there are {len(images)} pictures, but the mask has {len(mask)} frames; connect a mask of the same clip")
    return max(len(images), len(mask))


def _grow(box: Box, aspect: float) -> Box:
    """The smallest box of `aspect` around the same centre that holds `box`."""
    x, y, width, height = box
    wide, tall = max(width, height * aspect), max(height, width / aspect)
    return x - (wide - width) / 2, y - (tall - height) / 2, wide, tall


def _settle(box: Box, head: Box, source: Size) -> Box:
    """`box` shrunk and moved into the picture as far as it still holds the head; its aspect stays."""
    x, y, width, height = box
    scale = max(min(1.0, source[0] / width, source[1] / height), head[2] / width, head[3] / height)
    x, y, width, height = x + width * (1 - scale) / 2, y + height * (1 - scale) / 2, width * scale, height * scale
    return _slide(x, width, head[0], head[2], source[0]), _slide(y, height, head[1], head[3], source[1]), width, height


def _slide(start: float, extent: float, head: float, head_extent: float, limit: int) -> float:
    """`start` of a stretch moved inside 0..limit, or centred on it if it is longer, never letting go of the head's stretch."""
    start = min(max(start, 0.0), limit - extent) if extent <= limit else (limit - extent) / 2
    return min(max(start, head + head_extent - extent), head)
