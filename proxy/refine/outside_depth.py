"""Depth maps of outside estimators, brought to metres with the help of the plain fit's distances.

Estimators give inverse depth (disparity, near is white) or depth (near is dark), mostly up to an unknown scale and shift:
Ranftl et al., Towards Robust Monocular Depth Estimation, TPAMI 2020, section 4.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..frames import Frames
from .outside_maps import CHUNK, MapFrames, refuse_if_empty, resize_known
from .plain_fit import FitView, PlainFit

SAMPLES = 16384  # pixels of a frame that scale and shift are solved from
FEWEST = 50  # such pixels below which a frame has no depth
ABSOLUTE_ROUNDS, BIWEIGHT_ROUNDS = 8, 8
BIWEIGHT = 4.685  # standard deviations at which Tukey's biweight gives up: 95 % efficient on normal errors
CORRELATION = 0.6  # least correlation with the plain fit; good maps have above 0.95
GAIN = 0.8  # an unexpected model must leave at most this share of the expected one's error
COLOUR = 0.02  # mean difference between channels above which a map is coloured
OUTLIER = (0.03, 0.06)  # metres from the plain fit: surely the head .. surely a hand, the hair or the background


class DepthTargets:
    """Distances that the depth maps of T frames show, solved for when asked for."""

    def __init__(self, maps: MapFrames, fit: PlainFit, found: _Fit, agrees: Tensor):
        self._maps, self._fit, self._found, self._agrees = maps, fit, found, agrees

    def at(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Distance [N, H, W] in metres along the view axis (0 where the weight is) and weight [N, H, W] 0..1 of some frames [N].

        There is none where the map has no value, off the plain fit's skin or far from it, and in frames that do not correlate with it.
        """
        parts = [self._chunk(chosen) for chosen in frames.split(CHUNK)]
        distance, weight = (torch.cat(values) for values in zip(*parts))
        return distance, weight

    def _chunk(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        base = self._fit.at(frames)
        values, weight = _values(self._maps.pick(frames).to(base.distance), base)
        frames = frames.to(weight.device)
        line = self._found.scale[frames, None, None] * values + self._found.shift[frames, None, None]
        distance = 1 / line.clamp(min=1e-3) if self._found.inverse else line
        off = (distance - base.distance).abs()
        weight = weight * ((OUTLIER[1] - off) / (OUTLIER[1] - OUTLIER[0])).clamp(0, 1)
        weight = weight * self._agrees[frames, None, None]
        return torch.where(weight > 0, distance, torch.zeros_like(distance)), weight


def depth_targets(
    images: Tensor | Frames, fit: PlainFit, convention: str = "auto", tick: Callable[[int], None] = lambda count: None
) -> DepthTargets:
    """Distances in metres from an estimator's depth map, at the frames' size.

    Args:
        images: IMAGE batch [T or 1, h, w, 1, 3 or 4] or file of any size; values in any unit, not finite where nothing is known.
        fit: the T frames of the plain fit; distances are wanted on its skin.
        convention: "inverse" (near is white, values affine in 1 / distance: MiDaS, Depth Anything, normalised or not),
            "metric" (near is dark, values affine in the distance), or "auto".
        tick: told the number of frames done in the first walk over the maps.

    Scale and shift are solved per frame against the plain fit by `scale_shift` with robust weights, so a map of the right
    relief lands at the fit's distance. "auto" reads near-is-white or near-is-dark off the sign of the correlation with the
    fit and takes the model, inverse or not, that leaves the smaller error; so it also takes inverted depth (near is white) and
    inverted disparity (near is dark).

    Raises ValueError, with what was found and what to do, for an unknown convention, another shape, size or number of
    frames, coloured maps, maps without a value on the face, and maps that do not agree with the fit or the convention.
    """
    if convention not in ("auto", "inverse", "metric"):
        raise ValueError(f"there is no depth convention {convention!r}; choose auto, inverse or metric")
    maps = MapFrames(images, fit.count, fit.size, "depth map")
    if maps.channels not in (1, 3, 4):
        raise ValueError(f"the depth map has {maps.channels} channels; connect a grey image")
    parts, kept = [], []
    for part, found in maps.chunks():
        base = fit.at(torch.arange(part.start, part.stop))
        found = found.to(base.distance)
        _refuse_colours(found)
        parts.append(_solve(*_values(found, base), base.distance))
        grey = found[..., :3].mean(-1)
        kept.append(torch.stack([grey.isfinite().flatten(1).any(1), base.covered.flatten(1).any(1)]))
        tick(len(found))
    usable = torch.cat([part[2] for part in parts])
    finite, wanted = torch.cat(kept, 1)
    refuse_if_empty(usable, finite, ~wanted, "depth map", f"fewer than {FEWEST} pixels of different values on the face")
    fits = _Fit.joined([part[0] for part in parts]), _Fit.joined([part[1] for part in parts])
    return DepthTargets(maps, fit, *_choose(fits, usable, convention))


def scale_shift(prediction: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Scale [T] and shift [T] that minimise sum weight (scale prediction + shift - target)^2 for each of T frames.

    All arguments have one shape [T, ...], weights are not negative. These are the normal equations in centred form
    (Ranftl et al., TPAMI 2020, equation 4, with weights); differentiable in all arguments. Where a frame's prediction does
    not vary the scale is 0 and the shift the mean target; where nothing has weight both are 0.
    """
    prediction, target, weight = (value.flatten(1) for value in (prediction, target, weight))
    total = weight.sum(1).clamp(min=1e-12)
    mean = (weight * prediction).sum(1) / total
    mean_target = (weight * target).sum(1) / total
    centred = prediction - mean[:, None]
    variance = (weight * centred.square()).sum(1) / total
    covariance = (weight * centred * (target - mean_target[:, None])).sum(1) / total
    varies = variance > 1e-12 * mean.square() + 1e-30
    scale = torch.where(varies, covariance / torch.where(varies, variance, torch.ones_like(variance)), torch.zeros_like(variance))
    return scale, mean_target - scale * mean


@dataclasses.dataclass(frozen=True)
class _Fit:
    """One model of what the values mean, solved for T frames."""

    inverse: bool  # values are affine in 1 / distance, not in the distance
    scale: Tensor  # [T] from values to 1 / distance or distance
    shift: Tensor  # [T]
    nearness: Tensor  # [T] correlation of the values with 1 / distance of the plain fit, -1..1
    error: Tensor  # [T] mean absolute error of the distance, metres

    @staticmethod
    def joined(parts: list[_Fit]) -> _Fit:
        """Those of consecutive frames as one."""
        values = {name: torch.cat([getattr(part, name) for part in parts]) for name in ("scale", "shift", "nearness", "error")}
        return _Fit(parts[0].inverse, **values)


def _values(images: Tensor, base: FitView) -> tuple[Tensor, Tensor]:
    """Values [t, H, W] of maps [t, h, w, 1, 3 or 4] at the fit's size and how far they are known on its skin [t, H, W] 0..1."""
    grey = images[..., :3].mean(-1)[:, None]
    resized, known = resize_known(grey, grey.isfinite().to(grey), base.distance.shape[1:])
    return resized[:, 0], known[:, 0] * (base.covered & (base.distance > 0))


def _refuse_colours(images: Tensor) -> None:
    """Raises ValueError if images [t, H, W, 1, 3 or 4] are coloured."""
    colour = images[..., :3]
    finite = colour.isfinite().all(-1)
    if colour.shape[-1] == 3 and bool(finite.any()):
        channels = colour[finite]
        spread = float((channels.amax(-1) - channels.amin(-1)).mean())
        if spread > COLOUR * float(channels.abs().mean()):
            raise ValueError(
                f"the depth map is coloured (its channels differ by {spread:.2f} on average); connect the estimator's grey "
                f"depth, without a colour map"
            )


def _solve(values: Tensor, weight: Tensor, distance: Tensor) -> tuple[_Fit, _Fit, Tensor]:
    """The inverse and the linear model of values [t, H, W], and in which frames [t] there is anything to solve from."""
    step = max(1, math.ceil(math.sqrt(values[0].numel() / SAMPLES)))
    values, distance, weight = (x[:, ::step, ::step].flatten(1) for x in (values, distance, weight))
    near = 1 / distance.clamp(min=1e-3)
    fits = []
    for inverse in (True, False):
        target = near if inverse else distance
        robust = _robust_weight(target, values, weight)
        scale, shift = scale_shift(values, target, robust)
        line = scale[:, None] * values + shift[:, None]
        found = 1 / line.clamp(min=1e-3) if inverse else line
        error = (robust * (found - distance).abs()).sum(1) / robust.sum(1).clamp(min=1e-12)
        fits.append(_Fit(inverse, scale, shift, _correlation(values, near, robust), error))
    return *fits, ((weight > 0.5).sum(1) >= FEWEST) & (fits[0].nearness != 0)


def _robust_weight(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Weights [T, P] that leave out what no line from prediction [T, P] to target [T, P] explains.

    Iteratively reweighted least squares: least absolute errors first, then Tukey's biweight. `prediction` must be the clean
    side, here the plain fit: a background in the map is then an outlier of the target and cannot pull by leverage.
    """
    robust = weight
    spread = _spread(prediction, target, weight)
    for _ in range(ABSOLUTE_ROUNDS):
        error = _error(prediction, target, robust)
        robust = weight / (error / spread + 1e-3)
    for _ in range(BIWEIGHT_ROUNDS):
        error = _error(prediction, target, robust)
        deviation = 1.4826 * torch.where(weight > 0.5, error, torch.nan).nanmedian(1, keepdim=True).values
        bound = BIWEIGHT * torch.maximum(deviation.nan_to_num(0.0), 1e-3 * spread)
        robust = weight * (1 - (error / bound).square()).clamp(min=0).square()
    return robust


def _error(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Absolute errors [T, P] of the weighted line."""
    scale, shift = scale_shift(prediction, target, weight)
    return (scale[:, None] * prediction + shift[:, None] - target).abs()


def _spread(prediction: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean absolute error [T, 1] of the plain weighted line: the unit of the errors."""
    total = weight.sum(1, keepdim=True).clamp(min=1e-12)
    return ((weight * _error(prediction, target, weight)).sum(1, keepdim=True) / total).clamp(min=1e-12)


def _correlation(first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Weighted correlation [T] of [T, P]; 0 where one of them does not vary."""
    forth, back = scale_shift(first, second, weight)[0], scale_shift(second, first, weight)[0]
    return forth.sign() * (forth * back).clamp(0, 1).sqrt()


def _choose(fits: tuple[_Fit, _Fit], usable: Tensor, convention: str) -> tuple[_Fit, Tensor]:
    """The model of the whole clip, and the frames [T] that agree with it. Raises ValueError."""
    nearness = fits[0].nearness
    white, dark = usable & (nearness >= CORRELATION), usable & (nearness <= -CORRELATION)
    agrees, near_is_white = (white, True) if int(white.sum()) >= int(dark.sum()) else (dark, False)
    if not bool(agrees.any()):
        best = float(nearness[usable][nearness[usable].abs().argmax()])
        raise ValueError(
            f"the depth map does not follow the fitted face: the correlation with its nearness is at best {best:.2f} in any "
            f"frame, {CORRELATION} or -{CORRELATION} is needed; connect the depth of the same frames, or none"
        )
    typical = float(nearness[agrees].median())
    if convention != "auto" and near_is_white != (convention == "inverse"):
        found, other = ("white", "inverse") if near_is_white else ("dark", "metric")
        raise ValueError(
            f"what is near is {found} in the depth map (correlation {typical:.2f} with the fitted face's nearness), which is not "
            f"{convention}; choose {other} or auto"
        )
    expected, other = fits if near_is_white else fits[::-1]
    if convention == "auto" and float(other.error[agrees].mean()) < GAIN * float(expected.error[agrees].mean()):
        return other, agrees
    return expected, agrees
