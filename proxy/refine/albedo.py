"""The albedo texture of a clip: what its frames show at each texel of the refined head, each frame freed of its own light.

A single photo's texture is made by `texture.unwrap_albedo`. Here the registered colours say which light falls on each frame and what in it
is no skin, and the refined head says where a texel lies, so that frames fall onto each other and their mean stays sharp.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ..frames import Frames
from ..inpaint import box_blur
from ..lighting import fit_light, shade
from ..photo_light import FEWEST, face_skin, on_person, sample_at, skin_light, vertex_colours
from ..posing import Shot
from ..render_interior import INNER, dense_template, interior_light, part_vertices, posed_interior_light
from ..source_picture import person_mask
from ..texture import Atlas, complete_albedo, mirror_vertices, without_light
from ..tint import RED, interior_albedo, measure_tint
from .observe import Observer
from .settings import RefineSettings

INSIDE = ("left_eye", "right_eye", *INNER)
LEAST = 0.02  # albedo by which a light is measured
ROBUST_STEPS = 4  # of the eyes' mean
MOUTH = (("upper_teeth",), ("lower_teeth",), ("tongue",), ("gums",), ("mouth",))
BLUR, FAINT = 96, 0.05  # the mouth's tint: radii of its blur per side of the texture, trust at which it is half believed
GAIN_LIMITS = (0.3, 4.0)  # of the mouth's tint
SAME_PLACE = 0.003  # metres: how close a texel must lie to the mirrored place to stand for it


def clip_albedo(
    frames: Frames,
    observer: Observer,
    colours: Tensor,
    displacement: Callable[[slice], Tensor],
    source: int,
    settings: RefineSettings,
    tick: Callable[[int], None],
) -> tuple[Tensor, Tensor]:
    """Albedo [3, size, size] and its confidence [1, size, size] from several frames of a registered clip, in one walk over them.

    Args:
        colours: [S, 3] of the skin's vertices, without light, as `Registration` finds them.
        displacement: canonical displacement [1, S, 3] of the skin in a slice of one frame.
        source: the proxy's source frame. The texture has its exposure, and its eyes and mouth where no frame shows them.
        tick: told how many frames of the whole clip are done.
    """
    chosen = texture_frames(observer, source, settings.texture_frames)
    gathered = _Gathered(observer, colours, settings)
    done = 0
    for index, photo in enumerate(itertools.islice(itertools.chain.from_iterable(frames.chunks(1)), chosen[-1] + 1)):
        if index not in chosen:
            continue
        photo = photo.to(colours)
        part = slice(index, index + 1)
        shot = observer.stage.shot(observer.posed(part, displacement(part)))
        person = person_mask(photo)[None]
        exposure = gathered.add(photo[None], person, shot)
        if index == source:
            light = skin_light(photo[None], person, shot)
            inside = interior_albedo(observer.model, measure_tint(photo[None], shot, light))
            pose, source_exposure = shot, exposure
        done += 1
        tick(done * len(observer.track) // len(chosen) - (done - 1) * len(observer.track) // len(chosen))
    return gathered.texture(pose, source_exposure, inside)


def texture_frames(observer: Observer, source: int, count: int) -> list[int]:
    """The source frame and up to `count` others with a face, spread over the clip, in ascending order."""
    return sorted({source, *observer.spread(count).tolist()})


class _Gathered:
    """What frames show at P covered texels, summed up frame by frame."""

    def __init__(self, observer: Observer, colours: Tensor, settings: RefineSettings):
        model, stage, skin = observer.model, observer.stage, observer.skin.vertices
        self.model, self.outlier = model, settings.outlier
        self.atlas = Atlas.of(stage, settings.texture_size)
        self.triangle, self.weights = self.atlas.corners()
        self.corners = stage.faces[self.triangle]  # [P, 3]
        self.colours = colours.new_full((model.vertex_count, 3), 0.5)
        self.colours[skin] = colours.clamp(min=LEAST)
        self.face = model.regions["face"] * part_vertices(model, "skin")  # [V]; only there the colours are known
        self.lit = torch.zeros_like(self.face)  # [V] what a vertex says about the light; the mesh is dense where the fit is worst
        mass = torch.from_numpy(observer.skin.mass()).to(colours)
        self.lit[skin] = self.face[skin] * mass / mass.mean()
        self.expected = self._at(torch.cat([self.colours, self.face[:, None]], 1), slice(None))  # [P, 4]
        self.inside = part_vertices(model, *INSIDE)[self.corners].all(1)  # [P]
        self.shown = part_vertices(model, "skin", *INSIDE)
        self.dark = interior_light(model)
        self.sums = colours.new_zeros(len(self.triangle), 4)  # colour by trust, trust
        self.best = colours.new_zeros(len(self.triangle), 1)
        self.inner: list[tuple[Tensor, Tensor]] = []

    def _at(self, values: Tensor, texels: Tensor | slice) -> Tensor:
        """Vertex values [V, C] at some texels, [N, C]."""
        return F.embedding_bag(self.corners[texels], values, per_sample_weights=self.weights[texels], mode="sum")

    def add(self, photo: Tensor, person: Tensor, shot: Shot) -> Tensor:
        """Adds a photo [1, 3, H, W] with the mask [1, 1, H, W] of the person, posed as in `shot`; its mean light [3] on the face."""
        seen = shot.visibility[0] * on_person(person, shot) * self.shown
        weight = seen.square() * self.lit
        found = vertex_colours(photo, shot)
        shading = self._shading(found, shot.normals[0], weight)
        shading = shading * posed_interior_light(self.model, self.dark, shot.vertices)[0, :, None]
        exposure = (weight @ shading + 1e-6) / (weight.sum() + 1e-6)
        faces = self.atlas.faces
        texels = (seen[faces].amax(1) > 0)[self.triangle].nonzero()[:, 0]
        place, light, sight = self._at(torch.cat([shot.vertices[0], shading, seen[:, None]], 1), texels).split([3, 3, 1], 1)
        colour = sample_at(photo, shot.stage.camera.project(place))
        expected, face = self.expected[texels].split([3, 1], 1)
        difference = face * (expected * light - colour).square().sum(1, keepdim=True)
        trust = sight.square() / (1 + difference / self.outlier**2)
        colour = colour / light
        self.sums.index_add_(0, texels, torch.cat([trust * colour, trust], 1))
        self.best[texels] = torch.maximum(self.best[texels], trust)
        if bool(self.inside.any()):
            inside = self.inside[texels]
            kept = torch.zeros(len(self.inside), 4).to(photo)
            kept[texels[inside]] = torch.cat([colour, trust], 1)[inside]
            self.inner.append(kept[self.inside].split([3, 1], 1))
        return exposure

    def _shading(self, found: Tensor, normals: Tensor, weight: Tensor) -> Tensor:
        """Shading [V, 3] of a frame with colours [V, 3], fitted a second time without what is no skin, by the outlier's scale."""
        used = weight > 0
        found, known, weight = found[used], self.colours[used], weight[used]
        first = shade(fit_light(found, known, normals[used], weight), normals[used])
        skin = 1 / (1 + (known * first - found).square().sum(-1) / self.outlier**2)
        return shade(fit_light(found, known, normals[used], weight * skin.square()), normals)

    def texture(self, pose: Shot, exposure: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """Completed albedo and confidence; `pose` and `exposure` [3] of the source frame, `inside` [V, 3] for what is no skin."""
        model, atlas = self.model, self.atlas
        normals = pose.normals[0]
        shading = shade(self._baked_light(pose), normals)
        skin, normal_shading, inside = atlas.pixels(part_vertices(model, "skin").float()[:, None], shading, inside)
        confidence = (self.best * skin).clamp(0, 1)
        mean = self.sums[:, :3] / self.sums[:, 3:].clamp(min=1e-6)
        colour = without_light(exposure * mean, normal_shading).clamp(0, 1)
        if self.inner:
            seen, trust = self._inner()
            seen = without_light(exposure * seen, normal_shading[self.inside])
            inside[self.inside] = self._blended(inside[self.inside], seen, trust)
        mirrored, mirror_confidence = self._mirrored(colour, confidence)
        texture = complete_albedo(atlas, model, colour, confidence, mirrored, mirror_confidence, inside)
        return texture, atlas.image(confidence)[0]

    def _baked_light(self, pose: Shot) -> Tensor:
        """Light [9, 3] that is left in the registered colours, their mean over the face 1, as `skin_light` finds it in a photo."""
        weight = face_skin(self.model) * pose.visibility[0]
        used = weight > 0.05
        light = torch.zeros(9, 3).to(self.colours)
        light[0] = 1
        if int(used.sum()) < FEWEST:
            return light
        colour, weight = self.colours[used], weight[used]
        base = (colour * weight[:, None]).sum(0) / weight.sum()
        return fit_light(colour, base.expand_as(colour), pose.normals[0][used], weight)

    def _inner(self) -> tuple[Tensor, Tensor]:
        """Colours [N, 3] of texels that are no skin, robust to what few frames show (lids, gloss), and how sure they are [N, 1]."""
        colours, trust = (torch.stack(parts) for parts in zip(*self.inner))
        robust = trust
        for _ in range(ROBUST_STEPS):
            mean = (robust * colours).sum(0) / robust.sum(0).clamp(min=1e-6)
            robust = trust / (1 + (colours - mean).square().sum(-1, keepdim=True) / self.outlier**2)
        return mean, robust.amax(0).clamp(0, 1)

    def _blended(self, own: Tensor, seen: Tensor, trust: Tensor) -> Tensor:
        """The model's own colours [N, 3] of what is no skin with what was seen [N, 3]: eyes as they are, the mouth's as a smooth gain.

        Teeth and tongue of a fit lie only roughly where the photo has them, so that what is seen of them tells a tint and no detail.
        """
        blended = own + trust * (seen - own)
        for parts in MOUTH:
            part = part_vertices(self.model, *parts)[self.corners].all(1)
            here = part[self.inside]
            if not bool(here.any()):
                continue
            before, found, sure = own[here].clamp(min=1e-3), seen[here], trust[here]
            if "teeth" in parts[0]:  # what is red there is a lip or the tongue
                gain = found / before
                sure = sure * (gain[:, :1] < RED * gain[:, 1:2])
            near = self._blurred(part, torch.cat([sure * found, sure * before, sure], 1))
            found, before, sure = near.split([3, 3, 1], 1)
            gain = (found / before.clamp(min=1e-6)).clamp(*GAIN_LIMITS)
            tinted = own[here] * (1 + (gain - 1) * sure / (sure + FAINT))
            blended[here] = tinted / tinted.amax(1, keepdim=True).clamp(min=1)
        return blended

    def _blurred(self, part: Tensor, values: Tensor) -> Tensor:
        """Values [N, C] of some of the texels, `part` [P] bool, blurred over the texture, where all others are 0."""
        side = self.atlas.raster.ids.shape[-1]
        radius = max(1, side // BLUR)
        pixels = self.atlas.raster.pixels[part]
        row, column = pixels.div(side, rounding_mode="floor"), pixels % side
        row, column = row - row.min() + 2 * radius, column - column.min() + 2 * radius
        image = values.new_zeros(values.shape[1], int(row.max()) + 2 * radius + 1, int(column.max()) + 2 * radius + 1)
        image[:, row, column] = values.mT
        return box_blur(box_blur(image[None], radius), radius)[0][:, row, column].mT

    def _mirrored(self, colour: Tensor, confidence: Tensor) -> tuple[Tensor, Tensor]:
        """Texels [P, 3] of the other side of the head at their own places, with their confidence [P, 1]."""
        model, atlas = self.model, self.atlas
        mirror, rest = mirror_vertices(model), dense_template(model)
        # Of several places at a cut the first: assigning by index would leave it to the threads.
        corners = model.faces.flatten()
        order = torch.arange(len(corners), device=corners.device)
        first = order.new_zeros(model.vertex_count).scatter_reduce(0, corners, order, "amin", include_self=False)
        uv = model.uv[model.uv_faces.flatten()[first]]
        side = atlas.raster.ids.shape[-1]
        pixel, wanted = atlas.pixels(uv[mirror] * uv.new_tensor([side, -side]) + uv.new_tensor([0, side]), rest[mirror])
        (place,) = atlas.pixels(rest)
        maps = atlas.image(torch.cat([colour * confidence, confidence, place, torch.ones_like(confidence)], 1))
        found = sample_at(maps, pixel)
        colour, confidence, place, covered = found.split([3, 1, 3, 1], 1)
        # Where the texture is cut, neighbouring vertices lie far apart in it and what lies between them is another place.
        same = (place - wanted).norm(dim=1, keepdim=True) < SAME_PLACE
        return colour / confidence.clamp(min=1e-6), confidence * same * (covered > 0.99)
