"""Colours of generated pictures brought back to the source's, measured where both should show the same.

In Oklab (Ottosson 2020), where lightness and colour are apart and equal steps look equal: each channel gets the source's
mean and spread over the ring, as in Reinhard et al. 2001. Pixels where the two pictures plainly show different things are
left out, a ring that has little in common (another background) changes nothing, and the figures are smoothed over time, so
that nothing flickers.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

OUTLIER = 2.5  # times the spread of differences beyond which a pixel shows something else
MAD_TO_SIGMA = 1.4826
FOREIGN = 0.2  # Oklab: difference of a pixel that no tint explains
TRUSTED, UNTRUSTED = 0.05, 0.15  # Oklab: RMS left after the match at which it is believed, and at which it is not
SPREAD = 0.02  # Oklab: contrast below this is noise, and is not stretched
GAIN_LIMITS = (0.6, 1.6)
SMOOTHING = 6.0  # frames, sigma
FEWEST, COMMON = 48, 0.5  # pixels, and share of a frame's ring, that have to show the same
MOST = 16384  # pixels of a ring that are read

# Linear sRGB to cone responses, and their cube roots to Oklab.
_TO_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_TO_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)


@dataclasses.dataclass(frozen=True)
class ColourMatch:
    """A gain and an offset in Oklab for each frame."""

    gain: Tensor  # [T, 3]
    offset: Tensor  # [T, 3]

    @staticmethod
    def between(results: list[tuple[Tensor, Tensor]]) -> ColourMatch:
        """From each frame's pixels of result and source on the ring, both [N, 3] in sRGB 0..1, at the same places."""
        fits = [_fit(result, source) for result, source in results]
        gain, offset = torch.stack([gain for gain, _ in fits]), torch.stack([offset for _, offset in fits])
        time = torch.arange(len(gain), dtype=gain.dtype, device=gain.device)
        weight = torch.exp(-0.5 * ((time[:, None] - time) / SMOOTHING) ** 2)
        weight = weight / weight.sum(1, keepdim=True)
        return ColourMatch(weight @ gain, weight @ offset)

    def apply(self, images: Tensor, start: int, strength: float) -> Tensor:
        """Images [t, H, W, 3] from frame `start` on, by `strength` 0..1."""
        frames = slice(start, start + len(images))
        gain, offset = self.gain[frames, None, None].to(images), self.offset[frames, None, None].to(images)
        lab = to_oklab(images)
        return from_oklab(lab + strength * (lab * (gain - 1) + offset)).clamp(0, 1)


def to_oklab(rgb: Tensor) -> Tensor:
    """sRGB [..., 3] in 0..1 to Oklab."""
    linear = torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)
    cones = (linear @ rgb.new_tensor(_TO_CONES).mT).clamp(min=0) ** (1 / 3)
    return cones @ rgb.new_tensor(_TO_LAB).mT


def from_oklab(lab: Tensor) -> Tensor:
    """Oklab [..., 3] to sRGB, which may leave 0..1."""
    cones = (lab @ _inverse(_TO_LAB, lab).mT) ** 3
    linear = cones @ _inverse(_TO_CONES, lab).mT
    return torch.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear.clamp(min=0.0031308) ** (1 / 2.4) - 0.055)


def _inverse(matrix: tuple, like: Tensor) -> Tensor:
    return torch.linalg.inv(torch.tensor(matrix, dtype=torch.float64)).to(like)


def _fit(result: Tensor, source: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset [3] that bring the result's pixels [N, 3] to the source's; 1 and 0 where nothing can be told."""
    nothing = result.new_ones(3), result.new_zeros(3)
    if len(result) < FEWEST:
        return nothing
    step = -(-len(result) // MOST)
    result, source = to_oklab(result[::step]), to_oklab(source[::step])
    difference = result - source
    apart = (difference - difference.median(0).values).norm(dim=-1)
    same = (apart <= OUTLIER * MAD_TO_SIGMA * apart.median() + 1e-4) & (difference.norm(dim=-1) < FOREIGN)
    if int(same.sum()) < max(FEWEST, COMMON * len(same)):
        return nothing
    result, source = result[same], source[same]
    gain = ((source.std(0) + SPREAD) / (result.std(0) + SPREAD)).clamp(*GAIN_LIMITS)
    offset = source.mean(0) - gain * result.mean(0)
    left = (result * gain + offset - source).square().sum(-1).mean().sqrt()
    trust = ((UNTRUSTED - left) / (UNTRUSTED - TRUSTED)).clamp(0, 1)
    return 1 + trust * (gain - 1), trust * offset
