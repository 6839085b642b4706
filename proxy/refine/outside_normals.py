"""Normal maps of outside estimators, brought to camera space in OpenGL's convention.

The plain fit already knows the face's normals roughly, so it tells which way a map's axes point; nothing is turned that
the user did not see turned.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .outside_maps import chunks, match_frames, refuse_if_empty, resize_known

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
MARGIN = 0.1  # by which the best convention must beat the second best
FRAME_AGREEMENT = 0.6  # a frame below it is left out
TURN = 20.0  # degrees: more is no error of the fit's pose, the map has other axes
TURN_GAIN = 0.5  # of the disagreement is left when such a turn is undone
SIGNED = 0.002  # share of values clearly below 0 that tells a map in -1..1


def camera_normals(images: Tensor, base: Tensor, mask: Tensor, convention: str = "auto") -> tuple[Tensor, Tensor]:
    """Camera-space normals of an estimator at the frames' size.

    Args:
        images: IMAGE batch [T or 1, H, W, 3 or 4] of any size, encoded (n + 1) / 2 or in -1..1. Pixels that are not finite,
            whose decoded length is far from 1, or of a flat blue background hold no normal.
        base: unit normals [T, h, w, 3] of the plain fit in camera space, zeros where it has none.
        mask: [T, h, w], 0..1 or bool: where normals are wanted.
        convention: "opengl", "directx", or "auto": the signs of the axes that agree best with `base`.

    Returns normals [T, 3, h, w] (OpenGL: x right, y up, z to the viewer; unit, zero where the weight is) and their weight
    [T, 1, h, w] in 0..1. Frames without a usable normal, or whose normals disagree with the fit's, have weight 0.

    Raises ValueError, with what was found and what to do, for an unknown convention, another shape, size or number of
    frames, maps without any usable normal, and maps that do not agree with the fit: noise, another clip, or axes other than
    the camera's (world or object space), which are recognised by the rotation that aligns them (Wahba, A Least Squares
    Estimate of Satellite Attitude, SIAM Review 1965; solved by SVD) and not silently turned.
    """
    if convention not in ("auto", "opengl", "directx"):
        raise ValueError(f"there is no normal convention {convention!r}; choose auto, opengl or directx")
    count, height, width = base.shape[:3]
    if images.ndim == 4 and images.shape[-1] not in (3, 4):
        raise ValueError(f"the normal map has {images.shape[-1]} channels; connect an image with x, y and z as red, green and blue")
    images = match_frames(images, count, (height, width), "normal map")
    signed = _is_signed(images)
    normals = base.new_empty(count, 3, height, width)
    weight = base.new_empty(count, 1, height, width)
    products = base.new_zeros(count, 3, 3, dtype=torch.float64)
    finite = torch.zeros(count, dtype=torch.bool, device=base.device)
    for part in chunks(count):
        found = images[part].to(base)
        finite[part] = found.isfinite().any(-1).flatten(1).any(1)
        normals[part], known = decode_normals(found, signed, (height, width))
        weight[part] = known * mask[part, None].to(base).clamp(0, 1)
        # Where the fit has no normal its zeros add nothing.
        products[part] = torch.einsum("tijx,tyij,tij->txy", base[part], normals[part], weight[part, 0]).double()
    totals = (weight[:, 0] * (base.square().sum(-1) > 0.25)).sum((1, 2)).double()
    masked = ~(mask.flatten(1) > 0).any(1).to(base.device)
    refuse_if_empty(totals > 0, finite, masked, "normal map", "no vector of length 1 on the face")
    signs = _signs(products, totals, convention)
    weight *= (_agreement(products, totals, signs) > FRAME_AGREEMENT)[:, None, None, None]
    normals = normals * normals.new_tensor(signs)[:, None, None]
    return torch.where(weight > 0, normals, torch.zeros_like(normals)), weight


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
    inner = -F.max_pool2d(-axis, FLAT, 1, FLAT // 2)
    return F.max_pool2d(inner, FLAT, 1, FLAT // 2) > 0.5


def _is_signed(images: Tensor) -> bool:
    """Whether a batch holds vectors in -1..1 rather than colours in 0..1. Resampling alone undershoots black only a little."""
    step = max(1, min(images.shape[1:3]) // 64)
    values = images[:, ::step, ::step, :3]
    return bool((values < -0.1).sum() > SIGNED * values.isfinite().sum())


def _signs(products: Tensor, totals: Tensor, convention: str) -> tuple[int, int, int]:
    """Signs of the map's axes from sums [T, 3, 3] of outer products base x map and their weights [T]. Raises ValueError."""
    products, totals = products.cpu(), totals.cpu()
    cosines = _cosines(products, totals)
    sound = _agreement(products, totals, CONVENTIONS[max(cosines, key=cosines.get)]) > FRAME_AGREEMENT
    if 2 * int(sound.sum()) > int((totals > 0).sum()):  # a few bad frames do not make the clip's map a bad one
        products, totals = products[sound], totals[sound]
        cosines = _cosines(products, totals)
    best, second = sorted(cosines, key=cosines.get, reverse=True)[:2]
    chosen = best if convention == "auto" else convention
    named = dict.fromkeys(["opengl", "directx", "opencv", best])
    told = "mean cosine with the fitted face: " + ", ".join(f"{cosines[name]:.2f} as {name}" for name in named)
    turned = _turn(products, totals, CONVENTIONS[best], cosines[best])
    if turned is not None:
        raise ValueError(
            f"the normal map is not in camera space: {turned} ({told}); connect the estimator's camera-space normals"
        )
    if cosines[chosen] < AGREEMENT:
        if cosines[best] < AGREEMENT:
            advice = "connect camera-space normals of the same frames, neither cropped nor mirrored"
        else:
            advice = f"choose {best if best in ('opengl', 'directx') else 'auto'}"
        raise ValueError(
            f"the normal map does not agree with the fit as {chosen}, which takes {AGREEMENT} ({told}); {advice}"
        )
    if convention == "auto" and cosines[best] - cosines[second] < MARGIN:
        raise ValueError(
            f"the normal map is too flat to tell its convention (mean cosine with the fitted face: {cosines[best]:.2f} as "
            f"{best}, {cosines[second]:.2f} as {second}); choose opengl or directx, or connect another estimator"
        )
    return CONVENTIONS[chosen]


def _cosines(products: Tensor, totals: Tensor) -> dict[str, float]:
    """Mean cosine with the fit over all frames for each of CONVENTIONS."""
    whole = products.sum(0, keepdim=True), totals.sum(0, keepdim=True)
    return {name: float(_agreement(*whole, signs)) for name, signs in CONVENTIONS.items()}


def _agreement(products: Tensor, totals: Tensor, signs: tuple[int, int, int]) -> Tensor:
    """Mean cosine [T] with the fit in each frame; 0 in a frame without any normal."""
    return products.diagonal(dim1=1, dim2=2) @ products.new_tensor(signs) / totals.clamp(min=1e-6)


def _turn(products: Tensor, totals: Tensor, signs: tuple[int, int, int], cosine: float) -> str | None:
    """The rotation that explains a map much better than its best signs (mean `cosine`) do, in words; None if none does."""
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
