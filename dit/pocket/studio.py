"""Photographs of random people: the embedded head with hair, under random light, before a random backdrop."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...proxy.camera import Camera
from ...proxy.head_model import JOINTS, HeadModel
from ...proxy.inpaint import dilate
from ...proxy.posing import HIDDEN_PARTS
from ...proxy.raster import Rasterizer
from ...proxy.render_interior import INNER, interior_light, part_vertices, posed_interior_light
from ...transfer.training_data import random_drivers
from .people import LOCKS, SEGMENTS, PeopleMaker, Person
from .waves import Dice

GAMMA = 2.2
HEAD_CENTRE, HEAD_HEIGHT = (0.0, 0.735, 0.05), 0.215  # metres, of the model at rest
TURN = (9.0, 19.0, 7.0)  # degrees: standard deviations of pitch, yaw and roll
OVERSAMPLE = 2


@dataclasses.dataclass(frozen=True)
class Poses:
    """t poses of a person before the camera."""

    expression: Tensor  # [t, E]
    joints: Tensor  # [t, J, 3] rotation vectors, radians
    translation: Tensor  # [t, 3] metres, camera space


@dataclasses.dataclass(frozen=True)
class Light:
    """Two distant lights, and light from all around that changes from above to below. Camera space, linear."""

    directions: Tensor  # [2, 3] towards the light
    colours: Tensor  # [2, 3]
    above: Tensor  # [3]
    below: Tensor  # [3]
    soft: float  # how far a light reaches around the edge, 0..1


@dataclasses.dataclass(frozen=True)
class Photo:
    """t pictures."""

    images: Tensor  # [t, 3, H, W] in 0..1
    person: Tensor  # [t, 1, H, W] coverage
    head: Tensor  # [t, 1, H, W] head and hair, without neck and shoulders
    focus: Tensor  # [t, 1, H, W] mouth and eyes with a rim


class Studio:
    """Poses and photographs people."""

    def __init__(self, model: HeadModel, side: int):
        self.model, self.side = model, side
        self.people = PeopleMaker(model)
        shown = model.visible_faces(HIDDEN_PARTS)
        count = model.vertex_count
        faces = torch.cat([model.faces[shown], self.people.lock_faces + count])
        self.rasterizer = Rasterizer(faces, count + 2 * SEGMENTS * LOCKS)
        self.interior = interior_light(model)
        head = (model.weights[:, JOINTS.index("head") :].sum(1) > 0.5).float()
        seen = part_vertices(model, "left_eye", "right_eye", *INNER).float()
        focus = torch.stack([model.regions["lips"], model.regions["lids"], seen]).amax(0)
        self._marks = torch.stack([head, focus], 1)  # [V, 2]

    def poses(self, dice: Dice, count: int, focal: float, size: float, lively: float = 1.0) -> Poses:
        """Random poses; `size` is the head's height over the picture's, `lively` scales turns, shifts and expressions."""
        model = self.model
        drivers = random_drivers(model, max(3, count), dice.generator)
        pick = torch.randperm(len(drivers.expression), generator=dice.generator)[:count]
        expression, joints = drivers.expression[pick].clone(), drivers.joints[pick].clone()
        for row in range(count):
            if dice.chance(0.3):
                expression[row, model.expression_index("jawOpen")] = dice.uniform(0, 0.8)
            if dice.chance(0.2):
                for side in ("Left", "Right"):
                    expression[row, model.expression_index("eyeBlink" + side)] = dice.uniform(0.4, 1)
        turn = torch.deg2rad(torch.tensor(TURN)) * dice.normal(count, 3) * lively
        joints[:, JOINTS.index("head")], joints[:, JOINTS.index("neck")] = 0.75 * turn, 0.25 * turn
        gaze = 0.2 * dice.normal(count, 3) * torch.tensor([0.6, 1.0, 0.0])
        joints[:, JOINTS.index("left_eye")], joints[:, JOINTS.index("right_eye")] = gaze, gaze
        size = size * torch.exp(0.04 * lively * dice.normal(count))
        distance = focal * HEAD_HEIGHT / (size * self.side)
        shift = 0.035 * self.side * dice.normal(count, 2) * lively * (distance / focal)[:, None]
        place = torch.cat([shift, -distance[:, None]], 1) - torch.tensor(HEAD_CENTRE) * torch.tensor([1.0, 1.0, 0.0])
        return Poses(min(1.0, 0.3 + lively) * expression, joints, place)

    def light(self, dice: Dice, person: Person) -> Light:
        """A random light, exposed for the person's face more or less well."""
        ways = torch.stack([_direction(dice, 0.2), _direction(dice, -0.3)])
        warm = (1 + dice.uniform(0, 0.2) * dice.normal(2, 3)).clamp(0.4, 1.8)
        strong = torch.tensor([[dice.uniform(0.3, 1.8)], [dice.uniform(0, 0.7)]])
        above = dice.uniform(0.2, 0.9) * (1 + 0.06 * dice.normal(3))
        brightest = person.colour[self.model.regions["face"] > 0.5].median(0).values.amax()
        expected = brightest * (above.mean() + 0.7 * strong.sum())
        gain = (dice.uniform(0.2, 0.85) / expected).clamp(0.3, 2.5)
        return Light(ways, gain * warm * strong, gain * above, gain * above * dice.uniform(0.3, 1), dice.uniform(0, 0.5))

    def backdrop(self, dice: Dice) -> Tensor:
        """[1, 3, H, W]: a few smooth patches, at times with straight edges."""
        cells = int(dice.uniform(1, 9))
        colours = dice.colour(0.02, 0.9)[:, None, None] * (1 + dice.uniform(0, 0.7) * dice.normal(3, cells, cells)).clamp(0.1, 2)
        mode = "nearest" if dice.chance(0.25) else "bicubic"
        picture = F.interpolate(colours[None], size=(self.side, self.side), mode=mode)
        for _ in range(int(dice.uniform(0, 4))):
            left, right = sorted(int(dice.uniform(0, self.side)) for _ in range(2))
            top, bottom = sorted(int(dice.uniform(0, self.side)) for _ in range(2))
            picture[:, :, top:bottom, left:right] = dice.colour()[None, :, None, None]
        if dice.chance(0.7):
            blur = 2 * int(dice.uniform(1, self.side / 16)) + 1
            picture = F.avg_pool2d(F.pad(picture, [blur // 2] * 4, mode="replicate"), blur, 1)
        return picture.clamp(0, 1)

    def photograph(self, person: Person, poses: Poses, camera: Camera, light: Light, backdrop: Tensor) -> Photo:
        """Pictures of all poses, four samples per pixel."""
        parts = [self._picture(person, poses, k, camera, light, backdrop) for k in range(len(poses.expression))]
        return Photo(*(torch.cat([getattr(part, f.name) for part in parts]) for f in dataclasses.fields(Photo)))

    def _picture(self, person: Person, poses: Poses, k: int, camera: Camera, light: Light, backdrop: Tensor) -> Photo:
        model, identity = self.model, person.identity[None]
        expression, joints = poses.expression[k : k + 1], poses.joints[k : k + 1]
        vertices = model.forward(identity, expression, joints, person.displacement)
        interior = posed_interior_light(model, self.interior, vertices)[0]
        place, normals = self.people.points, model.vertex_normals(vertices)[0]
        vertices = vertices[0] + poses.translation[k]
        locks = person.locks
        if locks is None:  # the rasteriser has room for hair; without any, all of it lies in one point behind the camera
            hair = torch.zeros(2 * SEGMENTS * LOCKS, 3) + torch.tensor([0.0, 0.0, 1.0])
            hair_place, hair_normals, hair_colour = (torch.zeros_like(hair) for _ in range(3))
        else:
            skull = model.joint_transforms(identity, expression, joints)[0, model.pivot]
            hair = locks.points @ skull[:3, :3].T + skull[:3, 3] + poses.translation[k]
            hair_place, hair_normals, hair_colour = locks.points, locks.normals @ skull[:3, :3].T, locks.colour
        ones = torch.ones_like(hair[:, :1])
        own = torch.cat([normals, person.colour, place, person.gloss, person.hairy, interior[:, None], self._marks, vertices], 1)
        added = torch.cat([hair_normals, hair_colour, hair_place, 0.3 * ones, ones, ones, ones, 0 * ones, hair], 1)
        clip = camera.clip(torch.cat([vertices, hair])[None])
        raster = self.rasterizer.rasterize(clip, (OVERSAMPLE * camera.height, OVERSAMPLE * camera.width))
        seen = self.rasterizer.interpolate_pixels(torch.cat([own, added])[None], raster, clip)
        normal, colour, place, gloss, hairy, interior, marks, point = seen.split([3, 3, 3, 1, 1, 1, 2, 3], dim=1)
        grain = _mix(person.grain_strength * person.grain.at(place), person.strand_strength * person.strands.at(place), hairy)
        shaded = shade(colour * (1 + grain).clamp(0.3, 2), normal, point, gloss, light) * interior
        image = raster.scatter(torch.cat([shaded.clamp(0, 1) ** (1 / GAMMA), torch.ones_like(gloss), marks], 1))
        image = F.avg_pool2d(image.permute(0, 3, 1, 2), OVERSAMPLE)
        cover = image[:, 3:4]
        focus = dilate(image[:, 5:], max(1, round(self.side / 100)))
        return Photo(image[:, :3] + (1 - cover) * backdrop, cover, image[:, 4:5], focus)


def shade(colour: Tensor, normals: Tensor, points: Tensor, gloss: Tensor, light: Light) -> Tensor:
    """Linear colours [P, 3] of surfaces with albedo `colour`: wrapped Lambert and Blinn-Phong highlights."""
    normals = F.normalize(normals, dim=-1)
    view = -F.normalize(points, dim=-1)
    up = 0.5 + 0.5 * normals[:, 1:2]
    diffuse, mirror = light.below + up * (light.above - light.below), 0
    for way, strength in zip(light.directions, light.colours):
        facing = normals @ way[:, None]
        diffuse = diffuse + strength * ((facing + light.soft) / (1 + light.soft)).clamp(min=0)
        half = F.normalize(view + way, dim=-1)
        sharp = torch.where(gloss > 0.9, 300.0, 25.0)
        mirror = mirror + strength * gloss * (normals * half).sum(-1, keepdim=True).clamp(min=0) ** sharp * (facing > 0)
    return colour * diffuse + 0.5 * mirror


def _direction(dice: Dice, front: float) -> Tensor:
    """A unit vector towards a light, no lower than a little below and no farther behind than `front` allows."""
    side, height = dice.uniform(-math.pi, math.pi) * 0.55, dice.uniform(-0.3, 1.1)
    way = torch.tensor([math.sin(side) * math.cos(height), math.sin(height), math.cos(side) * math.cos(height)])
    return F.normalize(way + torch.tensor([0.0, 0.0, max(0.0, front)]), dim=0)


def _mix(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    return first + share * (second - first)
