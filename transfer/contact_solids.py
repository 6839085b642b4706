"""What lies behind lids and lips and must not show through them: eyeballs and teeth."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from ..proxy.head_model import PARTS, HeadModel, LandmarkTable
from .contact_points import Posed
from .contact_rims import Rim, Rims

OFF = 0.0002  # metres that lids and lips keep from eye and teeth, or as much as at rest
BEFORE_EDGE = 0.0003  # metres behind a rim's edge up to which samples are outer skin
CELL = 0.0007  # metres of a front's grid
SPREAD = 3  # cells by which samples of a surface grow together, and over which it ends
PROBES = 240  # places on the lips that are kept before the teeth
HELD = 0.4  # least part of a column's movement that a probe makes
ANSWERS = 0.15  # bump from which on a column answers for a probe
NOWHERE = -1.0  # metres: how far behind the front a place is where it is not


class Eyeball:
    """One eyeball of a person behind the lids of a rim. A gaze turns it in place, so its front is that of the eye at rest."""

    def __init__(self, model: HeadModel, neutral: Tensor, name: str, rim: Rim, rest: Tensor):
        """neutral [V, 3]: the person's canonical vertices; name: the part; rest [2, N, S, 3]: the rim's samples at rest."""
        self.front = Front.of(model, neutral, name)
        behind = self.front.behind(rest)  # [2, N, S]
        # A lid's edge may lie inside the ball: what is seen of the lid then begins further out.
        self.seen = (behind < 0) | (behind == behind.amin(-1, keepdim=True))
        outer = rim.points @ rim.axes[2] >= (rim.edge @ rim.axes[2])[..., None] - BEFORE_EDGE
        self.kept = self.seen & outer
        self.keep = (-behind).clamp(max=OFF)

    def push(self, points: Tensor) -> Tensor:
        """Metres [T, 2, N] to the front that take samples [T, 2, N, S, 3] as far out of the ball as they are at rest."""
        return ((self.front.behind(points) + self.keep) * self.kept).clamp(min=0).amax(-1)


def eyeballs(model: HeadModel, neutral: Tensor, rims: Rims, rest: list[Tensor]) -> list[Eyeball]:
    """The left and the right one of a person; neutral [V, 3] and the samples of the rims at rest, three of [2, N, S, 3]."""
    return [Eyeball(model, neutral, name, rim, part) for name, rim, part in zip(("left_eye", "right_eye"), rims.all, rest)]


class Teeth:
    """The two rows of teeth of a target and the places of its lips that must stay before them."""

    def __init__(self, model: HeadModel, neutral: Tensor, bumps: Tensor):
        """neutral [V, 3]: the target's canonical vertices; bumps [2, N, V] of the lips. Probes follow them."""
        self.rows = [Front.of(model, neutral, part) for part in ("upper_teeth", "lower_teeth")]
        outward = model.vertex_normals(neutral[None])[0, :, 2] > 0.2
        skin = model.vertex_parts() == PARTS.index("skin")
        held = (bumps.sum(1) > HELD).any(0)
        vertices = (outward & skin & held & (model.regions["lips"] > 0.5)).nonzero()[:, 0]
        pick = torch.linspace(0, len(vertices) - 1, min(PROBES, len(vertices)), device=vertices.device).round().long()
        self.vertices = vertices[pick]
        felt = bumps[:, :, self.vertices]  # [2, N, R]
        held = felt.sum(1, keepdim=True)
        self.answer = torch.where((felt > ANSWERS) & (held > HELD), 1 / held, torch.zeros_like(felt))
        self.keep: list[Tensor] = []

    def table(self, model: HeadModel) -> LandmarkTable:
        """The probes as places on the mesh."""
        faces = model.faces
        triangle = torch.stack([(faces == vertex).any(1).nonzero()[0, 0] for vertex in self.vertices])
        corner = (faces[triangle] == self.vertices[:, None]).to(model.template)
        return LandmarkTable(triangle, corner, torch.ones_like(corner[:, 0]))

    def remember(self, points: Tensor, posed: Posed) -> None:
        """Takes how far before the teeth the probes [1, R, 3] are at rest: that much is all that is asked of them."""
        self.keep = [(-depth).clamp(max=OFF) for depth in self._behind(points, posed)]

    def push(self, points: Tensor, posed: Posed) -> Tensor:
        """Metres [T, 2, N] to the front by which the lips' columns must go to take the probes [T, R, 3] out of the teeth."""
        missing = torch.stack([d + k for d, k in zip(self._behind(points, posed), self.keep)]).amax(0).clamp(min=0)
        out = missing.new_zeros(len(points), *self.answer.shape[:2])
        hit = (missing > 0).any(0)
        if bool(hit.any()):
            out = (missing[:, None, None, hit] * self.answer[..., hit]).amax(-1)
        return out

    def _behind(self, points: Tensor, posed: Posed) -> list[Tensor]:
        rotation, shift = posed.jaw
        upper, lower = self.rows
        return [upper.behind(points), lower.behind((points - shift[:, None]) @ rotation)]


@dataclasses.dataclass(frozen=True)
class Front:
    """The foremost z of a rigid part over a grid in x and y, in its own frame (canonical space, metres)."""

    front: Tensor  # [Y, X] metres; continued beyond the part
    cover: Tensor  # [Y, X] 1 on the part, 0 away from it
    origin: Tensor  # [2] x, y of the first cell's centre

    @staticmethod
    def of(model: HeadModel, neutral: Tensor, part: str) -> Front:
        """Front of a part that the model has, of canonical vertices [V, 3]."""
        corners = neutral[model.faces[model.parts == PARTS.index(part)]]  # [F, 3, 3]
        mixes = neutral.new_tensor([[i, j, 4 - i - j] for i in range(5) for j in range(5 - i)]) / 4
        points = torch.einsum("mk,fkx->fmx", mixes, corners).flatten(0, 1)
        edge = SPREAD + 1
        origin = points[:, :2].amin(0) - edge * CELL
        cell = ((points[:, :2] - origin) / CELL).round().long()
        width, height = (cell.amax(0) + 1 + edge).tolist()
        front = points.new_full((height * width,), -torch.inf)
        front = front.scatter_reduce(0, cell[:, 1] * width + cell[:, 0], points[:, 2], "amax").view(height, width)
        for _ in range(2):  # closes the holes between the samples
            front = torch.where(front.isfinite(), front, _grown(front))
        cover = torch.nn.functional.avg_pool2d(front.isfinite().to(front)[None, None], SPREAD, 1, SPREAD // 2)[0, 0]
        while not bool(front.isfinite().all()):
            front = torch.where(front.isfinite(), front, _grown(front))
        return Front(front, cover, origin)

    def behind(self, points: Tensor) -> Tensor:
        """How far points [..., 3] lie behind the front, metres; below 0 before it, NOWHERE beside it."""
        place = (points[..., :2] - self.origin) / CELL
        size = place.new_tensor([self.front.shape[1] - 1, self.front.shape[0] - 1])
        grid = (2 * place / size - 1).view(1, 1, -1, 2)
        # The grid's border is empty, and so is what lies beyond it.
        maps = torch.stack([self.front, self.cover])[None]
        front, cover = torch.nn.functional.grid_sample(maps, grid, padding_mode="border", align_corners=True)[0, :, 0]
        front, cover = front.view(points.shape[:-1]), cover.view(points.shape[:-1])
        # It ends over a few cells, so that skin that slides onto it is not pushed all at once.
        return torch.lerp(torch.full_like(front, -OFF), front - points[..., 2], cover).where(
            cover > 0, torch.full_like(front, NOWHERE)
        )


def has_teeth(model: HeadModel) -> bool:
    """Whether the model has both rows."""
    return all(bool((model.parts == PARTS.index(name)).any()) for name in ("upper_teeth", "lower_teeth"))


def _grown(front: Tensor) -> Tensor:
    return torch.nn.functional.max_pool2d(front[None, None], SPREAD, 1, SPREAD // 2)[0, 0]
