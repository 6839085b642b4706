"""Normal maps of outside estimators, brought to camera space in OpenGL's convention.

The plain fit already knows the face's normals roughly, so it tells which way a map's axes point; nothing is turned that
the user did not see turned.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from ..frames import Frames
from ..inpaint import dilate
from .outside_maps import MapFrames, refuse_if_empty, resize_known
from .plain_fit import PlainFit

CONVENTIONS = {  # signs of x, y and z that lead to OpenGL's camera space: x right, y up, z to the viewer
    "opengl": (1, 1, 1),
    "directx": (1, -1, 1),
    "opencv": (1, -1, -1),
    "opengl with x flipped": (-1, 1, 1),
    "directx with x flipped": (-1, -1, 1),
    "opencv with x flipped": (-1, -1, -1),
    "opengl with z flipped": (1, 1, -1),
    "opengl with x and z flipped": (-1, 1, -1),
}
LENGTH = (0.15, 0.4)  # how far from 1 the length of a decoded normal may be: surely one .. surely none
FLAT = 5  # pixels: a window of this side that faces the viewer exactly everywhere is a blue background
AGREEMENT = 0.8  # least mean cosine with the plain fit over the face; good maps have about 0.95
RELIEF = 0.4  # least correlation of x and of y with the plain fit's that tells their signs; good maps have above 0.8
FRAME_AGREEMENT = 0.6  # a frame below it is left out
TURN = 20.0  # degrees: more is no error of the fit's pose, the map has other axes
TURN_GAIN = 0.5  # of the disagreement is left when such a turn is undone
SIGNED = 0.002  # share of values clearly below 0 that tells a map in -1..1


@dataclasses.dataclass(frozen=True)
class CameraNormals:
    """Camera-space normals of T frames at the frames' size, decoded when asked for."""

    maps: MapFrames
    signed: bool  # values are in -1..1
    signs: tuple[int, int, int]  # of x, y and z
    agrees: Tensor  # [T] bool: frames that agree with the plain fit
    covered: Tensor  # [T, ceil(H W / 8)] uint8: where normals are wanted, by `_pack`

    def chunks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Consecutive frames, their normals [t, 3, H, W] and the weight [t, 1, H, W] 0..1 of these.

        Normals are unit vectors in OpenGL's camera space (x right, y up, z to the viewer), 0 where the weight is: off the plain fit's
        skin, where the map has none, and in frames that disagree with the fit.
        """
        for part, images in self.maps.chunks():
            covered = _unpack(self.covered[part] * self.agrees[part, None], self.maps.size)
            normals, known = decode_normals(images.to(covered.device), self.signed, self.maps.size)
            weight = known * covered[:, None]
            normals = normals * normals.new_tensor(self.signs)[:, None, None]
            yield part, torch.where(weight > 0, normals, torch.zeros_like(normals)), weight


def camera_normals(
    images: Tensor | Frames, fit: PlainFit, convention: str = "auto", tick: Callable[[int], None] = lambda count: None
) -> CameraNormals:
    """Camera-space normals of an estimator.

    Args:
        images: IMAGE batch [T or 1, h, w, 3 or 4] or file of any size, encoded (n + 1) / 2 or in -1..1. Pixels that are not finite,
            whose decoded length is far from 1, or of a flat blue background hold no normal.
        fit: the T frames of the plain fit; normals are wanted on its skin.
        convention: "opengl", "directx", or "auto": the signs of the axes that agree with the fit.
        tick: told the number of frames done in the first walk over the maps.

    Raises ValueError, with what was found and what to do, for an unknown convention, another shape, size or number of
    frames, maps without any usable normal, and maps that do not agree with the fit: noise, another clip, or axes other than
    the camera's (world or object space), which are recognised by the rotation that aligns them (Wahba, A Least Squares
    Estimate of Satellite Attitude, SIAM Review 1965; solved by SVD) and not silently turned.
    """
    if convention not in ("auto", "opengl", "directx"):
        raise ValueError(f"there is no normal convention {convention!r}; choose auto, opengl or directx")
    maps = MapFrames(images, fit.count, fit.size, "normal map")
    if maps.channels not in (3, 4):
        raise ValueError(f"the normal map has {maps.channels} channels; connect an image with x, y and z as red, green and blue")
    signed = _is_signed(maps)
    moments, finite, covered = [], [], []
    for part, found in maps.chunks():
        base = fit.at(torch.arange(part.start, part.stop))
        found = found.to(base.normals)
        normals, known = decode_normals(found, signed, fit.size)
        finite.append(found.isfinite().any(-1).flatten(1).any(1))
        moments.append(_moments(base.normals, normals, known * base.covered[:, None]))
        covered.append(_pack(base.covered))
        tick(len(found))
    covered = torch.cat(covered)
    moments = torch.cat(moments).cpu()
    usable = (moments[:, 0, 0] > 0).to(covered.device)
    refuse_if_empty(usable, torch.cat(finite), ~covered.any(1), "normal map", "no vector of length 1 on the face")
    signs = _signs(moments, convention)
    agrees = (_agreement(moments, signs) > FRAME_AGREEMENT).to(covered.device)
    return CameraNormals(maps, signed, signs, agrees, covered)


def decode_normals(images: Tensor, signed: bool, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Unit vectors [t, 3, h, w] and how sure they are [t, 1, h, w] of images [t, H, W, 3 or 4], in -1..1 if `signed`."""
    values = images[..., :3].permute(0, 3, 1, 2).float()
    finite = values.isfinite().all(1, keepdim=True)
    vectors = torch.where(finite, values if signed else 2 * values - 1, torch.zeros_like(values))
    length = vectors.norm(dim=1, keepdim=True)
    known = ((LENGTH[1] - (length - 1).abs()) / (LENGTH[1] - LENGTH[0])).clamp(0, 1) * finite
    known = known * ~_flat_blue(vectors)
    vectors, known = resize_known(vectors / length.clamp(min=1e-6), known, size)
    return F.normalize(vectors, dim=1), known


def _flat_blue(vectors: Tensor) -> Tensor:
    """Pixels [t, 1, H, W] bool inside windows where vectors [t, 3, H, W] all point to the viewer, or from it, exactly."""
    relief = vectors[:, :2].abs().amax(1, keepdim=True)  # 8 bits have no exact middle: 127 and 128 are 1/255 beside it
    axis = (relief < 1.5 / 255).float()
    return dilate(1 - dilate(1 - axis, FLAT // 2), FLAT // 2) > 0.5


def _pack(mask: Tensor) -> Tensor:
    """Masks [t, H, W] bool as bits [t, ceil(H W / 8)] uint8."""
    bits = mask.flatten(1).byte()
    bits = F.pad(bits, (0, -bits.shape[1] % 8)).unflatten(1, (-1, 8))
    return (bits << torch.arange(8, dtype=torch.uint8, device=mask.device)).sum(-1, dtype=torch.uint8)


def _unpack(packed: Tensor, size: tuple[int, int]) -> Tensor:
    """The masks [t, H, W] bool of `_pack`, `size` (H, W)."""
    bits = (packed[..., None] >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1
    return bits.flatten(1)[:, : size[0] * size[1]].unflatten(1, size).bool()


def _is_signed(maps: MapFrames) -> bool:
    """Whether maps hold vectors in -1..1 rather than colours in 0..1. Resampling alone undershoots black only a little."""
    below = known = 0
    for _, images in maps.chunks():
        step = max(1, min(images.shape[1:3]) // 64)
        values = images[:, ::step, ::step, :3]
        below, known = below + int((values < -0.1).sum()), known + int(values.isfinite().sum())
    return below > SIGNED * known


def _moments(base: Tensor, found: Tensor, weight: Tensor) -> Tensor:
    """Sums [t, 7, 7] of products of (1, base x y z, map x y z) over the pixels where both have a normal, by weight.

    All that is asked about a map's axes follows from them. base [t, h, w, 3], found [t, 3, h, w], weight [t, 1, h, w].
    """
    base = base.flatten(1, 2)  # [t, P, 3]
    both = torch.cat([torch.ones_like(base[..., :1]), base, found.flatten(2).mT], -1)
    used = weight.flatten(1) * (base.square().sum(-1) > 0.25)
    return ((both * used[..., None]).mT @ both).double()


def _signs(moments: Tensor, convention: str) -> tuple[int, int, int]:
    """Signs of the map's axes from `_moments` [T, 7, 7]. Raises ValueError if there are none or they are not clear."""
    best = _best(moments)
    sound = _agreement(moments, CONVENTIONS[best]) > FRAME_AGREEMENT
    if 2 * int(sound.sum()) > int((moments[:, 0, 0] > 0).sum()):  # a few bad frames do not make the clip's map a bad one
        moments = moments[sound]
        best = _best(moments)
    cosines = _cosines(moments)
    chosen = best if convention == "auto" else convention
    named = dict.fromkeys(["opengl", "directx", "opencv", best])
    told = "mean cosine with the fitted face: " + ", ".join(f"{cosines[name]:.2f} as {name}" for name in named)
    turned = _turn(moments, CONVENTIONS[best], cosines[best])
    if turned is not None:
        raise ValueError(
            f"the normal map is not in camera space: {turned} ({told}); connect the estimator's camera-space normals"
        )
    relief = _relief(moments)
    clear = float(relief[:2].abs().min()) >= RELIEF
    if chosen != best and cosines[best] >= AGREEMENT and (clear or cosines[chosen] < AGREEMENT):
        raise ValueError(
            f"the normal map is {best}, not {chosen} ({told}); choose {best if best in ('opengl', 'directx') else 'auto'}"
        )
    if cosines[chosen] < AGREEMENT:
        raise ValueError(
            f"the normal map does not agree with the fit ({told}; at least {AGREEMENT} is needed as {chosen}); connect "
            f"camera-space normals of the same frames, neither cropped nor mirrored"
        )
    if convention == "auto" and not clear:
        raise ValueError(
            f"the normal map is too flat to tell its convention (correlation with the fitted face: {float(relief[0]):.2f} in red, "
            f"{float(relief[1]):.2f} in green, {RELIEF} is needed); choose opengl or directx, or connect another estimator"
        )
    return CONVENTIONS[chosen]


def _best(moments: Tensor) -> str:
    """The convention whose x and y rise and fall with the fit's and whose z points as the fit's, if x and y do so clearly.

    A fit that looks too far up or down shifts the mean of y, which alone can make the wrong sign the nearer one. Where the
    relief tells nothing it is the convention of the highest mean cosine.
    """
    relief = _relief(moments)
    if float(relief[:2].abs().min()) < RELIEF:
        cosines = _cosines(moments)
        return max(cosines, key=cosines.get)
    forward = moments[:, 3, 6].sum()
    signs = tuple(1 if value > 0 else -1 for value in (*relief[:2].tolist(), float(forward)))
    return next(name for name, its in CONVENTIONS.items() if its == signs)


def _relief(moments: Tensor) -> Tensor:
    """Correlations [3] between the fit's and the map's x, y and z, both less their means in each frame."""
    total = moments[:, :1, :1].clamp(min=1e-6)
    centred = (moments - moments[:, :, :1] @ moments[:, :1, :] / total).sum(0)
    spread = centred.diagonal().clamp(min=1e-12).sqrt()
    return (centred / spread / spread[:, None])[1:4, 4:].diagonal()


def _cosines(moments: Tensor) -> dict[str, float]:
    """Mean cosine with the fit over all frames for each of CONVENTIONS."""
    return {name: float(_agreement(moments.sum(0, keepdim=True), signs)) for name, signs in CONVENTIONS.items()}


def _agreement(moments: Tensor, signs: tuple[int, int, int]) -> Tensor:
    """Mean cosine [T] with the fit in each frame; 0 in a frame without any normal."""
    return moments[:, 1:4, 4:].diagonal(dim1=1, dim2=2) @ moments.new_tensor(signs) / moments[:, 0, 0].clamp(min=1e-6)


def _turn(moments: Tensor, signs: tuple[int, int, int], cosine: float) -> str | None:
    """The rotation that explains a map much better than its best signs (mean `cosine`) do, in words; None if none does."""
    products, totals = moments[:, 1:4, 4:], moments[:, 0, 0]
    whole, whole_angle, nuclear = _align(products.sum(0, keepdim=True), signs)
    whole_cosine = float(nuclear.sum() / totals.sum())
    least = max(AGREEMENT, 1 - TURN_GAIN * (1 - cosine))
    if whole_cosine >= least and float(whole_angle) > TURN:
        if bool((whole[0].abs().amax(0) > math.cos(math.radians(TURN))).all()):
            held = whole[0].abs().argmax(0)  # camera axis of each channel
            names = [("-" if whole[0, axis, channel] < 0 else "") + "xyz"[axis] for channel, axis in enumerate(held.tolist())]
            return f"red, green and blue hold {names[0]}, {names[1]} and {names[2]} with a mean cosine of {whole_cosine:.2f}"
        return (
            f"one rotation by {float(whole_angle):.0f} degrees brings it to a mean cosine of {whole_cosine:.2f}, "
            f"as for world-space or object-space normals"
        )
    _, angles, nuclear = _align(products[totals > 0], signs)
    each_cosine = float(nuclear.sum() / totals.sum())
    if each_cosine >= least and float(angles.median()) > TURN:
        return (
            f"a rotation of its own in every frame, by {float(angles.median()):.0f} degrees as a rule, brings it to a mean "
            f"cosine of {each_cosine:.2f}, as for object-space normals"
        )
    return None


def _align(products: Tensor, signs: tuple[int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Orthogonal matrices Q [N, 3, 3] that best take map to base, given sums [N, 3, 3] of base x map.

    Also their angle [N] in degrees from the mere flip by `signs`, and the sum of cosines [N] that Q reaches. Mirrors are
    allowed, since swapped channels are one.
    """
    left, singular, right = torch.linalg.svd(products)
    aligned = left @ right
    difference = aligned - torch.diag(torch.tensor(signs, dtype=aligned.dtype))
    # |R - I| = sqrt(8) sin(angle / 2) for a rotation; a mirror counts as half a turn at most.
    angle = 2 * torch.asin((difference.flatten(1).norm(dim=1) / math.sqrt(8)).clamp(max=1)).rad2deg()
    return aligned, angle, singular.sum(1)
