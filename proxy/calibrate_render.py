"""Plain portraits of random people, expressions and views, with known geometry: what landmarks are calibrated on."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .camera import Camera
from .head_model import JOINTS, PARTS, HeadModel
from .lighting import sh_basis
from .raster import Raster, Rasterizer
from .rotation import compose

IMAGE, OVERSAMPLE = 256, 2  # pixels; each is the mean of OVERSAMPLE^2 samples
FOCAL = 2.2  # of the image's height
FACE_SHARE = 0.52  # height of the face region in the image's height
YAWS = (0, 0, 8, -8, 15, -15, 28, -28, 0, 0)  # degrees, as faces in clips are mostly seen: a landmark slides as the head turns
PITCHES = (0, 0, 0, 0, 0, 0, 0, 0, 12, -12)
BROW_SPAN = (0.17, 0.92)  # from the middle of the face, in distances between the eyes
BROW_HEIGHT, BROW_RISE = 0.29, 0.07  # above the eyes, and of the arc
LASH_REACH = 0.0036  # metres from the eyeball
SKY_VIEWS, SKY_SIZE, SKY_TOLERANCE = 96, 512, 0.006
JITTER = 5.0  # degrees around each view


@dataclasses.dataclass(frozen=True)
class Subjects:
    """N random heads, posed."""

    identity: Tensor  # [N, I]
    expression: Tensor  # [N, E]
    joints: Tensor  # [N, J, 3]
    blink: Tensor  # [N] largest coefficient of an expression that closes an eye


def random_subjects(model: HeadModel, count: int, generator: torch.Generator) -> Subjects:
    """Views in turn, identities from the prior (somewhat calmer), every fourth face at rest, the others with up to five expressions."""

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    identity = 0.7 * torch.randn(count, model.identity_basis.shape[0], generator=generator)
    expressions = model.expression_basis.shape[0]
    chance = 5 / expressions
    expression = rand(count, expressions) * (rand(count, expressions) < chance)
    for left, right in _pairs(model):
        # Most faces are symmetrical most of the time.
        same = rand(count) < 0.7
        expression[same, right] = expression[same, left]
    names = {name: i for i, name in enumerate(model.expression_names)}
    if "jawOpen" in names:
        # Open mouths tell the upper from the lower lip.
        expression[:, names["jawOpen"]] = torch.where(rand(count) < 0.4, 0.1 + 0.7 * rand(count), torch.zeros(count))
        expression[:, names["tongueOut"]] = 0
        expression[:, names["mouthClose"]] = torch.minimum(expression[:, names["mouthClose"]], expression[:, names["jawOpen"]])
    expression *= model.expression_bounds[:, 1].cpu().clamp(max=2.0)
    expression[::4] = 0
    joints = torch.zeros(count, len(JOINTS), 3)
    view = torch.arange(count)
    spread = JITTER * torch.randn(count, 3, generator=generator)
    yaw = torch.tensor(YAWS, dtype=torch.float32)[view % len(YAWS)] + spread[:, 0]
    pitch = torch.tensor(PITCHES, dtype=torch.float32)[view % len(YAWS)] + spread[:, 1]
    zero = torch.zeros(count)
    turn = torch.stack([zero, yaw, zero], 1) * (math.pi / 180)
    nod = torch.stack([pitch, zero, spread[:, 2]], 1) * (math.pi / 180)
    joints[:, 0] = compose(turn, nod)
    gaze = 0.12 * torch.randn(count, 2, generator=generator)
    for eye in ("left_eye", "right_eye"):
        joints[:, JOINTS.index(eye), :2] = gaze
    blinks = [i for name, i in names.items() if name.startswith(("eyeBlink", "eyeSquint"))]
    blink = expression[:, blinks].amax(1) if blinks else torch.zeros(count)
    return Subjects(identity, expression, joints, blink)


def _pairs(model: HeadModel) -> list[tuple[int, int]]:
    names = {name: i for i, name in enumerate(model.expression_names)}
    pairs = [(i, name[: -len("Left")] + "Right") for name, i in names.items() if name.endswith("Left")]
    return [(i, names[other]) for i, other in pairs if other in names]


class Portraits:
    """Draws heads in the middle of IMAGE x IMAGE pictures."""

    def __init__(self, model: HeadModel):
        self.model = model
        self.camera = Camera.centred(FOCAL * IMAGE, IMAGE, IMAGE)
        shown = model.visible_faces(("cornea",))
        self._rasterizer = Rasterizer(model.faces[shown], model.weights.shape[0])
        face = model.regions["face"] > 0.5
        template = model.stencil @ model.template
        self._face = face
        low, high = template[face].amin(0), template[face].amax(0)
        self._brow_place = _brow_coordinates(model, template)
        self._ambient = _ambient(model, template, self._rasterizer)
        self._lashes = _lash_line(model, template)
        self._depth = FOCAL * float(high[1] - low[1]) / FACE_SHARE

    def place(self, vertices: Tensor) -> Tensor:
        """Camera-space vertices [B, V, 3] of posed ones: the face's box centred before the camera."""
        face = vertices[:, self._face]
        centre = (face.amin(1) + face.amax(1)) / 2
        return vertices - (centre + centre.new_tensor([0.0, 0.0, self._depth]))[:, None]

    def region(self, pixels: Tensor) -> Tensor:
        """Square [B, 4] (centre x, y, side, angle) around the face of projected vertices [B, V, 2]: the first guess."""
        face = pixels[:, self._face]
        low, high = face.amin(1), face.amax(1)
        side = 1.4 * (high - low).amax(1)
        return torch.cat([(low + high) / 2, side[:, None], torch.zeros_like(side)[:, None]], 1)

    def draw(self, vertices: Tensor, normals: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Pictures [B, 3, H, W] in 0..1 of camera-space vertices [B, V, 3], with random skin, make-up, light and background;
        and whether each vertex [B, V] is seen."""
        batch, size = len(vertices), IMAGE * OVERSAMPLE
        clip = self.camera.clip(vertices)
        raster = self._rasterizer.rasterize(clip, (size, size))
        albedo = self._albedo(batch, generator) * (0.12 + 0.88 * self._ambient[:, None])
        attributes = torch.cat([normals, albedo], 2)
        seen = self._rasterizer.interpolate(attributes, raster, clip)
        normal = torch.nn.functional.normalize(seen[..., :3], dim=-1, eps=1e-8)
        light = torch.randn(batch, 1, 1, 9, generator=generator) * torch.tensor([0, 0.2, 0.12, 0.3, 0.03, 0.03, 0.02, 0.05, 0.03])
        light[..., 2] += 0.35  # towards the camera
        light[..., 1] += 0.12  # from above
        light[..., 0] = 0.55
        shade = (sh_basis(normal) * light).sum(-1, keepdim=True).clamp(min=0.08)
        gloss = 0.12 * normal[..., 2:].clamp(0, 1) ** 24
        colour = (seen[..., 3:] * shade * (1.25 + 0.3 * torch.rand(batch, 1, 1, 1, generator=generator)) + gloss).clamp(0, 1)
        background = torch.rand(batch, 1, 1, 3, generator=generator).expand_as(colour)
        picture = torch.where(raster.mask[..., None], colour ** (1 / 2.2), background)
        return torch.nn.functional.avg_pool2d(picture.permute(0, 3, 1, 2), OVERSAMPLE), self._seen(raster, vertices.shape[1])

    def _seen(self, raster: Raster, vertex_count: int) -> Tensor:
        """[B, V]: a vertex is seen if one of its triangles covers a pixel."""
        seen = torch.zeros(len(raster.ids), vertex_count, dtype=torch.bool)
        for row, ids in zip(seen, raster.ids):
            triangles = ids[ids > 0].unique().long() - 1
            row[self._rasterizer.faces[triangles].flatten().long()] = True
        return seen

    def _albedo(self, batch: int, generator: torch.Generator) -> Tensor:
        """The model's albedo [B, V, 3], linear, in random tones of skin, lips, brows and hair."""
        regions, albedo = self.model.regions, self.model.albedo ** 2.2

        def rand(*shape: int) -> Tensor:
            return torch.rand(batch, 1, *shape, generator=generator)

        skin = (1 - regions["eyes"].clamp(0, 1) - regions["teeth"].clamp(0, 1)).clamp(0, 1)[:, None]
        tone = (0.35 + 0.75 * rand(1)) * (1 + 0.15 * (rand(3) - 0.5))
        result = albedo * (skin * tone + 1 - skin)
        hair = 0.03 + 0.25 * rand(1) * torch.tensor([1.0, 0.7, 0.45])
        lips = regions["lips"][:, None] * 0.6 * rand(1)
        result = result * (1 - lips) + lips * result * torch.tensor([1.1, 0.6, 0.6])
        brows = self._brows(rand(1)) * (0.4 + 0.6 * rand(1)) * (rand(1) < 0.85)
        scalp = regions["scalp"][:, None] * (rand(1) < 0.8)
        lashes = self._lashes[:, None] * (0.4 + 0.6 * rand(1))
        for mask in (brows, scalp):
            result = result * (1 - mask) + hair * mask
        return result * (1 - 0.9 * lashes)

    def _brows(self, chance: Tensor) -> Tensor:
        """Hair of the brows [B, V, 1], 0..1: two arcs, `chance` [B, 1, 1] in 0..1 makes them thicker."""
        across, up = self._brow_place.unbind(1)
        line = BROW_RISE * (1 - ((across - 0.62) / 0.5) ** 2)
        inside = ((across - BROW_SPAN[0]) / 0.04).clamp(0, 1) * ((BROW_SPAN[1] - across) / 0.08).clamp(0, 1)
        half = (0.05 + 0.03 * chance[..., 0]) * (1.2 - 0.5 * across)
        return (inside * ((half - (up - BROW_HEIGHT - line).abs()) / 0.03 + 0.5).clamp(0, 1))[..., None]


def _brow_coordinates(model: HeadModel, template: Tensor) -> Tensor:
    """[V, 2]: distance from the middle of the face and height above the eyes of front vertices, in distances between the eyes."""
    eyes = model.joint_template[[JOINTS.index("left_eye"), JOINTS.index("right_eye")]]
    unit = (eyes[0] - eyes[1]).norm()
    place = (template - eyes.mean(0)) / unit
    behind = (place[:, 2] < -0.6) | (model.regions["eyes"] > 0.5)
    return torch.stack([place[:, 0].abs(), torch.where(behind, place[:, 1] - 10, place[:, 1])], 1)


def _lash_line(model: HeadModel, template: Tensor) -> Tensor:
    """[V] 0..1: the rims of the lids, which lashes darken, the upper more than the lower."""
    result = torch.zeros(len(template))
    for side in ("left_eye", "right_eye"):
        ball = torch.zeros(len(template), dtype=torch.bool)
        ball[model.faces[model.parts == PARTS.index(side)].flatten()] = True
        centre = model.joint_template[JOINTS.index(side)]
        offset = template - centre
        radius = offset[ball].norm(dim=1).median()
        close = ((LASH_REACH - (offset.norm(dim=1) - radius)) / (0.5 * LASH_REACH)).clamp(0, 1)
        upper = (0.5 + offset[:, 1] / 0.002).clamp(0.1, 1)
        result = torch.maximum(result, close * upper * (offset[:, 2] > 0) * (model.regions["eyes"] < 0.5))
    return result


def _ambient(model: HeadModel, template: Tensor, rasterizer: Rasterizer) -> Tensor:
    """[V] 0..1: share of the sky that the resting head's vertices see, weighted by the cosine: dark nostrils, lip line and eye corners."""
    normals = model.vertex_normals(template[None])[0]
    k = torch.arange(SKY_VIEWS) + 0.5
    height, turn = 1 - 2 * k / SKY_VIEWS, math.pi * (1 + 5**0.5) * k
    ring = (1 - height**2).sqrt()
    views = torch.stack([ring * turn.cos(), height, ring * turn.sin()], 1)  # directions to the sky
    flat = (template - (template.amin(0) + template.amax(0)) / 2) / (template.amax(0) - template.amin(0)).norm() * 1.9
    seen, total = torch.zeros(len(template)), torch.zeros(len(template))
    for view in views:
        side = torch.nn.functional.normalize(torch.linalg.cross(torch.tensor([0.3, 0.9, 0.2]), view, dim=0), dim=0)
        axes = torch.stack([side, torch.linalg.cross(view, side, dim=0), -view])
        place = flat @ axes.T  # x, y, depth
        clip = torch.cat([place, torch.ones(len(place), 1)], 1)[None]
        depth = rasterizer.rasterize(clip, (SKY_SIZE, SKY_SIZE)).zw[0]
        at = ((place[:, :2] + 1) * (SKY_SIZE / 2)).long().clamp(0, SKY_SIZE - 1)
        cosine = (normals @ view).clamp(min=0)
        seen += cosine * (place[:, 2] < depth[at[:, 1], at[:, 0]] + SKY_TOLERANCE)
        total += cosine
    return seen / total.clamp(min=1e-6)
