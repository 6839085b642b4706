"""The eyeballs of the preview: what the photo shows of them, and the rest of them in the same colours.

A turning eye brings out what its lids covered. An iris is much the same all the way around, and so is the white around it:
each eye is completed by its own mean at each angle from its axis. What lies by the lids in the photo is in their shadow and
full of lashes, so it does not turn with the eye; the shadow of the lids as they are now is put on instead.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from .head_model import JOINTS, PARTS, HeadModel
from .inpaint import box_blur, pull_push
from .photo_light import sample_at
from .posing import Shot
from .raster import Rasterizer
from .render_interior import dense_template, part_vertices
from .render_regions import SURROUND, eye_angle

EYES = ("left_eye", "right_eye")
NUMBERS = tuple(PARTS.index(name) for name in EYES)
FRONT = 1.3  # radians from an eye's axis at the edges of its map
FACING = 0.4  # cosine towards the camera from which a photo is trusted
SIDE = 192  # texels of the map of one eye
RINGS = 26  # angles at which colours are averaged
WHITE = (0.5, 1.0)  # radians between which the white of the eye is at its brightest
CLEARER = 0.8  # of the way from the white as seen, narrow and blurred, to the texture's
OTHER, PRIOR = 0.3, 0.02  # trust in the other eye and in the proxy's texture where an eye's own colours are few
LOCAL = 0.5  # how far what is covered differs from the mean of its ring as its surroundings do
LID_SHADE = 0.06  # widths of the eye over which lids cover or shade the photo's eye
SHADOW = 0.25  # of the lids
MIDDLE = 0.25  # radians from an eye's axis to vertices whose mean is its iris' middle
MOVED = (0.015, 0.06)  # radii of the eyeball by which eye and lids have moved apart: not at all .. surely


@dataclasses.dataclass(frozen=True)
class PreviewEyes:
    """Both eyes side by side in maps of SIDE x 2 SIDE texels, azimuthal about each eye's axis, and how they lie in the photo."""

    colours: Tensor  # [1, 3, SIDE, 2 SIDE] light included
    trust: Tensor  # [1, 1, SIDE, 2 SIDE] 0..1 where they are the photo's own
    place: Tensor  # [V, 2] texel of each vertex of the eyeballs
    ball: Tensor  # [2, V] bool
    iris: Tensor  # [2, V] bool: the middle of each
    around: Tensor  # [2, V] bool: skin around each eye
    distances: Tensor  # [2, V] metres from each iris to that skin in the source picture
    radius: float  # metres
    covered: int  # pixels over which lids cover or shade them

    @staticmethod
    def of(photo: Tensor, albedo: Tensor, light: Tensor, shot: Shot) -> PreviewEyes | None:
        """Eyes of a photo [1, 3, H, W] whose pose is `shot`, with texture [3, h, w] and its light [V, 3]; None without eyeballs."""
        model = shot.stage.model
        ball = torch.stack([part_vertices(model, name) for name in EYES])
        if not bool(ball.any(1).all()):
            return None
        rest = dense_template(model)
        centres = model.joint_template[[JOINTS.index(name) for name in EYES]]
        away = (rest - centres[:, None]).norm(dim=-1)
        radius = float(away[ball].median())
        around = (away < SURROUND[0] * radius) & part_vertices(model, "skin")
        place = _places(model, ball)
        width = 2 * radius * shot.stage.camera.focal / float(-shot.vertices[0, ball.any(0), 2].mean())
        covered = max(1, round(LID_SHADE * width))
        colours, trust = _maps(photo, albedo, light, shot, place, covered)
        iris = ball & (eye_angle(model) < MIDDLE)
        distances = _distances(shot.vertices, iris, around)[0]
        return PreviewEyes(colours, trust, place, ball, iris, around, distances, radius, covered)

    def moved(self, shot: Shot) -> Tensor:
        """How surely each eye moved against its lids since the source picture, 0..1, at its vertices [t, V]; 0 elsewhere."""
        now = _distances(shot.vertices, self.iris, self.around)
        change = ((now - self.distances).square() * self.around).sum(2) / self.around.sum(1)
        share = ((change.sqrt() / self.radius - MOVED[0]) / (MOVED[1] - MOVED[0])).clamp(0, 1)  # [t, 2]
        return share @ self.ball.to(share)

    def pixels(self, shot: Shot) -> tuple[Tensor, Tensor]:
        """Which [N] of the pixels that `shot` covers show an eye, and the light [N, 1] that lids leave to them."""
        parts = shot.stage.parts_and_empty[shot.raster.ids.long()]
        eye = torch.isin(parts, parts.new_tensor(NUMBERS))
        index = eye.flatten()[shot.raster.pixels].nonzero()[:, 0]
        lids = torch.zeros_like(eye, dtype=torch.float32)
        if len(index) > 0:
            window = (slice(None), *(_window(eye.any(0).any(axis), 2 * self.covered) for axis in (1, 0)))
            lids[window] = box_blur(box_blur(1 - eye[window][:, None].float(), self.covered), self.covered)[:, 0]
        return index, 1 - SHADOW * lids.flatten()[shot.raster.pixels[index], None]

    def at(self, place: Tensor) -> tuple[Tensor, Tensor]:
        """Colours [P, 3] and trust [P, 1] at texels [P, 2]."""
        both = sample_at(torch.cat([self.colours, self.trust], 1), place)
        return both[:, :3], both[:, 3:]


def _window(used: Tensor, margin: int) -> slice:
    """Where a row [N] bool is in use, with a margin."""
    at = used.nonzero()
    return slice(max(int(at.min()) - margin, 0), int(at.max()) + margin + 1)


def _places(model: HeadModel, ball: Tensor) -> Tensor:
    rest, angle = dense_template(model), eye_angle(model)
    place = torch.zeros_like(rest[:, :2])
    for side, name in enumerate(EYES):
        offset = (rest - model.joint_template[JOINTS.index(name)])[:, :2]
        flat = torch.nn.functional.normalize(offset, dim=-1) * (angle / FRONT).clamp(max=1)[:, None]
        texel = (flat * flat.new_tensor([1.0, -1.0]) + 1) / 2 * SIDE + flat.new_tensor([side * SIDE, 0.0])
        place = torch.where(ball[side][:, None], texel, place)
    return place


def _distances(vertices: Tensor, iris: Tensor, around: Tensor) -> Tensor:
    """Metres [t, 2, V] from the middle of each iris to the skin around it, whatever the head's pose; 0 elsewhere."""
    middles = torch.stack([vertices[:, part].mean(1, keepdim=True) for part in iris], 1)
    return (vertices[:, None] - middles).norm(dim=-1) * around


def _maps(photo: Tensor, albedo: Tensor, light: Tensor, shot: Shot, place: Tensor, covered: int) -> tuple[Tensor, Tensor]:
    """Colours [1, 3, SIDE, 2 SIDE] of both eyes and their trust; lids shade `covered` pixels of the photo."""
    stage, model = shot.stage, shot.stage.model
    angle = eye_angle(model)
    drawn = torch.isin(stage.parts, stage.parts.new_tensor(NUMBERS))
    drawn &= (angle[stage.faces] < FRONT).all(1)
    flat = 2 * place / place.new_tensor([2 * SIDE, SIDE]) - 1
    clip = torch.cat([flat, torch.zeros_like(flat[:, :1]), torch.ones_like(flat[:, :1])], 1)[None]
    rasterizer = Rasterizer(stage.faces[drawn], model.weights.shape[0])
    raster = rasterizer.rasterize(clip, (SIDE, 2 * SIDE))
    attributes = torch.cat([shot.vertices[0], light, shot.facing[0, :, None], angle.clamp(max=FRONT)[:, None]], 1)
    points, lit, facing, angle = rasterizer.interpolate_pixels(attributes[None], raster, clip).split([3, 3, 1, 1], 1)
    uv = rasterizer.interpolate_pixels(model.uv[None], raster, clip, stage.uv_faces[drawn])
    usual = (rasterizer.texture(albedo[None], uv) * lit).clamp(0, 1)

    pixels = stage.camera.project(points)
    found = sample_at(photo, pixels)
    left = (raster.pixels % (2 * SIDE) < SIDE)[:, None]
    bare = [sample_at(_uncovered(shot, number, covered), pixels) for number in NUMBERS]
    trust = torch.where(left, *bare) * (facing / FACING).clamp(0, 1)
    mean = _ring_means(found, trust, usual, angle, left)
    image = raster.scatter(torch.cat([found, mean, trust, torch.ones_like(trust)], 1)).permute(0, 3, 1, 2)
    eyes = []
    for one in image.split(SIDE, 3):
        own, ring, known, inside = one.split([3, 3, 1, 1], 1)
        ring = pull_push(ring, inside)
        around = box_blur(pull_push(own - ring, known), SIDE // 24)
        eyes.append(torch.cat([known * own + (1 - known) * (ring + LOCAL * around).clamp(0, 1), known], 1))
    return torch.cat(eyes, 3).split([3, 1], 1)


def _uncovered(shot: Shot, number: int, covered: int) -> Tensor:
    """Where a shot's first frame shows an eye, 0 at its lids, 1 further than `covered` pixels inside, [1, 1, H, W]."""
    eye = shot.stage.parts_and_empty[shot.raster.ids[:1].long()] == number
    return (2 * box_blur(eye[:, None].float(), covered) - 1).clamp(0, 1)


def _with_white(rings: Tensor, usual: Tensor) -> Tensor:
    """Colours [RINGS + 1, 3], the white of the eye alike all the way back: its corners are red, and lids tint what is near them."""
    angle = torch.arange(len(rings), device=rings.device) * (FRONT / RINGS)
    brightest = torch.where((angle > WHITE[0]) & (angle < WHITE[1]), rings.mean(1), -1.0).argmax()
    white = rings[brightest] + CLEARER * (usual[brightest] - rings[brightest]).clamp(min=0)
    back = ((angle - angle[brightest]) / (FRONT / RINGS) + 1).clamp(0, 1)[:, None]
    return rings + back * (white - rings)


def _ring_means(found: Tensor, trust: Tensor, usual: Tensor, angle: Tensor, left: Tensor) -> Tensor:
    """Mean colours [P, 3] of the own eye at each texel's angle [P, 1]: of the found ones by trust [P, 1], else the usual ones."""
    ring = (angle / FRONT * RINGS).clamp(0, RINGS - 1e-3)
    lower, part = ring.long(), ring.frac()
    sums = []
    for side in (left, ~left):
        total = found.new_zeros(RINGS + 1, 8)
        values = torch.cat([found * trust, trust, usual, torch.ones_like(trust)], 1) * side
        for index, share in ((lower, 1 - part), (lower + 1, part)):
            total = total.index_add(0, index[:, 0], values * share)
        sums.append(total)
    means = []
    for own, other in (sums, sums[::-1]):
        count = own[:, 7:].clamp(min=1e-6)
        usual = own[:, 4:7] / count
        colour = own[:, :3] + OTHER * other[:, :3] + PRIOR * count * usual
        means.append(_with_white(colour / (own[:, 3:4] + OTHER * other[:, 3:4] + PRIOR * count), usual))
    picked = [m[lower[:, 0]] * (1 - part) + m[lower[:, 0] + 1] * part for m in means]
    return torch.where(left, *picked)
