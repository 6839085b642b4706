"""The person's silhouette, and where the head's outline may be pulled to it.

A silhouette shows what covers the head, hair and clothes too. The outline may follow it only where it is skin: on the sides
of the face, the jaw, the ears and the neck, and there only where the picture shows skin up to the silhouette's edge.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..frames import Frames
from ..head_model import HeadModel
from ..inpaint import dilate
from ..landmarks import Landmarker
from ..photo_light import PERSON, face_skin
from ..posing import Shot
from ..render_interior import dense_template, part_vertices
from ..warp2d import sample_pixels
from .outside_maps import MapFrames, name_frames
from .plain_fit import PlainFit

COVERED, FREE = 0.6, 0.1  # share of the face that a mask of the person covers at least, and an inverted one at most
AROUND = 0.6  # share of what lies beside and above the head that an inverted mask covers at least
EDGE = 0.5  # mask value on the silhouette
STEPS = 15  # samples from the outline outwards, and inwards
HALVINGS = 4  # of the step in which the edge lies
STEP, REACH = 0.002, 0.03  # metres between two samples, and farthest from the outline that an edge may lie
FINEST = 256  # pixels along a side of the segmentation network: no edge is known more finely
SKIN = (3.0, 4.5)  # standard deviations from the face's colours: surely skin .. surely not
FEWEST = 50  # visible vertices of skin below which a frame's colours say nothing
DARKEST = 0.02  # added before the logarithm of a colour
NOISE, SHADE = 0.05, 0.25  # least standard deviation of skin's colour, and of its brightness, in the logarithm
ROUNDS = 10  # of the fit of skin's colours
MEDIAN = 2.366  # of the squared distance from the mean of a normal distribution in three dimensions, in standard deviations


@dataclasses.dataclass(frozen=True)
class PersonMask:
    """A person's mask in T frames, the right way round."""

    maps: MapFrames
    inverted: bool

    def at(self, frames: Tensor) -> Tensor:
        """Masks [N, h, w] 0..1 of some frames [N], at their own size; what is not finite is 0 in them as they were given."""
        mask = _decode(self.maps.pick(frames))
        return 1 - mask if self.inverted else mask


def check_person_mask(mask: Tensor | Frames, fit: PlainFit, tick: Callable[[int], None] = lambda count: None) -> PersonMask:
    """A MASK batch [T or 1, h, w] or file of the person in the T frames of the plain fit, the right way round.

    A mask that leaves the fitted head free and covers what is beside and above it is inverted and is turned over. `tick` is told
    the number of frames done in the first walk over the masks. Raises ValueError for another shape or number of frames, empty masks,
    and masks that are neither the person nor its inverse.
    """
    if isinstance(mask, Tensor):
        if mask.ndim != 3:
            raise ValueError(f"expected a person mask of shape [T, H, W], found {list(mask.shape)}; connect a MASK batch")
        mask = mask[..., None]
    maps = MapFrames(mask, fit.count, fit.size, "person mask")
    sums, empty = 0, []
    for part, images in maps.chunks():
        head = fit.at(torch.arange(part.start, part.stop)).head
        found = _decode(images.to(head.device))
        sums = sums + _coverage(found, head)
        empty.append(~(found.flatten(1) > EDGE).any(1))
        tick(len(found))
    covered, around = (sums[0] / sums[1].clamp(min=1e-6)).tolist()
    if covered >= COVERED:
        return PersonMask(maps, False)
    if covered <= FREE and around >= AROUND:
        return PersonMask(maps, True)
    empty = torch.cat(empty)
    if bool(empty.all()):
        raise ValueError(f"the person mask is empty ({name_frames(empty)}); connect a mask that is white on the person, or none")
    raise ValueError(
        f"the person mask covers {covered:.0%} of the fitted head and {around:.0%} of what is beside and above it, which is neither "
        f"the person nor everything else; connect a mask of this person that is white on the person, or none"
    )


def _decode(images: Tensor) -> Tensor:
    """Masks [t, h, w] 0..1 of maps [t, h, w, C], 0 where these are not finite."""
    return images.float().mean(-1).nan_to_num(0.0, 0.0, 0.0).clamp(0, 1)


def person_silhouette(frames: Tensor, landmarker: Landmarker, mask: Tensor | None = None) -> Tensor:
    """Mask [t, H, W] 0..1 of the person in frames [t, 3, H, W].

    From the landmarker's segmentation, or from the frames' masks [t, h, w] from `PersonMask.at`, resized.
    """
    if mask is None:
        return landmarker.segment(frames).to(frames)
    size = frames.shape[-2:]
    if mask.shape[-2:] == size:
        return mask.to(frames)
    return F.interpolate(mask[:, None].to(frames), size=size, mode="bilinear", antialias=True, align_corners=False)[:, 0].clamp(0, 1)


def outline_vertices(model: HeadModel) -> Tensor:
    """Skin [V] 0..1 whose outline a silhouette may show: face, jaw, ears and neck, not the scalp (hair) nor shoulders (clothes)."""
    # Hairlines and collars differ between people, so that the masks' soft borders count as hidden.
    hidden = torch.maximum(model.regions["scalp"], model.regions["shoulders"])
    return (1 - 2 * hidden).clamp(0, 1) * part_vertices(model, "skin")


def silhouette_weight(shot: Shot, frames: Tensor, person: Tensor) -> Tensor:
    """Where the outline of a shot's t frames may be pulled to the silhouette, [t, V] 0..1; without gradient.

    It is that of `outline_vertices` where, going from a vertex along its normal in frames [t, 3, H, W], the edge of the person
    mask [t, H, W] lies within REACH metres, with nothing but skin between: colours of the person that are not the face's are
    hair, a beard, clothes or a hand, whose edge is not the head's. Skin is what lies within a few standard deviations of the
    face's own colours in this frame, in the logarithm, so that shadow is skin too. In a frame that shows too little skin to
    tell, ears and neck, which hair and clothes cover, have weight 0 as well. Meant for the vertices of the outline; the
    normals of others point along the view.
    """
    allowed = outline_vertices(shot.stage.model)
    vertices = (allowed > 0).nonzero()[:, 0]
    with torch.no_grad():
        weight = allowed * torch.zeros_like(shot.vertices[..., 0])
        weight[:, vertices] = allowed[vertices] * walk(shot, frames, person, vertices).weight
    return weight


def _coverage(mask: Tensor, head: Tensor) -> Tensor:
    """Sums [2, 2] over frames: how much of the head, and of what lies beside and above it, a mask [t, h, w] covers; how much there is."""
    scale = min(1.0, 128 / max(mask.shape[-2:]))
    size = [max(8, round(side * scale)) for side in mask.shape[-2:]]
    mask, head = (F.interpolate(x[:, None].float(), size=size, mode="area") for x in (mask, head.to(mask)))
    rows = torch.arange(size[0], device=mask.device)[:, None]
    middle = (head * rows).sum((1, 2, 3)) / head.sum((1, 2, 3)).clamp(min=1e-6)  # [T] of the head, in rows
    around = (1 - dilate(head, max(size) // 16)) * (rows < middle[:, None, None, None]) * (head.amax((1, 2, 3), keepdim=True) > 0)
    regions = torch.stack([head, around])
    return torch.stack([(mask * regions).flatten(1).sum(1), regions.flatten(1).sum(1)])


@dataclasses.dataclass(frozen=True)
class Lines:
    """Lines in t pictures of one size, along the normals of N vertices as the camera sees them."""

    start: Tensor  # [t, N, 2] pixels of the vertices
    outward: Tensor  # [t, N, 2] unit
    metre: Tensor  # [t, N] pixels that a metre across the view covers at the vertices' distance
    step: Tensor  # [t, N] pixels between two samples

    @staticmethod
    def of(shot: Shot, vertices: Tensor, height: int, width: int) -> Lines:
        """Lines of the given of the shot's vertices [N] in pictures of the camera's view with height x width pixels."""
        camera = shot.stage.camera
        points, normals = shot.vertices[:, vertices], shot.normals[:, vertices]
        ratio = points.new_tensor([width / camera.width, height / camera.height])
        start = camera.project(points) * ratio
        outward = F.normalize(camera.project(points + 0.5 * STEP * normals) * ratio - start, dim=-1)
        metre = camera.focal * ratio[0] / -points[..., 2]
        return Lines(start, outward, metre, (STEP * metre).clamp(min=max(height, width) / FINEST))

    def pixels(self, steps: Tensor) -> Tensor:
        """Pixels [t, N, K, 2] that lie steps [t or 1, N or 1, K] outwards of the vertices."""
        return self.start[:, :, None] + self.outward[:, :, None] * (steps * self.step[..., None])[..., None]

    def sample(self, images: Tensor, steps: Tensor) -> Tensor:
        """Pictures [t, C, H, W] there, [t, C, N, K]."""
        return sample_pixels(images, self.pixels(steps).permute(0, 3, 1, 2))

    def edge(self, mask: Tensor, last: Tensor) -> Tensor:
        """Where between the steps `last` [t, N] and the next a mask [t, H, W] that is above EDGE before falls to it, in steps [t, N]."""
        near, far = last.to(self.step), last.to(self.step) + 1
        on, off = self.sample(mask[:, None], torch.stack([near, far], -1))[:, 0].unbind(-1)
        for _ in range(HALVINGS):  # a sharp mask falls within less than a step
            middle = (near + far) / 2
            value = self.sample(mask[:, None], middle[..., None])[:, 0, :, 0]
            above = value > EDGE
            near, far = torch.where(above, middle, near), torch.where(above, far, middle)
            on, off = torch.where(above, value, on), torch.where(above, off, value)
        return near + (far - near) * ((on - EDGE) / (on - off).clamp(min=1e-6)).clamp(0, 1)


@dataclasses.dataclass(frozen=True)
class Walk:
    """What lies between N vertices and the silhouette's edge, along their normals in t frames."""

    weight: Tensor  # [t, N] 0..1: there is an edge within reach, and nothing but skin before it
    distance: Tensor  # [t, N] metres across the view from the vertex outwards to the edge, negative inwards; 0 where there is none


def walk(shot: Shot, frames: Tensor, person: Tensor, vertices: Tensor) -> Walk:
    """Walks from the given of the shot's vertices [N] to the edge of the person mask [t, H, W]; see `silhouette_weight`."""
    model = shot.stage.model
    frames, person = frames.to(shot.vertices), person.to(shot.vertices)
    height, width = frames.shape[-2:]
    lines = Lines.of(shot, vertices, height, width)
    offsets = torch.arange(-STEPS, STEPS + 1, device=frames.device)
    pixels = lines.pixels(offsets[None, None])
    sample = sample_pixels(torch.cat([frames, person[:, None]], 1), pixels.permute(0, 3, 1, 2))
    colour, mask = sample[:, :3].permute(0, 2, 3, 1), sample[:, 3]  # [t, N, 2 STEPS + 1, 3] and without 3
    inside = ((pixels >= 0) & (pixels <= pixels.new_tensor([width, height]))).all(-1)
    last, far = last_inside(mask > EDGE)
    beyond = (last + 1 + STEPS).clamp(0, 2 * STEPS)[..., None]
    edge = (far <= STEPS) & (far * lines.step <= REACH * lines.metre) & inside.gather(-1, beyond)[..., 0]

    # The sample at the edge is mixed with the background; two further in show what the outline itself is made of.
    between = (offsets < last[..., None]) & (offsets >= (last - 2).clamp(max=-2)[..., None])
    colours = _SkinColours.of(shot, frames, person)
    skin = torch.where(between, colours.likeness(colour), 1.0).amin(-1)
    covered_by_others = torch.maximum(model.regions["ears"], model.regions["neck"])[vertices]
    distance = lines.edge(person, last) * lines.step / lines.metre
    return Walk(edge * torch.where(colours.enough, skin, 1 - covered_by_others), torch.where(edge, distance, torch.zeros_like(distance)))


def last_inside(on: Tensor) -> tuple[Tensor, Tensor]:
    """Along lines on or off [t, N, 2 K + 1], K steps either way: the outermost step on before the edge, and how many steps off that is.

    Where the middle is on, the edge lies outwards, else inwards. No edge is found where it is more than K steps off.
    """
    middle = on.shape[-1] // 2
    run_out = on[..., middle:].cumprod(-1).sum(-1)
    run_in = (~on[..., : middle + 1]).flip(-1).cumprod(-1).sum(-1)
    covered = on[..., middle]
    return torch.where(covered, run_out - 1, -run_in), torch.where(covered, run_out, run_in)


def _reference(model: HeadModel) -> Tensor:
    """Skin [V] 0..1 that shows a face's colour: below the brows, since hair falls over the forehead."""
    height = dense_template(model)[:, 1]
    brows = model.regions["brows"]
    return face_skin(model) * (height < (brows * height).sum() / brows.sum().clamp(min=1e-6))


@dataclasses.dataclass(frozen=True)
class _SkinColours:
    """Colours of the face's skin in t frames, in the logarithm."""

    mean: Tensor  # [t, 3]
    precision: Tensor  # [t, 3, 3]
    enough: Tensor  # [t, 1] bool: so much skin is seen that its colours say something

    @staticmethod
    def of(shot: Shot, frames: Tensor, person: Tensor) -> _SkinColours:
        """Skin of the person [t, H, W] in frames [t, 3, H, W].

        Mean and scatter are those of a multivariate Cauchy distribution, which glasses, beards and hands on less than half of
        the face hardly shift (Kent and Tyler, Redescending M-estimates of multivariate location and scatter, Annals of
        Statistics 1991); the median distance from that mean, as of a normal distribution, gives the scale. SHADE is added to
        all channels alike, for an outline turns away from what lights the face.
        """
        camera, model = shot.stage.camera, shot.stage.model
        vertices = (outline_vertices(model) > 0).nonzero()[:, 0]
        ratio = frames.new_tensor([frames.shape[-1] / camera.width, frames.shape[-2] / camera.height])
        pixels = camera.project(shot.vertices[:, vertices]) * ratio
        sample = sample_pixels(torch.cat([frames, person[:, None]], 1), pixels.mT[..., None])[..., 0]  # [t, 4, N]
        known = (sample[:, :3].mT + DARKEST).log()
        weight = _reference(model)[vertices] * shot.visibility[:, vertices]
        weight = weight * ((sample[:, 3] - PERSON[0]) / (PERSON[1] - PERSON[0])).clamp(0, 1)
        enough = (weight > 0.05).sum(1, keepdim=True) >= FEWEST

        weight = weight / weight.sum(1, keepdim=True).clamp(min=1e-6)
        noise = NOISE**2 * torch.eye(3, dtype=known.dtype, device=known.device)
        robust = weight
        for _ in range(ROUNDS):
            mean = (robust[..., None] * known).sum(1) / robust.sum(1, keepdim=True).clamp(min=1e-6)  # [t, 3]
            centred = known - mean[:, None]
            precision = torch.linalg.inv((robust[..., None] * centred).mT @ centred + noise)  # [t, 3, 3]
            square = ((centred @ precision) * centred).sum(-1)
            robust = weight * 4 / (1 + square)
        order = square.sort(1)
        middle = (weight.gather(1, order.indices).cumsum(1) < 0.5).sum(1, keepdim=True).clamp(max=weight.shape[1] - 1)
        scale = order.values.gather(1, middle)[..., None] / MEDIAN
        return _SkinColours(mean, torch.linalg.inv(scale * torch.linalg.inv(precision) + noise + SHADE**2), enough)

    def likeness(self, colour: Tensor) -> Tensor:
        """How surely colours [t, N, K, 3] are skin, 0..1 [t, N, K]."""
        centred = (colour + DARKEST).log() - self.mean[:, None, None]
        distance = torch.einsum("tnki,tij,tnkj->tnk", centred, self.precision, centred).clamp(min=0).sqrt()
        return ((SKIN[1] - distance) / (SKIN[1] - SKIN[0])).clamp(0, 1)
