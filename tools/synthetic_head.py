"""ICT-FaceKit's light head as a stranger to the fit: rendered clips whose pose and geometry are known.

`IctHead` draws the head plainly. `DetailedHead` subdivides it and adds what a blend shape model lacks: relief of the skin, and
wrinkles that come with expressions.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from expportrait.proxy.camera import Camera
from expportrait.proxy.frames import Frames
from expportrait.proxy.lighting import sh_basis
from expportrait.proxy.mesh import vertex_normals
from expportrait.proxy.raster import Rasterizer
from expportrait.proxy.rotation import to_matrix
from expportrait.proxy.subdivide import midpoint_triangles

# First vertices of the pieces of ICT-FaceKit's mesh; tear film and lashes, from LASHES on, are left out.
HEAD, SOCKETS, GUMS, TEETH, EYES, LASHES = 6706, 11248, 14062, 17039, 21451, 24591
SIDE, FRAMES = 384, 40  # of IctHead's clips
DETAIL_SIDE, DETAIL_FRAMES = 512, 24  # of DetailedHead's
REST_DISTANCE = 0.7  # metres
RELIEF, RELIEF_WAVES = 0.0007, (0.010, 0.045)  # metres: RMS of the skin's relief on the face and range of its wavelengths
ACTED = (("browInnerUp", "browOuterUp"), ("browDown", "eyeSquint"), ("mouthSmile", "cheekSquint"), ("noseSneer",), ("jawOpen",))
LEFT_OUT = ("PupilDilate", "mouthClose", "eyeLook")  # seen by nobody, tears the lips, moves the eyeballs only


class IctHead:
    """ICT-FaceKit's light head, drawn plainly."""

    def __init__(self, path: Path):
        with np.load(path) as file:
            self.vertices = torch.from_numpy(file["vertices"]) / 100
            faces = torch.from_numpy(file["faces"].astype(np.int64))
            self.faces = faces[faces.amax(1) < LASHES]
            self.identity = torch.from_numpy(file["identity"].astype(np.float32)) / 100
            self.expression = torch.from_numpy(file["expression"].astype(np.float32)) / 100
            self.expression_names = [str(name) for name in file["expression_names"]]
            self.points68 = torch.from_numpy(file["landmarks68"])
        self.rasterizer = Rasterizer(self.faces, len(self.vertices))
        self.camera = Camera.centred(1.9 * SIDE, SIDE, SIDE)
        self.albedo = self._albedo()

    def _albedo(self) -> Tensor:
        """[V, 3]: skin, red lips, brown brows and eyes with an iris, from the 68 points and the mesh's separate pieces."""
        colour = torch.tensor([0.62, 0.42, 0.33]).repeat(len(self.vertices), 1)
        points = self.vertices[self.points68]
        face = (self.vertices[:, 2] > points[:, 2].min()) & (torch.arange(len(self.vertices)) < SOCKETS)
        near = torch.cdist(self.vertices, points)
        brows = torch.cat([(points[a : a + 4] * (1 - t) + points[a + 1 : a + 5] * t) for a in (17, 22) for t in (0.0, 0.5, 1.0)])
        colour[(torch.cdist(self.vertices, brows).amin(1) < 0.0035) & face] = torch.tensor([0.12, 0.07, 0.05])
        colour[(near[:, 48:].amin(1) < 0.004) & face] = torch.tensor([0.5, 0.2, 0.19])
        return paint_eyes(colour, self.vertices, torch.arange(len(self.vertices)) >= EYES)

    def clip(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Images [T, H, W, 3] and the head's rotations [T, 3, 3] of a random person who moves smoothly."""
        time = torch.linspace(0, 2 * math.pi, FRAMES)[:, None]
        rotations = turns(wave(time, 3, generator) * torch.tensor([20.0, 35.0, 15.0]))
        person = 0.7 * torch.randn(len(self.identity), generator=generator)
        used = torch.rand(len(self.expression), generator=generator) < 0.12
        expression = (wave(time, len(self.expression), generator).clamp(min=0) * 0.7) * used
        rest = self.vertices + torch.einsum("i,ivx->vx", person, self.identity)
        posed = rest + torch.einsum("te,evx->tvx", expression, self.expression)
        pivot = rest[self.points68].mean(0) - torch.tensor([0.0, 0.0, 0.08])
        placed = (posed - pivot) @ rotations.mT + torch.tensor([0.0, 0.0, -0.75])
        light = torch.randn(9, generator=generator) * 0.12
        light[:3] = torch.tensor([0.75, 0.15, 0.4])
        light = light[:, None].expand(9, 3)
        return torch.cat([draw(self.rasterizer, self.camera, frame, self.albedo, light) for frame in placed]), rotations


def wave(time: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Sines [T, count] of random phase over time [T, 1] in radians."""
    return torch.sin(time + 2 * math.pi * torch.rand(count, generator=generator))


def turns(degrees: Tensor) -> Tensor:
    """Rotations [T, 3, 3] of pitch, yaw and roll [T, 3] in degrees."""
    turn, axes = degrees * (math.pi / 180), torch.eye(3)
    return to_matrix(turn[:, 1:2] * axes[1]) @ to_matrix(turn[:, :1] * axes[0]) @ to_matrix(turn[:, 2:] * axes[2])


def paint_eyes(colour: Tensor, vertices: Tensor, balls: Tensor) -> Tensor:
    """Paints white, iris and pupil on the eyeballs `balls` [V] bool of colour [V, 3], in place."""
    for side in (-1, 1):
        eye = balls & (vertices[:, 0].sign() == side)
        off = (vertices[:, :2] - vertices[eye].mean(0)[:2]).norm(dim=1)
        colour[eye & (off < 0.02)] = torch.tensor([0.75, 0.72, 0.7])
        colour[eye & (off < 0.006)] = torch.tensor([0.15, 0.09, 0.05])
        colour[eye & (off < 0.0025)] = torch.tensor([0.01, 0.01, 0.01])
    return colour


def draw(rasterizer: Rasterizer, camera: Camera, vertices: Tensor, albedo: Tensor, light: Tensor) -> Tensor:
    """Picture [1, H, W, 3] in 0..1 of vertices [V, 3] under light [9, 3]: four samples per pixel, gamma 2.2, grey behind."""
    vertices = vertices[None]
    normals = vertex_normals(vertices, rasterizer.faces)
    clip = camera.clip(vertices)
    raster = rasterizer.rasterize(clip, (2 * camera.height, 2 * camera.width))
    seen = rasterizer.interpolate(torch.cat([normals, albedo[None]], 2), raster, clip)
    normal = torch.nn.functional.normalize(seen[..., :3], dim=-1, eps=1e-8)
    shade = (sh_basis(normal) @ light).clamp(min=0.1)
    colour = torch.where(raster.mask[..., None], (seen[..., 3:] * shade).clamp(0, 1) ** (1 / 2.2), torch.tensor(0.35))
    return torch.nn.functional.avg_pool2d(colour.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


@dataclasses.dataclass(frozen=True)
class Person:
    """What stays the same over the clips of one synthetic person; V vertices of DetailedHead."""

    identity: Tensor  # [100]
    relief: Tensor  # [V] metres along the normal
    albedo: Tensor  # [V, 3]
    light: Tensor  # [9, 3]


@dataclasses.dataclass(frozen=True)
class KnownClip:
    """A rendered clip of T frames with its truth, all in camera space (OpenGL) and metres."""

    images: Tensor  # [T, H, W, 3] in 0..1
    normals: Tensor  # [T, H, W, 3] of whatever is seen, unit length, zero behind the head
    face: Tensor  # [T, H, W] bool: the front of the face is seen
    vertices: Tensor  # [T, V, 3]
    seen: Tensor  # [T, V] bool: vertices of the front of the face that the camera sees
    faces: Tensor  # [F, 3]
    camera: Camera

    def __len__(self) -> int:
        return len(self.images)

    @property
    def frames(self) -> Frames:
        return Frames.from_images(self.images)

    def resized(self, factor: float) -> KnownClip:
        """The same pictures of a head of another size, farther away or nearer: no picture tells the two apart."""
        return dataclasses.replace(self, vertices=self.vertices * factor)

    @property
    def normal_images(self) -> Tensor:
        """True normals as a normal estimator's IMAGE batch [T, H, W, 3]: (n + 1) / 2, black behind the head."""
        shown = (self.normals != 0).any(-1, keepdim=True)
        return torch.where(shown, (self.normals + 1) / 2, torch.zeros(()))


class DetailedHead:
    """ICT-FaceKit's light head, subdivided once, with relief on its skin, wrinkles and smooth colours."""

    def __init__(self, path: Path):
        self.ict = IctHead(path)
        stencil, faces = loop_subdivision(self.ict.faces.numpy(), len(self.ict.vertices))
        index = torch.from_numpy(np.stack([stencil.row, stencil.col]).astype(np.int64))
        values = torch.from_numpy(stencil.data).float()
        self.stencil = torch.sparse_coo_tensor(index, values, stencil.shape, check_invariants=True).coalesce()
        self.faces = torch.from_numpy(faces)
        self.rest = self.stencil @ self.ict.vertices  # [V, 3]
        self.points = self.ict.vertices[self.ict.points68]
        owner = torch.from_numpy(np.asarray(stencil.tocsr().argmax(axis=1))).flatten().long()
        bounds = torch.tensor([HEAD, SOCKETS, GUMS, TEETH, EYES])
        self.piece = torch.searchsorted(bounds, owner, right=True)  # [V] face, head and neck, sockets, gums, teeth, eyes: 0..5
        self.openings = self._openings()
        self.drivers, self.wrinkles = self._wrinkles()
        self.front = self._front()
        self.camera = Camera.centred(1.9 * DETAIL_SIDE, DETAIL_SIDE, DETAIL_SIDE)
        self.rasterizer = Rasterizer(self.faces, len(self.rest))

    def person(self, generator: torch.Generator) -> Person:
        """A random person under a random light."""
        identity = 0.7 * torch.randn(len(self.ict.identity), generator=generator)
        face = (self.piece == 0) & (self.openings > 0.5)
        relief = waves(self.rest, RELIEF_WAVES, generator)
        relief = RELIEF * relief / relief[face].square().mean().sqrt() * self.openings
        return Person(identity, relief, self._albedo(generator), random_light(generator))

    def expressions(self, generator: torch.Generator, frames: int = DETAIL_FRAMES) -> Tensor:
        """Random expressions [frames, 57] that begin and end at rest: three kinds out of ACTED, and some others, weaker."""
        names = self.ict.expression_names
        time = torch.linspace(0, 2 * math.pi, frames)[:, None]
        strength = 0.35 * (torch.rand(len(names), generator=generator) < 0.12)
        for group in torch.randperm(len(ACTED), generator=generator)[:3].tolist():
            acted = [name.startswith(ACTED[group]) for name in names]
            strength[torch.tensor(acted)] = 0.6 if ACTED[group] == ("jawOpen",) else 0.9
        strength[torch.tensor([name.startswith(LEFT_OUT) for name in names])] = 0
        # Both sides of the face act together, with a little difference.
        phase = {name.removesuffix("_L").removesuffix("_R"): 0.0 for name in names}
        phase = dict(zip(phase, (2 * math.pi * torch.rand(len(phase), generator=generator)).tolist()))
        start = torch.tensor([phase[name.removesuffix("_L").removesuffix("_R")] for name in names])
        side = 1 - 0.2 * torch.rand(len(names), generator=generator)
        return (0.5 + 0.5 * torch.sin(time + start)) * strength * side * torch.sin(time / 2).square().clamp(max=0.5) * 2

    def clip(self, person: Person, expression: Tensor, generator: torch.Generator) -> KnownClip:
        """Renders expressions [T, 57] of a person whose head turns smoothly, once around over the clip."""
        time = torch.linspace(0, 2 * math.pi, len(expression))[:, None]
        rotations = turns(wave(time, 3, generator) * torch.tensor([10.0, 24.0, 8.0]))
        return self.shot(person, expression, rotations)

    def shot(self, person: Person, expression: Tensor, rotations: Tensor) -> KnownClip:
        """Renders expressions [T, 57] of a person with rotations [T, 3, 3] of the head."""
        vertices = self.posed(person, expression, rotations)
        images = [draw(self.rasterizer, self.camera, frame, person.albedo, person.light) for frame in vertices]
        truth = [self._truth(frame[None]) for frame in vertices]
        normals, face, seen = (torch.cat(part) for part in zip(*truth))
        return KnownClip(torch.cat(images), normals, face, vertices, seen, self.faces, self.camera)

    def posed(self, person: Person, expression: Tensor, rotations: Tensor) -> Tensor:
        """Vertices [T, V, 3] in camera space of expressions [T, 57] of a person with rotations [T, 3, 3] of the head."""
        control = self.ict.vertices + torch.einsum("i,ivx->vx", person.identity, self.ict.identity)
        pivot = control[self.ict.points68].mean(0) - torch.tensor([0.0, 0.0, 0.08])
        moved = control + torch.einsum("te,evx->tvx", expression, self.ict.expression)
        smooth = torch.stack([self.stencil @ frame for frame in moved])
        relief = person.relief + expression @ self.drivers.T @ self.wrinkles  # [T, V]
        posed = smooth + relief[..., None] * vertex_normals(smooth, self.faces)
        return (posed - pivot) @ rotations.mT + torch.tensor([0.0, 0.0, -REST_DISTANCE])

    def _truth(self, vertices: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normals [1, H, W, 3], face mask [1, H, W] and seen vertices [1, V] of one frame."""
        camera = self.camera
        clip = camera.clip(vertices)
        raster = self.rasterizer.rasterize(clip, (camera.height, camera.width))
        normals = vertex_normals(vertices, self.faces)
        image = torch.nn.functional.normalize(self.rasterizer.interpolate(normals, raster, clip), dim=-1, eps=1e-8)
        front = torch.cat([torch.zeros(1, dtype=torch.bool), self.front[self.faces].all(1)])
        facing = -(normals * torch.nn.functional.normalize(vertices, dim=-1)).sum(-1)
        distance = -vertices[..., 2]
        pixel = camera.project(vertices).floor().long().clamp(0, camera.width - 1)
        surface = 1 / camera.inverse_depth(raster.zw)[0, pixel[0, :, 1], pixel[0, :, 0]].clamp(min=1e-3)
        seen = self.front & (facing > 0.15) & (distance - surface[None] < 0.004)
        return image, front[raster.ids.long()], seen

    def _front(self) -> Tensor:
        """[V] bool: the face from chin to hair line and cheek to cheek, without the inside of lids, lips and nostrils."""
        normals = vertex_normals(self.rest[None], self.faces)[0]
        edge = self.points[[0, 16], 2].mean() + 0.012  # in front of the jaw's corners
        shown = (self.rest[:, 2] > edge) & (self.rest[:, 1] > self.points[8, 1] - 0.005) & (normals[:, 1] > -0.85)
        return (self.piece == 0) & shown & (self.openings > 0.05)

    def _openings(self) -> Tensor:
        """[V] 0..1, 0 at the rims of eyes and mouth and off the skin: where relief has to end."""
        rings = [self.points[ring] for ring in (slice(36, 42), slice(42, 48), slice(60, 68))]
        near = [segment_distance(self.rest, torch.cat([ring, ring[:1]])) for ring in rings]
        return smoothstep(torch.stack(near).amin(0), 0.003, 0.010) * (self.piece <= 1)

    def _wrinkles(self) -> tuple[Tensor, Tensor]:
        """Weights [N, 57] of the expressions that drive each wrinkle pattern, and the patterns [N, V] in metres."""
        x, y, _ = self.rest.unbind(1)
        points = self.points
        brow = points[17:27, 1].mean()
        above = y - brow - 0.003 * torch.cos(x / 0.011)
        lines = -0.0010 * (0.5 + 0.5 * torch.cos(above * (2 * math.pi / 0.010))) ** 2
        forehead = lines * smoothstep(above, 0.008, 0.015) * smoothstep(-above, -0.048, -0.038) * smoothstep(-x.abs(), -0.045, -0.03)
        patterns, drivers = [forehead], [("browInnerUp_L", "browInnerUp_R", "browOuterUp_L", "browOuterUp_R")]
        between = self.points[[21, 22]].mean(0)
        frown = [groove(self.rest, between + torch.tensor([[s, -0.006, 0.0], [1.2 * s, 0.014, 0.0]]), 0.0022) for s in (-0.006, 0.006)]
        patterns.append(-0.0014 * sum(frown))
        drivers.append(("browDown_L", "browDown_R"))
        for wing, corner, eye, side in ((31, 48, 36, -1.0), (35, 54, 45, 1.0)):
            out = torch.tensor([side, 0.0, 0.0])
            name = "R" if side < 0 else "L"  # ICT's +x is the subject's left
            fold = torch.stack([points[wing] + 0.008 * out + torch.tensor([0.0, 0.004, 0.0]), points[corner] + 0.012 * out])
            fold = torch.cat([fold, (points[corner] + 0.012 * out - torch.tensor([0.0, 0.010, 0.0]))[None]])
            cheek = groove(self.rest, fold + 0.009 * out, 0.005)
            patterns.append(-0.0020 * groove(self.rest, fold, 0.0028) + 0.0012 * cheek)
            drivers.append((f"mouthSmile_{name}", f"noseSneer_{name}"))
            fan = [math.radians(a) for a in (-28, 0, 28)]
            rays = [points[eye] + torch.tensor([[side * math.cos(a), math.sin(a), 0.0]]) * torch.tensor([[0.008], [0.026]]) for a in fan]
            patterns.append(-0.0009 * sum(groove(self.rest[:, :2], ray[:, :2], 0.0020) for ray in rays))
            drivers.append((f"eyeSquint_{name}", f"cheekSquint_{name}"))
        names = self.ict.expression_names
        weights = torch.tensor([[name in group for name in names] for group in drivers]).float()
        return weights / weights.sum(1, keepdim=True), torch.stack(patterns) * self.openings * (self.rest[:, 2] > 0.02)

    def _albedo(self, generator: torch.Generator) -> Tensor:
        """[V, 3] linear: skin with slow changes of colour, rosy cheeks and nose, lips, brows, eyes, teeth and gums."""
        points = self.points
        tone = 0.55 + 0.6 * torch.rand(1, generator=generator)
        skin = torch.tensor([0.62, 0.42, 0.33]) * tone.clamp(max=1)
        uneven = torch.stack([waves(self.rest, (0.04, 0.15), generator) for _ in range(3)], 1)
        colour = skin * (1 + 0.07 * uneven[:, :1] + 0.025 * uneven)
        rosy = torch.stack([points[30], (points[48] + points[36]) / 2, (points[54] + points[45]) / 2])
        blush = torch.exp(-(torch.cdist(self.rest, rosy) / 0.02) ** 2).sum(1, keepdim=True).clamp(max=1)
        colour = colour * (1 - blush * torch.tensor([0.0, 0.16, 0.14]))
        front = self.rest[:, 2:] > points[:, 2].min()
        lips = front * smoothstep(-polygon_distance(self.rest[:, :2], points[48:60, :2]), -0.001, 0.001)[:, None]
        colour = colour + lips * (skin * torch.tensor([0.85, 0.5, 0.58]) - colour)
        for first in (17, 22):
            brow = smoothstep(-segment_distance(self.rest, points[first : first + 5]), -0.006, -0.002)[:, None]
            colour = colour + 0.85 * front * brow * (torch.tensor([0.10, 0.06, 0.045]) - colour)
        for piece, inside in ((2, [0.16, 0.06, 0.06]), (3, [0.42, 0.17, 0.17]), (4, [0.72, 0.68, 0.6])):
            colour[self.piece == piece] = torch.tensor(inside)
        return paint_eyes(colour, self.rest, self.piece == 5)


def random_light(generator: torch.Generator) -> Tensor:
    """Light [9, 3] from above and one side, a little coloured."""
    azimuth, height = (torch.rand(2, generator=generator) * torch.tensor([2.2, 0.7]) + torch.tensor([-1.1, 0.2])).tolist()
    towards = torch.tensor([math.sin(azimuth) * math.cos(height), math.sin(height), math.cos(azimuth) * math.cos(height)])
    light = 0.05 * torch.randn(9, generator=generator)
    light[0] = 0.45
    light[[3, 1, 2]] = 0.65 * towards
    return light[:, None] * (1 + 0.06 * torch.randn(1, 3, generator=generator))


def waves(points: Tensor, lengths: tuple[float, float], generator: torch.Generator, count: int = 80) -> Tensor:
    """A random band-limited field at points [V, 3] -> [V]: plane waves of the given range of lengths, higher where longer; RMS 1."""
    low, high = (math.log(value) for value in lengths)
    length = torch.exp(low + (high - low) * torch.rand(count, generator=generator))
    direction = torch.nn.functional.normalize(torch.randn(count, 3, generator=generator), dim=1)
    phase = 2 * math.pi * torch.rand(count, generator=generator)
    field = torch.sin(points @ (direction * (2 * math.pi / length)[:, None]).T + phase) @ length
    return field / field.square().mean().sqrt()


def smoothstep(value: Tensor, low: float, high: float) -> Tensor:
    """0 below low, 1 above high, smooth between."""
    share = ((value - low) / (high - low)).clamp(0, 1)
    return share * share * (3 - 2 * share)


def segment_distance(points: Tensor, line: Tensor) -> Tensor:
    """Distance [P] of points [P, D] to the nearest segment of a polyline [N, D]."""
    start, along = line[:-1], line[1:] - line[:-1]
    share = ((points[:, None] - start) * along).sum(-1) / along.square().sum(-1)
    nearest = start + share.clamp(0, 1)[..., None] * along
    return (points[:, None] - nearest).norm(dim=-1).amin(1)


def polygon_distance(points: Tensor, polygon: Tensor) -> Tensor:
    """Signed distance [P] of points [P, 2] to a closed polygon [N, 2], negative inside."""
    start, end = polygon, polygon.roll(-1, 0)
    x, y = points[:, :1], points[:, 1:]
    across = (start[:, 1] > y) != (end[:, 1] > y)
    crossing = start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0])
    inside = (across & (x < crossing)).sum(1) % 2 == 1
    distance = segment_distance(points, torch.cat([polygon, polygon[:1]]))
    return torch.where(inside, -distance, distance)


def groove(points: Tensor, line: Tensor, width: float) -> Tensor:
    """Gaussian profile [P], 1 on a polyline [N, D], with the given standard deviation in metres."""
    return torch.exp(-0.5 * (segment_distance(points, line) / width) ** 2)


def loop_subdivision(triangles: np.ndarray, vertex_count: int) -> tuple[sparse.coo_matrix, np.ndarray]:
    """Smooth subdivision of triangles [F, 3]: stencil [V', V] (rows sum to 1) and triangles [4 F, 3]; borders stay sharp.

    Loop, Smooth Subdivision Surfaces Based on Triangles, 1987, with Warren's weights.
    """
    middle, split = midpoint_triangles(triangles, vertex_count)
    ends = middle[vertex_count:]  # [E, V], one half at each end
    edge = split[3::4] - vertex_count  # [F, 3], the edge from corner k to k + 1
    opposite = np.roll(triangles, 1, axis=1)  # corner k + 2
    beside = sparse.csr_matrix((np.full(edge.size, 0.125), (edge.ravel(), opposite.ravel())), ends.shape)
    inner = np.bincount(edge.ravel(), minlength=ends.shape[0]) == 2
    edge_points = sparse.diags(np.where(inner, 0.75, 1.0)) @ ends + sparse.diags(inner.astype(float)) @ beside
    around = ends.T @ ends * 4
    around = around - sparse.diags(around.diagonal())  # neighbours, 1 each
    valence = np.asarray(around.sum(1)).ravel()
    border = np.asarray((sparse.diags((~inner).astype(float)) @ ends).sum(0)).ravel() > 0
    share = np.where(valence == 3, 3 / 16, 3 / 8 / np.maximum(valence, 1)) * (~border & (valence > 0))
    vertex_points = sparse.diags(1 - share * valence) + sparse.diags(share) @ around
    return sparse.vstack([vertex_points, edge_points]).tocoo(), split
