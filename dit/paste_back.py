"""Generated pictures put back into the full picture that they were cut from."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor

from ..proxy.inpaint import dilate
from .colour_match import ColourMatch
from .framing import Framing, Size, check_frames, check_not_empty, same_aspect, scale_box
from .resample import CUBIC, LINEAR, resample_box

RING = 0.08  # of the box's shorter side: width of the ring that colours are compared on
RING_SIDE = 256  # pixels of the longer side at which they are compared


def paste_back(
    source: Tensor,
    results: Tensor,
    framing: Framing,
    mask: Tensor | None = None,
    feather: float = 24.0,
    colour_match: float = 1.0,
    chunk: int = 8,
) -> Iterator[Tensor]:
    """Puts results back where `framing` took them from; yields the full pictures [t, H, W, 3] in chunks.

    Args:
        source: [T, H, W, C] what was framed, or one picture [1, H, W, C] that all results go into.
        results: [t, h, w, C] of at most the framing's length, at its size or another of the same aspect. Frames that only
            filled the clip up to 4n + 1 are dropped, so that there are as many as the source gave.
        mask: [T or 1, H, W] over the source, or over the framing's box if it has the framing's size and the source another;
            None takes the whole box. Where it is 0 the source stays bit by bit.
        feather: pixels of the source over which the result fades in, inwards from the edge of mask and box. At a border of
            the picture itself nothing fades.
        colour_match: 0..1, how far the colours of a result are brought to the source's. They are compared on a ring around
            the mask or, without one, along the inside of the box (see `ColourMatch`).

    Raises ValueError for a source or results that do not belong to the framing, or a mask of another size or length.
    """
    check_not_empty(source)
    check_not_empty(results)
    source, results = source[..., :3], results[..., :3].to(source.device)
    if len(source) > 1:
        check_frames(len(source), framing)
    size = (results.shape[2], results.shape[1])
    if not same_aspect(size, framing.size) or len(results) > framing.length:
        raise ValueError(
            f"the results are {len(results)} pictures of {size[0]} x {size[1]}, but the framing is of {framing.length} of "
            f"{framing.size[0]} x {framing.size[1]}; connect what was made with this framing"
        )
    paste = _Paste(framing, (source.shape[2], source.shape[1]), size, float(feather))
    count = min(len(results), framing.kept)
    mask = None if mask is None else paste.over_source(mask.to(source.device), count)
    return _paste_all(paste, source, results[:count], mask, colour_match, chunk)


def _paste_all(paste, source, results, mask, colour_match, chunk) -> Iterator[Tensor]:
    colours = paste.match_colours(source, results, mask) if colour_match > 0 else None
    left, top, right, bottom = paste.window
    for start in range(0, len(results), chunk):
        some = results[start : start + chunk].float()
        if colours is not None:
            some = colours.apply(some, start, colour_match)
        full = _frames(source, start, len(some)).float().expand(len(some), -1, -1, -1).clone()
        here = full[:, top:bottom, left:right]
        alpha = paste.alpha(None if mask is None else _frames(mask, start, len(some)), here)
        mixed = here + alpha * (paste.on_source(some) - here)
        full[:, top:bottom, left:right] = torch.where(alpha > 0, mixed, here)
        yield full


class _Paste:
    """Where results of a size lie in a source of a size, and how they fade in."""

    def __init__(self, framing: Framing, source: Size, size: Size, feather: float):
        self.framing, self.source, self.size, self.feather = framing, source, size, max(feather, 0.0)
        self.box = framing.box_in(source)
        x, y, width, height = self.box
        right, bottom = min(source[0], math.ceil(x + width)), min(source[1], math.ceil(y + height))
        self.window = max(0, math.floor(x)), max(0, math.floor(y)), right, bottom  # what is touched: left, top, right, bottom

    def on_source(self, images: Tensor, order: int = CUBIC) -> Tensor:
        """Pictures of the box [t, h, w, C] at the source's pixels in the window [t, h', w', C]."""
        left, top, right, bottom = self.window
        size = (images.shape[2], images.shape[1])
        x, y, width, height = scale_box((left - self.box[0], top - self.box[1], right - left, bottom - top), self.box[2:], size)
        return resample_box(images, (x, y, width, height), (right - left, bottom - top), order)

    def over_source(self, mask: Tensor, count: int) -> Tensor:
        """The mask of `paste_back` in the window [T or 1, h', w', 1]. Raises ValueError if it is of another size or length."""
        size = (mask.shape[2], mask.shape[1])
        if min(mask.shape) == 0 or (len(mask) != 1 and len(mask) < count):
            raise ValueError(f"the mask has shape {list(mask.shape)}; expected 1 or at least {count} frames")
        mask = mask[: max(1, count), ..., None].float()
        left, top, right, bottom = self.window
        if size == self.source:
            return mask[:, top:bottom, left:right]
        if size in (self.framing.size, self.size):
            return self.on_source(mask, LINEAR)
        if same_aspect(size, self.source):
            window = (left, top, right - left, bottom - top)
            return resample_box(mask, scale_box(window, self.source, size), window[2:], LINEAR)
        raise ValueError(
            f"the mask has {size[0]} x {size[1]} pixels; expected {self.source[0]} x {self.source[1]} as the source, or "
            f"{self.framing.size[0]} x {self.framing.size[1]} as the framing"
        )

    def alpha(self, mask: Tensor | None, like: Tensor) -> Tensor:
        """Share [t or 1, h', w', 1] of the result in the window."""
        inside = self._inside_box(like)
        if mask is None:
            return inside
        depth = torch.stack([_depth(frame[..., 0]) for frame in mask])[..., None].to(inside)
        return torch.minimum(inside, mask * self._fade(depth))

    def _fade(self, depth: Tensor) -> Tensor:
        """Share of the result at `depth` pixels behind the edge of what is pasted, counted from outside the first pixel."""
        share = (depth / (self.feather + 0.5)).clamp(0, 1)
        return share * share * (3 - 2 * share)

    def _inside_box(self, like: Tensor) -> Tensor:
        """1 inside the box, falling to 0 over the feather, but for sides where the picture itself ends."""
        left, top, right, bottom = self.window
        ramps = []
        for start, stop, near, extent, limit in (
            (left, right, self.box[0], self.box[2], self.source[0]),
            (top, bottom, self.box[1], self.box[3], self.source[1]),
        ):
            centre = torch.arange(start, stop, device=like.device, dtype=torch.float32) + 0.5
            first = centre - near if near > 0.5 else torch.full_like(centre, torch.inf)
            last = near + extent - centre if near + extent < limit - 0.5 else torch.full_like(centre, torch.inf)
            ramps.append(self._fade(torch.minimum(first, last) + 0.5))
        return (ramps[1][:, None] * ramps[0])[None, ..., None]

    def match_colours(self, source: Tensor, results: Tensor, mask: Tensor | None) -> ColourMatch:
        """Compares results with what the source shows of the box, on the ring."""
        shrink = min(1.0, RING_SIDE / max(self.size))
        small = tuple(max(1, round(side * shrink)) for side in self.size)
        pairs, then = [], None
        for number in range(len(results)):
            if then is None or len(source) > 1:
                then = resample_box(_frames(source, number, 1).float(), self.box, small, LINEAR)
            if number == 0 or (mask is not None and len(mask) > 1):
                ring = self._ring(None if mask is None else _frames(mask, number, 1), small, then)
            now = resample_box(results[number : number + 1].float(), (0, 0, *self.size), small, LINEAR)
            pairs.append((now[0][ring], then[0][ring]))
        return ColourMatch.between(pairs)

    def _ring(self, mask: Tensor | None, small: Size, like: Tensor) -> Tensor:
        """The ring [h, w] bool on the box at `small` size: around the mask, or along the inside of the box."""
        width = max(1, round(RING * min(small)))
        x, y, across, down = self.box
        column = (torch.arange(small[0], device=like.device) + 0.5) / small[0]
        row = (torch.arange(small[1], device=like.device) + 0.5)[:, None] / small[1]
        shown = _between(x + column * across, self.source[0]) & _between(y + row * down, self.source[1])
        edge = torch.ones(small[1], small[0], dtype=torch.bool, device=like.device)
        edge[width:-width, width:-width] = False
        if mask is not None:
            core = resample_box(mask, (x - self.window[0], y - self.window[1], across, down), small, LINEAR)[None, ..., 0]
            around = ((dilate(core, 2 * width) > 0.5) & (core < 0.02))[0, 0] & shown
            if bool(around.any()):
                return around
        return edge & shown


def _depth(mask: Tensor) -> Tensor:
    """Distance [H, W] from each pixel to the nearest one where the mask is 0; infinite if there is none."""
    inside = (mask > 0).cpu().numpy()
    return torch.full(mask.shape, torch.inf) if inside.all() else torch.from_numpy(distance_transform_edt(inside))


def _between(values: Tensor, limit: int) -> Tensor:
    return (values >= 0) & (values <= limit)


def _frames(batch: Tensor, start: int, count: int) -> Tensor:
    """`count` frames from `start`, or the only one."""
    return batch if len(batch) == 1 else batch[start : start + count]
