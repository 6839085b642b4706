"""Plain portraits of random people, expressions and views, with known geometry: what landmarks are calibrated on."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from .camera import Camera
from .head_model import JOINTS, HeadModel
from .lighting import sh_basis
from .raster import Rasterizer
from .rotation import compose

IMAGE, OVERSAMPLE = 256, 2  # pixels; each is the mean of OVERSAMPLE^2 samples
FOCAL = 2.2  # of the image's height
FACE_SHARE = 0.38  # height of the face region in the image's height
YAWS = (0, 0, 15, -15, 30, -30, 45, -45, 0, 0)  # degrees
PITCHES = (0, 0, 0, 0, 0, 0, 0, 0, 15, -15)
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

    def draw(self, vertices: Tensor, normals: Tensor, generator: torch.Generator) -> Tensor:
        """Pictures [B, 3, H, W] in 0..1 of camera-space vertices [B, V, 3]: random skin, make-up, light and background."""
        batch, size = len(vertices), IMAGE * OVERSAMPLE
        clip = self.camera.clip(vertices)
        raster = self._rasterizer.rasterize(clip, (size, size))
        attributes = torch.cat([normals, self._albedo(batch, generator)], 2)
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
        return torch.nn.functional.avg_pool2d(picture.permute(0, 3, 1, 2), OVERSAMPLE)

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
        brows = regions["brows"][:, None] * (0.35 + 0.6 * rand(1))
        scalp = regions["scalp"][:, None] * (rand(1) < 0.8)
        for mask in (brows, scalp):
            result = result * (1 - mask) + hair * mask
        return result
